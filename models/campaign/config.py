"""The campaign file: one YAML document, checked as a whole before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.campaign.types import FEATURE_NAMES, Tone
from models.errors import ConfigurationError
from models.knowledge.types import DocumentKind


class Part(BaseModel):
    """A part of the file; frozen, and it refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Bounds(Part):
    """An inclusive range; a missing end is open."""

    min: float = float("-inf")
    max: float = float("inf")


class Condition(Part):
    """Bounds by feature name; empty matches everyone."""

    when: Mapping[str, Bounds] = {}

    @model_validator(mode="after")
    def _known_features(self) -> Self:
        if unknown := sorted(set(self.when) - set(FEATURE_NAMES)):
            raise ValueError(f"no such feature: {', '.join(unknown)}; choose from {', '.join(FEATURE_NAMES)}")
        return self

    def matches(self, features: Mapping[str, float]) -> bool:
        """Whether every bounded feature lies inside its bounds."""
        return all(bounds.min <= features[name] <= bounds.max for name, bounds in self.when.items())


class SegmentRule(Condition):
    """The first rule that matches a customer names the segment."""

    label: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,39}$")]
    description: str


class HoldBack(Part):
    """Who is not written to for now: customers with one of these red flags, or with at least so many open tickets.

    The flags are texts of the section `account_health`. One that no rule raises holds nobody back, and the report shows
    its count of 0. With neither nobody is held back.
    """

    red_flags: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    open_tickets: Annotated[int, Field(ge=1, strict=True)] | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason to hold a customer back, as the report names it."""
        return (*dict.fromkeys(self.red_flags), *([self.tickets_reason] if self.open_tickets else []))

    @property
    def tickets_reason(self) -> str:
        return f"{self.open_tickets} or more open tickets"


class ClusterOptions(Part):
    """k-means: `clusters` fixes k, otherwise it is chosen from 3 to 5 by bootstrap stability."""

    clusters: Annotated[int, Field(ge=3, le=5)] | None = None
    sample: Annotated[int, Field(ge=100)] = 5_000
    bootstrap_draws: Annotated[int, Field(ge=2)] = 20
    min_share: Annotated[float, Field(gt=0, lt=0.34)] = 0.05


class Segmentation(Part):
    method: Literal["rules", "kmeans"] = "rules"
    rules: Annotated[tuple[SegmentRule, ...], Field(min_length=1)]
    kmeans: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _everyone_has_a_segment(self) -> Self:
        labels = [rule.label for rule in self.rules]
        if len(set(labels)) < len(labels):
            raise ValueError("two rules have the same label")
        if self.rules[-1].when:
            raise ValueError("the last rule must match everyone: give it no `when`")
        return self


class Theme(Condition):
    """What a segment with such mean features should read about, in the words of the knowledge base."""

    query: Annotated[str, Field(min_length=3, max_length=200)]


class Retrieval(Part):
    """`min_score` is exclusive: a passage must score above it."""

    kinds: tuple[DocumentKind, ...] = (DocumentKind.HELP, DocumentKind.OFFER)
    limit: Annotated[int, Field(ge=3, le=5)] = 5
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.5
    snippet_chars: Annotated[int, Field(ge=40, le=200)] = 200
    queries: Annotated[int, Field(ge=1, le=5)] = 3
    themes: Annotated[tuple[Theme, ...], Field(min_length=1)]


class Experiment(Part):
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    primary_metric: Literal["visit", "conversion"] = "visit"


class Simulation(Part):
    """An engagement model on the logit scale; every number of it is an assumption, and the report says so."""

    visit_base: Annotated[float, Field(gt=0, lt=1)] = 0.10
    engagement_weight: float = 1.5
    recency_weight: float = -1.0
    tone_effect: Mapping[Tone, float] = {}
    conversion_base: Annotated[float, Field(gt=0, lt=1)] = 0.08
    conversion_weight: float = 0.8
    spend_median: Annotated[float, Field(gt=0)] = 60.0
    spend_sigma: Annotated[float, Field(gt=0)] = 0.8


class CampaignConfig(Part):
    """One campaign as its owner wrote it; `frames` is a folder beside the file."""

    name: Annotated[str, Field(min_length=1, max_length=120)]
    version: str
    seed: int
    frames: str = "frames"
    hold_back: HoldBack = HoldBack()
    segmentation: Segmentation
    retrieval: Retrieval
    experiment: Experiment = Experiment()
    simulation: Simulation = Simulation()

    @property
    def salt(self) -> str:
        """What assignment is salted with: campaigns that share it deal the same audience alike."""
        return f"{self.name}.{self.version}.{self.seed}"

    @property
    def hash(self) -> str:
        """SHA-256 of the content, independent of the file's layout."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_campaign_config(path: Path) -> CampaignConfig:
    """Read and check the file. Raises `ConfigurationError` naming every wrong field."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return CampaignConfig.model_validate(tree)
    except OSError as exc:
        raise ConfigurationError(f"the campaign file {path} cannot be read") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the campaign file {path} is not valid YAML") from exc
    except ValidationError as exc:
        problems = "\n  ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in exc.errors())
        raise ConfigurationError(f"the campaign file {path} is not valid:\n  {problems}") from exc
