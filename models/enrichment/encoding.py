"""A context as bytes: encoded once, then read many times by splicing in what differs per read.

What is kept is the JSON in parts, between which each read puts the age and tier of every provider that has data, and
after which the age of the whole, tier, budget and elapsed time. Nothing is serialised again. Every section is in the
JSON of every view, `null` where there is nothing to show, so that the body has one shape.
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
_NO_DATA = b'null,"served_from":null}'
_HIT = {tier: b"true" if tier is not ServedFrom.ORIGIN else b"false" for tier in ServedFrom}
#: The end of a body: the age of the whole, budget, elapsed time, and what else there is to say.
_TAIL = {
    tier: b'%%d%b,"cache_hit":%b,"deadline_ms":%%d,"elapsed_ms":%%.3f%%b}' % (_TIER[tier], _HIT[tier])
    for tier in ServedFrom
}


@dataclass(frozen=True, kw_only=True)
class StoredContext:
    """An encoded context. Times are milliseconds since the epoch, `kept_until` and `read_at` seconds of the monotonic
    clock.

    `oldest_ms` and `newest_ms` are when its oldest and its newest data was read, `read_at` is the oldest again. From
    `refresh_at_ms` on a read should have it made anew behind its back; after `expires_at_ms` or `kept_until` it must
    not be served.
    """

    context: EnrichedContext
    oldest_ms: int
    newest_ms: int
    refresh_at_ms: int
    expires_at_ms: int
    kept_until: float
    read_at: float
    #: One per provider; `None` where there is no data to be old.
    as_of_ms: tuple[int | None, ...]
    #: Providers without data, which a caller may require.
    absent: frozenset[str]
    #: The JSON, cut where the age and tier of a provider with data belong, and before the age of the whole. Inside,
    #: a percent sign is doubled.
    parts: tuple[bytes, ...]

    @cached_property
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
    def known_at(self) -> tuple[int, ...]:
        """When the data of each provider that has any was read."""
        return tuple(at for at in self.as_of_ms if at is not None)

    @cached_property
    def hit_template(self) -> bytes:
        """What `template` gives for a read from memory, which is the one that happens often."""
        return self.template(ServedFrom.L1, ())

    def template(self, served_from: ServedFrom, provider_tiers: Sequence[ServedFrom]) -> bytes:
        """The JSON with a place for each number; without `provider_tiers` all providers were served from one place."""
        if provider_tiers:
            pairs = zip(self.as_of_ms, provider_tiers, strict=True)
            tiers = [_TIER[tier] for at, tier in pairs if at is not None]
        else:
            tiers = [_TIER[served_from]] * len(self.known_at)
        ages = (b"%b%%d%b" % pair for pair in zip(self.parts, tiers, strict=False))
        return b"".join((*ages, self.parts[-1], _TAIL[served_from]))

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
    context: EnrichedContext,
    *,
    expires_at_ms: int,
    refresh_at_ms: int | None = None,
    kept_until: float = float("inf"),
    read_at: float = float("inf"),
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
    as_of = tuple(None if o.as_of is None else epoch_ms(o.as_of) for o in context.outcomes)
    known_at = [at for at in as_of if at is not None] or [epoch_ms(context.enriched_at)]
    return StoredContext(
        context=context,
        oldest_ms=min(known_at),
        newest_ms=max(known_at),
        refresh_at_ms=expires_at_ms if refresh_at_ms is None else refresh_at_ms,
        expires_at_ms=expires_at_ms,
        kept_until=kept_until,
        read_at=read_at,
        as_of_ms=as_of,
        absent=frozenset(o.provider for o in context.outcomes if o.state in ABSENT),
        parts=_parts(_literal(orjson.dumps(head, option=_OPTIONS)[:-1]), context.outcomes),
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
    ranked_by_message: bool = False,
) -> bytes:
    """The JSON body of one read. `provider_tiers` is given when the providers were not all served from one place."""
    if served_from is ServedFrom.L1 and provider_tiers is None:
        template = stored.hit_template
    else:
        template = stored.template(served_from, provider_tiers or ())
    if now_ms >= stored.newest_ms:
        ages = [now_ms - at for at in stored.known_at]
    else:  # by a clock that is a little behind
        ages = [max(0, now_ms - at) for at in stored.known_at]
    age_ms = max(0, now_ms - stored.oldest_ms)
    added = b"" if relevance is None else _ranking(relevance, by_message=ranked_by_message)
    return template % (*ages, age_ms, deadline_ms, elapsed_ms, added)


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


def _parts(head: bytes, outcomes: Sequence[ProviderOutcome]) -> tuple[bytes, ...]:
    parts: list[bytes] = []
    text = head + b',"providers":{'
    for number, outcome in enumerate(outcomes):
        text += (b"," if number else b"") + _literal(_outcome(outcome)) + b',"age_ms":'
        if outcome.as_of is None:
            text += _NO_DATA
        else:
            parts.append(text)
            text = b"}"
    return (*parts, text + b'},"age_ms":')


def _outcome(outcome: ProviderOutcome) -> bytes:
    """Name and content, open at the end."""
    content = orjson.dumps(
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
    return orjson.dumps(outcome.provider) + b":" + content[:-1]


def _ranking(relevance: Mapping[str, float], *, by_message: bool) -> bytes:
    scores = orjson.dumps({name: round(score, 4) for name, score in relevance.items()})
    return b',"relevance":%b,"ranked_by_message":%b' % (scores, b"true" if by_message else b"false")


def _literal(json: bytes) -> bytes:
    """The text as it reads inside a template."""
    return json.replace(b"%", b"%%")
