"""One check for every failure that a client can meet."""

from __future__ import annotations

from typing import Any

import httpx

FIELDS = {"type", "title", "status", "detail", "instance", "code", "errors", "retryable"}


def problem(response: httpx.Response, status: int, code: str, *pointers: str) -> dict[str, Any]:
    """Assert a well-formed problem of this status and code that names these pointers, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert set(document) - {"retry_after_ms"} == FIELDS
    assert document["status"] == status
    assert document["code"] == code
    assert document["instance"] == response.headers["x-request-id"] != ""
    assert [error["pointer"] for error in document["errors"]] == list(pointers)
    assert all(error["detail"] for error in document["errors"])
    return document
