"""A local server that speaks the wire formats of Clearbit, Crunchbase and NewsAPI, and fails in every way of the wire.

The formats are those of the pages named in `providers/external`. One server answers for all three: their paths differ.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: Unmistakable, so that a test can look for them anywhere.
KEYS = {"clearbit": "sk_clearbit_51f0", "crunchbase": "cb_user_key_77aa", "news_api": "news_key_c0de"}
UPSTREAM_TEXT = "secret upstream text"
HUGE = 50 * 1024 * 1024
#: Compressed once, so that a test which watches memory does not see it grow.
BOMB = gzip.compress(b" " * HUGE, compresslevel=9)

Json = dict[str, Any]
#: Writes the answer to one request, in whatever way.
Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]
_REASONS = {200: "OK", 202: "Accepted", 302: "Found", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it arrived; header names are in lower case, `raw` is all of its bytes."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    raw: bytes


@dataclass(slots=True, kw_only=True)
class _Reply:
    status: int
    document: Json | None


def head(headers: Mapping[str, str | int], *, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Something')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(body: bytes = b"", *, status: int = 200, headers: Mapping[str, str] | None = None) -> Fault:
    """An answer that is complete, whatever it says; JSON by its head, unless the headers say otherwise."""

    async def write(writer: asyncio.StreamWriter) -> None:
        names: dict[str, str | int] = {
            "content-type": "application/json",
            "content-length": len(body),
            **(headers or {}),
        }
        writer.write(head(names, status=status) + body)

    return write


def refusal(status: int, headers: Mapping[str, str] | None = None) -> Fault:
    """An error with a body that nobody should repeat."""
    return whole(json.dumps({"error": UPSTREAM_TEXT}).encode(), status=status, headers=headers)


def cut(data: bytes) -> Fault:
    """These bytes, and then the connection ends."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return write


async def hang(writer: asyncio.StreamWriter) -> None:
    """No answer at all."""
    await asyncio.Event().wait()


def flood(headers: Mapping[str, str | int] | None = None) -> Fault:
    """50 MB of JSON, as long as somebody takes it."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head({"content-type": "application/json", **(headers or {})}) + b'{"name":"')
        for _ in range(HUGE // 65536):
            writer.write(b"a" * 65536)
            await writer.drain()
        writer.close()

    return write


class VendorServer:
    """Answers what the vendors would; the next requests meet the `faults`, one each.

    Use with `async with`; it runs in the test's event loop.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.called = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.compresses = False
        self.companies: dict[str, Json] = {}
        self.queued: set[str] = set()
        self.over_quota = False
        self.organizations: dict[str, Json] = {}
        self.rounds: dict[str, list[Json]] = {}
        self.articles: list[Json] = []
        self.max_results = 100
        self.url = ""
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> VendorServer:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            while not writer.is_closing():
                call = await _read(reader)
                self.calls.append(call)
                self.called.set()
                await self._answer(call, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            self._talks.discard(task)
            writer.close()

    async def _answer(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.faults:
            reply = self._reply(call)
            body = b"" if reply.document is None else json.dumps(reply.document).encode()
            if self.compresses and call.headers.get("accept-encoding") == "gzip":
                await whole(gzip.compress(body), status=reply.status, headers={"content-encoding": "gzip"})(writer)
            else:
                await whole(body, status=reply.status)(writer)
            return
        fault = asyncio.ensure_future(self.faults.pop(0)(writer))
        left = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((fault, left), return_when=asyncio.FIRST_COMPLETED)
            if left.done() and not fault.done():
                raise ConnectionResetError("the client hung up")
            await fault
        finally:
            fault.cancel()
            left.cancel()

    def _reply(self, call: Call) -> _Reply:
        match call.method, call.path.strip("/").split("/"):
            case "GET", ["v2", "companies", "find"]:
                return self._clearbit(call)
            case "POST", ["api", "v4", "searches", "organizations"]:
                return self._search(call)
            case "GET", ["api", "v4", "entities", "organizations", uuid, "cards", "raised_funding_rounds"]:
                return self._rounds(call, uuid)
            case "GET", ["v2", "everything"]:
                return self._news(call)
            case _:
                return _Reply(status=404, document={"error": {"type": "unknown_route", "message": UPSTREAM_TEXT}})

    def _clearbit(self, call: Call) -> _Reply:
        def error(status: int, kind: str) -> _Reply:
            return _Reply(status=status, document={"error": {"type": kind, "message": UPSTREAM_TEXT}})

        credential = call.headers.get("authorization")
        if credential != f"Bearer {KEYS['clearbit']}":
            return error(401, "invalid_api_key" if credential else "auth_required")
        if self.over_quota:
            return error(402, "over_quota")
        domain = call.query.get("domain", "")
        if "." not in domain or domain.endswith(".invalid"):
            return error(422, "domain_invalid")
        if domain in self.queued:
            return _Reply(status=202, document=None)
        if domain not in self.companies:
            return error(404, "unknown_record")
        return _Reply(status=200, document=self.companies[domain])

    def _search(self, call: Call) -> _Reply:
        if call.headers.get("x-cb-user-key") != KEYS["crunchbase"]:
            return _crunchbase_error(401)
        request = json.loads(call.body)
        match request:
            case {
                "field_ids": [*fields],
                "query": [
                    {"type": "predicate", "field_id": "website_url", "operator_id": "domain_eq", "values": [domain]}
                ],
                "order": [{"field_id": "rank_org", "sort": "asc"}],
                "limit": 1,
            }:
                found = [self.organizations[domain]] if domain in self.organizations else []
            case _:
                return _crunchbase_error(400)
        entities = [
            {
                "uuid": one["identifier"]["uuid"],
                "properties": {name: value for name, value in one.items() if name in fields},
            }
            for one in found
        ]
        return _Reply(status=200, document={"count": len(entities), "entities": entities})

    def _rounds(self, call: Call, uuid: str) -> _Reply:
        if call.headers.get("x-cb-user-key") != KEYS["crunchbase"]:
            return _crunchbase_error(401)
        limit = int(call.query.get("limit", "100"))
        if uuid not in self.rounds:
            return _crunchbase_error(404)
        if limit > 100 or call.query.get("order") != "announced_on desc":
            return _crunchbase_error(400)
        rounds = sorted(self.rounds[uuid], key=lambda one: str(one["announced_on"]), reverse=True)
        uuids = [one["identifier"]["uuid"] for one in rounds]
        start = uuids.index(call.query["after_id"]) + 1 if "after_id" in call.query else 0
        fields = call.query["card_field_ids"].split(",")
        page = [{name: value for name, value in one.items() if name in fields} for one in rounds[start : start + limit]]
        return _Reply(status=200, document={"properties": {}, "cards": {"raised_funding_rounds": page}})

    def _news(self, call: Call) -> _Reply:
        def error(status: int, code: str) -> _Reply:
            return _Reply(status=status, document={"status": "error", "code": code, "message": UPSTREAM_TEXT})

        key = call.headers.get("x-api-key")
        if key != KEYS["news_api"]:
            return error(401, "apiKeyInvalid" if key else "apiKeyMissing")
        query = call.query
        if not query.get("q"):
            return error(400, "parametersMissing")
        size, page = int(query.get("pageSize", "100")), int(query.get("page", "1"))
        if len(query["q"]) > 500 or size > 100 or query.get("sortBy") not in (None, "publishedAt"):
            return error(400, "parameterInvalid")
        if size * page > self.max_results:
            return error(426, "maximumResultsReached")
        phrase = query["q"].strip('"').casefold()
        found = [
            one
            for one in self.articles
            if phrase in f"{one['title']} {one['description']}".casefold() and one["publishedAt"] >= query["from"]
        ]
        found.sort(key=lambda one: str(one["publishedAt"]), reverse=True)
        document = {"status": "ok", "totalResults": len(found), "articles": found[(page - 1) * size : page * size]}
        return _Reply(status=200, document=document)


def _crunchbase_error(status: int) -> _Reply:
    return _Reply(status=status, document={"errors": [{"code": f"MD{status}", "message": UPSTREAM_TEXT}]})


async def _read(reader: asyncio.StreamReader) -> Call:
    opening = await reader.readuntil(b"\r\n\r\n")
    request, *lines = opening.decode("latin-1").split("\r\n")
    method, target, _ = request.split(" ")
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {name.lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Call(
        method=method,
        path=url.path,
        query=dict(parse_qsl(url.query)),
        headers=headers,
        body=body,
        raw=opening + body,
    )


def company(domain: str, **changes: object) -> Json:
    """A company as Clearbit describes one, with more than anybody reads."""
    return {
        "id": "c5a6a9c5-303a-455a-935c-9dffcd2ed756",
        "name": "Acme",
        "legalName": "Acme Corporation, Inc.",
        "domain": domain,
        "site": {"phoneNumbers": ["+1 415-555-0100"], "emailAddresses": ["press@acme.example"]},
        "category": {"sector": "Information Technology", "industry": "Internet Software & Services"},
        "tags": ["SaaS"],
        "description": "Makes everything\nthat a coyote needs.",
        "foundedYear": 1949,
        "location": "510 Townsend St, San Francisco, CA 94103, USA",
        "geo": {"city": "San Francisco", "country": "United States", "countryCode": "US"},
        "metrics": {
            "raised": None,
            "employees": 420,
            "employeesRange": "251-1K",
            "annualRevenue": 250000000,
            "estimatedAnnualRevenue": "$100M-$250M",
        },
        "tech": ["google_analytics", "salesforce"],
        **changes,
    }


def organization(number: int, **changes: object) -> Json:
    """An organization as Crunchbase's search gives it when asked for these fields."""
    return {
        "identifier": _identifier(number, "Acme", "organization"),
        "website_url": "https://www.acme.example",
        "funding_total": {"value": 20000000, "currency": "EUR", "value_usd": 21500000},
        "num_funding_rounds": 2,
        "last_funding_type": "series_a",
        "last_funding_at": "2023-05-04",
        "ipo_status": "private",
        **changes,
    }


def funding_round(number: int, announced_on: str, *, investors: Sequence[str] = (), **changes: object) -> Json:
    """A funding round as the card lists it; an investor whose name starts with `person:` is one."""
    return {
        "identifier": _identifier(number, f"Round {number}", "funding_round"),
        "announced_on": announced_on,
        "investment_type": "series_a",
        "money_raised": {"value": 1000000, "currency": "USD", "value_usd": 1000000},
        "investor_identifiers": [
            _identifier(
                900 + place,
                name.removeprefix("person:"),
                "person" if name.startswith("person:") else "organization",
            )
            for place, name in enumerate(investors)
        ],
        **changes,
    }


def article(title: str, published_at: str, **changes: object) -> Json:
    """An article as NewsAPI lists it."""
    return {
        "source": {"id": None, "name": "The Daily"},
        "author": "Sam Writer",
        "title": title,
        "description": "About Acme Corp",
        "url": "https://news.example/story",
        "urlToImage": None,
        "publishedAt": published_at,
        "content": "… [+4500 chars]",
        **changes,
    }


def _identifier(number: int, value: str, kind: str) -> Mapping[str, str]:
    return {
        "uuid": f"00000000-0000-4000-8000-{number:012d}",
        "value": value,
        "permalink": value.lower().replace(" ", "-"),
        "entity_def_id": kind,
    }
