"""The demo company is coherent: the same every time, and its numbers move together as in life."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from demo.acme import acme_rows
from demo.generator import company_rows, customer_rows, gathered_rows
from demo.rows import Rows
from providers.table_types import Table
from providers.tables import (
    Account,
    Contact,
    Conversation,
    Customer,
    Invoice,
    Order,
    OrderItem,
    ProductEvent,
    Subscription,
    Ticket,
)

NOW = datetime(2026, 3, 14, 16, 45, tzinfo=UTC)
CUSTOMERS = 1500


@pytest.fixture(scope="module")
def rows() -> Rows:
    return gathered_rows(1, CUSTOMERS, seed=7, now=NOW)


def by_customer(rows: Rows, table: type[Table]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict[str, list[dict[str, Any]]](list)
    for row in rows[table]:
        found[row["customer_id"]].append(row)
    return found


def logins(rows: Rows, customers: list[dict[str, Any]]) -> list[int]:
    since = NOW - timedelta(days=30)
    counted = Counter(e["customer_id"] for e in rows[ProductEvent] if e["name"] == "login" and e["at"] >= since)
    return [counted[c["customer_id"]] for c in customers]


def correlation(left: list[float] | list[int], right: list[float] | list[int]) -> float:
    return float(np.corrcoef(left, right)[0, 1])


def test_the_same_seed_makes_the_same_customers() -> None:
    assert customer_rows(17, seed=7, now=NOW) == customer_rows(17, seed=7, now=NOW)
    assert customer_rows(17, seed=8, now=NOW) != customer_rows(17, seed=7, now=NOW)


def test_a_customer_does_not_depend_on_how_many_others_there_are() -> None:
    alone = gathered_rows(40, 40, seed=7, now=NOW)
    among = gathered_rows(1, 60, seed=7, now=NOW)
    for table, made in alone.items():
        key = "account_id" if table is Account else "order_id" if table is OrderItem else "customer_id"
        wanted = {row[key] for row in made}
        assert [row for row in among[table] if row[key] in wanted] == made


def test_who_uses_the_product_stays(rows: Rows) -> None:
    customers = rows[Customer]
    churn = [c["churn_risk"] for c in customers]
    health = [c["health_score"] for c in customers]
    assert correlation(logins(rows, customers), churn) < -0.4
    assert correlation(logins(rows, customers), health) > 0.4
    assert correlation(churn, health) < -0.8


def test_who_logs_in_more_uses_more_features(rows: Rows) -> None:
    customers = rows[Customer]
    features = defaultdict[str, set[str]](set)
    for event in rows[ProductEvent]:
        if event["feature"]:
            features[event["customer_id"]].add(event["feature"])
    assert correlation(logins(rows, customers), [len(features[c["customer_id"]]) for c in customers]) > 0.5


def test_unhappy_customers_write_more_tickets_rate_lower_and_leave_sooner(rows: Rows) -> None:
    churn = {c["customer_id"]: c["churn_risk"] for c in rows[Customer]}
    tickets = Counter(t["customer_id"] for t in rows[Ticket])
    ratings = {
        customer: float(np.mean(rated))
        for customer, talks in by_customer(rows, Conversation).items()
        if len(rated := [talk["csat"] for talk in talks if talk["csat"]]) >= 3
    }
    assert correlation(list(ratings.values()), [churn[c] for c in ratings]) < -0.4
    assert correlation(list(ratings.values()), [tickets[c] for c in ratings]) < -0.3
    assert 3.5 < float(np.mean(list(ratings.values()))) < 4.5


def test_late_payers_and_past_customers_were_at_risk(rows: Rows) -> None:
    churn = {c["customer_id"]: c["churn_risk"] for c in rows[Customer]}
    overdue = {i["customer_id"] for i in rows[Invoice] if i["status"] == "open" and i["due_at"] < NOW}
    left = {s["customer_id"] for s in rows[Subscription] if s["status"] == "canceled"}
    typical = float(np.mean(list(churn.values())))
    assert 0.01 < len(overdue) / CUSTOMERS < 0.15
    assert 0.02 < len(left) / CUSTOMERS < 0.2
    assert float(np.mean([churn[c] for c in overdue])) > typical + 0.2
    assert float(np.mean([churn[c] for c in left])) > typical + 0.1
    past_due = {s["customer_id"] for s in rows[Subscription] if s["status"] == "past_due"}
    assert past_due <= overdue


def test_engaged_customers_buy_more_often_and_more_recently(rows: Rows) -> None:
    customers = rows[Customer]
    orders = by_customer(rows, Order)
    use = logins(rows, customers)
    frequency = [len(orders[c["customer_id"]]) for c in customers]
    recency = [min((NOW - o["placed_at"]).days for o in orders[c["customer_id"]]) for c in customers]
    assert min(frequency) >= 1
    assert correlation(use, frequency) > 0.2
    assert correlation(use, recency) < -0.1


def test_everything_adds_up(rows: Rows) -> None:
    items = defaultdict[str, int](int)
    for item in rows[OrderItem]:
        items[item["order_id"]] += item["quantity"] * item["unit_price_cents"]
    assert all(order["total_cents"] == items[order["order_id"]] for order in rows[Order])
    assert all((o["tracking_number"] is None) == (o["shipped_at"] is None) for o in rows[Order])
    assert all(o["placed_at"] <= NOW for o in rows[Order])
    assert all(s["seats_used"] <= s["seats_total"] for s in rows[Subscription])
    contacts = by_customer(rows, Contact)
    assert all(sum(c["is_primary"] for c in contacts[f"customer_{n}"]) == 1 for n in range(1, CUSTOMERS + 1))
    since = {c["customer_id"]: c["customer_since"] for c in rows[Customer]}
    assert all(talk["started_at"] >= since[talk["customer_id"]] - timedelta(days=1) for talk in rows[Conversation])


def test_keys_are_unique_and_mail_goes_nowhere(rows: Rows) -> None:
    for table, made in rows.items():
        keys = [column.name for column in table.__table__.primary_key if column.name in made[0]]
        if keys:
            assert len({tuple(row[key] for key in keys) for row in made}) == len(made), table
    assert all(c["email"].endswith("@example.com") for c in rows[Contact])


def test_order_ids_of_far_customers_do_not_collide() -> None:
    orders = gathered_rows(999_990, 1_000_000, seed=7, now=NOW)[Order] + gathered_rows(1, 200, seed=7, now=NOW)[Order]
    assert len({order["order_id"] for order in orders}) == len(orders)


@pytest.mark.parametrize("hour", [0, 9, 23])
def test_acme_reads_as_documented_at_any_hour(hour: int) -> None:
    now = NOW.replace(hour=hour)
    acme = acme_rows(now=now)
    (customer,), (subscription,) = acme[Customer], acme[Subscription]
    seen = [event for event in acme[ProductEvent] if event["name"] == "login"]
    assert (customer["health_score"], customer["churn_risk"]) == (85, 0.15)
    assert (now - customer["customer_since"]).days == 152
    assert (subscription["plan"], subscription["mrr_cents"]) == ("premium", 25_000)
    assert (subscription["seats_used"], subscription["seats_total"]) == (8, 10)
    assert (subscription["renewal_at"] - now).days == 28
    assert (subscription["renewal_at"].date() - now.date()).days == 28
    assert len([e for e in seen if now - timedelta(days=30) <= e["at"] <= now]) == len(seen) == 45
    assert max(e["at"] for e in seen).strftime("%d %H:%M") == "13 14:32"
    uses = {e["feature"]: e["quantity"] for e in acme[ProductEvent] if e["feature"]}
    assert sorted(uses, key=lambda feature: -uses[feature])[:3] == ["Projects", "Tasks", "Reports"]
    assert [talk["csat"] for talk in acme[Conversation]].count(5) * 2 == len(acme[Conversation]) == 12
    assert float(np.mean([talk["csat"] for talk in acme[Conversation]])) == 4.5
    assert [ticket["status"] for ticket in acme[Ticket]] == ["open"]
    orders = {order["order_id"]: order for order in acme[Order]}
    assert orders["ORD-10123"]["status"] == "shipped"
    assert orders["ORD-10123"]["tracking_number"]
    assert orders["ORD-10124"]["status"] == "delivered"
    assert all(row["at"] <= now for row in acme[ProductEvent])


def test_medley_has_agents_and_one_incident_under_way() -> None:
    company = company_rows(seed=7, now=NOW)
    made = {table.__tablename__: rows for table, rows in company.items()}
    assert len(made["agents"]) >= 8
    assert [incident["resolved_at"] for incident in made["incidents"]].count(None) == 1
