"""How typed passages become text for a model that reads prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from models.errors import ConfigurationError
from models.llm.types import SourcePassage

GROUNDED_ANSWER = Path(__file__).parents[2] / "config" / "prompts" / "grounded_answer.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedPrompt:
    """Instructions with a place for the sources, and the word by which a model says that they hold no answer."""

    version: str
    grounded: str
    no_answer: str

    def render(self, passages: Sequence[SourcePassage]) -> str:
        """The instructions with the passages as sources numbered from 1."""
        sources = "\n\n".join(
            f"[{number}] {passage.title}\n{passage.text}" for number, passage in enumerate(passages, start=1)
        )
        # Not str.format: a passage may hold braces.
        return self.grounded.replace("{sources}", sources)


def load_grounded_prompt(path: Path = GROUNDED_ANSWER) -> GroundedPrompt:
    """Read the prompt file. Raises `ConfigurationError` naming the file and what is wrong."""
    try:
        loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigurationError(f"{path}: not a readable YAML file") from exc
    fields = ("version", "grounded", "no_answer")
    if not isinstance(loaded, Mapping) or any(not isinstance(loaded.get(name), str) for name in fields):
        raise ConfigurationError(f"{path}: needs the texts {', '.join(fields)}")
    if "{sources}" not in loaded["grounded"]:
        raise ConfigurationError(f"{path}: grounded has no place for {{sources}}")
    return GroundedPrompt(**{name: loaded[name] for name in fields})
