"""A context as bytes: encoded once, then read many times by splicing in what differs per read.

What is kept is a template of the JSON with a place for every number of a read: the age and tier of each provider that
has data, and at the end the age of the whole, tier, budget and elapsed time. A read fills them in; nothing is
serialised again. Every section is in the JSON of every view, `null` where there is nothing to show, so that the body
has one shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from models.enrichment.history import lasting
from models.enrichment.prompt import PromptBlock, prompt_blocks
from models.enrichment.records import epoch_ms
from models.enrichment.types import (
    ABSENT,
    SECTIONS,
    EnrichedContext,
    ProviderOutcome,
    ProviderState,
    Section,
    ServedFrom,
)

_OPTIONS = orjson.OPT_UTC_Z
_TIER = {tier: f',"served_from":"{tier.value}"'.encode() for tier in ServedFrom}
_NO_DATA = b'null,"served_from":null'
_TAIL = b'%d%b,"cache_hit":%b,"deadline_ms":%d,"elapsed_ms":%.3f%b}'
_HIT = {tier: b"true" if tier is not ServedFrom.ORIGIN else b"false" for tier in ServedFrom}


@dataclass(frozen=True, kw_only=True)
class StoredContext:
    """An encoded context. Times are milliseconds since the epoch, `kept_until` seconds of the monotonic clock.

    `oldest_ms` and `newest_ms` are when its oldest and its newest data was read. From `refresh_at_ms` on a read should
    have it made anew behind its back; after `expires_at_ms` or `kept_until` it must not be served.
    """

    context: EnrichedContext
    oldest_ms: int
    newest_ms: int
    refresh_at_ms: int
    expires_at_ms: int
    kept_until: float
    #: One per provider; `None` where there is no data to be old.
    as_of_ms: tuple[int | None, ...]
    #: Providers without data, which a caller may require.
    absent: frozenset[str]
    template: bytes

    @property
    def context_version(self) -> str:
        return self.context.context_version

    @cached_property
    def complete(self) -> bool:
        return self.context.complete

    @cached_property
    def stale(self) -> bool:
        """Whether a section is shown past its time."""
        return any(outcome.state is ProviderState.STALE for outcome in self.context.outcomes)

    @cached_property
    def prompt(self) -> tuple[PromptBlock, ...]:
        return prompt_blocks(self.context, self.context.enriched_at)

    @cached_property
    def summary(self) -> bytes:
        """JSON of the documented summary, open where a read says whether the cache was hit."""
        summary = dict(self.context.get_context_summary())
        del summary["cache_hit"]
        return orjson.dumps(summary, option=_OPTIONS)[:-1] + b',"cache_hit":'


def version_of(customer_id: str, agent_type: str, sections: Mapping[str, Section]) -> str:
    """A hash of the lasting content alone: the same data read at another time, or faster, has the same version."""
    content = orjson.dumps([customer_id, agent_type, lasting(sections)], option=_OPTIONS | orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def encode(
    context: EnrichedContext, *, expires_at_ms: int, refresh_at_ms: int | None = None, kept_until: float = float("inf")
) -> StoredContext:
    """Everything that does not change from read to read."""
    head = {
        "customer_id": context.customer_id,
        "agent_type": context.agent_type,
        "context_version": context.context_version,
        "enriched_at": context.enriched_at,
        "enrichment_latency_ms": round(context.enrichment_latency_ms, 3),
        "complete": context.complete,
        **{name: getattr(context, name) for name in SECTIONS},
    }
    outcomes = [
        _literal(orjson.dumps(outcome.provider) + b":" + _outcome(outcome)[:-1])
        + b',"age_ms":%b}' % (_NO_DATA if outcome.as_of is None else b"%d%b")
        for outcome in context.outcomes
    ]
    as_of = tuple(None if o.as_of is None else epoch_ms(o.as_of) for o in context.outcomes)
    read_at = [at for at in as_of if at is not None] or [epoch_ms(context.enriched_at)]
    return StoredContext(
        context=context,
        oldest_ms=min(read_at),
        newest_ms=max(read_at),
        refresh_at_ms=expires_at_ms if refresh_at_ms is None else refresh_at_ms,
        expires_at_ms=expires_at_ms,
        kept_until=kept_until,
        as_of_ms=as_of,
        absent=frozenset(o.provider for o in context.outcomes if o.state in ABSENT),
        template=b"".join(
            (
                _literal(orjson.dumps(head, option=_OPTIONS)[:-1]),
                b',"providers":{',
                b",".join(outcomes),
                b'},"age_ms":',
                _TAIL,
            )
        ),
    )


def splice(
    stored: StoredContext,
    *,
    now_ms: int,
    served_from: ServedFrom,
    deadline_ms: int,
    elapsed_ms: float,
    provider_tiers: Sequence[ServedFrom] | None = None,
    relevance: Mapping[str, float] | None = None,
) -> bytes:
    """The JSON body of one read. `provider_tiers` is given when the providers were not all served from one place."""
    tier = _TIER[served_from]
    numbers: list[int | bytes]
    if provider_tiers is None:
        numbers = [
            number for at in stored.as_of_ms if at is not None for number in (now_ms - at if now_ms > at else 0, tier)
        ]
    else:
        numbers = [
            number
            for at, from_tier in zip(stored.as_of_ms, provider_tiers, strict=True)
            if at is not None
            for number in (max(0, now_ms - at), _TIER[from_tier])
        ]
    added = b"" if relevance is None else b',"relevance":' + _scores(relevance)
    age_ms = max(0, now_ms - stored.oldest_ms)
    return stored.template % (*numbers, age_ms, tier, _HIT[served_from], deadline_ms, elapsed_ms, added)


def splice_many(
    bodies: Sequence[bytes], *, unknown: Sequence[str], complete: bool, deadline_ms: int, elapsed_ms: float
) -> bytes:
    """The JSON of a read of many customers around the bodies of each."""
    tail = b'],"unknown":%b,"complete":%b,"deadline_ms":%d,"elapsed_ms":%.3f}' % (
        orjson.dumps(list(unknown)),
        b"true" if complete else b"false",
        deadline_ms,
        elapsed_ms,
    )
    return b'{"contexts":[' + b",".join(bodies) + tail


def splice_summary(stored: StoredContext, *, served_from: ServedFrom) -> bytes:
    """The JSON of the documented summary."""
    return stored.summary + _HIT[served_from] + b"}"


def content_of(sections: Mapping[str, Section]) -> dict[str, Any]:
    """The sections as plain JSON values, for the history."""
    content: dict[str, Any] = orjson.loads(orjson.dumps(sections, option=_OPTIONS))
    return content


def _outcome(outcome: ProviderOutcome) -> bytes:
    return orjson.dumps(
        {
            "section": outcome.section,
            "state": outcome.state,
            "source": outcome.source,
            "as_of": outcome.as_of,
            "latency_ms": round(outcome.latency_ms, 3),
            "detail": outcome.detail,
        },
        option=_OPTIONS,
    )


def _scores(relevance: Mapping[str, float]) -> bytes:
    return orjson.dumps({name: round(score, 4) for name, score in relevance.items()})


def _literal(json: bytes) -> bytes:
    """The text as it reads inside a template."""
    return json.replace(b"%", b"%%")
