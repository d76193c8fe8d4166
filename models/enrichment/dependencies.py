"""Which providers need which others, checked once at the start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from models.enrichment.types import SECTIONS, ProviderSpec, Scope
from models.errors import ConfigurationError


def check_specs(specs: Iterable[ProviderSpec]) -> dict[str, ProviderSpec]:
    """The specs by name, the most important tier first.

    Raises `ConfigurationError` for a section nobody knows, a name or section filled twice, an unknown dependency, a
    cycle, and for one section about everyone that depends on a customer's.
    """
    table: dict[str, ProviderSpec] = {}
    filled: dict[str, str] = {}
    for spec in sorted(specs, key=lambda spec: spec.tier):
        if spec.section not in SECTIONS:
            raise ConfigurationError(f"provider {spec.name!r} fills {spec.section!r}, which is no section")
        if spec.name in table:
            raise ConfigurationError(f"provider {spec.name!r} is there twice")
        if spec.section in filled:
            raise ConfigurationError(f"providers {filled[spec.section]!r} and {spec.name!r} fill the same section")
        table[spec.name], filled[spec.section] = spec, spec.name
    for spec in table.values():
        for name in spec.depends_on:
            if name not in table:
                raise ConfigurationError(f"provider {spec.name!r} depends on {name!r}, which is not there")
            if spec.scope is Scope.EVERYONE and table[name].scope is not Scope.EVERYONE:
                raise ConfigurationError(f"provider {spec.name!r} is about everyone and cannot depend on {name!r}")
    try:
        TopologicalSorter({spec.name: spec.depends_on for spec in table.values()}).prepare()
    except CycleError as exc:
        raise ConfigurationError(f"context providers depend on each other: {' -> '.join(exc.args[1])}") from exc
    return table


def tags_of(specs: Mapping[str, ProviderSpec]) -> dict[str, frozenset[str]]:
    """What outdates each provider's section: its name, source and tags, and those of everything it is made from."""
    tags: dict[str, frozenset[str]] = {}
    for name in TopologicalSorter({spec.name: spec.depends_on for spec in specs.values()}).static_order():
        spec = specs[name]
        tags[name] = frozenset((name, spec.source, *spec.tags)).union(*(tags[needed] for needed in spec.depends_on))
    return tags
