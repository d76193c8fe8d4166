"""Prices, estimates, and the sums that budgets rest on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.errors import ConfigurationError
from models.llm.factory import build_chain
from models.llm.pricing import Price, PriceTable, about, at_most, load_prices
from models.llm.spend import MemorySpendLedger, Spending
from models.llm.types import SourcePassage, ToolSpec, Usage
from models.safety.pii import PatternPIIDetector
from models.settings import LanguageModelSettings, Settings
from tests.fakes.embedder import HashingEmbedder
from tests.fakes.engines import saying

SHIPPED = load_prices(Path(LanguageModelSettings().prices))


def test_a_cost_is_what_each_kind_of_token_costs() -> None:
    price = Price(prompt=2.0, cached=0.5, completion=8.0)
    usage = Usage(prompt_tokens=1000, cached_tokens=400, completion_tokens=100)
    assert price.of(usage) == pytest.approx((600 * 2.0 + 400 * 0.5 + 100 * 8.0) / 1e6)


@pytest.mark.parametrize(
    ("engine", "model", "known"),
    [
        ("openai", "gpt-4o-mini", True),
        ("azure_openai", "gpt-4o-mini-2024-07-18", True),
        ("openai", "gpt-4o-audio-preview", False),
        ("openai", "some-other-model", False),
        ("unknown", "gpt-4o-mini", False),
    ],
)
def test_the_shipped_table_knows_a_model_by_engine_and_pattern(engine: str, model: str, known: bool) -> None:
    cost = SHIPPED.cost(engine, model, Usage(prompt_tokens=10))
    assert (cost is not None and cost > 0) if known else cost is None


def test_the_model_of_the_default_settings_has_a_price_and_our_own_engines_are_free() -> None:
    assert SHIPPED.price("openai", LanguageModelSettings().openai_model) is not None
    assert [SHIPPED.cost(name, "any", Usage(prompt_tokens=9)) for name in ("vllm", "extractive", "scripted")] == [0] * 3
    assert datetime.fromisoformat(SHIPPED.as_of) > datetime(2026, 1, 1)


def test_a_smaller_model_is_never_priced_as_its_bigger_sister() -> None:
    for family in ("gpt-4o", "gpt-4.1", "gpt-5"):
        big, small = SHIPPED.price("openai", family), SHIPPED.price("openai", f"{family}-mini")
        assert big is not None
        assert small is not None
        assert small.prompt < big.prompt


@pytest.mark.parametrize(
    "text",
    [
        "prices: [",
        "version: 1\nprices: []",
        "version: 1\nas_of: x\nprices: [{engines: [a], model: b, prompt: 1, cached: 1}]",
        "version: 1\nas_of: x\nprices: [{engines: [a], model: b, prompt: -1, cached: 1, completion: 1}]",
        "version: 1\nas_of: x\nprices: [{engines: a, model: b, prompt: 1, cached: 1, completion: 1}]",
        "version: 1\nas_of: x\nprices: [{engines: [a], model: b, prompt: free, cached: 1, completion: 1}]",
    ],
)
def test_a_malformed_table_stops_the_start_and_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"prices\.yaml"):
        load_prices(path)


def test_a_reservation_covers_any_tokenizer_and_everything_that_is_sent() -> None:
    passage = SourcePassage(passage_id="p", document_id="d", title="Titel", version="1", text="Größe" * 20)
    tool = ToolSpec(name="find", description="Finds.", parameters={"type": "object", "properties": {}})
    bare = at_most(saying("héllo", max_tokens=7))
    assert bare.prompt_tokens >= len("héllo".encode())
    assert bare.completion_tokens == 7
    full = at_most(saying("héllo", max_tokens=7, passages=(passage,), tools=(tool,)))
    assert full.prompt_tokens > bare.prompt_tokens + len(passage.text.encode()) + len(tool.description)


def test_an_estimate_stays_under_what_was_set_aside() -> None:
    request = saying("How long does a refund take?", max_tokens=50)
    assert about(request, 80).prompt_tokens <= at_most(request).prompt_tokens
    assert about(request, 80).completion_tokens == 20


class TestBudgetAtTheStart:
    def build(self, **chosen: object) -> None:
        settings = Settings(language_model=LanguageModelSettings(**chosen))
        build_chain(settings, HashingEmbedder(), pii=PatternPIIDetector())

    def test_a_budget_needs_the_price_of_every_model_outside(self) -> None:
        own = {"engine": "openai", "openai_base_url": "http://127.0.0.1:1/v1", "openai_model": "our-own"}
        self.build(**own)
        for budget in ("budget_usd_per_day", "budget_usd_per_campaign"):
            with pytest.raises(ConfigurationError, match="our-own"):
                self.build(**own, **{budget: 5.0})
        self.build(**{**own, "openai_model": "gpt-4o-mini"}, budget_usd_per_day=5.0)
        self.build(engine="extractive", budget_usd_per_day=5.0)


def test_an_empty_table_prices_nothing() -> None:
    assert PriceTable(version="1", as_of="2026-05-01", rows=()).cost("openai", "m", Usage()) is None


def test_days_are_days_of_utc() -> None:
    at = datetime.fromisoformat("2026-05-04T23:30:00-02:00")
    spending = Spending(MemorySpendLedger(), usd_per_day=1.0, clock=lambda: at)
    day = spending.scopes("")[0]
    assert (day.key, day.renews_in_s) == ("day:2026-05-05", 22.5 * 3600)
    assert at.astimezone(UTC).date().isoformat() == "2026-05-05"
