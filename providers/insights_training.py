"""Trains the insights model on the company's own history, and writes it with its card.

    python -m providers.insights_training --database URL --out FOLDER [--until RFC3339] [--force]

Exit code: 0 model and card are written, 2 wrong arguments or configuration, 3 too little history, 4 the model is not
better than the simple baselines: the card is written, the model only with --force.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, func, or_, select

from models.assignment import uniform
from models.clock import utc_now
from models.errors import Conflict, RapportError
from models.insights.action_training import train_actions
from models.insights.artifact import FILE_NAME, Insights
from models.insights.card import write_card
from models.insights.churn_training import train_churn
from models.insights.evaluation import DRAWS
from models.insights.features import churn_matrix
from models.insights.history import OutreachHistory, Snapshots
from models.insights.types import HORIZON_DAYS, Facts
from models.settings import load_settings
from providers.database import Database
from providers.derived.facts import read_facts
from providers.queries import IDS, instant
from providers.record_tables import DemoSeed
from providers.tables import Customer, Outreach, ProductEvent, Subscription

OK, WRONG_INPUT, TOO_LITTLE, NO_GAIN = 0, 2, 3, 4
#: Days between cut-offs, and the most that are looked at.
STEP_DAYS, MAX_CUTOFFS = 30, 24
#: The longest look back of a feature: earlier cut-offs would see only a part of it.
LOOK_BACK_DAYS = 180
TEST_SHARE = 0.3
_CHUNK = 512
_DAY = timedelta(days=1)

_in_force = (
    select(Subscription.customer_id)
    .distinct()
    .where(
        Subscription.customer_id.in_(IDS),
        Subscription.started_at <= instant("at"),
        or_(Subscription.canceled_at.is_(None), Subscription.canceled_at > instant("at")),
    )
)


def cutoffs(oldest: datetime, until: datetime) -> tuple[datetime, ...]:
    """Midnights a month apart, the latest with its horizon over at `until`, the earliest with all of its look back."""
    latest = datetime.combine(until.date(), time(), tzinfo=UTC) - HORIZON_DAYS * _DAY
    first = oldest + LOOK_BACK_DAYS * _DAY
    found = (latest - STEP_DAYS * number * _DAY for number in range(MAX_CUTOFFS))
    return tuple(sorted(cutoff for cutoff in found if cutoff >= first))


def read_snapshots(connection: Connection, until: datetime) -> Snapshots:
    """Every customer who could churn at each cut-off, and who had no subscription any more when its horizon ended."""
    customer_ids = list(connection.scalars(select(Customer.customer_id).order_by(Customer.customer_id)))
    begins = _history_begins(connection)
    instants = cutoffs(begins, until) if begins is not None else ()
    facts: list[Facts] = []
    rows: list[tuple[bool, int, int]] = []
    for number, cutoff in enumerate(instants):
        for start in range(0, len(customer_ids), _CHUNK):
            chunk = customer_ids[start : start + _CHUNK]
            known = read_facts(connection, chunk, cutoff)
            end = {"ids": chunk, "at": cutoff + HORIZON_DAYS * _DAY}
            stayed = set(connection.scalars(_in_force, end))
            for position, customer_id in enumerate(chunk, start):
                if known[customer_id].at_risk:
                    facts.append(known[customer_id])
                    rows.append((customer_id not in stayed, position, number))
    held_out = np.array([uniform("insights test", customer_id) < TEST_SHARE for customer_id in customer_ids], bool)
    churned, customers, numbers = (np.array(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return Snapshots(
        features=churn_matrix(facts),
        churned=np.array(churned, dtype=np.bool_),
        customers=np.array(customers, dtype=np.int64),
        cutoffs=np.array(numbers, dtype=np.int64),
        held_out=held_out[np.array(customers, dtype=np.int64)],
        instants=instants,
    )


def _history_begins(connection: Connection) -> datetime | None:
    """From when on use was recorded: a hundredth of all events is older, so that a few stray ones do not count."""
    events = connection.scalar(select(func.count()).select_from(ProductEvent)) or 0
    return connection.scalar(select(ProductEvent.at).order_by(ProductEvent.at).offset(events // 100).limit(1))


def read_outreach(connection: Connection, until: datetime) -> OutreachHistory:
    """Outreach with a known outcome; its facts are of the midnight before, so that it cannot have moved them."""
    query = (
        select(Outreach.customer_id, Outreach.action, Outreach.at, Outreach.responded, Outreach.propensity)
        .where(Outreach.responded.is_not(None), Outreach.at <= until)
        .order_by(Outreach.at, Outreach.outreach_id)
    )
    by_day = defaultdict[datetime, list[tuple[str, str, bool, float | None]]](list)
    for customer_id, action, at, responded, propensity in connection.execute(query):
        by_day[datetime.combine(at.date(), time(), tzinfo=UTC)].append(
            (customer_id, action, bool(responded), propensity)
        )
    facts: list[Facts] = []
    rows: list[tuple[str, str, bool, float | None]] = []
    for day, found in by_day.items():
        for start in range(0, len(found), _CHUNK):
            chunk = found[start : start + _CHUNK]
            known = read_facts(connection, sorted({row[0] for row in chunk}), day)
            facts += [known[row[0]] for row in chunk]
            rows += chunk
    numbers = {customer_id: number for number, customer_id in enumerate(sorted({row[0] for row in rows}))}
    return OutreachHistory(
        facts=tuple(facts),
        actions=np.array([row[1] for row in rows], dtype=np.str_),
        responded=np.array([row[2] for row in rows], dtype=np.bool_),
        propensity=np.array([np.nan if row[3] is None else row[3] for row in rows], dtype=np.float64),
        customers=np.array([numbers[row[0]] for row in rows], dtype=np.int64),
    )


async def train(url: str, out: Path, *, until: datetime | None = None, force: bool = False) -> int:
    """Read, learn, write; the exit code. Raises `Conflict` on too little history, `DatabaseUnavailable`."""
    database = Database(url, busy_timeout_s=30.0)
    try:
        demo_until = await database.read(lambda connection: connection.scalar(select(DemoSeed.anchored_at)))
        last = until or demo_until or utc_now()
        say("reading what was known of each customer at monthly cut-offs")
        snapshots = await database.read(lambda connection: read_snapshots(connection, last))
        say(f"{len(snapshots.churned):,} snapshots, {snapshots.leavers:,} customers who left")
        outreach = await database.read(lambda connection: read_outreach(connection, last))
        say(f"{len(outreach.actions):,} pieces of outreach, {int(outreach.by_lot.sum()):,} of them by lot")
    finally:
        await database.close()
    synthetic = demo_until is not None
    return learn(snapshots, outreach, out, until=last, synthetic=synthetic, force=force)


def learn(
    snapshots: Snapshots,
    outreach: OutreachHistory,
    out: Path,
    *,
    until: datetime,
    synthetic: bool,
    force: bool = False,
    draws: int = DRAWS,
) -> int:
    """Learn both models and write them with their card; the exit code. Raises `Conflict` on too little history."""
    churn, churn_report = train_churn(snapshots, draws=draws)
    actions, action_report = train_actions(outreach)
    insights = Insights(churn=churn, actions=actions, synthetic=synthetic, trained_until=until.date().isoformat())
    out.mkdir(parents=True, exist_ok=True)
    write_card(out, insights, churn_report, action_report, test_share=TEST_SHARE)
    if action_report.refused:
        say(f"no actions: {action_report.refused}")
    if not churn_report.beats_baselines:
        say("the model is not shown to be better than the simple baselines; the card says how it did")
        if not force:
            return NO_GAIN
    insights.save(out / FILE_NAME)
    say(f"model {insights.version} and its card are in {out}")
    return OK


def say(text: str) -> None:
    sys.stdout.write(f"  insights: {text}\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m providers.insights_training", description="Train churn and next-best-action on own history."
    )
    parser.add_argument("--database", help="URL of the database (default: the setting database_url)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and its card")
    parser.add_argument("--until", type=_instant, help="where the history ends, RFC 3339 (default: now)")
    parser.add_argument("--force", action="store_true", help="write the model even if it beats no baseline")
    arguments = parser.parse_args(argv)
    try:
        url = arguments.database or load_settings().database_url
        return asyncio.run(train(url, arguments.out, until=arguments.until, force=arguments.force))
    except Conflict as exc:
        say(str(exc))
        return TOO_LITTLE
    except RapportError as exc:
        say(str(exc))
        return WRONG_INPUT


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError("must be an RFC 3339 time such as 2026-11-01T00:00:00Z") from exc
    return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)


if __name__ == "__main__":
    raise SystemExit(main())
