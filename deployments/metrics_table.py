"""Every metric of Rapport: what is counted or observed here exists, and nothing else does.

The names of classification are those of the contact-centre documents; labels never hold an id or a text of a customer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

#: Ray estimates a histogram's sum from its buckets; a counter of this name beside it holds the exact one.
EXACT_SUM = "_exact_sum_total"


class Kind(StrEnum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; `buckets` are the upper bounds of a histogram, ascending, without infinity."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: From an L1 hit to a reply of a language model.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, help=help, labels=labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, help=help, labels=labels)


def _histogram(name: str, help: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, help=help, labels=labels, buckets=buckets)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _counter("classification_requests_total", "Messages that were to be classified.", "channel"),
        _histogram("classification_latency_seconds", "From message to decision, workflow included."),
        _histogram("classification_confidence", "Probability of the chosen category.", buckets=TENTHS),
        _counter("classification_by_category", "Classified messages by category.", "category"),
        _counter("llm_errors_total", "Failed generations by error code.", "code"),
        _counter("llm_calls_total", "Calls of an engine by how they ended.", "engine", "model", "outcome"),
        _counter("llm_rejected_total", "Generations refused because too many were running."),
        _counter("llm_fallbacks_total", "Replies by another engine than the preferred one.", "preferred", "engine"),
        _counter(
            "llm_tokens_total",
            "Tokens as the engine counts them; cached ones are part of the prompt.",
            *("engine", "model", "kind"),
        ),
        _counter("llm_cost_usd_total", "Cost by the price table; estimated for broken calls.", "engine", "model"),
        _counter("llm_unpriced_calls_total", "Replies whose model the price table does not know.", "engine", "model"),
        _histogram("llm_first_token_seconds", "From call to first piece, tries included.", "engine", "model"),
        _histogram("llm_duration_seconds", "From call to the end of the reply, tries included.", "engine", "model"),
        _gauge("llm_spend_usd", "Spent or set aside on language models since midnight UTC, by the ledger.", "scope"),
        _gauge("llm_budget_usd", "The most that may be spent in a day or on a campaign, where limited.", "scope"),
        _gauge(
            "llm_breaker_open", "Replicas whose circuit to the engine, by its configured name, is not closed.", "engine"
        ),
        _gauge("llm_running", "Generations that run now."),
        _counter("conversation_turns_total", "Finished turns by outcome.", "outcome"),
        _counter("context_reads_total", "Context reads by where they were answered.", "served_from"),
        _counter("context_provider_outcomes_total", "Provider readings by state.", "provider", "state"),
        _histogram("context_provider_latency_seconds", "Time a provider took.", "provider"),
        _counter("context_cache_requests_total", "Cache lookups by tier: hit, stale or miss.", "tier", "result"),
        _counter("context_cache_errors_total", "Cache calls that failed.", "tier"),
        _counter("context_refreshes_total", "Fetches behind an answer: early, or after the time to live.", "reason"),
        _counter("context_invalidations_total", "What was dropped: a customer, a tag, or all after a gap.", "kind"),
        _histogram("context_invalidation_lag_seconds", "From a committed change to the end of its invalidation."),
        _gauge("context_breaker_open", "Replicas whose circuit to the provider is not closed.", "provider"),
        _counter("context_masked_releases_total", "Reads served masked because the audit was not durable in time."),
        _counter("context_assignments_dropped_total", "Strategy assignments lost: the database stayed away."),
        _counter("context_events_total", "Announced changes by type: accepted or duplicate.", "type", "result"),
        _counter("context_history_errors_total", "Context versions that could not be written."),
        _counter(
            "safety_checks_total", "Checked texts by what they were for and what was decided.", "purpose", "outcome"
        ),
        _counter("audit_lines_dropped_total", "Audit lines lost because the database stayed away too long."),
        _counter("embedding_texts_total", "Texts by where their vector came from: cache or model.", "source"),
        _counter("embedding_tokens_total", "Tokens the embedding model computed: of text or of padding.", "kind"),
        _histogram("embedding_batch_texts", "Texts in one batch of the embedding model.", buckets=TEXTS),
        _counter("http_requests_total", "Answered requests by route.", "route", "method", "status"),
        _histogram("http_request_seconds", "Time to the end of an answer by route.", "route", "method"),
    )
}
