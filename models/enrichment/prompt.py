"""The documented text forms of a context: the prompt block and the summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.enrichment.prompt_sections import RENDERERS, churn_level, days_between, instant
from models.enrichment.types import EnrichedContext, ProviderState

OPENING, CLOSING = "<customer_context>", "</customer_context>"
NOTHING_KNOWN = "No customer data is available right now."

#: Who the customer is and what is critical go last, whatever is asked.
_LAST_TO_GO = 1


@dataclass(frozen=True, slots=True)
class PromptBlock:
    """Lines of one section that belong together; of two blocks the one with the higher `rank` is left out first."""

    rank: int
    text: str
    section: str = ""


def prompt_blocks(context: EnrichedContext, now: datetime) -> tuple[PromptBlock, ...]:
    """The blocks in the order of the prompt; absent sections have none, and stale ones say how old they are."""
    stale = {one.section: one.as_of for one in context.outcomes if one.state is ProviderState.STALE}
    blocks = []
    for name, render in RENDERERS.items():
        section = getattr(context, name)
        for rank, text in render(section, now) if section is not None else ():
            if name in stale:
                as_of = stale[name]
                text += f"\n({f'as of {instant(as_of)}, ' if as_of else ''}may be outdated)"
            blocks.append(PromptBlock(rank, text, name))
    return tuple(blocks) or (PromptBlock(0, NOTHING_KNOWN),)


def estimate_tokens(text: str) -> int:
    """A token for every three bytes of UTF-8, rounded up: on the safe side for English."""
    return -(-len(text.encode()) // 3)


def fit(
    blocks: Sequence[PromptBlock],
    *,
    max_tokens: int | None = None,
    count_tokens: Callable[[str], int] = estimate_tokens,
    relevance: Mapping[str, float] | None = None,
) -> str:
    """The blocks between their tags, without the least relevant ones if they exceed the budget; no line is ever cut.

    `relevance` is by section, 0 to 1; without it, and between equals, the rank decides. The two tags are always there,
    even if the budget does not reach for them.
    """
    scores = relevance or {}

    def worth(block: PromptBlock) -> tuple[bool, float, int]:
        return block.rank <= _LAST_TO_GO, scores.get(block.section, 0.0), -block.rank

    kept = list(blocks)
    text = _join(kept)
    while kept and max_tokens is not None and count_tokens(text) > max_tokens:
        kept.remove(min(kept, key=worth))
        text = _join(kept)
    return text


def summarise(context: EnrichedContext, now: datetime) -> dict[str, Any]:
    """The documented keys; `churn_level` has the bands. A recorded churn risk wins over a predicted one."""
    profile, usage, churn = context.customer_intelligence, context.engagement_metrics, context.churn_prediction
    support, plan, health = context.support_history, context.subscription_details, context.account_health
    risk = profile.churn_risk if profile else churn.risk if churn else None
    return {
        "company_name": profile.company_name if profile else "unknown",
        "plan": profile.plan if profile else plan.plan if plan else "unknown",
        "health_score": profile.health_score if profile else None,
        "churn_risk": risk,
        "churn_risk_level": "unknown" if risk is None else churn_level(risk),
        "login_count_30d": usage.login_count_30d if usage else None,
        "open_tickets": support.open_tickets if support else None,
        "days_to_renewal": days_between(now, plan.renewal_at) if plan and plan.renewal_at else None,
        "has_critical_issues": bool(health and health.red_flags),
        "has_opportunities": bool(health and health.green_flags),
        "cache_hit": context.cache_hit,
    }


def _join(blocks: Sequence[PromptBlock]) -> str:
    return "\n".join([OPENING, *(["\n\n".join(block.text for block in blocks)] if blocks else []), CLOSING])
