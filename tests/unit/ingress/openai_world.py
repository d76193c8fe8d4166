"""A world whose chain of engines is `scripted`, then `extractive`, as tests of the OpenAI-compatible surface want."""

from __future__ import annotations

from typing import Any

from models.llm.types import ToolCall
from models.settings import Credential, IngressSettings, LanguageModelSettings, Settings
from tests.fakes.ingress import World

KEY = "k-support-0123456789"
HELLO: list[Any] = [{"role": "user", "content": "hello big world"}]

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = ToolCall(id="call_1", name="weather", arguments='{"town":"Bern"}')
TOWN: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "town",
        "strict": True,
        "schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}


def openai_world(*, keys: dict[str, Credential] | None = None, **ingress: Any) -> World:
    return World(
        settings=Settings(
            language_model=LanguageModelSettings(engine="scripted:tokens=5", fallbacks=("extractive",), max_tokens=77),
            ingress=IngressSettings(api_keys=keys or {}, **ingress),
        )
    )


def support_desk(*agent_types: str, requests_per_minute: int = 60) -> dict[str, Credential]:
    return {KEY: Credential(name="desk", agent_types=agent_types, requests_per_minute=requests_per_minute)}
