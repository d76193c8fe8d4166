"""The body of a chat completion as OpenAI documents it, as far as it can be told without knowing the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from deployments.ingress.schemas import Wire

MAX_CHOICES = 8
MAX_TOKENS = 131_072

NAME = r"^[A-Za-z0-9_-]{1,64}$"

ModelId = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(pattern=NAME)]
Unsupported = Annotated[Any, Field(description="Accepted only where it changes nothing; anything else is refused.")]
Label = Annotated[str | None, Field(max_length=512)]


class StrictWire(Wire):
    """A body whose values are never converted: `"1"` is no number."""

    model_config = ConfigDict(strict=True)


class Part(StrictWire):
    """A part of a message; only text is understood, and the other kinds are refused by name."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def as_list(value: Any) -> Any:
    """A single text as the list that the API also takes."""
    return [value] if isinstance(value, str) else value


def _as_tool_choice(choice: Any) -> Any:
    return {"type": choice} if isinstance(choice, str) else choice


class CalledFunction(StrictWire):
    name: Name
    arguments: str
    """JSON text, as the model wrote it."""


class CalledTool(StrictWire):
    """A model's wish to run a tool."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"]
    function: CalledFunction


class ChatMessageBody(StrictWire):
    """One message. What an assistant message of ours carried may be sent back as it was."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        list[Part] | None, BeforeValidator(_as_parts, json_schema_input_type=str | list[Part] | None)
    ] = None
    name: Label = None
    """A label of the participant; no model here is told."""
    tool_calls: list[CalledTool] | None = None
    tool_call_id: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class FunctionBody(StrictWire):
    """A function as a model sees it."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments; left out, the function takes none."""
    strict: bool | None = None
    """Whether arguments that do not fit the schema are an error; a stream then ends with it."""


class ToolBody(StrictWire):
    type: Literal["function"]
    function: FunctionBody


class NamedFunction(StrictWire):
    name: Name


class ToolChoiceBody(StrictWire):
    type: Literal["auto", "none", "required", "function"]
    function: NamedFunction | None = None


class JsonSchemaBody(StrictWire):
    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    """Whether a reply that does not fit is an error; a stream then ends with it."""


class ResponseFormat(StrictWire):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaBody | None = None


class StreamOptions(StrictWire):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Neutral(StrictWire):
    """What OpenAI's API has and no engine here honours; each field passes at its neutral value only."""

    audio: Unsupported = None
    frequency_penalty: Unsupported = None
    function_call: Unsupported = None
    functions: Unsupported = None
    logit_bias: Unsupported = None
    logprobs: Unsupported = None
    modalities: Unsupported = None
    moderation: Unsupported = None
    prediction: Unsupported = None
    presence_penalty: Unsupported = None
    reasoning_effort: Unsupported = None
    service_tier: Unsupported = None
    store: Unsupported = None
    top_logprobs: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None


class ChatRequest(Neutral):
    """A chat completion of an engine, or of the whole assistant under the model `rapport`.

    Hints about caching and end users are accepted. They change nothing but one thing: for `rapport`, `user` names the
    customer and `metadata.agent_type` whose view of the customer is taken.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "rapport",
                    "messages": [{"role": "user", "content": "How do I invite a colleague?"}],
                    "user": "customer_123",
                    "metadata": {"agent_type": "support"},
                }
            ]
        }
    )

    model: ModelId
    messages: Annotated[list[ChatMessageBody], Field(min_length=1, max_length=2048)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_TOKENS)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_TOKENS)] = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]] | None,
        Field(max_length=4),
        BeforeValidator(as_list, json_schema_input_type=str | list[str] | None),
    ] = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    tools: Annotated[list[ToolBody] | None, Field(max_length=128)] = None
    tool_choice: Annotated[
        ToolChoiceBody | None,
        BeforeValidator(
            _as_tool_choice, json_schema_input_type=Literal["auto", "none", "required"] | ToolChoiceBody | None
        ),
    ] = None
    parallel_tool_calls: bool | None = None
    """`false`: at most one tool call comes back."""
    response_format: ResponseFormat | None = None
    user: Label = None
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None, Field(max_length=16)
    ] = None
    safety_identifier: Label = None
    prompt_cache_key: Label = None
    prompt_cache_retention: Label = None
    prompt_cache_options: dict[str, Any] | None = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)
