"""The OpenAPI document of both applications in one, complete enough to generate a client from."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from deployments.ingress.http.openai.chunks import ChatCompletionChunk
from deployments.ingress.http.openai.documented import OpenAIErrorBody
from deployments.ingress.http.problems import catalogue, problems
from deployments.ingress.parameters import READ, SUMMARY, Parameter
from deployments.ingress.schemas import CUSTOMER_ID_PATTERN, ProblemBody
from models.enrichment.types import SECTIONS, ProviderState, ServedFrom
from models.errors import ContextEnrichmentError, DeadlineExceeded, InvalidRequest, UnknownAgentType, UnknownCustomer
from models.settings import Settings

CONTEXT_PREFIX = "/api/v1/customers"
OPEN_TAG = "Operations"
OPENAI_TAG = "OpenAI"
TAGS = ("Classification", "Context", "Conversation", "Campaigns", OPENAI_TAG, OPEN_TAG)
_REFERENCE = "#/components/schemas/{model}"

DESCRIPTION = """\
Answers customers with everything known about them. Failures are `application/problem+json` with a stable `code`;
`instance` is the request id, which every answer also carries as `X-Request-Id`. Under `/v1` requests, replies and
failures are those of OpenAI's API. Unknown fields and parameters are refused. Credentials go into
`Authorization: Bearer KEY`; while no key is configured, callers on the same machine need none."""


def describe(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document for the routes of the main application and those of the context application."""
    document = get_openapi(
        title="Rapport",
        version=_version(),
        summary="Contact centre, customer context, support chat and campaigns on one Ray cluster",
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": f"http://{settings.ingress.host}:{settings.ingress.port}"}],
        tags=[{"name": name} for name in TAGS],
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (ProblemBody, OpenAIErrorBody, ChatCompletionChunk):
        schemas[model.__name__] = model.model_json_schema(ref_template=_REFERENCE)
        schemas.update(schemas[model.__name__].pop("$defs", {}))
    schemas.update(_context_schemas())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["paths"].update(_context_paths())
    for operations in document["paths"].values():
        for operation in operations.values():
            # An empty requirement beside the key: anonymous calls are possible while no key is configured.
            operation["security"] = [] if OPEN_TAG in operation["tags"] else [{"key": []}, {}]
            if OPENAI_TAG in operation["tags"]:
                operation["responses"].pop("422", None)  # FastAPI's own; OpenAI's clients know only 400
            for status, response in operation["responses"].items():
                headers = response.setdefault("headers", {})
                headers["X-Request-Id"] = {"schema": {"type": "string"}, "description": "As sent, or made by us."}
                if status in ("429", "503"):
                    headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    document["x-problems"] = catalogue()
    return document


def _version() -> str:
    try:
        return version("rapport")
    except PackageNotFoundError:
        return "0.1.0"


def _context_paths() -> dict[str, Any]:
    failures = {
        str(status): response
        for status, response in problems(
            UnknownCustomer, InvalidRequest, UnknownAgentType, DeadlineExceeded, ContextEnrichmentError
        ).items()
    }
    read_headers = {
        "Cache-Status": {"schema": {"type": "string"}, "description": "RFC 9211: which cache answered."},
        "Context-Complete": {"schema": {"type": "boolean"}, "description": "Whether every provider answered."},
        "Context-Version": {"schema": {"type": "string"}},
        "Age": {"schema": {"type": "integer"}, "description": "Seconds; on cache hits."},
    }
    return {
        f"{CONTEXT_PREFIX}/{{customer_id}}/context": {
            "get": {
                "tags": ["Context"],
                "operationId": "read_context",
                "summary": "Read a customer's context",
                "description": "Providers are read in parallel. A partial context is a 200 that says so.",
                "parameters": _parameters(READ),
                "responses": {
                    "200": {
                        "description": "The context, or its prompt form",
                        "headers": read_headers,
                        "content": {
                            "application/json": {"schema": _reference("ContextBody")},
                            "text/plain": {"schema": {"type": "string"}},
                        },
                    },
                    **failures,
                },
            }
        },
        f"{CONTEXT_PREFIX}/{{customer_id}}/context/summary": {
            "get": {
                "tags": ["Context"],
                "operationId": "read_context_summary",
                "summary": "Read the short view of a customer's context",
                "parameters": _parameters(SUMMARY),
                "responses": {
                    "200": {
                        "description": "The summary",
                        "content": {
                            "application/json": {"schema": {"$ref": _REFERENCE.format(model="ContextSummary")}}
                        },
                    },
                    **failures,
                },
            }
        },
    }


def _parameters(parameters: tuple[Parameter, ...]) -> list[dict[str, Any]]:
    customer_id = {
        "name": "customer_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": CUSTOMER_ID_PATTERN, "examples": ["customer_123"]},
    }
    return [
        customer_id,
        *(
            {"name": each.name, "in": "query", "description": each.description, "schema": each.schema}
            for each in parameters
        ),
    ]


def _context_schemas() -> dict[str, Any]:
    """Schemas of bodies that are spliced from stored bytes and so have no wire model."""
    text, number, whole, flag = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
    instant = {"type": "string", "format": "date-time"}
    tier = {"type": "string", "enum": [tier.value for tier in ServedFrom]}
    sections = {
        section.__name__: TypeAdapter(section).json_schema(ref_template=_REFERENCE) for section in SECTIONS.values()
    }
    provider = {
        "section": text,
        "state": {"type": "string", "enum": [state.value for state in ProviderState]},
        "source": text,
        "as_of": _or_null(instant),
        "latency_ms": number,
        "detail": text,
        "age_ms": _or_null(whole),
        "served_from": _or_null(tier),
    }
    context = {
        "customer_id": text,
        "agent_type": text,
        "context_version": text,
        "enriched_at": instant,
        "enrichment_latency_ms": number,
        "complete": flag,
        **{name: _or_null(_reference(section.__name__)) for name, section in SECTIONS.items()},
        "providers": {
            "type": "object",
            "additionalProperties": _reference("ProviderReading"),
        },
        "age_ms": whole,
        "served_from": tier,
        "cache_hit": flag,
        "deadline_ms": whole,
        "elapsed_ms": number,
    }
    summary = {
        "company_name": text,
        "plan": text,
        "health_score": _or_null(whole),
        "churn_risk": _or_null(number),
        "churn_risk_level": text,
        "login_count_30d": _or_null(whole),
        "open_tickets": _or_null(whole),
        "days_to_renewal": _or_null(whole),
        "has_critical_issues": flag,
        "has_opportunities": flag,
        "cache_hit": flag,
    }
    return {
        **sections,
        "ProviderReading": _object("How one provider did for this read.", provider),
        "ContextBody": _object(
            "Everything known of one customer for one agent type; a section without data is null.", context
        ),
        "ContextSummary": _object("The short view.", summary),
    }


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=name)}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}
