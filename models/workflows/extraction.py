"""What a service request names: order references, and the part of the account it wants changed."""

from __future__ import annotations

import re
import unicodedata

#: Four to nine digits that are neither part of a longer number nor an amount of something.
_UNIT = r"(?:%|usd|eur|gbp|dollars|euros|pounds|days?|mg|ml|g)"
_DIGITS = rf"(?P<number>\d{{4,9}})(?!\d|[.,:/-]\d|\s*{_UNIT}(?!\w))"
#: ORD-10234, ord 10234, ORD10234.
_PREFIXED = re.compile(rf"\bord[\s\-–_#:]{{0,3}}{_DIGITS}", re.IGNORECASE)
#: order #10234, order no. 10234, order number is 10234, orders: 10234.
_NAMED = re.compile(
    rf"\b(?:order|purchase|parcel|package|shipment|delivery)s?\b[\s,:]*"
    rf"(?:(?:number|num|no|nr|id|ref|reference|code)\b\.?[\s:]*)?(?:(?:is|was)\b[\s:]*)?(?:#|№|\bord[\s-]?)?\s*{_DIGITS}",
    re.IGNORECASE,
)
#: A number that stands alone, which counts only when an order is spoken of close by.
_BARE = re.compile(rf"(?<![\d$€£+#.,:/\-]|\w)#?{_DIGITS}", re.IGNORECASE)
_NEAR = re.compile(r"\b(?:orders?|ordered|purchase|parcel|package|shipment|delivery)\b", re.IGNORECASE)
_OTHER_NUMBER = re.compile(
    r"\b(?:invoice|ticket|case|phone|tel|call|account|card|zip|postcode|postal|code|batch|lot|year|room|suite|street)"
    r"\b[\s#:.]*(?:number|no|nr|id)?[\s#:.]*(?:is\s*)?$",
    re.IGNORECASE,
)
_NEARBY_CHARACTERS = 40
_MIN_BARE_DIGITS = 5

_ACCOUNT_FIELDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("email", r"\be-?mails?\b|[\w.+-]+@[\w-]+\.\w"),
        ("phone", r"\b(?:phone|mobile|cell|telephone|contact)\b(?:\s+number)?"),
        ("password", r"\b(?:password|passcode|pin)\b"),
        ("payment_method", r"\b(?:payment|card|bank|iban|billing (?:details|method))\b"),
        ("address", r"\b(?:address|moved|moving|postcode|zip)\b"),
        ("seats", r"\bseats?\b|\blicen[cs]es?\b"),
        ("plan", r"\b(?:plan|subscription|upgrade|downgrade)\b"),
        ("users", r"\b(?:users?|members?|colleagues?|admin|owner|role)\b"),
        ("name", r"\b(?:name|surname|married)\b"),
        ("notifications", r"\b(?:notifications?|newsletter|marketing|unsubscribe)\b"),
        ("language", r"\b(?:language|time ?zone)\b"),
    )
)

#: What a customer subscribes to, as opposed to what they order; a repeat order stays an order.
_SUBSCRIBED = (
    r"(?:plan|subscription|subscribtion|membership|contract|agreement|account|(?:free )?trial|licen[cs]es?|"
    r"(?:auto(?:matic)?[ -]?)?renewal|services?)"
)
_ENDS = (
    r"(?:cancel\w*|cancle|terminat\w+|end(?:ing)?|stop(?:ping)?|clos(?:e|ing)|discontinu\w+|quit(?:ting)?|kill|"
    r"get(?:ting)? out of|out of|rid of|give up|giving up|notice on|wind(?:ing)? down|shut(?:ting)? down|"
    r"cancellation of)"
)
_ENDS_SUBSCRIPTION = re.compile(
    rf"\b{_ENDS}(?: \w+){{0,2}}? (?:my|our|the|this|that|a|an) (?:[\w-]+ ){{0,2}}?{_SUBSCRIBED}\b"
    rf"|\b{_ENDS} {_SUBSCRIBED}\b|\bunsubscribe (?:me|us) from (?:my|our|the) (?:[\w-]+ )?{_SUBSCRIBED}\b",
    re.IGNORECASE,
)
_ORDERED = re.compile(r"\b(?:orders?|ordered|parcel|package|shipment|delivery|deliveries|purchase)\b", re.IGNORECASE)


def order_references(text: str) -> tuple[str, ...]:
    """Order references in order of appearance, normalised to `ORD-` and digits, each once."""
    text = unicodedata.normalize("NFKC", text)
    found: dict[int, str] = {}
    for pattern in (_PREFIXED, _NAMED):
        for match in pattern.finditer(text):
            found[match.start("number")] = match["number"]
    for match in _BARE.finditer(text):
        start = match.start("number")
        if start in found or len(match["number"]) < _MIN_BARE_DIGITS or _OTHER_NUMBER.search(text[:start]):
            continue
        around = text[max(0, start - _NEARBY_CHARACTERS) : match.end() + _NEARBY_CHARACTERS]
        if _NEAR.search(around):
            found[start] = match["number"]
    return tuple(dict.fromkeys(f"ORD-{found[start]}" for start in sorted(found)))


def lone_number_reference(text: str) -> str | None:
    """The reference when the text is nothing but a number, as in an answer to "which order?"."""
    match = re.fullmatch(r"\s*(?:it'?s|it is|number)?\s*#?(\d{4,9})\s*\.?\s*", text, re.IGNORECASE)
    return f"ORD-{match[1]}" if match else None


def ends_subscription(text: str) -> bool:
    """Whether the text asks to end a plan, contract or account, and speaks of no order."""
    return bool(_ENDS_SUBSCRIPTION.search(text)) and not _ORDERED.search(text)


def account_field(text: str) -> str | None:
    """Which part of the account a change is about, the most specific one first; `None` if it is not said."""
    return next((name for name, pattern in _ACCOUNT_FIELDS if pattern.search(text)), None)
