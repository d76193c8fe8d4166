"""Which providers an agent type is shown, and how much of the personal data in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import yaml

from models.enrichment.masking import FREE_TEXT_RULE, FREE_TEXT_SECTIONS, Mask, Masker, RuleSet, SectionMask
from models.enrichment.types import PERSONAL_FIELDS, SECTIONS, ContextRequest, Section
from models.errors import ConfigurationError, Forbidden, InvalidRequest, UnknownAgentType

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "agent_types.yaml"
#: Built-in providers that fill a section of another name than their own.
SECTION_OF: Mapping[str, str] = MappingProxyType(
    {"clearbit": "company_enrichment", "crunchbase": "company_funding", "news_api": "company_news"}
)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_REMEMBERED_VIEWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AgentView:
    """What one read sees: provider names, what matters most to the agent type first, and how sections are masked.

    `key` differs between views whenever what they show does. `unmasked` names the personal fields that are shown as
    they are, and `free_text` where people's own words are. `importance` is of sections to the agent type, 1 for the
    first, falling towards 0. `fingerprint` differs whenever the rules, or the secret that keys their masks, do.
    """

    agent_type: str
    providers: tuple[str, ...]
    rules: RuleSet
    key: str = ""
    fingerprint: str = ""
    unmasked: tuple[str, ...] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, SectionMask] = field(default_factory=dict, repr=False)

    def mask(self, name: str, section: Section) -> Section:
        """The section of this name, masked for this view; never raises, what cannot be masked is redacted."""
        mask = self.masks.get(name)
        return section if mask is None else mask(section)

    def sections(self) -> frozenset[str]:
        """The names of the sections that it may show."""
        shown = frozenset(SECTION_OF.get(name, name) for name in self.providers)
        return shown if shown <= SECTIONS.keys() else frozenset(SECTIONS)  # a provider from outside may fill any


class AgentViews:
    """The table of agent types. No agent type means the default one, which must be the most masked of all."""

    def __init__(
        self,
        views: Sequence[AgentView],
        *,
        default: str,
        masker: Masker | None = None,
        known: Collection[str] | None = None,
    ) -> None:
        self._masker = masker or Masker()
        listed = tuple(dict.fromkeys(name for view in views for name in view.providers))
        #: Fixes the bit that stands for a provider in a restricted view's key.
        self._order = listed
        self._known = frozenset(listed if known is None else known)
        self._views = {view.agent_type: self._ready(view, key=view.agent_type) for view in views}
        if default not in self._views:
            raise ConfigurationError(f"agent types: the default {default!r} is not one of them")
        self._default = self._views[default]
        for view in views:
            if rule := view.rules.stricter_than(self._default.rules):
                raise ConfigurationError(f"agent types: the default {default!r} shows more of {rule} than others do")
        self._plain = {"": self._default, **self._views}
        self._narrowed = lru_cache(maxsize=_REMEMBERED_VIEWS)(self._narrow)

    @classmethod
    def load(cls, file: Path = DEFAULT_FILE, *, secret: str = "") -> AgentViews:
        """Read the YAML table; `secret` keys hashes and tokens, which redact without one.

        Raises `ConfigurationError` naming what is wrong.
        """
        try:
            tree = yaml.safe_load(file.read_text(encoding="utf-8"))
            sets = {name: RuleSet({k: Mask(v) for k, v in rules.items()}) for name, rules in tree["rule_sets"].items()}
            views = []
            for name, entry in tree["agent_types"].items():
                if not _NAME.fullmatch(name):
                    raise ValueError(f"agent type {name!r} is not a lower-case word")
                providers = tuple(dict.fromkeys(entry["providers"]))
                views.append(AgentView(agent_type=name, providers=providers, rules=sets[entry["rules"]]))
            return cls(views, default=tree["default"], masker=Masker(secret))
        except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, ConfigurationError) as exc:
            raise ConfigurationError(f"{file.name}: {type(exc).__name__}: {exc}") from exc

    def resolve(self, request: ContextRequest) -> AgentView:
        """What this request sees: its agent type's view, masked as the default's or restricted where it asks for that.

        Raises `UnknownAgentType`, `InvalidRequest` for a provider that nobody knows, and `Forbidden` for one that the
        agent type does not see.
        """
        if request.masked or request.providers is not None:
            return self._narrowed(request.agent_type, request.masked, request.providers)
        return self.view(request.agent_type)

    def view(self, agent_type: str) -> AgentView:
        """The view of an agent type; the empty name gives the default. Raises `UnknownAgentType`."""
        try:
            return self._plain[agent_type]
        except KeyError:
            raise UnknownAgentType(f"agent_type is not one of: {', '.join(self._views)}") from None

    def names(self) -> tuple[str, ...]:
        return tuple(self._views)

    def providers(self) -> tuple[str, ...]:
        """Every provider that some agent type is shown."""
        return self._order

    def only(self, providers: Collection[str]) -> AgentViews:
        """The same table without any other provider."""
        views = [
            replace(view, providers=tuple(name for name in view.providers if name in providers))
            for view in self._views.values()
        ]
        return AgentViews(views, default=self._default.agent_type, masker=self._masker, known=providers)

    def check(self, providers: Mapping[str, object]) -> None:
        """Raises `ConfigurationError` when a view names a provider that is not in `providers`."""
        for view in self._views.values():
            if missing := [name for name in view.providers if name not in providers]:
                raise ConfigurationError(f"agent type {view.agent_type!r}: unknown provider {', '.join(missing)}")

    def _narrow(self, agent_type: str, masked: bool, names: tuple[str, ...] | None) -> AgentView:
        full = self.view(agent_type)
        rules = self._default.rules if masked else full.rules
        providers = full.providers
        if names is not None:
            if not names or not self._known.issuperset(names):
                raise InvalidRequest(f"providers is not a choice from: {', '.join(sorted(self._known))}")
            if foreign := sorted(set(names).difference(providers)):
                raise Forbidden(f"agent type {full.agent_type} does not see {', '.join(foreign)}")
            providers = tuple(name for name in providers if name in names)
        if rules == full.rules and providers == full.providers:
            return full
        bits = sum(1 << self._order.index(name) for name in providers)
        key = f"{full.agent_type}{'' if rules == full.rules else '!'}:{bits:x}"
        return self._ready(replace(full, providers=providers, rules=rules), key=key)

    def _ready(self, view: AgentView, *, key: str) -> AgentView:
        """The view with everything worked out that a read would otherwise have to."""
        count = len(view.providers)
        return replace(
            view,
            key=key,
            fingerprint=_fingerprint(view.rules, self._masker),
            masks=self._masker.compile(view.rules),
            unmasked=_unmasked(view.sections(), view.rules),
            importance={SECTION_OF.get(name, name): 1 - place / count for place, name in enumerate(view.providers)},
        )


def _fingerprint(rules: RuleSet, masker: Masker) -> str:
    masks = sorted((key, mask.value) for key, mask in rules.masks.items())
    return hashlib.blake2b(repr([masker.fingerprint, masks]).encode(), digest_size=8).hexdigest()


def _unmasked(shown: Collection[str], rules: RuleSet) -> tuple[str, ...]:
    kept = [key for key in PERSONAL_FIELDS if key.partition(".")[0] in shown and rules.masks[key] is Mask.KEEP]
    if FREE_TEXT_SECTIONS.intersection(shown) and rules.masks[FREE_TEXT_RULE] is Mask.KEEP:
        kept.append(FREE_TEXT_RULE)
    return tuple(kept)
