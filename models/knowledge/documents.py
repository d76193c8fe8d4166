"""Reads Markdown documents with YAML front matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import yaml

from models.errors import FieldError, InvalidRequest
from models.knowledge.types import Document, DocumentKind

_REQUIRED = ("id", "title", "owner", "version", "approved", "valid_from")
_OPTIONAL = ("valid_until", "audience", "topics", "kind")


def load_documents(paths: Iterable[Path]) -> list[Document]:
    """Documents of the files, and of every `*.md` below the folders, in order of path.

    Raises `InvalidRequest` naming the file and the field; two files with one id are refused.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*.md")) if path.is_dir() else [path])]
    found: dict[str, tuple[Path, Document]] = {}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise InvalidRequest(f"{file}: not readable as UTF-8 text") from exc
        document = parse_document(text, source=str(file))
        if document.document_id in found:
            other = found[document.document_id][0]
            raise _wrong(str(file), "id", f"{document.document_id!r} is also the id of {other}")
        found[document.document_id] = (file, document)
    return [document for _, document in found.values()]


def parse_document(text: str, *, source: str) -> Document:
    """One document from its Markdown; `source` names it in errors. Raises `InvalidRequest` naming the field."""
    front, body = _split_front_matter(text, source)
    for name in front:
        if name not in _REQUIRED + _OPTIONAL:
            raise _wrong(source, name, "is not a field of the front matter")
    for name in _REQUIRED:
        if front.get(name) is None:
            raise _wrong(source, name, "is missing")
    valid_from = _day(source, "valid_from", front)
    valid_until = None if front.get("valid_until") is None else _day(source, "valid_until", front)
    if valid_until is not None and valid_until < valid_from:
        raise _wrong(source, "valid_until", "lies before valid_from")
    if not isinstance(front["approved"], bool):
        raise _wrong(source, "approved", "must be true or false")
    kinds = ", ".join(DocumentKind)
    kind = front.get("kind") or DocumentKind.HELP
    if kind not in set(DocumentKind):
        raise _wrong(source, "kind", f"must be one of: {kinds}")
    if not body.strip():
        raise _wrong(source, "body", "is empty")
    return Document(
        document_id=_text(source, "id", front),
        title=_text(source, "title", front),
        body=body,
        owner=_text(source, "owner", front),
        version=_text(source, "version", front),
        approved=front["approved"],
        valid_from=valid_from,
        valid_until=valid_until,
        kind=DocumentKind(kind),
        topics=_names(source, "topics", front, ()),
        audience=_names(source, "audience", front, ("customer",)),
    )


def _split_front_matter(text: str, source: str) -> tuple[Mapping[str, Any], str]:
    normal = text.removeprefix("\ufeff").replace("\r\n", "\n")
    parts = normal.split("\n---\n", 1)
    if not normal.startswith("---\n") or len(parts) != 2:
        raise InvalidRequest(f"{source}: does not start with front matter between two lines of ---")
    try:
        front = yaml.safe_load(parts[0].removeprefix("---\n"))
    except yaml.YAMLError as exc:
        raise InvalidRequest(f"{source}: front matter is not valid YAML") from exc
    if not isinstance(front, dict):
        raise InvalidRequest(f"{source}: front matter is not a mapping")
    return {str(key): value for key, value in front.items()}, parts[1].strip("\n")


def _text(source: str, name: str, front: Mapping[str, Any]) -> str:
    value = front[name]
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
        raise _wrong(source, name, "must be text")
    return str(value).strip()


def _day(source: str, name: str, front: Mapping[str, Any]) -> date:
    value = front[name]
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError as exc:
        raise _wrong(source, name, "must be a date such as 2026-01-31") from exc


def _names(source: str, name: str, front: Mapping[str, Any], default: tuple[str, ...]) -> tuple[str, ...]:
    value = front.get(name)
    if value is None:
        return default
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(source, name, "must be a list of words")
    return tuple(value)


def _wrong(source: str, name: str, detail: str) -> InvalidRequest:
    error = InvalidRequest(f"{source}: {name} {detail}")
    error.with_fields(FieldError(f"/{name}", detail))
    return error
