"""The shapes of personal data: regular expressions and tables used by `PatternPIIDetector`.

`++` and `*+` are possessive: what they took is never given back, which keeps hostile input linear.
"""

from __future__ import annotations

import re

EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]++@(?:[^\W_](?:[\w-]*+)\.)+[^\W\d_]{2,24}(?![\w-])")

CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w]|[.-]\d)")

IBAN_START = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
#: Total length by country, from the SWIFT IBAN registry.
_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18"
    " FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LI21 LT20"
    " LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SE24 SI19"
    " SK24 SM27 TN24 TR26 UA29 VA22 VG24 XK20"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in re.findall(r"\w+", _LENGTHS)}

#: Areas 000, 666 and 900 to 999, group 00 and serial 0000 are never issued.
SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w]|-\d)")
SSN_NAMED = re.compile(
    r"\b(?:ssn|social security(?: (?:number|no\.?))?)[\s:#]{0,3}(?:is[\s:]{0,3})?((?!000|666|9)\d{9})(?!\w)", re.I
)

IP = re.compile(r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)|(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{4,39}(?![\w:]))")

#: Anything that could be dialled; `_is_phone` decides.
PHONE = re.compile(
    r"(?<![\w#$€£+/-])(?<!\d[.,:])(?<![$€£#] )(?:\+ ?|\()?"
    r"\d(?:[ ().\-/]{0,2}\d){5,15}(?:[ ,]{0,2}(?:x|ext\.? ?)\d{1,6})?(?![\w%€$£]|[.,:/-]\d)"
)
EXTENSION = re.compile(r"[ ,]{0,2}(?:x|ext\.? ?)\d{1,6}$")
_MONTH, _DAY = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
DATE = re.compile(
    rf"(?:\d{{4}}([-./ ]){_MONTH}\1{_DAY}|{_DAY}([-./ ]){_DAY}\2(?:\d{{4}}|\d{{2}}))(?: \d{{1,2}})?"
    r"|(?:19|20)\d{2} ?[-/] ?(?:19|20)\d{2}"
)
AMOUNT = re.compile(r"\d{1,3}(?:[ .]\d{3})+|\d+\.\d{1,2}")
PHONE_WORD = re.compile(
    r"\b(?:phone|telephone|tel|call|calls|called|calling|ring|dial|mobile|cell|cellphone|fax|office|answering|answers"
    r"|text me|sms|whatsapp|reach me|reach us|contact number|my number|hotline)\b"
    r"(?:(?! order | invoice | ticket )[^.!?\n]){0,30}$",
    re.I,
)
PHONE_WORD_AFTER = re.compile(r"[\s,(-]{0,3}(?:office|home|work|mobile|cell|fax|tel|phone)\b", re.I)
REFERENCE_WORD = re.compile(
    r"(?:\b(?:order|orders|invoice|ticket|parcel|tracking|reference|ref|case|id|no|nr|number|batch|lot|serial|sku|item"
    r"|article|account|code|version|pin|zip|postcode|po|quote|contract)\b\W{0,3}"
    r"(?:(?:number|no|nr|id|code|is|was|to)\b\W{0,3}){0,3}|[#$€£])$",
    re.I,
)
PHONE_SHAPES = (
    re.compile(r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}"),  # North America
    re.compile(r"(?:001[ .-])\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}"),
    # National formats: an area code in parentheses, or a leading zero with separators.
    re.compile(r"\(\d{2,5}\)[ .\-/]?\d{2,4}(?:[ .-]?\d{2,5}){1,3}"),
    re.compile(r"00?[1-9]\d{0,4}(?:[ ./-]\d{2,8}){1,5}"),
    re.compile(r"0\d(?:[ .]\d{2}){4}"),
    re.compile(r"0\d{2}-\d{3}-\d{3,4}"),
)

WORD = re.compile(r"[^\W\d_][\w'’-]*+")
_CAP = r"(?:[A-ZÀ-ÖØ-ÞĀ-Ž][\w'’-]*+)"
_NAME = rf"{_CAP}(?:[ ](?:(?:van|von|de|der|den|di|da|la|le|el|bin|al|O'|Mc)[ ]){{0,2}}{_CAP}|[ ][A-Z]\.){{0,3}}"
_RELATIVE = (
    r"(?:wife|husband|son|daughter|mother|father|mum|mom|dad|sister|brother|partner|friend|colleague|doctor|boss)"
)
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Sir|Madam|Herr|Frau|Doctor|Professor|Nurse)\b\.?"
PERSONS = (
    re.compile(
        rf"\b(?i:my (?:full |maiden )?name is|my name's|the name is|i am called|name:)[ ]{{1,2}}(?P<name>{_NAME})"
    ),
    re.compile(
        r"\b(?i:my name is|my name's)[ ](?P<name>[a-z][\w'’-]++(?:[ ](?!and\b)[a-z][\w'’-]++)?)"
        r"(?=[ ]?[.,;!?\n]|$| and i\b| and my\b)"
    ),
    re.compile(
        r"\b(?i:this is|i am|i'm|i’m|signed,?|sincerely,?|regards,?|yours,?)[ \n]{1,2}"
        rf"(?P<name>{_CAP}(?:[ ][A-Z]\.)?[ ]{_CAP})(?![\w'’-]| [A-Z])"
    ),
    re.compile(rf"\b{_TITLE}[ ]{{1,2}}(?P<name>{_NAME})"),
    re.compile(rf"\b(?i:dear|hi|hello|hey|thanks)[ ](?P<name>{_NAME})(?=[ ]?[,!\n])"),
    re.compile(
        rf"\b(?i:my {_RELATIVE}|(?:the )?patient|on behalf of|in the name of|under the name(?: of)?)[ ]"
        rf"(?P<name>{_NAME})"
    ),
)
#: Capitalised or plain words that follow "my name is", "I am" or "Hi" without being a name.
NOT_A_NAME = frozenset(
    re.findall(
        r"\w+",
        "a african again all already also american an and asian at australian black british but by canadian"
        " catholic chinese christian correct customer customers different dutch english european everybody"
        " everyone folder folks for french friday friend friends from german guys here hindu i in incorrect indian"
        " invalid irish is it italian japanese jewish just listed madam medley mexican missing misspelled monday"
        " muslim my no not now of ok okay on only portal printed really record russian saturday sir so sorry"
        " spanish spelled spelt still sunday support swiss team that the there this thursday to too tuesday"
        " turkish under unknown very wednesday well what white with written wrong yes your",
    )
)

_STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Square|Sq|Place|Pl|Terrace|Ter|Parkway"
    r"|Pkwy|Highway|Hwy|Circle|Cir|Crescent|Close|Alley|Way|Trail|Row|Mews)"
)
_UNIT = r"(?:[,\n]? {0,2}(?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|Room)\.? {0,2}#?\w{1,6})"
_STATE = r"(?:[A-Z]{2}|[A-Z][a-z]{2,13})"
_CITY = rf"(?:,? {{0,2}}\n? {{0,2}}{_CAP}(?:[ -]{_CAP}){{0,2}},? {_STATE},? \d{{5}}(?:-\d{{4}})?)"
_ROAD_NAME = rf"(?: (?:de|du|des|la|le|del|della|di|da|do|los|las)){{0,2}} {_CAP}(?:[ -]{_CAP}){{0,2}}"
_ROMANCE = r"(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|[Vv]ia|[Vv]iale|[Pp]iazza|[Cc]alle|[Aa]venida|[Rr]ua|ul\.)"
_GERMANIC = (
    r"[A-ZÀ-ÖØ-ÞĀ-Ž][\w-]{1,30}"
    r"(?:straße|strasse|str\.|gasse|weg|platz|allee|gatan|vägen|gata|vej|straat|laan|plein|katu)"
)
_TOWN = rf"(?:,? {{0,2}}\n?(?:[A-Z]{{1,2}}-)?\d{{4,5}} {_CAP})"
ADDRESSES = (
    re.compile(
        rf"(?<![\w.$€£#-])\d{{1,5}}[A-Za-z]?,? (?:[NSEW]\.? )?(?:(?:{_CAP}|\d{{1,3}}(?:st|nd|rd|th))\.? ){{1,4}}"
        rf"{_STREET}\b(?:\.?{_UNIT})?(?:\.?{_CITY})?"
    ),
    re.compile(rf"(?<!\w)(?:{_GERMANIC}|{_ROMANCE}{_ROAD_NAME},?) \d{{1,4}}[a-zA-Z]?(?!\w){_TOWN}?"),
    re.compile(rf"(?<![\w.])\d{{1,4}},? {_ROMANCE}{_ROAD_NAME}{_TOWN}?"),
    re.compile(rf"\b(?:[Pp]\. ?[Oo]\. ?|PO )[Bb]ox \d{{1,6}}(?!\w){_CITY}?"),
    re.compile(r"\bPSC \d{1,5}, Box \d{1,5}\s{1,2}(?:APO|FPO|DPO) (?:AA|AE|AP) \d{5}(?!\w)"),
    re.compile(rf"(?<![\w.])\d{{1,5}} {_CAP}(?: {_CAP}){{0,3}}{_UNIT}{_CITY}?|\b(?:Apt|Suite)\.? \d{{1,5}}(?!\w)"),
)
