"""Whatever one provider does, the others and the read go on; and dependents get what there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from models.enrichment.types import CustomerIntelligence, Scope, Section, SupportHistory
from models.errors import ConfigurationError, DeadlineExceeded, Forbidden, ProviderUnavailable
from models.resilience.deadline import Deadline
from tests.fakes.context_room import EXACT, Room, states
from tests.fakes.enrichment import ACME, FakeProvider, documented_providers

BRIEFLY = 0.01
SUPPORT = ACME["support_history"]
assert isinstance(SUPPORT, SupportHistory)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    built = Room()
    yield built
    await built.context.close()


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (ProviderUnavailable("down"), "error"),
        (RuntimeError("a defect"), "error"),
        (ExceptionGroup("several", [ValueError("one")]), "error"),
        ({"company_name": "not a section"}, "error"),
        (ACME["account_health"], "error"),
        (replace(SUPPORT, open_tickets="many"), "error"),  # type: ignore[arg-type]  # the garbage that is tested
        (replace(SUPPORT, open_tickets=object()), "error"),  # type: ignore[arg-type]  # nor can this be encoded
        (replace(SUPPORT, total_conversations=float("nan")), "error"),  # type: ignore[arg-type]  # no JSON has this
        (DeadlineExceeded("too late"), "timeout"),
        (Forbidden("no scope"), "denied"),
        (None, "missing"),
    ],
)
async def test_one_bad_provider_never_touches_the_others(room: Room, answer: object, state: str) -> None:
    room.providers["support_history"].answer = answer
    body = await room.body()
    assert states(body)["support_history"] == state
    assert [s for name, s in states(body).items() if name != "support_history"] == ["fresh"] * 4
    assert body["complete"] is (state == "missing")
    assert body["support_history"] is None
    assert room.metrics.of("context_provider_outcomes_total", provider="support_history", state=state) == 1


async def test_a_provider_that_uses_up_its_own_timeout_is_cancelled() -> None:
    room = Room(documented_providers(timeout_s=BRIEFLY))
    slow = room.providers["support_history"]
    slow.gate = asyncio.Event()
    assert states(await room.body())["support_history"] == "timeout"
    await room.context.close()
    assert slow.cancelled == 1


async def test_a_provider_that_cannot_be_cancelled_blocks_nobody() -> None:
    let_go = asyncio.Event()

    class Stubborn(FakeProvider):
        async def fetch(self, customer_id: str, **rest: Any) -> Any:
            try:
                return await super().fetch(customer_id, **rest)
            except asyncio.CancelledError:
                await let_go.wait()
                raise

    stubborn = Stubborn("support_history", timeout_s=BRIEFLY)
    room = Room({**documented_providers(), "support_history": stubborn})
    stubborn.gate = asyncio.Event()
    assert states(await room.body())["support_history"] == "timeout"
    stubborn.gate = None
    room.clock.forward(60)
    assert (await room.read()).complete
    let_go.set()
    await room.context.close()


async def test_a_hanging_source_cannot_pile_up_work() -> None:
    room = Room(policy=replace(EXACT, max_in_flight=2))
    hanging = room.providers["support_history"]
    hanging.gate = asyncio.Event()
    bodies = [await room.body(f"customer_{n}", wait_s=BRIEFLY) for n in range(4)]
    assert [states(body)["support_history"] for body in bodies] == ["timeout", "timeout", "skipped", "skipped"]
    assert len(hanging.asked) == 2
    await room.context.close()


async def test_a_provider_that_keeps_failing_is_left_alone_and_then_tried_once() -> None:
    room = Room(policy=replace(EXACT, breaker_failures=3, breaker_open_s=10.0))
    broken = room.providers["support_history"]
    broken.fails()
    bodies = [await room.body(f"customer_{n}") for n in range(5)]
    assert [states(body)["support_history"] for body in bodies] == ["error"] * 3 + ["skipped"] * 2
    assert bodies[4]["providers"]["support_history"]["detail"] == "circuit open"
    assert len(broken.asked) == 3
    assert room.metrics.last("context_breaker_open", provider="support_history") == 1.0
    room.clock.forward(10)
    broken.recovers()
    assert (await room.body("customer_6"))["complete"]
    assert room.metrics.last("context_breaker_open", provider="support_history") == 0.0
    await room.context.close()


async def test_behind_an_open_circuit_old_data_stands_in() -> None:
    room = Room(policy=replace(EXACT, breaker_failures=1))
    await room.read()
    room.providers["support_history"].fails()
    room.clock.forward(400)
    await room.read()
    room.clock.forward(3)
    outcome = (await room.body())["providers"]["support_history"]
    assert (outcome["state"], outcome["detail"], outcome["age_ms"]) == ("stale", "skipped: circuit open", 403_000)
    await room.context.close()


@pytest.mark.parametrize("answer", [Forbidden("no scope"), None])
async def test_a_refusal_opens_no_circuit(answer: object) -> None:
    room = Room(policy=replace(EXACT, breaker_failures=1))
    room.providers["support_history"].answer = answer
    for n in range(3):
        await room.read(f"customer_{n}")
    assert len(room.providers["support_history"].asked) == 3
    await room.context.close()


class TestDependencies:
    """`account_health` is made from the profile and the support history."""

    @pytest.fixture
    async def room(self) -> AsyncIterator[Room]:
        providers = documented_providers()
        providers["account_health"] = FakeProvider(
            "account_health", tier=0, depends_on=("customer_intelligence", "support_history")
        )
        built = Room(providers)
        yield built
        await built.context.close()

    async def test_a_dependent_waits_and_is_told(self, room: Room) -> None:
        support, health = room.providers["support_history"], room.providers["account_health"]
        support.gate = asyncio.Event()
        reading = asyncio.create_task(room.read())
        await support.arrivals.get()
        assert health.asked == []
        support.gate.set()
        assert (await reading).complete
        assert health.known["customer_123"] == {name: ACME[name] for name in health.spec.depends_on}
        assert support.asked == ["customer_123"], "asked once, for itself and for its dependent"

    @pytest.mark.parametrize("answer", [ProviderUnavailable("down"), None, RuntimeError("a defect")])
    async def test_what_a_dependency_lacks_the_dependent_goes_without(self, room: Room, answer: object) -> None:
        room.providers["support_history"].answer = answer
        body = await room.body()
        assert states(body)["account_health"] == "fresh"
        assert set(room.providers["account_health"].known["customer_123"]) == {"customer_intelligence"}

    async def test_a_late_dependency_makes_the_dependent_late_within_the_deadline(self, room: Room) -> None:
        room.providers["support_history"].gate = gate = asyncio.Event()
        body = await room.body(wait_s=0.06)
        assert (states(body)["support_history"], states(body)["account_health"]) == ("timeout", "timeout")
        gate.set()
        await room.context.settle()
        assert (await room.read()).complete

    async def test_a_hidden_dependency_is_fetched_and_not_shown(self, room: Room) -> None:
        body = await room.body(agent_type="sales", providers=("account_health",))
        assert list(body["providers"]) == ["account_health"]
        assert body["support_history"] is None
        assert room.providers["support_history"].asked == ["customer_123"]

    async def test_what_is_at_hand_is_not_fetched_for_a_dependent(self, room: Room) -> None:
        await room.read(providers=("support_history",))
        await room.read()
        assert room.providers["support_history"].asked == ["customer_123"]

    async def test_what_is_made_from_old_data_is_as_old(self, room: Room) -> None:
        await room.read()
        room.clock.forward(400)
        room.providers["support_history"].fails()
        body = await room.body(agent_type="sales", providers=("account_health",))
        assert states(body) == {"account_health": "stale"}
        assert body["providers"]["account_health"]["age_ms"] == 400_000

    async def test_a_forced_read_has_the_dependencies_read_anew(self, room: Room) -> None:
        await room.read()
        room.providers["support_history"].changes(open_tickets=9)
        await room.read(force_refresh=True)
        told = room.providers["account_health"].known["customer_123"]["support_history"]
        assert isinstance(told, SupportHistory)
        assert told.open_tickets == 9

    async def test_invalidating_a_dependency_invalidates_what_is_made_from_it(self, room: Room) -> None:
        await room.read()
        await room.context.invalidate(["customer_123"], ["support_history"])
        await room.read()
        asked = {name: len(provider.asked) for name, provider in room.providers.items()}
        assert asked == {name: 2 if name in ("support_history", "account_health") else 1 for name in asked}


def provider(name: str, **spec: Any) -> FakeProvider:
    return FakeProvider(name, **spec)


@pytest.mark.parametrize(
    ("providers", "complaint"),
    [
        ([provider("support_history", depends_on=("horoscope",))], "which is not there"),
        (
            [
                provider("support_history", depends_on=("account_health",)),
                provider("account_health", depends_on=("support_history",)),
            ],
            "depend on each other",
        ),
        ([provider("support_history", depends_on=("support_history",))], "depend on each other"),
        ([provider("support_history"), provider("support_history")], "twice"),
        ([provider("support_history"), provider("account_health", section="support_history")], "same section"),
        (
            [
                provider("product_status", scope=Scope.EVERYONE, depends_on=("support_history",)),
                provider("support_history"),
            ],
            "about everyone",
        ),
    ],
)
async def test_what_cannot_work_is_refused_at_the_start(providers: list[FakeProvider], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Room(dict(enumerate(providers)))  # type: ignore[arg-type]  # the names come from the specs


class TestAboutEveryone:
    @pytest.fixture
    async def room(self) -> AsyncIterator[Room]:
        providers = documented_providers()
        providers["product_status"] = FakeProvider("product_status", scope=Scope.EVERYONE, ttl_s=60.0)
        built = Room(providers)
        yield built
        await built.context.close()

    async def test_it_is_fetched_once_for_all(self, room: Room) -> None:
        bodies = await asyncio.gather(*(room.body(f"customer_{n}") for n in range(5)))
        assert all(body["product_status"]["status"] == "degraded" for body in bodies)
        assert room.providers["product_status"].asked == ["*"]
        assert (await room.body("customer_9"))["providers"]["product_status"]["served_from"] == "l1"

    async def test_it_cannot_say_that_a_customer_is_unknown(self, room: Room) -> None:
        room.providers["product_status"].knows_nobody()
        assert states(await room.body())["product_status"] == "error"

    async def test_a_tag_outdates_it_in_every_context(self, room: Room) -> None:
        await room.read("customer_1")
        await room.read("customer_2")
        room.providers["product_status"].changes(status="operational", incidents=())
        await room.context.invalidate(tags=["product_status"])
        for customer_id in ("customer_1", "customer_2"):
            assert (await room.body(customer_id))["product_status"]["status"] == "operational"
        assert room.providers["product_status"].asked == ["*", "*"]
        assert room.providers["support_history"].asked == ["customer_1", "customer_2"]


async def test_known_is_by_provider_name_for_one_whose_section_is_called_otherwise() -> None:
    class Following(FakeProvider):
        async def fetch(self, customer_id: str, *, deadline: Deadline, known: Mapping[str, Section]) -> Section | None:
            assert isinstance(known["customer_intelligence"], CustomerIntelligence)
            return await super().fetch(customer_id, deadline=deadline, known=known)

    room = Room(
        {
            "customer_intelligence": FakeProvider("customer_intelligence"),
            "clearbit": Following("clearbit", depends_on=("customer_intelligence",)),
            "news_api": FakeProvider("news_api", depends_on=("clearbit",)),
        }
    )
    body = await room.body(agent_type="sales")
    assert set(states(body).values()) == {"fresh"}
    assert body["company_enrichment"]["domain"] == "acme.example"
    assert set(room.providers["news_api"].known["customer_123"]) == {"clearbit"}
    await room.context.close()
