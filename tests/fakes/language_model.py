"""Questions and passages that every suite over language models asks."""

from __future__ import annotations

from models.llm.protocol import LanguageModel
from models.llm.types import ChatMessage, Delta, LanguageModelReply, LanguageModelRequest, Role, SourcePassage
from models.resilience.deadline import Deadline

QUESTION = "How long does a refund take?"


def passage(name: str, text: str, score: float = 0.0) -> SourcePassage:
    return SourcePassage(
        passage_id=f"{name}#0", document_id=name, title=name.capitalize(), version="1", text=text, score=score
    )


PASSAGES = (
    passage(
        "refunds",
        "## How long a refund takes\n\nMedley sends a product refund within five business days after the return has "
        "arrived. It is paid to the card that was used. Your bank may need a few more days.\n\n"
        "## Who can ask\n\nEvery customer can ask for a refund in the chat.",
    ),
    passage("copy", "Medley sends a product refund within five business days after the return has arrived."),
    passage(
        "invites",
        "To invite a colleague:\n\n1. Open **Settings** and choose Team.\n2. Select Invite.\n3. Enter the address.\n",
    ),
    passage(
        "calendar", "The calendar shows every appointment of the day.\n\n| Day | Hours |\n|---|---|\n| Monday | 9 |"
    ),
)


def asking(question: str, **options: object) -> LanguageModelRequest:
    """A request with the passages above, unless `options` say otherwise."""
    fields: dict[str, object] = {
        "messages": (ChatMessage(role=Role.USER, content=question),),
        "passages": PASSAGES,
        **options,
    }
    return LanguageModelRequest(**fields)  # type: ignore[arg-type]  # fields of the request by name


async def streamed(model: LanguageModel, request: LanguageModelRequest) -> tuple[list[str], LanguageModelReply]:
    """The pieces of text and the reply that ends them."""
    deltas: list[Delta] = [delta async for delta in model.stream(request, deadline=Deadline.after(30))]
    reply = deltas[-1].reply
    assert reply is not None
    assert all(delta.reply is None for delta in deltas[:-1])
    return [delta.text for delta in deltas], reply
