"""The derived sections, on both databases: the recorded risk wins, both are shown, and an action needs its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from demo.seed import plant
from models.enrichment.protocol import BulkContextProvider
from models.enrichment.types import ChurnPrediction, NextBestAction, Section
from models.errors import ConfigurationError, UnknownCustomer
from models.insights.artifact import Insights
from models.insights.next_best_action import RULES
from models.resilience.deadline import Deadline
from models.settings import ContextSettings
from providers.base import ProviderResources
from providers.database import Database
from providers.derived.churn_prediction import ChurnPredictionProvider
from providers.derived.facts import Known, read_known
from providers.derived.next_best_action import NextBestActionProvider
from providers.registry import build_providers
from providers.tables import Customer

NOW = datetime(2026, 3, 14, 16, 45, tzinfo=UTC)
CUSTOMERS = 200
IDS = [f"customer_{number}" for number in range(1, CUSTOMERS + 1)]


@pytest.fixture
async def resources(database: Database) -> ProviderResources:
    await plant(database, customers=CUSTOMERS, seed=7, now=NOW)
    return ProviderResources(database=database, now=lambda: NOW)


def soon() -> Deadline:
    return Deadline.after(30.0)


async def churn_of(resources: ProviderResources) -> Mapping[str, ChurnPrediction | None]:
    return await ChurnPredictionProvider(resources).fetch_many(IDS, deadline=soon())


async def test_the_recorded_risk_wins_and_both_are_shown(resources: ProviderResources) -> None:
    async with resources.database.transaction() as session:
        await session.execute(update(Customer).values(churn_risk=0.77))
    shown = [section for section in (await churn_of(resources)).values() if section is not None]
    assert len(shown) > CUSTOMERS / 2
    assert {(one.risk, one.risk_source, one.recorded) for one in shown} == {(0.77, "recorded", 0.77)}
    assert len({one.predicted for one in shown}) > 20
    assert all(0 < one.predicted < 1 and one.synthetic and one.horizon_days == 90 for one in shown)


async def test_without_a_recorded_risk_the_prediction_stands(
    resources: ProviderResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unrecorded(*arguments: object) -> dict[str, Known]:
        return {name: replace(known, recorded_risk=None) for name, known in read_known(*arguments).items()}  # type: ignore[arg-type]

    monkeypatch.setattr("providers.derived.churn_prediction.read_known", unrecorded)
    shown = [section for section in (await churn_of(resources)).values() if section is not None]
    assert all((one.risk, one.risk_source, one.recorded) == (one.predicted, "model", None) for one in shown)


async def test_one_customer_reads_as_among_many(resources: ProviderResources) -> None:
    many = await churn_of(resources)
    one = await ChurnPredictionProvider(resources).fetch("customer_123", deadline=soon(), known={})
    assert one == many["customer_123"]
    assert one is not None


async def test_nothing_is_predicted_of_who_cannot_leave(resources: ProviderResources) -> None:
    sections = await churn_of(resources)
    facts = await resources.database.read(lambda connection: read_known(connection, IDS, NOW))
    assert {name for name, section in sections.items() if section is None} == {
        name for name, known in facts.items() if not known.facts.at_risk
    }
    assert None in sections.values()


async def test_who_is_no_customer_is_unknown(resources: ProviderResources) -> None:
    for provider in (ChurnPredictionProvider(resources), NextBestActionProvider(resources)):
        with pytest.raises(UnknownCustomer):
            await provider.fetch("nobody", deadline=soon(), known={})
        assert "nobody" not in await provider.fetch_many(["nobody", "customer_1"], deadline=soon(), known={})


async def test_an_action_is_one_the_customer_is_eligible_for(resources: ProviderResources) -> None:
    sections = await NextBestActionProvider(resources).fetch_many(IDS, deadline=soon(), known={})
    facts = await resources.database.read(lambda connection: read_known(connection, IDS, NOW))
    offered = {name: section for name, section in sections.items() if section and section.action != "none"}
    assert offered
    for name, section in offered.items():
        assert RULES[section.action].eligible(facts[name].facts)
        assert section.expected_gain > 0
        assert section.action not in section.alternatives
    nothing = [section for section in sections.values() if section and section.action == "none"]
    assert all((section.expected_gain, section.alternatives) == (0.0, ()) for section in nothing)


async def test_the_reason_names_what_drives_the_churn_risk(resources: ProviderResources) -> None:
    churn = {name: one for name, one in (await churn_of(resources)).items() if one is not None and one.drivers}
    provider = NextBestActionProvider(resources)
    assert provider.spec.depends_on == ("churn_prediction",)
    known: dict[str, dict[str, Section]] = {name: {"churn_prediction": one} for name, one in churn.items()}
    told = await provider.fetch_many(list(churn), deadline=soon(), known=known)
    name = next(name for name, section in told.items() if section is not None and section.action != "none")
    alone = await provider.fetch(name, deadline=soon(), known={})
    section = told[name]
    assert isinstance(section, NextBestAction)
    assert isinstance(alone, NextBestAction)
    assert section.reason.startswith(alone.reason)
    assert churn[name].drivers[0].replace("_", " ") in section.reason
    assert await provider.fetch(name, deadline=soon(), known=known[name]) == section


async def test_a_model_that_knows_no_actions_recommends_none(resources: ProviderResources, tmp_path: Path) -> None:
    replace(Insights.load(), actions=None, synthetic=False).save(tmp_path / "own.json")
    own = replace(resources, settings=ContextSettings(insights_model=str(tmp_path / "own.json")))
    assert await NextBestActionProvider(own).fetch("customer_1", deadline=soon(), known={}) is None
    churn = await ChurnPredictionProvider(own).fetch("customer_123", deadline=soon(), known={})
    assert churn is not None
    assert not churn.synthetic


def test_a_damaged_model_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text("{}")
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/none.db")
    settings = ContextSettings(insights_model=str(tmp_path / "own.json"))
    with pytest.raises(ConfigurationError, match=r"own\.json"):
        ChurnPredictionProvider(ProviderResources(database=database, settings=settings))


async def test_the_sections_stay_the_same_within_the_day(resources: ProviderResources) -> None:
    """Nothing happens in an hour, so nothing may be told differently."""
    later = replace(resources, now=lambda: NOW + timedelta(minutes=1))
    assert (await churn_of(resources))["customer_123"] == (await churn_of(later))["customer_123"]


def test_both_are_in_the_table_of_providers(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/none.db")
    built = build_providers(ProviderResources(database=database), ["churn_prediction", "next_best_action"])
    assert [provider.spec.source for provider in built] == ["insights", "insights"]
    assert all(isinstance(provider, BulkContextProvider) for provider in built)
