"""What opens a circuit: silence and outages, and not that a reply is long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.errors import DeadlineExceeded, ModelAccessDenied, ModelUnavailable
from models.llm import guarded
from models.resilience.deadline import Deadline
from tests.fakes.engines import SILENCE, Remembered, StagedEngine, chain_of, saying, text_of

HELLO = saying("hello")
BEGUN, SILENT = ["Half of it", SILENCE], [SILENCE]


@pytest.fixture(autouse=True)
def any_wait_is_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_FAIR_WAIT_S", 0.0)


async def circuit(engine: StagedEngine, *, streaming: bool) -> str:
    """The state of its circuit after six replies that did not come in time."""
    chain = chain_of(engine)
    for _ in range(6):
        deadline = Deadline.after(0.01)
        call = (
            text_of(chain.stream(HELLO, deadline=deadline)) if streaming else chain.generate(HELLO, deadline=deadline)
        )
        with pytest.raises((DeadlineExceeded, ModelUnavailable)):
            await call
    return chain.states()[0].breaker


@pytest.mark.parametrize("external", [False, True])
async def test_a_long_stream_past_its_deadline_is_no_outage_and_silence_is(external: bool) -> None:
    for scene, state in ((BEGUN, "closed"), (SILENT, "open")):
        assert await circuit(StagedEngine("e", external=external, scenes=[scene] * 6), streaming=True) == state


async def test_a_long_whole_reply_from_outside_is_seen_to_come() -> None:
    for scene, state in ((BEGUN, "closed"), (SILENT, "open")):
        assert await circuit(StagedEngine("e", external=True, scenes=[scene] * 6), streaming=False) == state


@pytest.mark.parametrize("scene", [BEGUN, SILENT])
async def test_of_a_whole_reply_inside_our_walls_the_engines_health_decides(scene: list[str]) -> None:
    assert await circuit(StagedEngine("vllm", scenes=[scene] * 6), streaming=False) == "closed"
    away = StagedEngine("vllm", scenes=[scene] * 6, health=ModelUnavailable("dead"))
    assert await circuit(away, streaming=False) == "open"


async def test_a_search_for_personal_data_ends_at_the_deadline_and_is_not_the_engines_fault() -> None:
    engine = StagedEngine("openai", external=True)
    long = saying("the parcel is late. " * 2_000)
    chain = chain_of(engine)
    for _ in range(6):
        with pytest.raises(DeadlineExceeded):
            await chain.generate(long, deadline=Deadline.after(0.0))
    assert (engine.requests, chain.states()[0].breaker) == ([], "closed")


async def test_the_circuit_is_shown_under_the_configured_name() -> None:
    metrics = Remembered()
    first = StagedEngine("scripted", name="scripted:error=unavailable", scenes=[[ModelAccessDenied("no")]] * 5)
    second = StagedEngine("scripted", name="scripted:tokens=3")
    chain = chain_of(first, second, metrics=metrics)
    for _ in range(5):
        await chain.generate(HELLO, deadline=Deadline.after(30))
    await chain.inspect()
    shown = {labels: values[-1] for (name, labels), values in metrics.values.items() if name == "llm_breaker_open"}
    assert shown == {(("engine", first.name),): 1.0, (("engine", second.name),): 0.0}


async def test_a_variant_of_a_request_opens_its_own_circuit_alone() -> None:
    engine = StagedEngine("scripted", scenes=[[ModelAccessDenied("no")]] * 5)
    chain = chain_of(engine)
    failing = replace(HELLO, model="scripted:fail=access_denied")
    for _ in range(5):
        with pytest.raises(ModelAccessDenied):
            await chain.generate(failing, deadline=Deadline.after(30))
    with pytest.raises(ModelUnavailable, match="circuit open"):
        await chain.generate(failing, deadline=Deadline.after(30))
    assert (chain.states()[0].breaker, chain.states()[0].failing) == ("closed", "")
    for model in ("", "scripted", "scripted:tokens=3"):
        assert (await chain.generate(replace(HELLO, model=model), deadline=Deadline.after(30))).text == "fine"


async def test_a_client_reads_which_engine_is_away_and_that_its_circuit_is_open() -> None:
    chain = chain_of(StagedEngine("openai", scenes=[[ModelAccessDenied("secret")]] * 5))
    details = []
    for _ in range(6):
        with pytest.raises(ModelUnavailable) as away:
            await chain.generate(HELLO, deadline=Deadline.after(30))
        details.append(away.value.detail)
    assert details[0] == "The language model openai does not answer (MODEL_ACCESS_DENIED)."
    assert details[5].startswith("The language model openai is not asked for now: its circuit is open")
    assert "secret" not in "".join(details)
