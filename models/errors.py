"""Every failure Rapport can name, as one tree.

    RapportError
    ├── InvalidRequest                the caller can mend it; `errors` names the field and the fix
    │   ├── UnknownAgentType          agent type outside the configured set
    │   ├── ContextLengthExceeded     more text than the model's window
    │   └── IdempotencyMismatch       same Idempotency-Key, another body
    ├── NotFound                      the named resource does not exist
    │   ├── UnknownCustomer
    │   └── UnknownModel              no configured model has this name
    ├── Conflict                      the resource is not in a state that allows this
    │   └── InProgress                the same idempotent request still runs
    ├── Gone                          it existed, and its time has passed
    ├── Unauthorized                  no credential, or one we do not know
    ├── Forbidden                     the credential does not reach this far
    ├── RateLimited                   the credential's budget is spent
    ├── BudgetExhausted               the money set aside for language models is spent
    ├── Overloaded                    queues are full; nothing was started
    ├── DeadlineExceeded              the time budget ran out
    ├── DependencyUnavailable         something we rely on does not answer
    │   ├── DatabaseUnavailable
    │   ├── CacheUnavailable          Redis
    │   ├── KnowledgeUnavailable      the vector store
    │   ├── ModelUnavailable          a language or embedding model
    │   │   ├── ModelRateLimited      its endpoint wants us to slow down
    │   │   ├── ModelAccessDenied     its endpoint refuses our key, or does not know the model we name
    │   │   └── ModelReplyBroken      its reply broke off, or cannot be read
    │   ├── SafetyUnavailable         moderation or PII detection; callers fail closed
    │   └── ProviderUnavailable       one context provider
    ├── UnsupportedByModel            the engine cannot do what the request needs
    ├── ModelRefused                  the engine was asked, and has no grounded answer
    ├── UnsafeContent                 policy blocked the text
    ├── ContextEnrichmentError        the enrichment service itself failed (not one provider)
    ├── ConfigurationError            a setting is missing, unknown or malformed
    ├── StageFailed                   a campaign stage could not do its work
    └── Internal                      a defect of ours; the cause is in the log only

Each class takes one message (safe for a log, never shown to a client as is), so that it survives pickling through a
Ray handle. `code`, `status`, `title` and `retryable` are class attributes: clients see those and a safe detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One offending field: an RFC 6901 JSON pointer, what is wrong, and how to mend it."""

    pointer: str
    detail: str


class RapportError(Exception):
    """Base of every named failure; catch this at an edge, a subclass anywhere else."""

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    #: Whether the message may be shown to a client as `detail`. Only true where we wrote every word of it.
    public: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.fields: tuple[FieldError, ...] = ()
        self.retry_after_s: float | None = None
        #: What a client may read where the class is not public; every word of it is ours.
        self.detail = ""
        #: What language models cost before this failure, over all their tries; `None` where nobody knows.
        self.cost_usd: float | None = None

    def with_fields(self, *fields: FieldError) -> RapportError:
        """Name the offending fields; returns self so that it can be raised in one line."""
        self.fields = fields
        return self

    def with_detail(self, detail: str) -> RapportError:
        """Say what a client may read of this one failure; returns self."""
        self.detail = detail
        return self

    def with_retry_after(self, seconds: float) -> RapportError:
        """Say when another try makes sense; returns self."""
        self.retry_after_s = seconds
        return self


class InvalidRequest(RapportError):
    """The request is malformed; `fields` says where and how to mend it."""

    code, status, title, public = "INVALID_REQUEST", 422, "The request is not valid", True


class UnknownAgentType(InvalidRequest):
    """The agent type is not one of the configured ones."""

    code, title = "UNKNOWN_AGENT_TYPE", "Unknown agent type"


class ContextLengthExceeded(InvalidRequest):
    """The text is longer than the model's window."""

    code, status, title = "CONTEXT_LENGTH_EXCEEDED", 400, "The input is longer than the model's window"


class IdempotencyMismatch(InvalidRequest):
    """The Idempotency-Key was used before with another body."""

    code, title = "IDEMPOTENCY_MISMATCH", "The idempotency key was used with another body"


class NotFound(RapportError):
    """The named resource does not exist."""

    code, status, title, public = "NOT_FOUND", 404, "Not found", True


class UnknownCustomer(NotFound):
    """No customer has this id."""

    code, title = "UNKNOWN_CUSTOMER", "Unknown customer"


class UnknownModel(NotFound):
    """No configured model has this name."""

    code, title = "UNKNOWN_MODEL", "Unknown model"


class Conflict(RapportError):
    """The resource is not in a state that allows this."""

    code, status, title, public = "CONFLICT", 409, "Conflict", True


class InProgress(Conflict):
    """The same idempotent request is still running."""

    code, title, retryable = "IN_PROGRESS", "The same request is still running", True


class Gone(RapportError):
    """It existed, and its time has passed."""

    code, status, title, public = "GONE", 410, "No longer available", True


class Unauthorized(RapportError):
    """No credential was given, or it is not known."""

    code, status, title, public = "UNAUTHORIZED", 401, "A valid credential is required", True


class Forbidden(RapportError):
    """The credential does not reach this far."""

    code, status, title, public = "FORBIDDEN", 403, "Not allowed with this credential", True


class RateLimited(RapportError):
    """The credential's request budget is spent for now."""

    code, status, title, retryable, public = "RATE_LIMITED", 429, "Too many requests", True, True


class BudgetExhausted(RapportError):
    """The money set aside for language models is spent; nothing was sent to a model."""

    code, status, title, public = "BUDGET_EXHAUSTED", 429, "The language-model budget is spent", True


class Overloaded(RapportError):
    """Queues are full; nothing was started."""

    code, status, title, retryable, public = "OVERLOADED", 503, "Overloaded", True, True


class DeadlineExceeded(RapportError):
    """The time budget of the request ran out."""

    code, status, title, retryable = "DEADLINE_EXCEEDED", 504, "The time budget ran out", True


class DependencyUnavailable(RapportError):
    """Something we rely on does not answer."""

    code, status, title, retryable = "DEPENDENCY_UNAVAILABLE", 503, "A dependency is unavailable", True


class DatabaseUnavailable(DependencyUnavailable):
    """The database does not answer."""

    code, title = "DATABASE_UNAVAILABLE", "The database is unavailable"


class CacheUnavailable(DependencyUnavailable):
    """Redis does not answer."""

    code, title = "CACHE_UNAVAILABLE", "The cache is unavailable"


class KnowledgeUnavailable(DependencyUnavailable):
    """The vector store does not answer."""

    code, title = "KNOWLEDGE_UNAVAILABLE", "The knowledge store is unavailable"


class ModelUnavailable(DependencyUnavailable):
    """A language or embedding model does not answer."""

    code, title = "MODEL_UNAVAILABLE", "The model is unavailable"


class ModelRateLimited(ModelUnavailable):
    """The model's endpoint wants us to slow down."""

    code, title = "MODEL_RATE_LIMITED", "The model's endpoint is rate limiting us"


class ModelAccessDenied(ModelUnavailable):
    """The model's endpoint refuses our key, our quota or the model's name: an operator has to mend it."""

    code, status, title, retryable = "MODEL_ACCESS_DENIED", 502, "The model's endpoint refuses us", False


class ModelReplyBroken(ModelUnavailable):
    """The model's reply broke off or cannot be read; nothing of it counts."""

    code, status, title = "MODEL_REPLY_BROKEN", 502, "The model's reply is broken"
    #: The `models.llm.types.Usage` that the endpoint bills all the same, where it counted one.
    usage: Any = None


class SafetyUnavailable(DependencyUnavailable):
    """Moderation or PII detection does not answer; whoever meets this must block."""

    code, title = "SAFETY_UNAVAILABLE", "The safety check is unavailable"


class ProviderUnavailable(DependencyUnavailable):
    """One context provider does not answer."""

    code, title = "PROVIDER_UNAVAILABLE", "A context provider is unavailable"


class UnsupportedByModel(RapportError):
    """The selected engine cannot do what the request needs (tools, schema, free text...)."""

    code, status, title, public = "UNSUPPORTED_BY_MODEL", 422, "The model cannot do this", True


class ModelRefused(RapportError):
    """The engine found nothing in the passages that answers."""

    code, status, title, public = "MODEL_REFUSED", 422, "No grounded answer", True
    #: The `models.llm.types.Usage` that the endpoint bills all the same, where it counted one.
    usage: Any = None


class UnsafeContent(RapportError):
    """Policy blocked the text."""

    code, status, title, public = "UNSAFE_CONTENT", 422, "Blocked by the safety policy", True


class ContextEnrichmentError(RapportError):
    """The enrichment service itself failed; a failing provider never raises this."""

    code, status, title, retryable = "CONTEXT_ENRICHMENT_FAILED", 503, "Customer context is unavailable", True


class ConfigurationError(RapportError):
    """A setting is missing, unknown or malformed; the message names it."""

    code, title = "CONFIGURATION_ERROR", "The service is misconfigured"


class StageFailed(RapportError):
    """A campaign stage could not do its work; the campaign goes on without it."""

    code, title = "STAGE_FAILED", "A campaign stage failed"


class Internal(RapportError):
    """A defect of ours; the cause is in the log only."""
