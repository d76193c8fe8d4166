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
_CHILD = r"(?:child(?:ren)?|toddlers?|baby|babies|infants?|newborn|sons?|daughters?|kids?|(?:year|month)s?[- ]old)"
_FAMILY = (
    rf"(?:{_CHILD}|husband|wife|partner|spouse|mother|mum|mom|father|dad|uncle|aunt|cousin|nephew|niece|friend|"
    r"girlfriend|boyfriend|grand\w+|sister|brother|twins?)"
)
_PRODUCT = (
    rf"(?:{_REMEDY}|creams?|gels?|lotions?|ointment|supplements?|vitamins?|gumm(?:y|ies)|lozenges?|sprays?|patch(?:es)?|"
    r"powder|product|treatment|injections?|wipes|disinfectant|saniti[sz]er|remedy|drugs?|antibiotics?|jars?|vials?|"
    r"ampoules?|tubs?|blister packs?|sachets?|test kits?|plasters|syringes?|needles?|vaccines?)"
)
#: Things that die, break and respond without anybody being hurt.
_THING = (
    r"(?:app|portal|page|site|website|lists?|archive|records?|systems?|servers?|modules?|imports?|exports?|"
    r"(?:smart)?phones?|battery|batteries|monitor|devices?|computers?|laptop|screen|connection|links?|line|car|printer|"
    r"scanner|thermometer|integration|forms?|chat|sessions?|database|files?|internet|plants?)"
)
_PEOPLE = (
    rf"(?:s?he|they|{_FAMILY}|patients?|residents?|clients?|customers?|person|people|someone|somebody|man|woman|girl|"
    r"boy|nurse|colleague|user|guest|neighbou?r|ms|mrs|mr)"
)
_GAP = rf"(?:(?!{_THING}\b|not\b|never\b)[\w-]+,? )"
_OWNER = r"(?:my|his|her|their|our|your|the|an?|one|someone's|somebody's)"
_BODY = (
    r"(?:arms?|hands?|fingers?|fingertips?|thumbs?|wrists?|elbows?|legs?|knees?|thighs?|foot|feet|toes?|heels?|ankles?|"
    r"skin|veins?|ears?|nose|nostrils?|throat|mouth|tongue|lips?|gums?|eyes?|face|cheeks?|foreheads?|scalp|head|neck|"
    r"shoulders?|chest|breasts?|bell(?:y|ies)|stomach|abdomen|buttocks?|hips?|muscles?|palms?|bod(?:y|ies)|uterus|"
    r"bladder)"
)
_DEVICE_PART = (
    r"(?:needles?|tips?|catheters?|cannulas?|swabs?|lancets?|sensors?|applicators?|blades?|pieces?|parts?|fragments?|"
    r"wires?|syringes?|implants?|tubes?|probes?|electrodes?|splinters?|shards?|device|pen|ring|coil)"
)
_BROKE = (
    r"(?:broke|broken|breaks|snapped|snaps|stuck|lodged|left|embedded|came (?:off|apart)|come (?:off|apart)|detached|"
    r"fell (?:off|apart)|sheared|splintered|remained|still|cracked)"
)
_PREGNANT = r"(?:pregnan\w+|breast-?feeding|expecting a baby|weeks along|trimester)"
_EXPOSED = (
    r"(?:took|taken|taking|used|using|swallowed|ate|eaten|drank|drunk|applied|applying|inhaled|injected|given|gave|"
    rf"started|exposed to) (?:[\w']+ ){{0,4}}?(?:{_PRODUCT}|it|them)"
)


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
        "death",
        _any(
            rf"{_PEOPLE} {_GAP}{{0,4}}?(?:died|dies|dropped dead|drop dead)",
            rf"{_PEOPLE} (?:who )?(?:is|are|was|were|has been|were all)(?: found| now| already| pronounced| declared)? "
            r"(?:dead(?! (?:set|tired|sure|serious|against))|dying|deceased)",
            rf"{_PEOPLE} (?:has |have )?(?:lost|lose) (?:his|her|their) li(?:fe|ves)",
            rf"(?:the )?deaths? of (?:{_OWNER} )?(?:\w+ )?{_PEOPLE}",
            r"(?:patient|resident|client) deaths?",
            r"pass(?:ed|es|ing) away",
            rf"(?:killed|caused the death of) (?:{_OWNER} )?(?:\w+ )?(?:him|{_PEOPLE})",
            r"(?:was|were|proved|been|had an?|a) fatal(?:ity|ities)?(?! (?:error|exception|crash|flaw|mistake|bug))",
            r"stillb(?:orn|irth)",
            r"miscarr(?:ied|iage|ying)",
        ),
    ),
    (
        "unconscious",
        _any(
            r"unconscious(?:ness)?",
            rf"{_PEOPLE} (?:is|was|became|went|lay|seems?|seemed)(?: \w+)? unresponsive",
            r"unresponsive (?:patient|resident|client|child|baby|and)",
            r"pass(?:ed|es|ing) out",
            r"faint(?:ed|s)",
            rf"{_PEOPLE} {_GAP}{{0,3}}?collaps(?:ed|es|ing)",
            r"i (?:just |almost |nearly |suddenly )?collapsed",
            r"black(?:ed|s|ing) out",
            r"(?:won'?t|wouldn'?t|can'?t|couldn'?t|cannot|can not|could not|will not) (?:be )?"
            r"(?:wake|woken|woke|awaken\w*|rouse\w*)(?: \w+)?(?: up)?",
            r"(?:not|isn'?t|never|aren'?t) (?:waking|woken|woke)(?: up)?",
            r"(?:lost|los(?:e|es|ing)|loss of|regain\w*) consciousness",
            r"(?:not|isn'?t|wasn'?t|barely|hardly) (?:fully )?conscious",
            rf"(?:s?he|{_FAMILY}|patient|resident|client|person|man|woman) (?:is |was )?"
            r"(?:not responding|isn'?t responding|doesn'?t respond|does not respond|no longer respond\w*)"
            r"(?! to (?:\w+ )?(?:e-?mails?|messages?|calls?|invit\w+|tickets?|reminders?|letters?))",
            r"(?:in|into) a coma",
            r"comatose",
            r"knocked (?:out|unconscious)(?= |$|[.,!])",
            r"went limp",
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
            rf"(?:my|the|our|a) (?:\w+ )?{_CHILD} (?:has |have |just |may have |might have |accidentally )*"
            r"(?:swallowed|ate|eaten|drank|drunk)",
            rf"{_CHILD} {_GAP}{{0,4}}?(?:swallowed|ate|eaten|drank|drunk|chewed|sucked|licked|inhaled|got into|"
            rf"(?:got|get) hold of|put|sprayed|splashed|squirted) (?:[\w']+ ){{0,6}}?{_PRODUCT}",
            rf"{_CHILD} {_GAP}{{0,3}}?took (?:[\w']+ ){{0,3}}?(?:my|(?:his|her|their) \w+'s|the wrong) "
            rf"(?:\w+ ){{0,3}}?{_PRODUCT}",
            rf"{_CHILD} (?:[\w',]+ ){{0,8}}?{_PRODUCT} (?:\w+ ){{0,3}}?(?:by (?:mistake|accident)|accidentally)",
            rf"{_CHILD} (?:[\w']+ ){{0,3}}?(?:accidentally|by (?:mistake|accident)) (?:\w+ ){{0,5}}?{_PRODUCT}",
            rf"(?:gave|given) (?:{_OWNER} )?(?:\w+ )?{_CHILD} (?:[\w']+ ){{0,4}}?"
            r"(?:adults?'?|wrong|my|too (?:much|many))",
            rf"(?:dog|cat|puppy|kitten) (?:has |just )*(?:swallowed|ate|eaten|licked) (?:\w+ ){{0,5}}?{_REMEDY}",
        ),
    ),
    ("poisoning", _any(r"poison(?:ed|ing)")),
    (
        "device_in_body",
        _any(
            rf"{_DEVICE_PART} (?:[\w']+,? ){{0,6}}?{_BROKE} (?:[\w']+,? ){{0,5}}?(?:in|inside|into|under|within) "
            rf"(?:{_OWNER} )?(?:[\w']+ ){{0,3}}?{_BODY}",
            rf"{_DEVICE_PART} (?:[\w']+,? ){{0,6}}?{_BROKE} (?:[\w']+,? ){{0,4}}?(?:in|inside|into|within) "
            r"(?:(?:the|my|our|a) )?(?:him|her|me|them|patient|resident|client|child)"
            r"(?=\W*(?:$|[.,!?;]|and |when |while |during |after ))",
            rf"(?:broken|snapped|stuck|embedded) (?:[\w']+ ){{0,3}}?{_DEVICE_PART} (?:[\w']+ ){{0,2}}?"
            rf"(?:in|inside|into|under) {_OWNER} (?:[\w']+ ){{0,3}}?{_BODY}",
        ),
    ),
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
    # A cut by the glass of a parcel is an accident; every other one is taken at its worst.
    r"(?<!accidentally )(?:hurt(?:ing)?|harm(?:ing)?|cut(?:ting)?) myself(?! (?:on (?:the|an?|your|one|some|its|that)|"
    r"opening|unpacking|(?:while|when) (?:i )?(?:was |tried to )?(?:open|unpack)\w*)\b)",
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
        "pregnancy_exposure",
        _any(
            rf"{_PREGNANT}\b.{{0,80}}?\b{_EXPOSED}",
            rf"{_EXPOSED}\b.{{0,80}}?\b{_PREGNANT}",
        ),
    ),
    (
        "injury",
        _any(
            r"(?:cut|cuts|gashed|sliced|slashed|stabbed|pricked|scratched|scraped|burn(?:ed|t|s)|scalded|injured|"
            r"hurt|pierced|punctured|crushed|wounded|bruised|pinched|fractured|sprained|broke) "
            rf"(?:open )?(?:my|his|her|our|their|{_OWNER} {_PEOPLE}(?:'s)?) (?:[\w']+ ){{0,2}}?{_BODY}",
            rf"(?:cuts?|gash|burns?|wounds?|splinters?|shards?|bruises?) (?:on|in|to|into) (?:both )?{_OWNER} "
            rf"(?:[\w']+ ){{0,2}}?{_BODY}",
            r"(?:cut|cuts|hurt|burn(?:ed|t)|injured|scratched|pricked|stabbed|scalded) "
            r"(?:my|him|her|our|them|your)sel(?:f|ves)",
            rf"{_PEOPLE} (?:got|was|were|has been|have been) (?:\w+ )?"
            r"(?:injured|wounded|hurt|burn(?:ed|t)|scalded|cut|electrocuted)(?! (?:off|by (?:the )?price))",
            r"i (?:got|was|have been) (?:\w+ )?(?:injured|wounded|scalded|electrocuted)",
            r"injur(?:y|ies) (?:from|by|caused|after|on|to)",
            r"(?:caused|got|had|have|suffered|sustained) (?:an? |some |several )?(?:\w+ )?injur(?:y|ies)",
            r"needle[- ]?stick",
            r"electric(?:al)? shock",
        ),
    ),
    ("hazard", _any(r"caught fire", r"(?:burst|went up) in(?:to)? flames", r"exploded in (?:my|his|her|our)")),
    (
        "wrong_medicine",
        _any(rf"(?:wrong|mixed up|someone else'?s|expired|out[- ]of[- ]date) (?:\w+ )?{_REMEDY}"),
    ),
)

_SEAL = r"(?:seals?|safety rings?|tamper[- ](?:evident )?(?:band|strip|ring|seal|tape)|foil(?: seal| lid)?)"
_UNSEALED = r"(?:broken|torn|open(?:ed)?|missing|damaged|pierced|punctured|ripped|loose|cracked|off|gone|tampered with)"

STANDARD: Signals = (
    (
        "broken_seal",
        _any(
            rf"{_SEAL} (?:(?!not\b|never\b|if\b)[\w']+,? ){{0,7}}?{_UNSEALED}",
            rf"(?:broken|torn|missing|damaged|ripped|pierced|cracked|no) (?:\w+ )?{_SEAL}",
            rf"{_SEAL} (?:(?:of|on) (?:\w+ ){{1,4}}?)?(?:(?:was|is)n'?t|(?:was|is) not|not) (?:intact|there|closed|on)",
            r"(?:been |was |were |looks? |looked )tampered with",
        ),
    ),
)

#: What a seal may belong to that no one swallows or puts on the skin, unless a health product is named as well.
OTHER_SEAL = _any(
    r"(?:parcels?|packages?|envelopes?|cartons?|letters?|shipping|courier|laptops?|phones?|dishwasher|fridge|doors?|"
    r"windows?|engine|software|printers?|warranty)"
)
HEALTH_PRODUCT = _any(_PRODUCT)

#: A death told in order to settle an account, without a word about a product.
BEREAVED = re.compile(
    r"\b(?:clos|cancel|transfer|remov|delet|updat|chang|stop)\w*\b.{0,60}"
    r"\b(?:accounts?|subscriptions?|profiles?|names?|plans?|seats?|memberships?|logins?|mails?|orders?)\b",
    re.DOTALL,
)
TREATED = _any(
    _PRODUCT, r"us(?:ed|ing|e)", r"tak(?:en|ing)", r"took", r"given", r"gave", r"after", r"because", r"since", r"caused"
)  # fmt: skip

CLAUSE_END = re.compile(r"[.;!?\n]|,? \b(?:but|however|although|though|yet|except|then|now)\b|, (?:just|only)\b")

#: A negating cue, unless one of its false friends follows ("not sure", "no relief", "doesn't stop").
NEGATION = _any(
    r"no(?! (?:relief|change|idea|longer|doubt|one|matter|improvement|better))",
    r"not(?! (?:sure|only|just|certain|getting|better|improv\w+|help\w+|stop\w+|respond\w+|moving|waking|"
    r"breathing|reacting|answering|talking|speaking|conscious|intact))",
    r"never",
    r"without",
    r"(?:does|did|do|has|have|had|is|are|was|were|am)n'?t(?! (?:sure|know|stop\w*|help\w*|go(?:ing)? away|"
    r"respond\w*|mov(?:e|ing)|wak(?:e|ing)|breath\w+|react\w*|answer\w*|talk\w*|speak\w*|conscious))",
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
    r"(?:can(?!'?t)|could|do|does|is|are|will|would|what|which|how|where|why|who|when|should)\b"
    r"(?!.*\b(?:after|since|because|gave|started|right now|now|having|got)\b).*\?\s*$",
    re.DOTALL,
)

#: A question about what a product may do, or may be taken with: about anybody, without anyone affected.
EFFECT_QUESTION = _any(
    r"(?:can|could|may|might|will|would|does|do) (?:[\w']+ ){1,5}?(?:cause|give|lead to|trigger|make|produce|irritate|"
    r"interact|affect|burn|stain)",
    r"(?:is|are|would) (?:it|this|that|these|those|they|the|your|there) (?:[\w'-]+ ){0,6}?"
    r"(?:safe|ok|okay|all right|alright|dangerous|harmful|risky|bad|side[- ]?effects?|an? (?:known|common|usual))",
    r"(?:can|could|may|should|do) (?:i|we|you|one|people|children|adults|patients|someone|pregnant women) "
    r"(?:still |safely |ever )?(?:take|use|mix|combine|apply|drink|give)",
    r"(?:what|which|any) (?:[\w']+ ){0,4}?(?:side[- ]?effects?|interactions?)",
    r"side[- ]?effects? of",
)

#: An amount that makes a question about safety sound like a plan.
MUCH = _any(
    r"(?:[5-9]|\d\d+|five|six|seven|eight|nine|ten|twenty|thirty|forty|fifty|hundred|dozens?|many|whole|entire|all|"
    r"lethal|fatal|deadly|die|dead|kill\w*|end|enough|overdos\w+|max\w*)"
)

#: What somebody without symptoms wants instead.
ERRAND = _any(
    r"wondering", r"(?:just|only|simply) (?:asking|curious|want\w*|need|checking)", r"how (?:do|can|to)", r"where",
    r"return\w*", r"refund\w*", r"send (?:it|them) back", r"cancel\w*", r"question", r"order\w*", r"changed my mind",
)  # fmt: skip
CONTRAST = _any(r"but", r"however", r"although", r"though", r"yet", r"except", r"apart from")
