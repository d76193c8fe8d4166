"""Who is held back, why, and what is asked to find out."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from models.campaign.config import HoldBack, load_campaign_config
from models.campaign.hold_back import count_held_back, judge, judge_all
from models.campaign.types import HeldBack, Judgement
from models.resilience.deadline import Deadline
from providers.internal.account_health import RULES, Flag
from tests.fakes.campaign import ContextsById

DEMO = load_campaign_config(Path(__file__).resolve().parents[3] / "config" / "campaign" / "demo.yaml").hold_back
BOTH = HoldBack(red_flags=("Payment overdue",), open_tickets=3)
UNREAD = Judgement(unread=True)


async def judged(contexts: ContextsById, options: HoldBack, customer_ids: Collection[str]) -> dict[str, Judgement]:
    return await judge_all(list(customer_ids), contexts, options, deadline=Deadline.after(5))


def test_the_demo_names_flags_that_there_are() -> None:
    assert DEMO.red_flags
    assert set(DEMO.red_flags) <= {rule.text for rule in RULES if rule.flag is Flag.RED}


async def test_every_reason_is_told_and_other_flags_are_none() -> None:
    contexts = ContextsById(overdue={"a", "b"}, tickets={"b", "c"})
    assert await judged(contexts, BOTH, "abcd") == {
        "a": Judgement(reasons=("Payment overdue",)),
        "b": Judgement(reasons=("Payment overdue", "3 or more open tickets")),
        "c": Judgement(reasons=("3 or more open tickets",)),
        "d": Judgement(),
    }


async def test_who_cannot_be_judged_is_held_back_unless_a_reason_is_known_anyway() -> None:
    contexts = ContextsById(overdue={"b"}, partial={"a", "b"}, unknown={"c"})
    assert await judged(contexts, BOTH, "abc") == {
        "a": UNREAD,
        "b": Judgement(reasons=("Payment overdue",)),
        "c": UNREAD,
    }
    assert judge(None, BOTH).held_back


@pytest.mark.parametrize(
    ("options", "providers"),
    [
        (BOTH, ("account_health", "support_history")),
        (HoldBack(red_flags=("Payment overdue",)), ("account_health",)),
        (HoldBack(open_tickets=1), ("support_history",)),
    ],
)
async def test_only_what_decides_is_read_and_only_it_can_be_missing(
    options: HoldBack, providers: tuple[str, ...]
) -> None:
    contexts = ContextsById()
    assert (await judged(contexts, options, "a"))["a"].unread is False
    [(customer_ids, request)] = contexts.asked
    assert (customer_ids, request.agent_type, request.providers) == (["a"], "success", providers)


async def test_what_could_not_be_read_is_asked_for_once_more_past_the_caches() -> None:
    contexts = ContextsById(overdue={"a"}, unknown={"c"}, failures=1)
    assert (await judged(contexts, BOTH, "abc")) == {
        "a": Judgement(reasons=("Payment overdue",)),
        "b": Judgement(),
        "c": UNREAD,
    }
    assert [ids for ids, _ in contexts.asked] == [["a", "b", "c"]] * 2
    assert [request.force_refresh for _, request in contexts.asked] == [False, True]


def test_counts_name_every_configured_reason_even_one_that_nobody_has() -> None:
    options = HoldBack(red_flags=("Payment overdue", "Paymnet overdue", "Payment overdue"), open_tickets=3)
    several = Judgement(reasons=("Payment overdue", "3 or more open tickets"))
    assert count_held_back(
        [Judgement(), several, UNREAD, Judgement(reasons=("Payment overdue",))], options
    ) == HeldBack(
        customers=3, unread=1, reasons={"Payment overdue": 2, "Paymnet overdue": 0, "3 or more open tickets": 1}
    )
    assert HoldBack().reasons == ()
