"""How each section of a context reads in a prompt: a few plain lines, without personal fields.

Health is Good from 80, Fair from 60, else Poor. Churn risk is low under 0.3, medium under 0.6, else high.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from models.enrichment.types import (
    AccountHealth,
    ChurnPrediction,
    CompanyEnrichment,
    CompanyFunding,
    CompanyNews,
    CurrentActivity,
    CustomerIntelligence,
    EngagementMetrics,
    FeatureUsage,
    NextBestAction,
    ProductStatus,
    SalesPipeline,
    SecurityContext,
    SubscriptionDetails,
    SupportHistory,
)

#: Rank and text of a block; of two blocks the one with the higher rank is left out first.
Ranked = tuple[int, str]

_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\s]+")
_MAX_VALUE_CHARS = 200
_MAX_LISTED = 3


def churn_level(risk: float) -> str:
    """low under 0.3, medium under 0.6, else high."""
    return "low" if risk < 0.3 else "medium" if risk < 0.6 else "high"


def health_band(score: int) -> str:
    """Good from 80, Fair from 60, else Poor."""
    return "Good" if score >= 80 else "Fair" if score >= 60 else "Poor"


def days_between(start: datetime, end: datetime) -> int:
    """Calendar days in UTC from `start` to `end`; negative when `end` lies before."""
    return (end.astimezone(UTC).date() - start.astimezone(UTC).date()).days


def instant(at: datetime) -> str:
    """`2024-11-13 14:32`, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _profile(profile: CustomerIntelligence, now: datetime) -> list[Ranked]:
    since = profile.customer_since.astimezone(UTC)
    lines = (
        f"Company: {_value(profile.company_name)}",
        f"Industry: {_value(profile.industry)}",
        f"Plan: {_value(profile.plan).upper()}",
        f"MRR: {_money(profile.mrr, profile.currency)}",
        f"Health Score: {profile.health_score}/100 ({health_band(profile.health_score)})",
        f"Churn Risk: {_risk(profile.churn_risk)}",
        f"Customer Since: {since:%Y-%m-%d} ({_days(days_between(since, now))})",
    )
    return [(0, "\n".join(lines))]


def _activity(usage: EngagementMetrics, now: datetime) -> list[Ranked]:
    times = "time" if usage.login_count_30d == 1 else "times"
    return _block(
        7,
        "Recent Activity:",
        f"Last login: {instant(usage.last_login_at) if usage.last_login_at else 'never'}",
        f"Login frequency: {usage.login_count_30d} {times} (last 30 days)",
        f"Most used features: {_list(usage.most_used_features) or 'none'}",
    )


def _support(support: SupportHistory, now: datetime) -> list[Ranked]:
    rating = "not rated" if support.avg_csat is None else f"{support.avg_csat:.1f}/5"
    return _block(
        5, "Support History:", f"Total conversations: {support.total_conversations}", f"Average CSAT: {rating}"
    )


def _subscription(plan: SubscriptionDetails, now: datetime) -> list[Ranked]:
    return _block(
        4,
        "Subscription:",
        f"Plan: {_value(plan.plan).upper()}",
        f"Seats: {plan.seats_used}/{plan.seats_total}",
        f"Renewal: {_when(plan.renewal_at, now)}" if plan.renewal_at else "",
        f"Trial ends: {_when(plan.trial_ends_at, now)}" if plan.trial_ends_at and plan.trial_ends_at > now else "",
        "Payment: overdue" if plan.payment_overdue else "",
    )


def _flags(health: AccountHealth, now: datetime) -> list[Ranked]:
    groups = (
        (1, "🚨 CRITICAL ISSUES:", health.red_flags),
        (3, "⚠️ WARNINGS:", health.yellow_flags),
        (13, "✅ OPPORTUNITIES:", health.green_flags),
    )
    return [block for rank, title, flags in groups for block in _block(rank, title, *map(_value, flags)) if flags]


def _deals(deals: SalesPipeline, now: datetime) -> list[Ranked]:
    worth = f"{_money(deals.open_amount, deals.currency)}, weighted {_money(deals.weighted_amount, deals.currency)}"
    return _block(
        11,
        "Open Deals:",
        f"Open: {deals.open_deals} ({worth})" if deals.open_deals else "Open: none",
        f"Furthest stage: {_value(deals.furthest_stage)}" if deals.furthest_stage else "",
        f"Next close: {_when(deals.next_close_at, now)}" if deals.next_close_at else "",
        f"Won and lost so far: {deals.won_deals} and {deals.lost_deals}",
    )


def _trend(usage: FeatureUsage, now: datetime) -> list[Ranked]:
    change = "" if usage.change is None else f", {usage.change:+.0%} on the 30 days before"
    return _block(
        12,
        "Feature Trend:",
        f"Uses: {usage.uses_30d} (last 30 days{change})",
        f"Newly used: {_list(usage.adopted)}" if usage.adopted else "",
        f"No longer used: {_list(usage.dropped)}" if usage.dropped else "",
        f"Never used: {_list(usage.never_used)}" if usage.never_used else "",
    )


def _security(security: SecurityContext, now: datetime) -> list[Ranked]:
    worst = f" (worst: {_value(security.highest_open_severity)})" if security.highest_open_severity else ""
    kind = _value(security.last_event_kind or "unknown")
    return _block(
        8,
        "Security:",
        f"Open events: {security.open_events}{worst}",
        f"Events: {security.events_90d} (last 90 days)",
        f"Last event: {kind}, {instant(security.last_event_at)}" if security.last_event_at else "",
    )


def _company(company: CompanyEnrichment, now: datetime) -> list[Ranked]:
    people = company.employees_range or (None if company.employees is None else str(company.employees))
    revenue = company.annual_revenue_usd
    return _block(
        14,
        "About the Company:",
        f"Name: {_value(company.legal_name or company.domain)}",
        f"Industry: {_value(company.industry)}" if company.industry else "",
        f"Employees: {_value(people)}" if people else "",
        "" if revenue is None else f"Annual revenue: ${revenue:,.0f}",
        f"Founded: {company.founded_year}" if company.founded_year else "",
        f"Country: {_value(company.country)}" if company.country else "",
        f"Description: {_value(company.description)}" if company.description.strip() else "",
        f"Technologies: {_list(company.technologies)}" if company.technologies else "",
    )


def _funding(funding: CompanyFunding, now: datetime) -> list[Ranked]:
    raised = "an unknown amount" if funding.total_raised_usd is None else f"${funding.total_raised_usd:,.0f}"
    rounds = f"{funding.funding_rounds} round" if funding.funding_rounds == 1 else f"{funding.funding_rounds} rounds"
    last = [
        _value(funding.last_round_type or "unknown kind"),
        f"{funding.last_round_at.astimezone(UTC):%Y-%m-%d}" if funding.last_round_at else "",
        "" if funding.last_round_usd is None else f"${funding.last_round_usd:,.0f}",
    ]
    return _block(
        15,
        "Funding:",
        f"Raised: {raised} in {rounds}" if funding.funding_rounds else "Raised: nothing known",
        f"Last round: {', '.join(filter(None, last))}" if funding.last_round_type or funding.last_round_at else "",
        f"Investors: {_list(funding.investors)}" if funding.investors else "",
        f"On the stock market: {_value(funding.ipo_status)}" if funding.ipo_status else "",
    )


def _news(news: CompanyNews, now: datetime) -> list[Ranked]:
    articles = news.articles[:_MAX_LISTED]
    lines = (f"{a.published_at.astimezone(UTC):%Y-%m-%d}: {_value(a.title)} ({_value(a.source)})" for a in articles)
    return _block(16, "Recent News:", *lines) if articles else []


def _status(status: ProductStatus, now: datetime) -> list[Ranked]:
    """Only a disturbance is worth a word."""
    if status.status == "operational" and not status.incidents:
        return []
    lines = (
        f"{_value(one.component)}: {_value(one.title)} ({_value(one.severity)}, since {instant(one.started_at)})"
        for one in status.incidents[:_MAX_LISTED]
    )
    return _block(2, f"Product Status: {_value(status.status).upper()}", *lines)


def _right_now(activity: CurrentActivity, now: datetime) -> list[Ranked]:
    people = "1 person" if activity.active_people_15m == 1 else f"{activity.active_people_15m} people"
    seen = f"no, last seen {instant(activity.last_seen_at)}" if activity.last_seen_at else "no"
    return _block(
        6,
        "Right Now:",
        f"In the product: {f'yes, {people} (last 15 minutes)' if activity.active_now else seen}",
        f"Events: {activity.events_1h} (last hour)" if activity.events_1h else "",
        f"Features: {_list(activity.recent_features)}" if activity.recent_features else "",
    )


def _churn(churn: ChurnPrediction, now: datetime) -> list[Ranked]:
    """The recorded value, where there is one, before what the model says."""
    predicted = f"{_risk(churn.predicted)} within {_days(churn.horizon_days)}"
    return _block(
        9,
        "Churn Prediction:",
        "" if churn.recorded is None else f"Recorded: {_risk(churn.recorded)}, which counts",
        f"Predicted: {predicted}",
        f"Drivers: {_list(churn.drivers)}" if churn.drivers else "",
        "The model was trained on made-up history" if churn.synthetic else "",
    )


def _action(action: NextBestAction, now: datetime) -> list[Ranked]:
    return _block(
        10,
        "Next Best Action:",
        f"Action: {_value(action.action)} (expected gain {action.expected_gain:+.0%})",
        f"Reason: {_value(action.reason)}" if action.reason.strip() else "",
        f"Alternatives: {_list(action.alternatives)}" if action.alternatives else "",
        "The model was trained on made-up history" if action.synthetic else "",
    )


#: In the order of the prompt: as documented, with what the documents do not show before the flags, which close it.
#: How our own agents do is nothing to tell a customer's prompt.
RENDERERS: Mapping[str, Callable[[Any, datetime], list[Ranked]]] = MappingProxyType(
    {
        "customer_intelligence": _profile,
        "engagement_metrics": _activity,
        "support_history": _support,
        "subscription_details": _subscription,
        "current_activity": _right_now,
        "product_status": _status,
        "feature_usage": _trend,
        "sales_pipeline": _deals,
        "security_context": _security,
        "company_enrichment": _company,
        "company_funding": _funding,
        "company_news": _news,
        "churn_prediction": _churn,
        "next_best_action": _action,
        "account_health": _flags,
    }
)


def _block(rank: int, title: str, *lines: str) -> list[Ranked]:
    """A title and its lines that have something to say."""
    return [(rank, "\n".join((title, *(f"- {line}" for line in lines if line))))]


def _risk(risk: float) -> str:
    return f"{churn_level(risk).capitalize()} ({risk:.0%})"


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


def _when(at: datetime, now: datetime) -> str:
    days = days_between(now, at)
    return _days(days) if days >= 0 else f"{_days(-days)} ago"


def _money(amount: float, currency: str) -> str:
    symbol = _SYMBOLS.get(currency.upper())
    return f"{symbol}{amount:,.2f}" if symbol else f"{_value(currency)} {amount:,.2f}"


def _list(values: Sequence[str]) -> str:
    return ", ".join(map(_value, values))


def _value(text: str) -> str:
    """Data stays data: one line, and no tag that could close the block around it."""
    flat = _UNPRINTABLE.sub(" ", text).strip()[:_MAX_VALUE_CHARS]
    return flat.replace("<", "‹").replace(">", "›")
