"""The demo company's past announces who leaves and what helps, without giving either away."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from demo.generator import gathered_rows
from demo.rows import Rows
from providers.tables import Conversation, Invoice, Outreach, ProductEvent, Subscription, Ticket

NOW = datetime(2026, 3, 14, 16, 45, tzinfo=UTC)
CUSTOMERS = 3000


@pytest.fixture(scope="module")
def rows() -> Rows:
    return gathered_rows(1, CUSTOMERS, seed=7, now=NOW)


def left_at(rows: Rows) -> dict[str, datetime]:
    return {plan["customer_id"]: plan["canceled_at"] for plan in rows[Subscription] if plan["canceled_at"]}


def test_customers_leave_at_all_times_of_the_two_years(rows: Rows) -> None:
    ages = np.array([(NOW - at).days for at in left_at(rows).values()])
    halves = [int(((ages >= low) & (ages < low + 182)).sum()) for low in (0, 182, 364, 546)]
    assert min(halves) >= 10


def test_nobody_uses_the_product_or_is_billed_after_leaving(rows: Rows) -> None:
    left = left_at(rows)
    assert all(event["at"] <= left.get(event["customer_id"], NOW) for event in rows[ProductEvent])
    assert all(bill["issued_at"] <= left.get(bill["customer_id"], NOW) for bill in rows[Invoice])


def test_use_falls_before_many_leave(rows: Rows) -> None:
    left = left_at(rows)
    before, earlier = Counter[str](), Counter[str]()
    for event in rows[ProductEvent]:
        if event["name"] == "login" and event["customer_id"] in left:
            age = left[event["customer_id"]] - event["at"]
            if age <= timedelta(days=30):
                before[event["customer_id"]] += event["quantity"]
            elif timedelta(days=90) < age <= timedelta(days=120):
                earlier[event["customer_id"]] += event["quantity"]
    assert sum(before[customer] for customer in earlier) < 0.9 * earlier.total()
    assert sum(before[customer] >= earlier[customer] for customer in earlier) > len(earlier) / 10


def test_history_reaches_back_two_years_and_no_further_than_the_customer(rows: Rows) -> None:
    started = {plan["customer_id"]: plan["started_at"] for plan in rows[Subscription]}
    slack = timedelta(days=1)
    for table, column in ((ProductEvent, "at"), (Conversation, "started_at"), (Ticket, "opened_at"), (Outreach, "at")):
        assert all(row[column] >= started[row["customer_id"]] - slack for row in rows[table])
        assert all(row[column] <= NOW for row in rows[table])
    assert min(outreach["at"] for outreach in rows[Outreach]) < NOW - timedelta(days=700)


def test_a_bill_of_the_past_is_paid_and_some_were_paid_late(rows: Rows) -> None:
    paid = [bill for bill in rows[Invoice] if bill["status"] == "paid"]
    late = [bill for bill in paid if bill["paid_at"] > bill["due_at"]]
    assert all(bill["paid_at"] <= NOW for bill in paid)
    assert 0.02 < len(late) / len(paid) < 0.3


def test_a_lot_tells_its_chances_and_a_person_does_not(rows: Rows) -> None:
    left = left_at(rows)
    arms = defaultdict[float | None, Counter[str]](Counter)
    for piece in rows[Outreach]:
        arms[piece["propensity"]][piece["action"]] += 1
        gone = piece["at"] > left.get(piece["customer_id"], NOW)
        assert (piece["action"] == "win_back") <= gone
        assert (piece["responded"] is None) == (piece["at"] > NOW - timedelta(days=30))
    assert set(arms) == {None, 1 / 6, 1 / 2}
    for chance in (1 / 6, 1 / 2):
        shares = np.array(list(arms[chance].values())) / arms[chance].total()
        assert np.abs(shares - chance).max() < 0.1
    assert "none" not in arms[None]


def test_the_same_action_helps_some_and_not_others(rows: Rows) -> None:
    use = Counter(event["customer_id"] for event in rows[ProductEvent] if event["name"] == "login")
    middle = float(np.median(list(use.values())))
    outcomes = defaultdict[tuple[str, bool], list[bool]](list)
    for piece in rows[Outreach]:
        if piece["propensity"] == 1 / 6 and piece["responded"] is not None:
            outcomes[piece["action"], use[piece["customer_id"]] > middle].append(piece["responded"])
    gain = {
        (action, busy): float(np.mean(outcomes[action, busy]) - np.mean(outcomes["none", busy]))
        for action in ("training_session", "upgrade_offer")
        for busy in (False, True)
    }
    assert gain["training_session", False] > gain["training_session", True]
    assert gain["upgrade_offer", True] > gain["upgrade_offer", False]
