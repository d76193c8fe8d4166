"""The context application in the OpenAPI document, told by hand: its routes are plain and its bodies spliced."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from deployments.ingress.http.problems import problems
from deployments.ingress.parameters import HISTORY, READ, SUMMARY, Parameters
from deployments.ingress.schemas import CUSTOMER_ID_PATTERN
from models.enrichment.types import SECTIONS, ProviderState, ServedFrom
from models.errors import (
    ContextEnrichmentError,
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    RapportError,
    UnknownAgentType,
    UnknownCustomer,
)

PREFIX = "/api/v1/customers"
REFERENCE = "#/components/schemas/{model}"

_TEXT, _NUMBER, _WHOLE, _FLAG = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
_INSTANT = {"type": "string", "format": "date-time"}
_READ_FAILURES = (UnknownCustomer, InvalidRequest, UnknownAgentType, DeadlineExceeded, ContextEnrichmentError)
_READ_HEADERS = {
    "Cache-Status": {"schema": _TEXT, "description": "RFC 9211: which cache answered."},
    "Context-Complete": {"schema": _FLAG, "description": "Whether every provider answered."},
    "Context-Version": {"schema": _TEXT, "description": "Changes only when the content does."},
    "Context-Masked": {
        "schema": _FLAG,
        "description": "`true` when personal data was masked beyond the agent type's rules, because the audit trail "
        "could not take note of its release in time.",
    },
    "Context-Strategy": {"schema": _TEXT, "description": "`experiment/strategy`, where an experiment decides."},
    "Age": {"schema": _WHOLE, "description": "Seconds; on cache hits."},
}


def paths() -> dict[str, Any]:
    """The routes below `PREFIX`."""
    return {
        f"{PREFIX}/{{customer_id}}/context": _get(
            "read_context",
            "Read a customer's context",
            "Providers are read in parallel. A partial context is a 200 that says so.",
            READ,
            {
                "description": "The context, or its prompt form",
                "headers": _READ_HEADERS,
                "content": {
                    "application/json": {"schema": _reference("ContextBody")},
                    "text/plain": {"schema": _TEXT},
                },
            },
            *_READ_FAILURES,
        ),
        f"{PREFIX}/{{customer_id}}/context/summary": _get(
            "read_context_summary",
            "Read the short view of a customer's context",
            "The documented keys; levels and flags follow stated bands.",
            SUMMARY,
            {
                "description": "The summary",
                "headers": _READ_HEADERS,
                "content": {"application/json": {"schema": _reference("ContextSummary")}},
            },
            *_READ_FAILURES,
        ),
        f"{PREFIX}/{{customer_id}}/context/history": _get(
            "read_context_history",
            "See how a customer's context changed",
            "What this agent type could see, the newest version first, with what each version changed; with `from` and "
            "`to`, what changed between these two. Sections about the present minute are not kept.",
            HISTORY,
            {
                "description": "A page of versions, or the changes between two",
                "content": {
                    "application/json": {
                        "schema": {"oneOf": [_reference("ContextVersions"), _reference("ContextComparison")]}
                    }
                },
            },
            *(InvalidRequest, UnknownAgentType, NotFound, UnknownCustomer, DatabaseUnavailable),
        ),
    }


def _get(
    operation_id: str,
    summary: str,
    description: str,
    parameters: Parameters,
    answer: dict[str, Any],
    *failures: type[RapportError],
) -> dict[str, Any]:
    responses = {str(status): response for status, response in problems(*failures).items()}
    return {
        "get": {
            "tags": ["Context"],
            "operationId": operation_id,
            "summary": summary,
            "description": description,
            "parameters": _parameters(parameters),
            "responses": {"200": answer, **responses},
        }
    }


def _parameters(parameters: Parameters) -> list[dict[str, Any]]:
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


def schemas() -> dict[str, Any]:
    """Schemas of bodies that are spliced from stored bytes and so have no wire model."""
    tier = {"type": "string", "enum": [tier.value for tier in ServedFrom]}
    sections: dict[str, Any] = {}
    for section in SECTIONS.values():
        schema = TypeAdapter(section).json_schema(ref_template=REFERENCE)
        sections |= {**schema.pop("$defs", {}), section.__name__: schema}
    provider = {
        "section": _TEXT,
        "state": {"type": "string", "enum": [state.value for state in ProviderState]},
        "source": _TEXT,
        "as_of": _or_null(_INSTANT),
        "latency_ms": _NUMBER,
        "detail": _TEXT,
        "age_ms": _or_null(_WHOLE),
        "served_from": _or_null(tier),
    }
    context = {
        "customer_id": _TEXT,
        "agent_type": _TEXT,
        "context_version": _TEXT,
        "enriched_at": _INSTANT,
        "enrichment_latency_ms": _NUMBER,
        "complete": _FLAG,
        **{name: _or_null(_reference(section.__name__)) for name, section in SECTIONS.items()},
        "providers": {
            "type": "object",
            "additionalProperties": _reference("ProviderReading"),
        },
        "age_ms": _WHOLE,
        "served_from": tier,
        "cache_hit": _FLAG,
        "deadline_ms": _WHOLE,
        "elapsed_ms": _NUMBER,
        "relevance": {"type": "object", "additionalProperties": _NUMBER},
        "ranked_by_message": _FLAG,
    }
    summary = {
        "company_name": _TEXT,
        "plan": _TEXT,
        "health_score": _or_null(_WHOLE),
        "churn_risk": _or_null(_NUMBER),
        "churn_risk_level": _TEXT,
        "login_count_30d": _or_null(_WHOLE),
        "open_tickets": _or_null(_WHOLE),
        "days_to_renewal": _or_null(_WHOLE),
        "has_critical_issues": _FLAG,
        "has_opportunities": _FLAG,
        "cache_hit": _FLAG,
    }
    contexts = {
        "contexts": _list_of("ContextBody"),
        "unknown": {"type": "array", "items": _TEXT},
        "complete": _FLAG,
        "deadline_ms": _WHOLE,
        "elapsed_ms": _NUMBER,
        "masked": _FLAG,
    }
    change = {"field": _TEXT, "source": _TEXT, "before": {}, "after": {}, "at": _INSTANT}
    version = {
        "context_version": _TEXT,
        "previous_version": _or_null(_TEXT),
        "at": _INSTANT,
        "changes": _list_of("ContextChange"),
    }
    whose = {"customer_id": _TEXT, "agent_type": _TEXT}
    versions = {
        **whose,
        "versions": {"type": "array", "items": _object("What was seen from `at` on.", version)},
        "next_cursor": _or_null(_TEXT),
    }
    comparison = {**whose, "from": _TEXT, "to": _TEXT, "changes": _list_of("ContextChange")}
    return {
        **sections,
        "ProviderReading": _object("How one provider did for this read.", provider),
        "ContextBody": _object(
            "Everything known of one customer for one agent type; a section without data is null. With a `message` "
            "come `relevance`, 0 to 1 by section, and whether the message had a say in it: it has none when embedding "
            "it took too long.",
            context,
            optional=("relevance", "ranked_by_message"),
        ),
        "ContextSummary": _object("The short view.", summary),
        "ContextsBody": _object(
            "The contexts of many customers in the order asked; `masked` is there, and true, when personal data of all "
            "was masked because the audit trail could not take note of its release in time.",
            contexts,
            optional=("masked",),
        ),
        "ContextChange": _object("A field, or a whole section, that reads otherwise since `at`.", change),
        "ContextVersions": _object("Versions of one customer's context for one agent type.", versions),
        "ContextComparison": _object("What changed from one version to another.", comparison),
    }


def _object(description: str, properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(model=name)}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _reference(name)}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}
