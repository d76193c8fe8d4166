"""Tone frames: the approved, versioned wording around the cited sentences of a message."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from models.campaign.config import Part
from models.campaign.types import Tone
from models.errors import ConfigurationError

#: Key of the wording for segments that a frame does not name.
DEFAULT = "default"


class ToneFrame(Part):
    """One tone's wording. `subjects` and `openings` go by segment label, with a `default`.

    Each of `points` introduces one quote and holds `{quote}`; `{title}` is the title of the quoted document. `reserve`
    holds approved sentences that may be added, in order, to a body that is too short.
    """

    id: str
    version: str
    tone: Tone
    approved: bool
    approved_by: str
    approved_on: date
    subjects: Mapping[str, Annotated[str, Field(min_length=1, max_length=60)]]
    openings: Mapping[str, str]
    points: Annotated[tuple[str, ...], Field(min_length=2, max_length=6)]
    closing: str
    reserve: tuple[str, ...] = ()

    def subject(self, segment: str) -> str:
        return self.subjects.get(segment) or self.subjects[DEFAULT]

    def opening(self, segment: str) -> str:
        return self.openings.get(segment) or self.openings[DEFAULT]


def load_frames(folder: Path) -> dict[Tone, ToneFrame]:
    """The approved frame of each tone. Raises `ConfigurationError` for a malformed or doubled frame, or none at all."""
    frames: dict[Tone, ToneFrame] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            frame = ToneFrame.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"the tone frame {path.name} cannot be read") from exc
        except ValidationError as exc:
            problems = "\n  ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
            raise ConfigurationError(f"the tone frame {path.name} is not valid:\n  {problems}") from exc
        if DEFAULT not in frame.subjects or DEFAULT not in frame.openings:
            raise ConfigurationError(f"the tone frame {path.name} needs a default subject and opening")
        if any("{quote}" not in point for point in frame.points):
            raise ConfigurationError(f"the tone frame {path.name} has a point without {{quote}}")
        if not frame.approved:
            continue
        if frame.tone in frames:
            raise ConfigurationError(f"there are two approved frames for the tone {frame.tone}")
        frames[frame.tone] = frame
    if not frames:
        raise ConfigurationError(f"there is no approved tone frame in {folder}")
    return frames
