"""The OpenAPI document of both applications in one, complete enough to generate a client from."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from deployments.ingress.http.problems import catalogue, problems
from deployments.ingress.parameters import READ, SUMMARY, Parameter
from deployments.ingress.schemas import CUSTOMER_ID_PATTERN, ProblemBody
from models.enrichment.types import (
    AccountHealth,
    CustomerIntelligence,
    EngagementMetrics,
    ProviderState,
    ServedFrom,
    SubscriptionDetails,
    SupportHistory,
)
from models.errors import ContextEnrichmentError, DeadlineExceeded, InvalidRequest, UnknownAgentType, UnknownCustomer
from models.settings import Settings

CONTEXT_PREFIX = "/api/v1/customers"
OPEN_TAG = "Operations"

DESCRIPTION = """\
Answers customers with everything known about them. Failures are `application/problem+json` with a stable `code`;
`instance` is the request id, which every answer also carries as `X-Request-Id`. Unknown fields and parameters are
refused. Credentials go into `Authorization: Bearer KEY`; while no key is configured, callers on the same machine need
none."""

_SECTIONS = {
    "customer_intelligence": CustomerIntelligence,
    "subscription_details": SubscriptionDetails,
    "support_history": SupportHistory,
    "engagement_metrics": EngagementMetrics,
    "account_health": AccountHealth,
}


def describe(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The document for the routes of the main application and those of the context application."""
    document = get_openapi(
        title="Rapport",
        version=_version(),
        summary="Contact centre, customer context, support chat and campaigns on one Ray cluster",
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": f"http://{settings.ingress.host}:{settings.ingress.port}"}],
        tags=[{"name": name} for name in ("Classification", "Context", "Conversation", "Campaigns", OPEN_TAG)],
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["ProblemBody"] = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schemas["ProblemBody"].pop("$defs", {}))
    schemas.update(_context_schemas())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["paths"].update(_context_paths())
    for operations in document["paths"].values():
        for operation in operations.values():
            # An empty requirement beside the key: anonymous calls are possible while no key is configured.
            operation["security"] = [] if OPEN_TAG in operation["tags"] else [{"key": []}, {}]
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
                            "application/json": {"schema": {"$ref": "#/components/schemas/ContextBody"}},
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
                        "content": {"application/json": {"schema": {"type": "object"}}},
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
    schemas: dict[str, Any] = {}
    for section in _SECTIONS.values():
        schemas[section.__name__] = TypeAdapter(section).json_schema(ref_template="#/components/schemas/{model}")
    number, text = {"type": "number"}, {"type": "string"}
    schemas["ProviderReading"] = {
        "type": "object",
        "description": "How one provider did for this read.",
        "properties": {
            "state": {"type": "string", "enum": [state.value for state in ProviderState]},
            "as_of": {"type": ["string", "null"], "format": "date-time"},
            "age_ms": {"type": ["number", "null"]},
            "source": text,
            "served_from": {"type": "string", "enum": [tier.value for tier in ServedFrom]},
            "latency_ms": number,
        },
    }
    optional_sections = {
        name: {"anyOf": [{"$ref": f"#/components/schemas/{section.__name__}"}, {"type": "null"}]}
        for name, section in _SECTIONS.items()
    }
    schemas["ContextBody"] = {
        "type": "object",
        "description": "Everything known of one customer for one agent type; a section without data is null.",
        "required": ["customer_id", "complete", "context_version"],
        "properties": {
            "customer_id": text,
            "agent_type": {"type": ["string", "null"]},
            "context_version": text,
            "complete": {"type": "boolean"},
            "deadline_ms": number,
            "elapsed_ms": number,
            **optional_sections,
        },
    }
    return schemas
