from __future__ import annotations

from typing import Any

import pytest

from models.errors import InvalidRequest, ModelRefused, ModelReplyBroken
from models.llm.chat_completions import CallPiece, Completion, Piece, arguments, encodable, piece_of
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
END = Piece(finish=FinishReason.STOP)


def body(request: LanguageModelRequest) -> dict[str, Any]:
    return arguments(request, model="m", prompt=PROMPT)


def completion(request: LanguageModelRequest) -> Completion:
    return Completion(request, PROMPT, engine="e", model="m")


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
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_what_was_asked_for_travels() -> None:
    sent = body(asking("Hi", passages=(), top_p=0.9, stop=("A", "B"), seed=0))
    assert (sent["top_p"], sent["stop"], sent["seed"]) == (0.9, ["A", "B"], 0)


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


def test_a_schema_travels_as_a_strict_format_and_any_object_as_json_mode() -> None:
    schema = {"type": "object", "properties": {}}
    assert body(asking("Hi", response_schema=schema))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": schema, "strict": True},
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


def test_a_reply_that_never_ends_is_broken_even_where_it_looks_like_a_refusal() -> None:
    asked = completion(asking("Hi"))
    assert asked.add(Piece(text="NO_ANSWER")) == ""
    with pytest.raises(ModelReplyBroken):
        asked.finish()


def test_the_model_s_own_refusal_is_a_refusal() -> None:
    asked = completion(asking("Hi", passages=()))
    for piece in (Piece(refusal="I will not"), END):
        asked.add(piece)
    with pytest.raises(ModelRefused):
        asked.finish()


def test_a_text_that_only_begins_like_the_refusal_is_shown_whole() -> None:
    asked = completion(asking("Hi"))
    pieces = [asked.add(Piece(text=text)) for text in ("NO_", "AN", "TIDOTE", " known")]
    asked.add(END)
    assert pieces[:2] == ["", ""]
    assert "".join([*pieces, asked.finish()]) == asked.reply().text == "NO_ANTIDOTE known"


def test_a_character_cut_in_two_is_put_together() -> None:
    asked = completion(asking("Hi", passages=()))
    pieces = [asked.add(Piece(text=text)) for text in ("a\ud83d", "\ude00b", "\ud83d")]
    asked.add(END)
    assert [*pieces, asked.finish()] == ["a", "😀b", "", "�"]
    assert asked.reply().text == "a😀b�"


def test_parallel_tool_calls_keep_their_order_and_repeated_names_count_once() -> None:
    asked = completion(asking("Hi", passages=(), tools=(TOOL,)))
    parts = [
        CallPiece(index=1, id="b", name="find", arguments='{"n":'),
        CallPiece(index=0, id="a", name="find"),
        CallPiece(index=1, id="b", name="find", arguments=" 2}"),
    ]
    for part in parts:
        asked.add(Piece(calls=(part,)))
    asked.add(END)
    assert asked.finish() == ""
    reply = asked.reply()
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert reply.tool_calls == (
        ToolCall(id="a", name="find", arguments=""),
        ToolCall(id="b", name="find", arguments='{"n": 2}'),
    )


def test_a_tool_call_without_a_name_is_broken() -> None:
    asked = completion(asking("Hi", passages=(), tools=(TOOL,)))
    asked.add(Piece(calls=(CallPiece(index=0, arguments="{}"),)))
    asked.add(END)
    with pytest.raises(ModelReplyBroken):
        asked.finish()


def test_a_reply_to_a_schema_keeps_what_looks_like_a_mark() -> None:
    asked = completion(asking("Hi", response_schema={"type": "object"}))
    text = '{"ids": [1], "refund": [2 "within"]}'
    assert asked.add(Piece(text=text)) == text
    asked.add(END)
    assert asked.finish() == ""
    assert asked.reply().text == text
    assert asked.reply().citations == ()
