"""How urgent a safety message is: patterns for what is reported, with negation and mere mention told apart.

Patterns only ever raise an alarm; a message without any is judged by the classifier alone. Negation follows the idea
of NegEx (Chapman et al., 2001): a negating cue governs the next few words of its clause, unless it is a false friend
such as "not sure".
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from models.workflows.types import NextStep, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevel:
    """Who must look at a report of one severity, and by when."""

    queue: str
    due_in: timedelta
    next_step: NextStep


SERVICE_LEVELS = MappingProxyType(
    {
        Severity.URGENT: ServiceLevel(
            queue="pharmacist", due_in=timedelta(minutes=15), next_step=NextStep.PHARMACIST_15_MIN
        ),
        Severity.HIGH: ServiceLevel(queue="pharmacist", due_in=timedelta(hours=2), next_step=NextStep.PHARMACIST_2_H),
        Severity.STANDARD: ServiceLevel(
            queue="compliance", due_in=timedelta(hours=24), next_step=NextStep.COMPLIANCE_24_H
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The severity of a text and the names of the signals that decided it.

    `reported` says that the text tells of something that happened, rather than asking about it in general: only then
    does a signal overrule the classifier. `self_harm` asks for its own wording.
    """

    severity: Severity
    signals: tuple[str, ...] = ()
    reported: bool = False
    self_harm: bool = False


_BREATH = r"(?:breath\w*|get(?:ting)? (?:any )?air)"
_FACE = r"(?:face|lips?|tongue|throat|eyes?|mouth|neck|airways?)"
_REMEDY = (
    r"(?:pills?|tablets?|capsules?|doses?|medic\w+|meds?|paracetamol|ibuprofen|aspirin|insulin|syrup|drops|bottle)"
)


def _compiled(*patterns: tuple[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(pattern)) for name, pattern in patterns)


_URGENT = _compiled(
    (
        "breathing",
        rf"\b(?:can(?:'?t| ?not)|could(?:n'?t| not)|unable to|struggl\w+ (?:to|for)|hard to|difficult to|stopped|"
        rf"(?:difficulty|trouble|problems?|issues?) (?:with )?|short(?:ness)? of|gasping for|barely|hardly|not) {_BREATH}\b"
        r"|\bstruggling for (?:breath|air)\b|\b(?:suffocat|chok)ing\b(?! up)|\bwheezing\b|\brespiratory distress\b",
    ),
    (
        "chest_pain",
        r"\b(?:chest (?:pains?|tightness|pressure|hurts?|feels? tight)|(?:pain|tightness|pressure) in (?:my|his|her|their|the) chest|tight chest)\b",
    ),
    ("anaphylaxis", r"\banaphyla\w+\b|\b(?:used|need(?:ed)?|gave \w+) (?:an? |the |my )?epi-?pen\b"),
    (
        "swelling_of_face_or_throat",
        rf"\b(?:swollen|swelling|swelled|puffy) (?:up )?(?:of |in |around )?(?:my |his |her |their |the )?{_FACE}\b"
        rf"|\b{_FACE} (?:is |are |was |were |has |have |started |began )?(?:all |really |very |badly |to )?(?:swell\w*|swollen|closing|closed|tightening|blowing up|puffed)\b",
    ),
    (
        "unconscious",
        r"\b(?:unconscious|unresponsive|passed out|passing out|fainted|collapsed|blacked out|won'?t wake(?: up)?|"
        r"(?:can'?t|cannot|can not) (?:wake|be woken)|not waking up|lost consciousness)\b",
    ),
    ("seizure", r"\b(?:seizures?|convuls\w+|fitting uncontrollably)\b"),
    (
        "overdose",
        rf"\boverdos\w+\b|\b(?:took|taken|swallowed|ate|drank|had|given|gave \w+) (?:\w+ ){{0,3}}?(?:too (?:many|much)|the (?:whole|entire)|"
        rf"a whole|an entire|(?:double|twice|triple|ten times) (?:the|my|his|her)) (?:\w+ ){{0,3}}?{_REMEDY}\b"
        rf"|\b(?:my |the |our )?(?:child|toddler|baby|infant|son|daughter|kid|year[- ]old)\w* (?:has |just |may have |might have )*(?:swallowed|ate|eaten|drank|drunk)\b"
        rf"|\b(?:dog|cat|puppy|kitten) (?:has |just )*(?:swallowed|ate|eaten|licked) (?:\w+ ){{0,5}}?{_REMEDY}\b",
    ),
    ("poisoning", r"\bpoison(?:ed|ing)\b"),
    ("heart", r"\b(?:heart attack|cardiac arrest|heart (?:has )?stopped)\b"),
    (
        "stroke",
        r"\b(?:(?:having|had|has|have|suffered|like|be) a (?:\w+ )?stroke(?! of)|face (?:is )?droop\w*|slurr(?:ed|ing) (?:speech|(?:my|his|her) words))\b",
    ),
    (
        "severe_bleeding",
        r"\b(?:(?:bleeding|blood) (?:\w+ ){0,2}?(?:won'?t|will not|does(?:n'?t| not)|not) stop\w*|(?:severe|heavy|uncontroll\w+|profuse) bleeding|"
        r"bleeding (?:heavily|badly|profusely|a lot|internally)|(?:cough|vomit|throw|spit)\w* (?:up )?blood)\b",
    ),
    (
        "blue_skin",
        r"\b(?:(?:lips|skin|face|fingers) (?:\w+ ){0,2}?(?:blue|grey|gray)|(?:turn(?:ed|ing)|gone|going) blue)\b",
    ),
    (
        "emergency",
        r"\b(?:life[- ]threatening|(?:rushed|taken|went|had to go|ended up|landed|admitted) (?:\w+ ){0,2}?(?:to |in )?(?:the )?(?:er|a&e|emergency(?: room)?|hospital|icu)|(?:call(?:ed|ing)?|called for) (?:an )?ambulance|hospitali[sz]ed)\b",
    ),
)

_SELF_HARM = re.compile(
    r"\b(?:kill(?:ing)? myself|suicid\w+|end(?:ing)? (?:my (?:own )?life|it all)|tak(?:e|ing) my own life|want(?:ed)? to die|"
    r"(?:don'?t|do not) want to (?:live|be alive|be here any ?more|wake up)|better off (?:dead|without me)|"
    r"(?:hurt(?:ing)?|harm(?:ing)?|cut(?:ting)?) myself|self[- ]harm\w*|no reason to live|wish i (?:was|were) dead)\b"
)

_HIGH = _compiled(
    (
        "allergic_reaction",
        r"\b(?:allergic|adverse|bad|severe|skin|strange|terrible|nasty|weird|horrible) (?:skin |allergic )?reactions?\b|\breact(?:ed|ing) (?:badly|to)\b",
    ),
    ("side_effect", r"\bside[- ]?effects?\b|\bwithdrawal (?:symptoms?|effects?)\b"),
    (
        "skin",
        r"\b(?:rash(?:es)?|hives|blister\w*|welts?|itch(?:y|ing|es)|burn(?:s|ed|t|ing)? (?:on |of )?(?:my|his|her|their|the) (?:\w+ )?(?:skin|face|eyes?|arms?|hands?|legs?|scalp)|skin (?:\w+ ){0,2}(?:burn\w*|peel\w*|red|inflamed|irritated))\b",
    ),
    (
        "stomach",
        r"\b(?:vomit(?:ed|ing|s)?|throwing up|threw up|nause\w+|diarrh\w+|stomach (?:cramps?|pains?|ache)|(?:been|got|felt|feel|feeling|made (?:me|him|her|us)) (?:very |really |so |violently )?(?:sick|ill|unwell)(?! of))\b",
    ),
    (
        "nerves",
        r"\b(?:dizz(?:y|iness)|faint|light-?headed|confus(?:ed|ion) (?:after|since)|tremors?|numb(?:ness)?|tingling|blurred vision|blurry vision|double vision|hallucinat\w+|migraines?|headaches?)\b",
    ),
    ("heart_rate", r"\b(?:palpitations?|heart (?:is |was )?(?:racing|pounding|fluttering)|irregular heart ?beat)\b"),
    ("swelling", r"\b(?:swollen|swelling|swelled)\b"),
    ("bleeding", r"\b(?:bleeding|nose ?bleeds?|blood in (?:my|his|her|the) (?:urine|stool))\b"),
    ("wrong_medicine", rf"\b(?:wrong|mixed up|someone else'?s|expired|out[- ]of[- ]date) (?:\w+ )?{_REMEDY}\b"),
)

_CLAUSE_END = re.compile(r"[.;!?\n]|,? \b(?:but|however|although|though|yet|except|then|now)\b|, (?:just|only)\b")
_NEGATION = re.compile(
    r"\b(?:no(?! (?:relief|change|idea|longer|doubt|one|matter|improvement|better))|not(?! (?:sure|only|just|certain|getting|better|improv\w+|help\w+|stop\w+))|never|without|"
    r"(?:does|did|do|has|have|had|is|are|was|were|am)(?:n'?t)(?! (?:sure|know|stop\w*|help\w*|go(?:ing)? away))|"
    r"den(?:y|ies|ied|ying)|negative for|free of|instead of|rather than|zero)\b"
)
_NEGATED_WORDS = 6
_NEGATED_AFTER = re.compile(
    r"^[\s,]*(?:(?:has|have|was|were|is|are) )?(?:been )?(?:ruled out|denied|excluded|gone now|not present)\b"
)
#: Words that make a symptom the subject of paperwork or of software instead of a report.
_PAPERWORK = re.compile(
    r"^[\s'\"-]*(?:s\b )?(?:(?!(?:and|or|on|in|at|from|after|since|with|for|to|my|the|a|all|when|while|is|was)\b)\w+ ){0,2}"
    r"(?:protocols?|templates?|forms?|polic(?:y|ies)|training|courses?|modules?|categor(?:y|ies)|codes?|checklists?|kits?|"
    r"articles?|leaflets?|fields?|posters?|guid(?:e|es|ance|elines?)|sections?|alerts?|questionnaires?|surveys?|awareness|"
    r"prevention|labels?|tags?)\b"
)
#: Words that make a milder symptom the name of a product.
_PRODUCT = re.compile(
    r"^[\s-]*(?:relief )?(?:cream|lotion|relief|tablets?|pills?|supplements?|powder|spray|gel|patch(?:es)?|remedy)\b"
)
_HISTORY = re.compile(
    r"\b(?:history of|in case of|risk of|prevent\w*|treat\w* for|used for|indicated for|example of|called|titled)(?: \w+){0,2} $"
)
#: Someone tells of an event: a person, a possession or a time that makes the symptom somebody's.
_TOLD = re.compile(
    r"\b(?:i|i'?m|i'?ve|my|me|we|our|us|he|she|his|her|they|patient|husband|wife|son|daughter|mother|mum|mom|father|dad|child|baby|"
    r"toddler|friend|resident|client|customer)\b"
)
#: Somebody in particular, which makes even a question about a sign of emergency a report.
_SOMEBODY = re.compile(
    r"\b(?:i (?:have|am|feel|can)|i'?m|he|she|(?:my|our) (?:\w+ )?(?:son|daughter|child|baby|toddler|kid|husband|wife|partner|"
    r"mother|mum|mom|father|dad|friend|patient|resident|grand\w+|sister|brother))\b"
)
_DENIAL = re.compile(
    r"\b(?:(?:i'?m|i am|is|was|were|are) not|not feeling|would never|will never|no longer|no (?:thoughts?|plans?|intentions?) (?:of|to|for))"
    r" (?:feeling |having |been )?$"
)
#: A question that could be anybody's: "does the cream cause a rash?".
_GENERAL = re.compile(
    r"^\W*(?:hi|hello|hey|good \w+|please|quick question)?[\s,.!:-]*(?:can (?!'?t)|could|do|does|is|are|will|would|what|which|how|where|why|who|when|should)\b(?!.*\b(?:after|since|because|gave|started|right now|now|having|got)\b).*\?\s*$",
    re.DOTALL,
)


def assess(text: str) -> Assessment:
    """Severity by the worst signal found; `standard` with no signals when there is none."""
    text = _plain(text)
    general = bool(_GENERAL.match(text)) and not _SOMEBODY.search(text)
    if any(not _denied(text, match) for match in _SELF_HARM.finditer(text)):
        return Assessment(severity=Severity.URGENT, signals=("self_harm",), reported=True, self_harm=True)
    if urgent := tuple(name for name, pattern in _URGENT if _stated(pattern, text)):
        # A shout has no grammar: an urgent sign counts as reported unless the text is plainly a general question.
        return Assessment(severity=Severity.URGENT, signals=urgent, reported=not general)
    if high := tuple(name for name, pattern in _HIGH if _stated(pattern, text, product=True)):
        told = bool(_TOLD.search(text)) and not general
        return Assessment(severity=Severity.HIGH, signals=high, reported=told)
    return Assessment(severity=Severity.STANDARD)


def _plain(text: str) -> str:
    """Lower case, straight quotes, no invisible characters, single spaces."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("`", "'").replace("´", "'").casefold()
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return re.sub(r"[ \t\r\f\v]+", " ", text)


def _stated(pattern: re.Pattern[str], text: str, *, product: bool = False) -> bool:
    """Whether the pattern stands in the text at least once, neither negated nor as mere mention."""
    for match in pattern.finditer(text):
        before, after = text[: match.start()], text[match.end() :]
        mentioned = _PAPERWORK.match(after) or _HISTORY.search(before) or (product and _PRODUCT.match(after))
        if not (mentioned or _negated(before) or _NEGATED_AFTER.match(after)):
            return True
    return False


def _denied(text: str, match: re.Match[str]) -> bool:
    """Only the plainest denial silences a sign of self-harm; "why not kill myself" must not."""
    before, after = text[: match.start()], text[match.end() :]
    return bool(_PAPERWORK.match(after) or _DENIAL.search(before))


def _clause(before: str) -> str:
    """The part of `before` that belongs to the same clause as what follows it."""
    ends = list(_CLAUSE_END.finditer(before))
    return before[ends[-1].end() :] if ends else before


def _negated(before: str) -> bool:
    clause = _clause(before)
    cues = list(_NEGATION.finditer(clause))
    return bool(cues) and len(clause[cues[-1].end() :].split()) <= _NEGATED_WORDS
