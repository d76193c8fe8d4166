"""A table of implementations by name, loaded when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from models.errors import ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an implementation lives (`module:Class`) and what to install when its library is absent."""

    target: str
    install_hint: str = ""


class Registry(Generic[T]):
    """Name -> lazily imported class. Duplicates are refused; an unknown name lists the known ones."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, target: str, *, install_hint: str = "") -> None:
        """Raises `ConfigurationError` if the name is taken."""
        if name in self._entries:
            raise ConfigurationError(f"{self._kind} {name!r} is registered twice")
        self._entries[name] = Entry(target, install_hint)

    def load(self, name: str) -> type[T]:
        """Import and return the class. Raises `ConfigurationError` naming the choices or the missing package."""
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise ConfigurationError(f"unknown {self._kind} {name!r}; choose one of: {known}")
        entry = self._entries[name]
        module_name, _, attribute = entry.target.partition(":")
        try:
            loaded: Any = getattr(importlib.import_module(module_name), attribute)
        except ImportError as exc:
            hint = f"; install it with: {entry.install_hint}" if entry.install_hint else ""
            raise ConfigurationError(f"{self._kind} {name!r} needs a library that is not installed{hint}") from exc
        return loaded  # type: ignore[no-any-return]  # a table of dotted paths cannot carry T

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._entries))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())
