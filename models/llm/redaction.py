"""Personal data stays with us: numbered placeholders in what a model reads, the data itself in what it wrote.

`bob@example.com` becomes `[EMAIL_1]`, the same value the same placeholder throughout one request. A text that already
holds such a placeholder keeps it: its number is given to nobody. Everything that leaves is searched but the names of
tools, which a reply must repeat; ids of tool calls are replaced by ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from models.errors import SafetyUnavailable
from models.llm.labels import label_of, names_in
from models.llm.types import (
    ChatMessage,
    Citation,
    LanguageModelReply,
    LanguageModelRequest,
    SourcePassage,
    ToolCall,
    ToolSpec,
)
from models.safety.protocol import PIIDetector
from models.safety.types import PIIType

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]*_[1-9]\d*\]", re.IGNORECASE)
#: Words of a JSON schema that hold values; elsewhere in it a number is a bound.
_VALUES = frozenset({"const", "default", "enum", "example", "examples"})


class Redaction:
    """One request without personal data (`request`), and the way back for its reply.

    Building it raises `SafetyUnavailable` if the detector fails: text that nobody looked at must not leave.
    """

    def __init__(self, original: LanguageModelRequest, detector: PIIDetector) -> None:
        self._passages = {passage.passage_id: passage for passage in original.passages}
        self._json = original.response_schema is not None
        self._detector = detector
        self._taken = {mark.upper() for text in searched(original) for mark in _PLACEHOLDER.findall(text)}
        self._value_of: dict[str, str] = {}
        self._placeholder_of: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._ids: dict[str, str] = {}
        try:
            self.request = replace(
                original,
                messages=tuple(self._message(message) for message in original.messages),
                passages=tuple(self._passage(passage) for passage in original.passages),
                stop=tuple(self._redact(stop) for stop in original.stop),
                tools=tuple(self._tool(tool) for tool in original.tools),
                response_schema=original.response_schema and self._schema(original.response_schema),
            )
        except Exception as exc:  # whatever it is, the text may still hold personal data
            raise SafetyUnavailable(f"personal data could not be redacted: {type(exc).__name__}") from exc

    def restore(self, text: str) -> str:
        """The text with our placeholders replaced by what they stand for; others stay as they are."""
        return _PLACEHOLDER.sub(lambda mark: self._value_of.get(mark[0].upper(), mark[0]), text)

    def reply(self, reply: LanguageModelReply) -> LanguageModelReply:
        """The reply with its text, tool calls and citations restored; quotes are verbatim in the original passages."""
        return replace(
            reply,
            text=self.restorer().whole(reply.text),
            tool_calls=tuple(replace(call, arguments=self._restore_json(call.arguments)) for call in reply.tool_calls),
            citations=tuple(
                restored for citation in reply.citations if (restored := self._citation(citation)) is not None
            ),
        )

    def restorer(self) -> Restorer:
        """For the text of a reply that arrives in pieces."""
        return Restorer(self._restore_json if self._json else self.restore, tuple(self._value_of))

    def _restore_json(self, text: str) -> str:
        """As `restore`, inside the strings of a JSON text, which need not be complete."""

        def escaped(mark: re.Match[str]) -> str:
            value = self._value_of.get(mark[0].upper())
            return mark[0] if value is None else json.dumps(value, ensure_ascii=False)[1:-1]

        return _PLACEHOLDER.sub(escaped, text)

    def _message(self, message: ChatMessage) -> ChatMessage:
        return replace(
            message,
            content=self._redact(message.content),
            tool_calls=tuple(
                replace(call, id=self._id(call.id), arguments=self._arguments(call)) for call in message.tool_calls
            ),
            tool_call_id=message.tool_call_id and self._id(message.tool_call_id),
        )

    def _passage(self, passage: SourcePassage) -> SourcePassage:
        return replace(passage, title=self._redact(passage.title), text=self._redact(passage.text))

    def _tool(self, tool: ToolSpec) -> ToolSpec:
        return replace(tool, description=self._redact(tool.description), parameters=self._schema(tool.parameters))

    def _id(self, given: str) -> str:
        return self._ids.setdefault(given, f"call_{len(self._ids) + 1}")

    def _arguments(self, call: ToolCall) -> str:
        """Redacted value by value, so that it stays JSON; a key tells what kind of number its value is."""
        try:
            arguments = json.loads(call.arguments)
        except (ValueError, RecursionError):
            return self._redact(call.arguments)
        redacted = self._value(arguments, ())
        return call.arguments if redacted == arguments else json.dumps(redacted, ensure_ascii=False)

    def _value(self, value: Any, keys: tuple[str, ...]) -> Any:
        match value:
            case str():
                return self._redact(value, label_of(keys))
            case Mapping():
                return {self._redact(key): self._value(inner, (*keys[-1:], key)) for key, inner in value.items()}
            case list() | tuple():
                return [self._value(inner, keys) for inner in value]
            case bool() | None:
                return value
            case _:
                redacted = self._redact(str(value), label_of(keys))
                return value if redacted == str(value) else redacted

    def _schema(self, schema: Any, keys: tuple[str, ...] = ()) -> Any:
        match schema:
            case Mapping():
                return {
                    self._redact(key): (
                        self._value(inner, keys) if key in _VALUES else self._schema(inner, (*keys[-1:], key))
                    )
                    for key, inner in schema.items()
                }
            case list() | tuple():
                return [self._schema(inner, keys) for inner in schema]
            case str():
                return self._redact(schema, label_of(keys))
            case _:
                return schema

    def _redact(self, text: str, label: str = "") -> str:
        # With its label and without: the words before a number can make it a telephone's, and can hide that it is one.
        for prefix in (label, "") if label else ("",):
            # Again until nothing is found: glued data may only show once its neighbour is gone. Each round replaces
            # text that is not yet a placeholder, so this ends.
            while spans := list(self._spans(text, prefix)):
                parts: list[str] = []
                at = 0
                for kind, start, end in spans:
                    parts += (text[at:start], self._placeholder(kind, text[start:end]))
                    at = end
                text = "".join((*parts, text[at:]))
        return text

    def _spans(self, text: str, prefix: str) -> Iterator[tuple[str, int, int]]:
        """Personal data outside our placeholders; a find that cuts into one is widened to hold it whole."""
        ours = [mark.span() for mark in _PLACEHOLDER.finditer(text) if mark[0].upper() in self._value_of]
        whole = prefix + text
        found = [(span.start, span.end, span.type) for span in self._detector.detect(whole)]
        found += [(start, end, PIIType.PERSON) for start, end in names_in(whole)]
        done = 0
        for start, end, kind in sorted(found, key=lambda find: (find[0], -find[1])):
            start, end = max(0, start - len(prefix)), end - len(prefix)
            for left, right in ours:
                if left < end and start < right:
                    start, end = min(start, left), max(end, right)
            start = max(start, done)
            if start < end and (start, end) not in ours:
                yield kind.value.upper(), start, end
                done = end

    def _placeholder(self, kind: str, found: str) -> str:
        value = self.restore(found)
        known = self._placeholder_of.get((kind, value))
        if known is not None:
            return known
        while True:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            placeholder = f"[{kind}_{self._counts[kind]}]"
            if placeholder not in self._taken:
                break
        self._placeholder_of[kind, value] = placeholder
        self._value_of[placeholder] = value
        return placeholder

    def _citation(self, citation: Citation) -> Citation | None:
        source = self._passages.get(citation.passage_id)
        if source is None:
            return None
        quote = self.restore(citation.quote)
        if quote not in source.text:
            return None
        return replace(citation, title=source.title, quote=quote)


class Restorer:
    """Restores text that arrives in pieces; what may be the beginning of a placeholder is held back."""

    def __init__(self, restore: Callable[[str], str], placeholders: tuple[str, ...]) -> None:
        self._restore = restore
        self._placeholders = placeholders
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text that is certain by now."""
        text = self._held + piece
        cut = text.rfind("[")
        if cut < 0 or not self._may_become_one(text[cut:]):
            cut = len(text)
        self._held = text[cut:]
        return self._restore(text[:cut])

    def close(self) -> str:
        """What was held back and is text after all."""
        rest, self._held = self._held, ""
        return rest

    def whole(self, text: str) -> str:
        """A text that is complete."""
        return self._restore(text)

    def _may_become_one(self, tail: str) -> bool:
        tail = tail.upper()
        return any(len(tail) < len(mark) and mark.startswith(tail) for mark in self._placeholders)


def searched(request: LanguageModelRequest) -> Iterator[str]:
    """Every text of the request that redaction reads."""
    for message in request.messages:
        yield message.content
        yield from (call.arguments for call in message.tool_calls)
    for passage in request.passages:
        yield from (passage.title, passage.text)
    yield from request.stop
    for tool in request.tools:
        yield tool.description
        yield json.dumps(tool.parameters, ensure_ascii=False, default=dict)
    if request.response_schema is not None:
        yield json.dumps(request.response_schema, ensure_ascii=False, default=dict)
