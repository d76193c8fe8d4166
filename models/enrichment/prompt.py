"""The documented text forms of a context: the prompt block and the summary.

Health is Good from 80, Fair from 60, else Poor. Churn risk is low under 0.3, medium under 0.6, else high.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from models.enrichment.types import (
    AccountHealth,
    CustomerIntelligence,
    EngagementMetrics,
    EnrichedContext,
    SubscriptionDetails,
    SupportHistory,
)

OPENING, CLOSING = "<customer_context>", "</customer_context>"
NOTHING_KNOWN = "No customer data is available right now."

_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\s]+")
_MAX_VALUE_CHARS = 200


@dataclass(frozen=True, slots=True)
class PromptBlock:
    """Lines that belong together; of two blocks the one with the higher `rank` is left out first."""

    rank: int
    text: str


def prompt_blocks(context: EnrichedContext, now: datetime) -> tuple[PromptBlock, ...]:
    """The blocks of the documented layout in their order; absent sections have no block."""
    blocks: list[PromptBlock] = []
    if context.customer_intelligence is not None:
        blocks.append(PromptBlock(0, _profile(context.customer_intelligence, now)))
    if context.engagement_metrics is not None:
        blocks.append(PromptBlock(5, _activity(context.engagement_metrics)))
    if context.support_history is not None:
        blocks.append(PromptBlock(4, _support(context.support_history)))
    if context.subscription_details is not None:
        blocks.append(PromptBlock(3, _subscription(context.subscription_details, now)))
    if context.account_health is not None:
        blocks.extend(_flags(context.account_health))
    return tuple(blocks) or (PromptBlock(0, NOTHING_KNOWN),)


def estimate_tokens(text: str) -> int:
    """A token for every three bytes of UTF-8, rounded up: on the safe side for English."""
    return -(-len(text.encode()) // 3)


def fit(
    blocks: Sequence[PromptBlock],
    *,
    max_tokens: int | None = None,
    count_tokens: Callable[[str], int] = estimate_tokens,
) -> str:
    """The blocks between their tags, without the least relevant ones if they exceed the budget; no line is ever cut.

    The two tags are always there, even if the budget does not reach for them.
    """
    kept = list(blocks)
    text = _join(kept)
    while kept and max_tokens is not None and count_tokens(text) > max_tokens:
        kept.remove(max(kept, key=lambda block: block.rank))
        text = _join(kept)
    return text


def summarise(context: EnrichedContext, now: datetime) -> dict[str, Any]:
    """The documented keys; see the module for the bands."""
    profile, usage = context.customer_intelligence, context.engagement_metrics
    support, plan, health = context.support_history, context.subscription_details, context.account_health
    return {
        "company_name": profile.company_name if profile else "unknown",
        "plan": profile.plan if profile else plan.plan if plan else "unknown",
        "health_score": profile.health_score if profile else None,
        "churn_risk": profile.churn_risk if profile else None,
        "churn_risk_level": churn_level(profile.churn_risk) if profile else "unknown",
        "login_count_30d": usage.login_count_30d if usage else None,
        "open_tickets": support.open_tickets if support else None,
        "days_to_renewal": days_between(now, plan.renewal_at) if plan and plan.renewal_at else None,
        "has_critical_issues": bool(health and health.red_flags),
        "has_opportunities": bool(health and health.green_flags),
        "cache_hit": context.cache_hit,
    }


def churn_level(risk: float) -> str:
    """low under 0.3, medium under 0.6, else high."""
    return "low" if risk < 0.3 else "medium" if risk < 0.6 else "high"


def health_band(score: int) -> str:
    """Good from 80, Fair from 60, else Poor."""
    return "Good" if score >= 80 else "Fair" if score >= 60 else "Poor"


def days_between(start: datetime, end: datetime) -> int:
    """Calendar days in UTC from `start` to `end`; negative when `end` lies before."""
    return (end.astimezone(UTC).date() - start.astimezone(UTC).date()).days


def _join(blocks: Sequence[PromptBlock]) -> str:
    return "\n".join([OPENING, *(["\n\n".join(block.text for block in blocks)] if blocks else []), CLOSING])


def _profile(profile: CustomerIntelligence, now: datetime) -> str:
    since = profile.customer_since.astimezone(UTC)
    return "\n".join(
        (
            f"Company: {_value(profile.company_name)}",
            f"Industry: {_value(profile.industry)}",
            f"Plan: {_value(profile.plan).upper()}",
            f"MRR: {_money(profile.mrr, profile.currency)}",
            f"Health Score: {profile.health_score}/100 ({health_band(profile.health_score)})",
            f"Churn Risk: {churn_level(profile.churn_risk).capitalize()} ({profile.churn_risk:.0%})",
            f"Customer Since: {since:%Y-%m-%d} ({_days(days_between(since, now))})",
        )
    )


def _activity(usage: EngagementMetrics) -> str:
    last = f"{usage.last_login_at.astimezone(UTC):%Y-%m-%d %H:%M}" if usage.last_login_at else "never"
    times = "time" if usage.login_count_30d == 1 else "times"
    return "\n".join(
        (
            "Recent Activity:",
            f"- Last login: {last}",
            f"- Login frequency: {usage.login_count_30d} {times} (last 30 days)",
            f"- Most used features: {', '.join(map(_value, usage.most_used_features)) or 'none'}",
        )
    )


def _support(support: SupportHistory) -> str:
    rating = "not rated" if support.avg_csat is None else f"{support.avg_csat:.1f}/5"
    return f"Support History:\n- Total conversations: {support.total_conversations}\n- Average CSAT: {rating}"


def _subscription(plan: SubscriptionDetails, now: datetime) -> str:
    lines = [
        "Subscription:",
        f"- Plan: {_value(plan.plan).upper()}",
        f"- Seats: {plan.seats_used}/{plan.seats_total}",
    ]
    if plan.renewal_at is not None:
        days = days_between(now, plan.renewal_at)
        lines.append(f"- Renewal: {_days(days) if days >= 0 else _days(-days) + ' ago'}")
    if plan.trial_ends_at is not None and plan.trial_ends_at > now:
        lines.append(f"- Trial ends: {_days(days_between(now, plan.trial_ends_at))}")
    if plan.payment_overdue:
        lines.append("- Payment: overdue")
    return "\n".join(lines)


def _flags(health: AccountHealth) -> list[PromptBlock]:
    groups = (
        (1, "🚨 CRITICAL ISSUES:", health.red_flags),
        (2, "⚠️ WARNINGS:", health.yellow_flags),
        (6, "✅ OPPORTUNITIES:", health.green_flags),
    )
    return [
        PromptBlock(rank, "\n".join((title, *(f"- {_value(flag)}" for flag in flags))))
        for rank, title, flags in groups
        if flags
    ]


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


def _money(amount: float, currency: str) -> str:
    symbol = _SYMBOLS.get(currency.upper())
    return f"{symbol}{amount:,.2f}" if symbol else f"{_value(currency)} {amount:,.2f}"


def _value(text: str) -> str:
    """Data stays data: one line, and no tag that could close the block around it."""
    flat = _UNPRINTABLE.sub(" ", text).strip()[:_MAX_VALUE_CHARS]
    return flat.replace("<", "‹").replace(">", "›")
