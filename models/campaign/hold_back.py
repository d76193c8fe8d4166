"""Who is better not written to for now: customers with open trouble, as their context tells it online too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from models.campaign.config import HoldBack
from models.campaign.types import HeldBack, Judgement
from models.enrichment.protocol import ContextSource
from models.enrichment.types import ContextRequest, EnrichedContext
from models.resilience.deadline import Deadline

#: The agent type that campaigns read as, and the context providers that they judge by.
AGENT_TYPE = "success"
RED_FLAGS, TICKETS = "account_health", "support_history"
PROVIDERS = (RED_FLAGS, TICKETS)


async def judge_all(
    customer_ids: Sequence[str], contexts: ContextSource, options: HoldBack, *, deadline: Deadline
) -> dict[str, Judgement]:
    """A judgement for each customer, at most 1,000; what could not be read is asked for once more, past every cache.

    Raises as `ContextSource.enrich_many`.
    """
    wanted = tuple(name for name, on in ((RED_FLAGS, options.red_flags), (TICKETS, options.open_tickets)) if on)
    request = ContextRequest(deadline=deadline, agent_type=AGENT_TYPE, providers=wanted)
    found = await contexts.enrich_many(customer_ids, request)
    judged = {customer_id: judge(found.get(customer_id), options) for customer_id in customer_ids}
    if again := [customer_id for customer_id, judgement in judged.items() if judgement.unread]:
        found = await contexts.enrich_many(again, replace(request, force_refresh=True))
        judged |= {customer_id: judge(found.get(customer_id), options) for customer_id in again}
    return judged


def judge(context: EnrichedContext | None, options: HoldBack) -> Judgement:
    """Whether this customer is held back, and why; one whose context is not known is, because writing can wait."""
    if context is None:
        return Judgement(unread=True)
    health, support = context.account_health, context.support_history
    reasons, unread = [], False
    if options.red_flags:
        unread = health is None
        raised = health.red_flags if health is not None else ()
        reasons += [flag for flag in dict.fromkeys(options.red_flags) if flag in raised]
    if options.open_tickets is not None:
        unread = unread or support is None
        if support is not None and support.open_tickets >= options.open_tickets:
            reasons.append(options.tickets_reason)
    return Judgement(reasons=tuple(reasons), unread=unread and not reasons)


def count_held_back(judgements: Iterable[Judgement], options: HoldBack) -> HeldBack:
    """The judgements added up; every configured reason has a count, even one that holds nobody back."""
    held = [judgement for judgement in judgements if judgement.held_back]
    counts = Counter(reason for judgement in held for reason in judgement.reasons)
    return HeldBack(
        customers=len(held),
        unread=sum(judgement.unread for judgement in held),
        reasons={reason: counts[reason] for reason in options.reasons},
    )
