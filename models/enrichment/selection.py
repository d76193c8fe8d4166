"""Which providers an agent type is shown, and how much of the personal data in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from models.enrichment.types import PERSONAL_FIELDS, Section
from models.errors import ConfigurationError, UnknownAgentType

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "agent_types.yaml"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class Mask(StrEnum):
    """How a personal field is shown, from the most open to the most closed."""

    KEEP = "keep"
    PARTIAL = "partial"
    REDACT = "redact"


_STRICTNESS = {mask: rank for rank, mask in enumerate(Mask)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """What one agent type sees: provider names in the order of asking, and a mask for every personal field."""

    agent_type: str
    providers: tuple[str, ...]
    masks: Mapping[str, Mask]

    def mask(self, name: str, section: Section) -> Section:
        """The section with its personal fields masked for this view."""
        changes: dict[str, Any] = {
            field: _masked(getattr(section, field), self.masks[key])
            for key in PERSONAL_FIELDS
            for owner, _, field in [key.partition(".")]
            if owner == name and self.masks[key] is not Mask.KEEP
        }
        return replace(section, **changes) if changes else section


class AgentViews:
    """The table of agent types. No agent type means the default one, which must be the most masked of all."""

    def __init__(self, views: Sequence[AgentView], *, default: str) -> None:
        self._views = {view.agent_type: view for view in views}
        if default not in self._views:
            raise ConfigurationError(f"agent types: the default {default!r} is not one of them")
        self._default = self._views[default]
        for view in views:
            for key in PERSONAL_FIELDS:
                if key not in view.masks:
                    raise ConfigurationError(f"agent type {view.agent_type!r}: no rule for {key}")
                if _STRICTNESS[view.masks[key]] > _STRICTNESS[self._default.masks[key]]:
                    raise ConfigurationError(f"agent types: the default {default!r} shows more of {key} than others do")
        #: Changes with any rule, so that what was masked by other rules is never served under these.
        self.fingerprint = hashlib.blake2b(
            repr([(v.agent_type, v.providers, sorted(v.masks.items())) for v in views]).encode(), digest_size=4
        ).hexdigest()

    @classmethod
    def load(cls, file: Path = DEFAULT_FILE) -> AgentViews:
        """Read the YAML table. Raises `ConfigurationError` naming what is wrong."""
        try:
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))
            rule_sets = {
                name: {key: Mask(mask) for key, mask in rules.items()} for name, rules in tree["rule_sets"].items()
            }
            views = [_view(name, entry, rule_sets) for name, entry in tree["agent_types"].items()]
            return cls(views, default=tree["default"])
        except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ConfigurationError(f"{file.name}: {type(exc).__name__}: {exc}") from exc

    def view(self, agent_type: str) -> AgentView:
        """The view of an agent type; the empty name gives the default. Raises `UnknownAgentType`."""
        if not agent_type:
            return self._default
        try:
            return self._views[agent_type]
        except KeyError:
            raise UnknownAgentType(f"agent_type is not one of: {', '.join(self._views)}") from None

    def names(self) -> tuple[str, ...]:
        return tuple(self._views)

    def providers(self) -> tuple[str, ...]:
        """Every provider that some agent type is shown."""
        return tuple(dict.fromkeys(name for view in self._views.values() for name in view.providers))

    def only(self, providers: Collection[str]) -> AgentViews:
        """The same table without any other provider."""
        views = [
            replace(view, providers=tuple(name for name in view.providers if name in providers))
            for view in self._views.values()
        ]
        return AgentViews(views, default=self._default.agent_type)

    def check(self, providers: Mapping[str, object]) -> None:
        """Raises `ConfigurationError` when a view names a provider that is not in `providers`."""
        for view in self._views.values():
            if missing := [name for name in view.providers if name not in providers]:
                raise ConfigurationError(f"agent type {view.agent_type!r}: unknown provider {', '.join(missing)}")


def _view(name: str, entry: Mapping[str, Any], rule_sets: Mapping[str, Mapping[str, Mask]]) -> AgentView:
    if not _NAME.fullmatch(name):
        raise ValueError(f"agent type {name!r} is not a lower-case word")
    if unknown := set(rule_sets[entry["rules"]]) - set(PERSONAL_FIELDS):
        raise ValueError(f"rule set {entry['rules']!r}: {', '.join(sorted(unknown))} is not a personal field")
    return AgentView(
        agent_type=name,
        providers=tuple(dict.fromkeys(entry["providers"])),
        masks=MappingProxyType(dict(rule_sets[entry["rules"]])),
    )


def _masked(text: str, mask: Mask) -> str:
    if mask is Mask.REDACT or not text.strip():
        return "[redacted]"
    local, at, domain = text.partition("@")
    if at:
        return f"{local[:1]}***@{domain}"
    first, *rest = text.split()
    return " ".join((first, f"{rest[-1][0]}.")) if rest else f"{first[0]}."
