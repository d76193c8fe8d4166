"""How pieces become a reply."""

from __future__ import annotations

import pickle

import pytest

from models.errors import ModelRefused, ModelReplyBroken
from models.llm.completion import CallPiece, Completion, Piece
from models.llm.prompt import GroundedPrompt
from models.llm.types import FinishReason, LanguageModelRequest, ToolCall, ToolSpec, Usage
from tests.fakes.language_model import asking

PROMPT = GroundedPrompt(version="1", grounded="Sources:\n{sources}", no_answer="NO_ANSWER")
TOOL = ToolSpec(name="find", description="Finds", parameters={"type": "object"})
END = Piece(finish=FinishReason.STOP)


def completion(request: LanguageModelRequest) -> Completion:
    return Completion(request, PROMPT, engine="e", model="m")


def test_a_reply_that_never_ends_is_broken_even_where_it_looks_like_a_refusal() -> None:
    asked = completion(asking("Hi"))
    assert asked.add(Piece(text="NO_ANSWER")) == ""
    with pytest.raises(ModelReplyBroken):
        asked.finish()


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((Piece(text="NO_ANSWER"), END), ModelRefused),
        ((Piece(refusal="I will not"), END), ModelRefused),
        ((Piece(text="cut"),), ModelReplyBroken),
    ],
)
@pytest.mark.parametrize("usage", [Usage(prompt_tokens=5, completion_tokens=2), None])
def test_an_error_carries_the_tokens_that_were_counted(
    pieces: tuple[Piece, ...], kind: type[ModelRefused | ModelReplyBroken], usage: Usage | None
) -> None:
    asked = completion(asking("Hi"))
    for piece in (*pieces, Piece(usage=usage)):
        asked.add(piece)
    with pytest.raises(kind) as caught, asked.counted():
        asked.finish()
    assert pickle.loads(pickle.dumps(caught.value)).usage == usage  # noqa: S301  # what Ray does with it


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
