from __future__ import annotations

from typing import Any

import pytest

from models.errors import InvalidRequest, ModelReplyBroken
from models.llm.chat_completions import arguments, piece_of
from models.llm.completion import CallPiece, Piece, encodable
from models.llm.prompt import GroundedPrompt
from models.llm.types import (
    ChatMessage,
    FinishReason,
    LanguageModelRequest,
    Role,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolSpec,
    Usage,
)
from tests.fakes.language_model import asking

PROMPT = GroundedPrompt(version="1", grounded="Sources:\n{sources}", no_answer="NO_ANSWER")
TOOL = ToolSpec(name="find", description="Finds", parameters={"type": "object"})


def body(request: LanguageModelRequest) -> dict[str, Any]:
    return arguments(request, model="m", prompt=PROMPT)


def test_a_plain_conversation_travels_untouched() -> None:
    messages = (
        ChatMessage(role=Role.SYSTEM, content="Be brief."),
        ChatMessage(role=Role.USER, content=""),
        ChatMessage(role=Role.ASSISTANT, content="", tool_calls=(ToolCall(id="c", name="find", arguments="{}"),)),
        ChatMessage(role=Role.TOOL, content="found", tool_call_id="c"),
    )
    sent = body(LanguageModelRequest(messages=messages))
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    assert sent == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": ""},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "found", "tool_call_id": "c"},
        ],
        "max_tokens": 512,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_was_asked_for_travels() -> None:
    sent = body(asking("Hi", passages=(), temperature=0.0, top_p=0.9, stop=("A", "B"), seed=0))
    assert (sent["temperature"], sent["top_p"], sent["stop"], sent["seed"]) == (0.0, 0.9, ["A", "B"], 0)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice(), "auto"),
        (ToolChoice(mode=ToolMode.NONE), "none"),
        (ToolChoice(mode=ToolMode.REQUIRED), "required"),
        (ToolChoice(name="find"), {"type": "function", "function": {"name": "find"}}),
    ],
)
def test_a_tool_choice_travels_with_tools_only(choice: ToolChoice, sent: Any) -> None:
    assert body(asking("Hi", tools=(TOOL,), tool_choice=choice))["tool_choice"] == sent
    assert "tool_choice" not in body(asking("Hi", tool_choice=choice))


@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_travels_as_strict_as_it_was_meant_and_any_object_as_json_mode(strict: bool) -> None:
    schema = {"type": "object", "properties": {}}
    assert body(asking("Hi", response_schema=schema, strict=strict))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": schema, "strict": strict},
    }
    assert body(asking("Hi", response_schema={"type": "object"}))["response_format"] == {"type": "json_object"}


def test_no_message_is_no_request() -> None:
    with pytest.raises(InvalidRequest):
        body(asking("", messages=()))


def test_halves_of_characters_do_not_travel() -> None:
    assert encodable({"a\ud800": ["\ud83d\ude00", "x\udc00y", 5, None]}) == {"a�": ["😀", "x�y", 5, None]}


def test_a_chunk_becomes_a_piece() -> None:
    call = {"index": 1, "id": "c", "function": {"name": "find", "arguments": "{"}}
    chunk = {
        "model": "real-model",
        "choices": [{"delta": {"content": "Hi", "tool_calls": [call]}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None},
    }
    assert piece_of(chunk) == Piece(
        text="Hi",
        calls=(CallPiece(index=1, id="c", name="find", arguments="{"),),
        finish=FinishReason.LENGTH,
        usage=Usage(prompt_tokens=5, completion_tokens=2),
        model="real-model",
    )


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_generation_given_up_is_broken(reason: str) -> None:
    with pytest.raises(ModelReplyBroken):
        piece_of({"choices": [{"delta": {}, "finish_reason": reason}]})
