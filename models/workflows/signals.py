"""The words by which a safety message gives itself away: signals by name, and the phrases that silence them.

Every pattern expects lower-case text with straight quotes. A signal lists alternatives, any of which raises it.
"""

from __future__ import annotations

import re

Signals = tuple[tuple[str, re.Pattern[str]], ...]

_FACE = r"(?:face|lips?|tongue|throat|eyes?|mouth|neck|airways?)"
_WHOSE = r"(?:my|his|her|their|the)"
_REMEDY = (
    r"(?:pills?|tablets?|capsules?|doses?|medic\w+|meds?|paracetamol|ibuprofen|aspirin|insulin|syrup|drops|bottle)"
)
_CHILD = r"(?:child|toddler|baby|infant|son|daughter|kid|year[- ]old)"
_FAMILY = rf"(?:{_CHILD}|husband|wife|partner|mother|mum|mom|father|dad|friend|grand\w+|sister|brother)"


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b")


URGENT: Signals = (
    (
        "breathing",
        _any(
            r"(?:can(?:'?t| ?not)|could(?:n'?t| not)|unable to|hard to|difficult to|struggl\w+ to) breath\w*",
            r"(?:stopped|barely|hardly|not) breathing",
            r"(?:difficulty|trouble|problems?|issues?) (?:with )?breathing",
            r"short(?:ness)? of breath",
            r"(?:struggling|gasping|fighting) for (?:breath|air)",
            r"(?:suffocat|chok)ing(?! up)",
            r"wheezing",
            r"respiratory distress",
        ),
    ),
    (
        "chest_pain",
        _any(
            r"chest (?:pains?|tightness|pressure|hurts?|feels? tight)",
            rf"(?:pain|tightness|pressure) in {_WHOSE} chest",
            r"tight chest",
        ),
    ),
    ("anaphylaxis", _any(r"anaphyla\w+", r"(?:used|need(?:ed)?|gave \w+) (?:an? |the |my )?epi-?pen")),
    (
        "swelling_of_face_or_throat",
        _any(
            rf"(?:swollen|swelling|swelled|puffy) (?:up )?(?:of |in |around )?(?:{_WHOSE} )?{_FACE}",
            rf"{_FACE} (?:is |are |was |were |has |have |started |began )?(?:all |really |very |badly |to )?"
            r"(?:swell\w*|swollen|closing|closed|tightening|puffed)",
        ),
    ),
    (
        "unconscious",
        _any(
            r"unconscious",
            r"unresponsive",
            r"pass(?:ed|ing) out",
            r"fainted",
            r"collapsed",
            r"blacked out",
            r"(?:won'?t|can'?t|cannot|can not) (?:wake|be woken)(?: up)?",
            r"not waking up",
            r"lost consciousness",
        ),
    ),
    ("seizure", _any(r"seizures?", r"convuls\w+")),
    (
        "overdose",
        _any(
            r"overdos\w+",
            r"(?:took|taken|swallowed|ate|drank|had|given|gave \w+) (?:\w+ ){0,3}?"
            r"(?:too (?:many|much)|(?:the|a|an) (?:whole|entire)|(?:double|twice|triple|ten times) (?:the|my|his|her))"
            rf" (?:\w+ ){{0,3}}?{_REMEDY}",
            rf"(?:my|the|our|a) (?:\w+ )?{_CHILD} (?:has |just |may have |might have )*"
            r"(?:swallowed|ate|eaten|drank|drunk)",
            rf"(?:dog|cat|puppy|kitten) (?:has |just )*(?:swallowed|ate|eaten|licked) (?:\w+ ){{0,5}}?{_REMEDY}",
        ),
    ),
    ("poisoning", _any(r"poison(?:ed|ing)")),
    ("heart", _any(r"heart attack", r"cardiac arrest", r"heart (?:has )?stopped")),
    (
        "stroke",
        _any(
            r"(?:having|had|has|have|suffered|like|be) a (?:\w+ )?stroke(?! of)",
            r"face (?:is )?droop\w*",
            r"slurr(?:ed|ing) (?:speech|(?:my|his|her) words)",
        ),
    ),
    (
        "severe_bleeding",
        _any(
            r"(?:bleeding|blood) (?:\w+ ){0,2}?(?:won'?t|will not|does(?:n'?t| not)|not) stop\w*",
            r"(?:severe|heavy|uncontroll\w+|profuse) bleeding",
            r"bleeding (?:heavily|badly|profusely|a lot|internally)",
            r"(?:cough|vomit|throw|spit)\w* (?:up )?blood",
        ),
    ),
    (
        "blue_skin",
        _any(
            r"(?:lips|skin|face|fingers) (?:\w+ ){0,2}?(?:blue|grey|gray)",
            r"(?:turn(?:ed|ing)|gone|going) blue",
        ),
    ),
    (
        "emergency",
        _any(
            r"life[- ]threatening",
            r"(?:rushed|taken|went|had to go|ended up|landed|admitted) (?:\w+ ){0,2}?(?:to |in )?(?:the )?"
            r"(?:er|a&e|emergency(?: room)?|hospital|icu)",
            r"call(?:ed|ing)? (?:for )?(?:an )?ambulance",
            r"hospitali[sz]ed",
        ),
    ),
)

SELF_HARM = _any(
    r"kill(?:ing)? myself",
    r"suicid\w+",
    r"end(?:ing)? (?:my (?:own )?life|it all)",
    r"tak(?:e|ing) my own life",
    r"want(?:ed)? to die",
    r"(?:don'?t|do not) want to (?:live|be alive|be here any ?more|wake up)",
    r"better off (?:dead|without me)",
    r"(?:hurt(?:ing)?|harm(?:ing)?|cut(?:ting)?) myself",
    r"self[- ]harm\w*",
    r"no reason to live",
    r"wish i (?:was|were) dead",
)

HIGH: Signals = (
    (
        "allergic_reaction",
        _any(
            r"(?:allergic|adverse|bad|severe|skin|strange|terrible|nasty|weird|horrible) (?:\w+ )?reactions?",
            r"react(?:ed|ing) (?:badly|to)",
        ),
    ),
    ("side_effect", _any(r"side[- ]?effects?", r"withdrawal (?:symptoms?|effects?)")),
    (
        "skin",
        _any(
            r"rash(?:es)?",
            r"hives",
            r"blister\w*",
            r"welts?",
            r"itch(?:y|ing|es)",
            rf"burn(?:s|ed|t|ing)? (?:on |of )?{_WHOSE} (?:\w+ )?(?:skin|face|eyes?|arms?|hands?|legs?|scalp)",
            r"skin (?:\w+ ){0,2}(?:burn\w*|peel\w*|red|inflamed|irritated)",
        ),
    ),
    (
        "stomach",
        _any(
            r"vomit(?:ed|ing|s)?",
            r"throwing up",
            r"threw up",
            r"nause\w+",
            r"diarrh\w+",
            r"stomach (?:cramps?|pains?|ache)",
            r"(?:been|got|felt|feel|feeling|made (?:me|him|her|us)) (?:very |really |so |violently )?"
            r"(?:sick|ill|unwell)(?! of)",
        ),
    ),
    (
        "nerves",
        _any(
            r"dizz(?:y|iness)",
            r"faint",
            r"light-?headed",
            r"confus(?:ed|ion) (?:after|since)",
            r"tremors?",
            r"numb(?:ness)?",
            r"tingling",
            r"(?:blurred|blurry|double) vision",
            r"hallucinat\w+",
            r"migraines?",
            r"headaches?",
        ),
    ),
    (
        "heart_rate",
        _any(
            r"palpitations?",
            r"heart (?:is |was )?(?:racing|pounding|fluttering)",
            r"irregular heart ?beat",
        ),
    ),
    ("swelling", _any(r"swollen", r"swelling", r"swelled")),
    ("bleeding", _any(r"bleeding", r"nose ?bleeds?", r"blood in (?:my|his|her|the) (?:urine|stool)")),
    (
        "wrong_medicine",
        _any(rf"(?:wrong|mixed up|someone else'?s|expired|out[- ]of[- ]date) (?:\w+ )?{_REMEDY}"),
    ),
)

CLAUSE_END = re.compile(r"[.;!?\n]|,? \b(?:but|however|although|though|yet|except|then|now)\b|, (?:just|only)\b")

#: A negating cue, unless one of its false friends follows ("not sure", "no relief", "doesn't stop").
NEGATION = _any(
    r"no(?! (?:relief|change|idea|longer|doubt|one|matter|improvement|better))",
    r"not(?! (?:sure|only|just|certain|getting|better|improv\w+|help\w+|stop\w+))",
    r"never",
    r"without",
    r"(?:does|did|do|has|have|had|is|are|was|were|am)n'?t(?! (?:sure|know|stop\w*|help\w*|go(?:ing)? away))",
    r"den(?:y|ies|ied|ying)",
    r"negative for",
    r"free of",
    r"instead of",
    r"rather than",
    r"zero",
)
NEGATED_AFTER = re.compile(
    r"^[\s,]*(?:(?:has|have|was|were|is|are) )?(?:been )?(?:ruled out|denied|excluded|gone now|not present)\b"
)

#: Right before a sign of self-harm, the plainest denials only.
DENIAL = re.compile(
    r"\b(?:(?:i'?m|i am|is|was|were|are) not|not feeling|would never|will never|no longer|"
    r"no (?:thoughts?|plans?|intentions?) (?:of|to|for)) (?:feeling |having |been )?$"
)

#: Right after a sign: words that make it the subject of paperwork or software instead of a report.
PAPERWORK = re.compile(
    r"^[\s'\"-]*(?:s\b )?"
    r"(?:(?!(?:and|or|on|in|at|from|after|since|with|for|to|my|the|a|all|when|while|is|was)\b)\w+ ){0,2}"
    r"(?:protocols?|templates?|forms?|polic(?:y|ies)|training|courses?|modules?|categor(?:y|ies)|codes?|checklists?|"
    r"kits?|articles?|leaflets?|fields?|posters?|guid(?:e|es|ance|elines?)|sections?|alerts?|questionnaires?|"
    r"surveys?|awareness|prevention|labels?|tags?)\b"
)

#: Right after a milder symptom: words that make it the name of a product.
PRODUCT = re.compile(
    r"^[\s-]*(?:relief )?"
    r"(?:cream|lotion|relief|tablets?|pills?|supplements?|powder|spray|gel|patch(?:es)?|remedy)\b"
)

#: Right before a sign: words that make it a history, a purpose or a name.
HISTORY = re.compile(
    r"\b(?:history of|in case of|risk of|prevent\w*|treat\w* for|used for|indicated for|example of|called|titled)"
    r"(?: \w+){0,2} $"
)

#: A person or a possession that makes a symptom somebody's.
TOLD = _any(
    r"i(?:'?m|'?ve)?", r"my", r"me", r"we", r"our", r"us", r"s?he", r"his", r"her", r"they", _FAMILY,
    r"patient", r"resident", r"client", r"customer",
)  # fmt: skip

#: Somebody in particular, which makes even a question about a sign of emergency a report.
SOMEBODY = _any(
    r"i (?:have|am|feel|can)", r"i'?m", r"s?he", rf"(?:my|our) (?:\w+ )?(?:{_FAMILY}|patient|resident)"
)  # fmt: skip

#: A question that could be anybody's: "does the cream cause a rash?".
GENERAL_QUESTION = re.compile(
    r"^\W*(?:hi|hello|hey|good \w+|please|quick question)?[\s,.!:-]*"
    r"(?:can (?!'?t)|could|do|does|is|are|will|would|what|which|how|where|why|who|when|should)\b"
    r"(?!.*\b(?:after|since|because|gave|started|right now|now|having|got)\b).*\?\s*$",
    re.DOTALL,
)
