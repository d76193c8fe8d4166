"""What outdates cached data: every customer and every tag has a generation, and an invalidation begins a new one.

A generation is a name that never comes again, not a number: one that the store lost cannot return as an older one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Generations:
    """The generations in force when a customer's data was looked up.

    `customer` changes with every invalidation that touches this customer, `tags` with every one of a tag for everyone.
    `tokens` names the current generation of each tag that was ever invalidated, `own_tokens` those for this customer.
    """

    customer: str
    tags: str
    epoch: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    own_tokens: Mapping[str, str] = field(default_factory=dict)

    def stamp(self, tags: Collection[str]) -> str:
        """Names the generation of data with these tags; other than before once any of them was invalidated."""
        parts = [self.epoch]
        if self.tokens or self.own_tokens:
            parts += (f"{tag}={self.tokens.get(tag, '')}/{self.own_tokens.get(tag, '')}" for tag in sorted(tags))
        else:
            parts += (f"{tag}=/" for tag in sorted(tags))
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """What the shared tier holds of one customer: packed records by provider name, and the generations in force.

    Without generations nothing is to be written: the tier cannot keep anything now.
    """

    values: Mapping[str, bytes]
    generations: Generations | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Packed records to put on a customer's shelf, if the generations are still those they were read under."""

    key: str
    values: Mapping[str, bytes]
    generations: Generations
    ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Data that changed: everything of these customers, or with tags only what bears one of them (of all customers,
    if none is named).
    """

    customer_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
