"""A real local Ray for the whole folder, and a real SQLite database with demo customers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import ray

from batch.mapping import prepare_ray_data
from demo.seed import seed
from models.campaign.config import CampaignConfig, HoldBack, load_campaign_config
from models.campaign.frames import ToneFrame
from models.campaign.types import Tone
from providers.database import migrate

ROOT = Path(__file__).resolve().parents[2]
AS_OF = datetime(2026, 11, 1, 8, tzinfo=UTC)
CUSTOMERS = 260


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1", _temp_dir=folder)
    prepare_ray_data(cpus=1.0)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('campaign')}/demo.db"
    migrate(url)
    seed(url, customers=CUSTOMERS, seed=7, now=AS_OF)
    return url


@pytest.fixture(scope="session")
def demo_config() -> CampaignConfig:
    return load_campaign_config(ROOT / "config" / "campaign" / "demo.yaml")


@pytest.fixture(scope="session")
def config(demo_config: CampaignConfig) -> CampaignConfig:
    """The demo campaign, but it holds nobody back."""
    return demo_config.model_copy(update={"hold_back": HoldBack()})


@pytest.fixture(scope="session")
def frames() -> dict[Tone, ToneFrame]:
    return {tone: frame(tone) for tone in Tone}


def frame(tone: Tone) -> ToneFrame:
    """Wording of about 120 words, so that two to four quotes make a body of the right length."""
    filler = "We picked a few facts from our help pages that fit the way you work with us today. "
    return ToneFrame.model_validate(
        {
            "id": f"test-{tone.value}",
            "version": "1",
            "tone": tone.value,
            "approved": True,
            "approved_by": "tests",
            "approved_on": "2026-10-01",
            "subjects": {"default": f"A {tone.value} note"},
            "openings": {"default": f"Hello from Medley, in a tone that is {tone.value}. " + filler * 4},
            "points": ["From {title}: {quote}", "Also, {quote}", "Then, {quote}", "Last, {quote}"],
            "closing": "Answer this message whenever you like and a person will read it. Your Medley team",
            "reserve": [filler, filler, filler],
        }
    )
