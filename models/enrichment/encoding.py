"""A context as stored bytes: encoded once, then read many times by splicing in what differs per read.

The stored JSON is cut wherever a read puts a number: one cut per provider (its age and tier) and one at the end (the
age of the whole, tier, budget, elapsed time). A read joins the pieces; nothing is serialised again.
"""

from __future__ import annotations

import hashlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import orjson

from models.enrichment.prompt import PromptBlock, prompt_blocks
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
_HIT = {tier: b"true" if tier is not ServedFrom.ORIGIN else b"false" for tier in ServedFrom}

_SHAPE = [(name, [(f.name, f.type) for f in fields(section)]) for name, section in SECTIONS.items()]

#: Changes by itself whenever a section's fields or the stored form do, so that releases never misread each other.
SCHEMA_VERSION = hashlib.blake2b(repr(("1", _SHAPE)).encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredContext:
    """An encoded context. Times are milliseconds since the epoch; `oldest_ms` is when its oldest data was read."""

    context_version: str
    complete: bool
    oldest_ms: int
    expires_at_ms: int
    #: One per provider, in the order of the cuts; `None` where there is no data to be old.
    as_of_ms: tuple[int | None, ...]
    #: Providers without data, which a caller may require.
    absent: frozenset[str]
    pieces: tuple[bytes, ...]
    prompt: tuple[PromptBlock, ...]
    summary: bytes

    def to_bytes(self) -> bytes:
        """One line of JSON about the body, then the body."""
        head = {
            "context_version": self.context_version,
            "complete": self.complete,
            "oldest_ms": self.oldest_ms,
            "expires_at_ms": self.expires_at_ms,
            "as_of_ms": self.as_of_ms,
            "absent": sorted(self.absent),
            "lengths": [len(piece) for piece in self.pieces],
            "prompt": [(block.rank, block.text) for block in self.prompt],
            "summary": self.summary.decode(),
        }
        return orjson.dumps(head) + b"\n" + b"".join(self.pieces)

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredContext:
        """Raises `ValueError` on anything that `to_bytes` did not write."""
        head_bytes, _, body = data.partition(b"\n")
        try:
            head = orjson.loads(head_bytes)
            pieces, start = [], 0
            for length in head["lengths"]:
                pieces.append(body[start : start + length])
                start += length
            if start != len(body) or len(pieces) != len(head["as_of_ms"]) + 1:
                raise ValueError("the body is not as long as its head says")
            return cls(
                context_version=head["context_version"],
                complete=head["complete"],
                oldest_ms=head["oldest_ms"],
                expires_at_ms=head["expires_at_ms"],
                as_of_ms=tuple(head["as_of_ms"]),
                absent=frozenset(head["absent"]),
                pieces=tuple(pieces),
                prompt=tuple(PromptBlock(rank, text) for rank, text in head["prompt"]),
                summary=head["summary"].encode(),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError("not a stored context") from exc


def version_of(customer_id: str, agent_type: str, sections: Mapping[str, Section]) -> str:
    """A hash of the content alone: the same data read at another time, or faster, has the same version."""
    content = orjson.dumps([customer_id, agent_type, sections], option=_OPTIONS | orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def encode(context: EnrichedContext, *, expires_at_ms: int) -> StoredContext:
    """Everything that does not change from read to read, in all three formats."""
    head = {
        "customer_id": context.customer_id,
        "agent_type": context.agent_type,
        "context_version": context.context_version,
        "enriched_at": context.enriched_at,
        "enrichment_latency_ms": round(context.enrichment_latency_ms, 3),
        "complete": context.complete,
        **{name: getattr(context, name) for name in SECTIONS},
    }
    pieces = [orjson.dumps(head, option=_OPTIONS)[:-1] + b',"providers":{']
    for outcome in context.outcomes:
        pieces[-1] += orjson.dumps(outcome.provider) + b":" + _outcome(outcome)[:-1] + b',"age_ms":'
        pieces.append(b"},")
    pieces[-1] = pieces[-1].removesuffix(b",") + b'},"age_ms":'
    summary = dict(context.get_context_summary())
    del summary["cache_hit"]
    as_of = tuple(None if o.as_of is None else epoch_ms(o.as_of) for o in context.outcomes)
    return StoredContext(
        context_version=context.context_version,
        complete=context.complete,
        oldest_ms=min((at for at in as_of if at is not None), default=epoch_ms(context.enriched_at)),
        expires_at_ms=expires_at_ms,
        as_of_ms=as_of,
        absent=frozenset(o.provider for o in context.outcomes if o.state in ABSENT),
        pieces=tuple(pieces),
        prompt=prompt_blocks(context, context.enriched_at),
        summary=orjson.dumps(summary, option=_OPTIONS)[:-1] + b',"cache_hit":',
    )


def splice(
    stored: StoredContext,
    *,
    now_ms: int,
    served_from: ServedFrom,
    deadline_ms: int,
    elapsed_ms: float,
    provider_tiers: Sequence[ServedFrom] | None = None,
) -> bytes:
    """The JSON body of one read. `provider_tiers` is given when the providers were not all served from one place."""
    pieces = stored.pieces
    parts = [pieces[0]]
    tier = _TIER[served_from]
    for index, as_of in enumerate(stored.as_of_ms):
        if as_of is None:
            parts.append(_NO_DATA)
        else:
            parts.append(b"%d" % max(0, now_ms - as_of))
            parts.append(tier if provider_tiers is None else _TIER[provider_tiers[index]])
        parts.append(pieces[index + 1])
    parts.append(
        b'%d%b,"cache_hit":%b,"deadline_ms":%d,"elapsed_ms":%.3f}'
        % (max(0, now_ms - stored.oldest_ms), tier, _HIT[served_from], deadline_ms, elapsed_ms)
    )
    return b"".join(parts)


def splice_summary(stored: StoredContext, *, served_from: ServedFrom) -> bytes:
    """The JSON of the documented summary."""
    return stored.summary + _HIT[served_from] + b"}"


def decode(stored: StoredContext, *, cache_hit: bool) -> EnrichedContext:
    """The context that was encoded."""
    body = orjson.loads(
        splice(stored, now_ms=stored.oldest_ms, served_from=ServedFrom.L1, deadline_ms=0, elapsed_ms=0.0)
    )
    sections: dict[str, Any] = {name: None if body[name] is None else _section(name, body[name]) for name in SECTIONS}
    return EnrichedContext(
        customer_id=body["customer_id"],
        agent_type=body["agent_type"],
        context_version=body["context_version"],
        enriched_at=datetime.fromisoformat(body["enriched_at"]),
        enrichment_latency_ms=body["enrichment_latency_ms"],
        cache_hit=cache_hit,
        outcomes=tuple(
            ProviderOutcome(
                provider=name,
                section=outcome["section"],
                state=ProviderState(outcome["state"]),
                source=outcome["source"],
                as_of=None if outcome["as_of"] is None else datetime.fromisoformat(outcome["as_of"]),
                latency_ms=outcome["latency_ms"],
                detail=outcome["detail"],
            )
            for name, outcome in body["providers"].items()
        ),
        **sections,
    )


def content_of(sections: Mapping[str, Section]) -> dict[str, Any]:
    """The sections as plain JSON values, for the history."""
    return typing.cast("dict[str, Any]", orjson.loads(orjson.dumps(sections, option=_OPTIONS)))


def epoch_ms(instant: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(instant.timestamp() * 1000)


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


def _fields_of_type(section: type[Section], wanted: Iterable[type]) -> frozenset[str]:
    """Names of the fields whose annotation is, or may be, one of the wanted types."""
    found = set()
    for name, hint in typing.get_type_hints(section).items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if any((typing.get_origin(option) or option) in wanted for option in options):
            found.add(name)
    return frozenset(found)


_INSTANTS = {name: _fields_of_type(section, (datetime,)) for name, section in SECTIONS.items()}
_TUPLES = {name: _fields_of_type(section, (tuple,)) for name, section in SECTIONS.items()}


def _section(name: str, values: dict[str, Any]) -> Section:
    for key in _INSTANTS[name]:
        if values[key] is not None:
            values[key] = datetime.fromisoformat(values[key]).astimezone(UTC)
    for key in _TUPLES[name]:
        values[key] = tuple(values[key])
    return SECTIONS[name](**values)
