"""Redaction and its way back: nothing personal in what a model reads, nothing lost in what it wrote."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from models.errors import SafetyUnavailable
from models.llm.redaction import Redaction
from models.llm.types import (
    ChatMessage,
    Citation,
    LanguageModelReply,
    LanguageModelRequest,
    Role,
    SourcePassage,
    ToolCall,
    ToolSpec,
)
from models.resilience.deadline import Deadline
from models.safety.pii import PatternPIIDetector
from models.safety.types import PIISpan, PIIType
from tests.fakes.engines import StagedEngine, chain_of, saying

DETECTOR = PatternPIIDetector()
CONTACT = SourcePassage(
    passage_id="p1",
    document_id="contact",
    title="Contact help@medley.example",
    version="1",
    text="You can write to help@medley.example or call +1 415 555 0132 [day or night].",
)


def redacted(text: str) -> Redaction:
    return Redaction(saying(text), DETECTOR)


def reply(text: str = "", **fields: object) -> LanguageModelReply:
    return LanguageModelReply(text=text, engine="openai", model="m", **fields)  # type: ignore[arg-type]  # by name


def calling(arguments: str) -> LanguageModelRequest:
    call = ToolCall(id="c1", name="look_up", arguments=arguments)
    return LanguageModelRequest(messages=(ChatMessage(role=Role.ASSISTANT, content="", tool_calls=(call,)),))


def test_the_same_value_is_the_same_placeholder_throughout_a_request() -> None:
    request = LanguageModelRequest(
        messages=(
            ChatMessage(role=Role.SYSTEM, content="Customer: bob@example.com, eve@example.com"),
            ChatMessage(role=Role.USER, content="I am bob@example.com, call +1 415 555 0132"),
        ),
        passages=(CONTACT,),
    )
    redaction = Redaction(request, DETECTOR)
    assert [message.content for message in redaction.request.messages] == [
        "Customer: [EMAIL_1], [EMAIL_2]",
        "I am [EMAIL_1], call [PHONE_1]",
    ]
    assert redaction.request.passages[0].title == "Contact [EMAIL_3]"
    assert redaction.request.passages[0].text == "You can write to [EMAIL_3] or call [PHONE_1] [day or night]."


@pytest.mark.parametrize(
    "text",
    [
        "Dear Dr Anna Berg, my card 4111 1111 1111 1111 and IBAN DE89370400440532013000, 12 Main Street, Apt 4",
        "bob@example.com+1 415 555 0132 078-05-1120x@example.org",
        "My name is Anna Berg and anna@example.com is mine, as is 192.168.17.20",
    ],
)
def test_nothing_personal_is_left_and_everything_comes_back(text: str) -> None:
    redaction = redacted(text)
    sent = redaction.request.messages[0].content
    assert DETECTOR.detect(sent) == ()
    assert sent != text
    assert redaction.restore(sent) == text


def test_a_text_that_holds_a_placeholder_of_its_own_keeps_it() -> None:
    text = "Is [EMAIL_1] or [email_2] yours? Mine is bob@example.com"
    redaction = redacted(text)
    assert redaction.request.messages[0].content == "Is [EMAIL_1] or [email_2] yours? Mine is [EMAIL_3]"
    said = redaction.reply(reply("[EMAIL_1] is not ours, [email_3] is yours, [EMAIL_4] I made up."))
    assert said.text == "[EMAIL_1] is not ours, bob@example.com is yours, [EMAIL_4] I made up."


def test_a_find_that_swallows_a_placeholder_is_restored_whole() -> None:
    class Greedy:
        """Finds the address first, and then everything around its placeholder."""

        def detect(self, text: str) -> tuple[PIISpan, ...]:
            if "bob" in text:
                start = text.index("bob")
                return (PIISpan(type=PIIType.EMAIL, start=start, end=start + 3),)
            if "flat" in text:
                return (PIISpan(type=PIIType.ADDRESS, start=text.index("flat"), end=text.index("]") - 1),)
            return ()

        def redact(self, text: str) -> str:
            raise NotImplementedError

    redaction = Redaction(saying("at flat 4, bob, please"), Greedy())
    assert redaction.request.messages[0].content == "at [ADDRESS_1], please"
    assert redaction.restore("at [ADDRESS_1]") == "at flat 4, bob"


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_placeholder_split_over_pieces_is_held_back_until_it_is_whole(size: int) -> None:
    restorer = redacted("bob@example.com or eve@example.com").restorer()
    text = "Hi [EMAIL_1], see [1] and [[EMAIL_2]] or [EMAIL_9] [EM"
    pieces = [restorer.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert "".join([*pieces, restorer.close()]) == "Hi bob@example.com, see [1] and [eve@example.com] or [EMAIL_9] [EM"
    # A whole placeholder never passes as one.
    assert not any("[EMAIL_1" in piece for piece in pieces)


def test_text_that_cannot_become_a_placeholder_is_not_held_back() -> None:
    restorer = redacted("bob@example.com").restorer()
    assert [restorer.feed(piece) for piece in ("a [", "x", " [EMAIL_1", "0")] == ["a ", "[x", " ", "[EMAIL_10"]


def test_arguments_of_tool_calls_stay_json_in_both_directions() -> None:
    arguments = json.dumps({"mail": "bob@example.com", "call": [14155550132, 7], "note": 'a "note"', "ok": None})
    redaction = Redaction(calling(arguments), DETECTOR)
    sent = json.loads(redaction.request.messages[0].tool_calls[0].arguments)
    assert sent["mail"] == "[EMAIL_1]"
    assert (sent["note"], sent["ok"], sent["call"][1]) == ('a "note"', None, 7)
    back = redaction.reply(reply(tool_calls=(ToolCall(id="c2", name="mail", arguments='{"to": "[EMAIL_1]"}'),)))
    assert json.loads(back.tool_calls[0].arguments) == {"to": "bob@example.com"}


def test_arguments_that_are_not_json_are_redacted_as_text() -> None:
    redaction = Redaction(calling('{"mail": bob@example.com'), DETECTOR)
    assert redaction.request.messages[0].tool_calls[0].arguments == '{"mail": [EMAIL_1]'


class OneAddress:
    """Finds one address that JSON has to escape."""

    ADDRESS = '12 "The Mews"\nLondon'

    def detect(self, text: str) -> tuple[PIISpan, ...]:
        at = text.find(self.ADDRESS)
        return () if at < 0 else (PIISpan(type=PIIType.ADDRESS, start=at, end=at + len(self.ADDRESS)),)

    def redact(self, text: str) -> str:
        raise NotImplementedError


def test_a_reply_that_fills_a_schema_stays_json() -> None:
    request = saying(f"I live at {OneAddress.ADDRESS}.", response_schema={"type": "object"})
    redaction = Redaction(request, OneAddress())
    restorer, said = redaction.restorer(), '{"address": "[ADDRESS_1]"}'
    streamed = "".join([*(restorer.feed(char) for char in said), restorer.close()])
    assert json.loads(streamed) == {"address": OneAddress.ADDRESS}
    assert redaction.reply(reply(said)).text == streamed


def test_quotes_are_verbatim_in_the_original_passage_or_gone() -> None:
    redaction = Redaction(saying("how do I reach you?", passages=(CONTACT,)), DETECTOR)
    seen = redaction.request.passages[0]
    citation = Citation(
        passage_id="p1",
        document_id="contact",
        title=seen.title,
        version="1",
        quote="write to [EMAIL_1] or call [PHONE_1]",
    )
    said = reply("Write.", citations=(citation, replace(citation, quote="mail [EMAIL_1]")))
    restored = redaction.reply(said).citations
    assert [(c.title, c.quote) for c in restored] == [
        ("Contact help@medley.example", "write to help@medley.example or call +1 415 555 0132")
    ]
    assert restored[0].quote in CONTACT.text


def test_a_failing_detector_lets_nothing_through() -> None:
    class Broken(OneAddress):
        def detect(self, text: str) -> tuple[PIISpan, ...]:
            raise MemoryError("out of order")

    with pytest.raises(SafetyUnavailable) as failed:
        Redaction(saying("bob@example.com"), Broken())
    assert "bob" not in str(failed.value)


class TestEverythingThatLeaves:
    SCHEMA = {  # noqa: RUF012  # read only
        "type": "object",
        "description": "As for bob@example.com",
        "properties": {
            "mail": {"enum": ["bob@example.com", "eve@example.com"]},
            "phone": {"type": "integer", "const": 4155552671, "maximum": 9999999999},
        },
        "required": ["mail", "phone"],
    }

    def test_tools_schemas_and_stop_sequences_are_searched(self) -> None:
        tool = ToolSpec(name="mail", description="Writes to bob@example.com", parameters=self.SCHEMA)
        request = saying("I am bob@example.com", tools=(tool,), stop=("bob@example.com", "END"))
        sent = Redaction(replace(request, response_schema=self.SCHEMA), DETECTOR).request
        assert (sent.tools[0].name, sent.tools[0].description) == ("mail", "Writes to [EMAIL_1]")
        assert sent.stop == ("[EMAIL_1]", "END")
        assert sent.tools[0].parameters == sent.response_schema
        assert sent.response_schema == {
            "type": "object",
            "description": "As for [EMAIL_1]",
            "properties": {
                "mail": {"enum": ["[EMAIL_1]", "[EMAIL_2]"]},
                # A bound stays a number.
                "phone": {"type": "integer", "const": "[PHONE_1]", "maximum": 9999999999},
            },
            "required": ["mail", "phone"],
        }

    def test_ids_of_calls_become_ours_and_still_belong_together(self) -> None:
        asked = (
            ToolCall(id="bob@example.com", name="a", arguments="{}"),
            ToolCall(id="4155552671", name="b", arguments=""),
        )
        request = LanguageModelRequest(
            messages=(
                ChatMessage(role=Role.ASSISTANT, content="", tool_calls=asked),
                ChatMessage(role=Role.TOOL, content="2", tool_call_id="4155552671"),
                ChatMessage(role=Role.TOOL, content="1", tool_call_id="bob@example.com"),
                ChatMessage(role=Role.USER, content="thanks"),
            )
        )
        sent = Redaction(request, DETECTOR).request.messages
        assert [call.id for call in sent[0].tool_calls] == ["call_1", "call_2"]
        assert [message.tool_call_id for message in sent] == [None, "call_2", "call_1", None]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"phone": 4155552671},
            {"phoneNumber": "4155552671"},
            {"contact": {"mobile": {"work": [4155552671]}}},
            {"number": "415-555-2671"},
            {"ssn": "123456789"},
            {"customer": "Jane Miller"},
            {"account_name": "Jane"},
        ],
    )
    def test_a_key_tells_what_its_value_is(self, arguments: dict[str, object]) -> None:
        redaction = Redaction(calling(json.dumps(arguments)), DETECTOR)
        sent = redaction.request.messages[0].tool_calls[0].arguments
        assert not any(bare in sent for bare in ("2671", "123456789", "Jane", "Miller"))
        assert json.loads(sent).keys() == arguments.keys()

    @pytest.mark.parametrize(
        "arguments", [{"order_number": "4155552671"}, {"product_name": "Seat"}, {"customer": "cus_1"}]
    )
    def test_what_is_nobodys_stays(self, arguments: dict[str, object]) -> None:
        text = json.dumps(arguments)
        assert Redaction(calling(text), DETECTOR).request.messages[0].tool_calls[0].arguments == text


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("Customer: Jane Miller", "Customer: [PERSON_1]"),
        ("account_name: Jane van der Berg", "account_name: [PERSON_1]"),
        ('{"name":"Jane Miller"}', '{"name":"[PERSON_1]"}'),
        (r'"{\"customerName\": \"Jane\"}"', r'"{\"customerName\": \"[PERSON_1]\"}"'),
        ("Contact: Miller, Jane", "Contact: [PERSON_1]"),
        ("Customer: I want a refund. Agent: Sure.", "Customer: I want a refund. Agent: Sure."),
        ("filename: Report, product_name: Seat", "filename: Report, product_name: Seat"),
    ],
)
def test_names_after_keys_that_say_so(text: str, sent: str) -> None:
    redaction = redacted(text)
    assert redaction.request.messages[0].content == sent
    assert redaction.restore(sent) == text


async def test_a_conversation_stays_the_same_to_a_model_outside() -> None:
    """What was restored for the caller comes back as history: it is hidden again, in the same words."""
    call = ToolCall(id="c-bob@example.com", name="mail", arguments='{"to": "[EMAIL_1]", "name": "[PERSON_1]"}')
    engine = StagedEngine("openai", external=True, scenes=[["Dear [PERSON_1], I write to [EMAIL_1]."]])
    engine.reply = replace(reply(), tool_calls=(call,))
    chain = chain_of(engine)
    first = saying("Customer: Jane Miller\nMail: bob@example.com")
    said = await chain.generate(first, deadline=Deadline.after(30))
    assert said.text == "Dear Jane Miller, I write to bob@example.com."
    assert json.loads(said.tool_calls[0].arguments) == {"to": "bob@example.com", "name": "Jane Miller"}
    assert said.tool_calls[0].id == call.id, "the endpoint's own, which the caller sends back"
    history = (
        *first.messages,
        ChatMessage(role=Role.ASSISTANT, content=said.text, tool_calls=said.tool_calls),
        ChatMessage(role=Role.TOOL, content='{"sent_to": "bob@example.com"}', tool_call_id=call.id),
        ChatMessage(role=Role.USER, content="And to eve@example.com?"),
    )
    await chain.generate(LanguageModelRequest(messages=history), deadline=Deadline.after(30))
    before, after = (request.messages for request in engine.requests)
    assert after[0] == before[0]
    assert after[1].content == "Dear [PERSON_1], I write to [EMAIL_1]."
    assert json.loads(after[1].tool_calls[0].arguments) == json.loads(call.arguments)
    assert (after[1].tool_calls[0].id, after[2].tool_call_id) == ("call_1", "call_1")
    assert (after[2].content, after[3].content) == ('{"sent_to": "[EMAIL_1]"}', "And to [EMAIL_2]?")
