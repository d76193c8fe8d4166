"""What the customer may buy next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from models.enrichment.types import ProviderSpec, SalesPipeline
from providers.base import SqlProvider
from providers.queries import IDS, NOW, Query
from providers.tables import Deal, DealStage

_STAGES = tuple(DealStage)
_OVER = (DealStage.WON, DealStage.LOST)

_DEALS = Query(
    select(
        Deal.customer_id,
        Deal.stage,
        Deal.currency,
        func.count(),
        func.sum(Deal.amount_cents),
        func.sum(Deal.amount_cents * Deal.probability),
        func.min(Deal.expected_close_at).filter(Deal.expected_close_at >= NOW),
    )
    .where(Deal.customer_id.in_(IDS), Deal.opened_at <= NOW)
    .group_by(Deal.customer_id, Deal.stage, Deal.currency)
)


class _Deals(NamedTuple):
    """Deals of one customer in one stage and currency."""

    stage: str
    currency: str
    number: int
    cents: int
    weighted_cents: float
    next_close_at: datetime | None


class SalesPipelineProvider(SqlProvider[SalesPipeline]):
    """Deals and their worth; nothing for a customer who never had one.

    Amounts are those of one currency, the one that most open deals have. The next close is the earliest expected one
    still ahead.
    """

    spec = ProviderSpec(name="sales_pipeline", section="sales_pipeline", tier=2, ttl_s=300.0)

    def load(
        self, connection: Connection, customer_ids: Sequence[str], now: datetime
    ) -> Mapping[str, SalesPipeline | None]:
        found: defaultdict[str, list[_Deals]] = defaultdict(list)
        for customer_id, *deals in _DEALS.rows(connection, customer_ids, now=now):
            found[customer_id].append(_Deals(*deals))
        return {
            customer_id: _section(found[customer_id]) if customer_id in found else None for customer_id in customer_ids
        }


def _section(deals: list[_Deals]) -> SalesPipeline:
    open_deals = [group for group in deals if group.stage not in _OVER]
    currency = _commonest_currency(open_deals or deals)
    counted = [group for group in open_deals if group.currency == currency]
    closes = [group.next_close_at for group in open_deals if group.next_close_at is not None]
    return SalesPipeline(
        open_deals=sum(group.number for group in open_deals),
        open_amount=round(sum(int(group.cents) for group in counted) / 100, 2),
        weighted_amount=round(sum(group.weighted_cents for group in counted) / 100, 2),
        currency=currency,
        furthest_stage=max((group.stage for group in open_deals), key=_rank, default=None),
        next_close_at=min(closes, default=None),
        won_deals=sum(group.number for group in deals if group.stage == DealStage.WON),
        lost_deals=sum(group.number for group in deals if group.stage == DealStage.LOST),
    )


def _commonest_currency(deals: list[_Deals]) -> str:
    counts: defaultdict[str, int] = defaultdict(int)
    for group in deals:
        counts[group.currency] += group.number
    return min(counts, key=lambda currency: (-counts[currency], currency))


def _rank(stage: str) -> tuple[int, str]:
    """A stage we do not know stands before all that we do."""
    return (_STAGES.index(DealStage(stage)) if stage in _STAGES else -1, stage)
