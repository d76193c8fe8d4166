"""Spans reach a collector over OTLP/HTTP; a collector that is away costs nothing but spans."""

from __future__ import annotations

import pytest

from models.llm.factory import build_chain
from models.resilience.deadline import Deadline
from models.safety.pii import PatternPIIDetector
from models.settings import LanguageModelSettings, Settings, TelemetrySettings
from tests.fakes.embedder import HashingEmbedder
from tests.fakes.engines import saying
from tests.fakes.otlp_server import OTLPServer


async def call_traced_to(endpoint: str) -> str:
    """The reply of a scripted engine in a chain that exports to `endpoint`; closed, so that every span has left."""
    settings = Settings(
        language_model=LanguageModelSettings(engine="scripted:tokens=4"),
        telemetry=TelemetrySettings(otlp_endpoint=endpoint),
    )
    chain = build_chain(settings, HashingEmbedder(), pii=PatternPIIDetector())
    reply = await chain.generate(saying("hello", metadata={"request_id": "req_7"}), deadline=Deadline.after(10))
    await chain.close()
    return reply.text


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
async def test_a_collector_gets_every_call(path: str) -> None:
    with OTLPServer() as collector:
        await call_traced_to(collector.url + path)
    ((asked, request),) = collector.received
    (resource,) = request.resource_spans
    (span,) = resource.scope_spans[0].spans
    attributes = {attribute.key: attribute.value for attribute in span.attributes}
    assert asked == "/v1/traces"
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "rapport"
    assert span.name == "chat scripted"
    assert attributes["gen_ai.request.model"].string_value == "scripted"
    assert attributes["rapport.request_id"].string_value == "req_7"
    assert attributes["gen_ai.usage.output_tokens"].int_value == 4
    assert not [key for key in attributes if key.endswith("messages")]


async def test_a_collector_that_is_away_costs_nothing_but_spans() -> None:
    with OTLPServer() as collector:
        gone = collector.url
    assert await call_traced_to(gone)
