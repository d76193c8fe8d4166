"""What every data vendor's provider promises, over real connections to a server that speaks the vendors' formats."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from models.enrichment.types import CustomerIntelligence
from models.errors import (
    ConfigurationError,
    DeadlineExceeded,
    Forbidden,
    ProviderUnavailable,
    RapportError,
    UnknownCustomer,
)
from models.resilience.bucket import Limit, MemoryTokenStore
from models.resilience.deadline import Deadline
from models.resilience.redis_client import connect
from models.settings import ContextSettings
from providers.base import ProviderResources
from providers.database import Database
from providers.external.company import VENDORS, configured
from providers.http_base import never_above
from tests.fakes.enrichment import ACME, HandClock
from tests.fakes.redis_server import RedisServer
from tests.fakes.vendor_server import BOMB, KEYS, Fault, VendorServer, cut, flood, hang, head, refusal, whole
from tests.fakes.vendors import CUSTOMER, DOMAIN, KNOWN, PROVIDERS, Desk, fill, open_desk, settings_of, vendor_server

JSON = {"content-type": "application/json"}
#: The same personal things are on record of every customer; none may reach a vendor.
PERSONAL = (b"jordan", b"blake", CUSTOMER.encode(), b"customer_", b"acc_0", b"dentistry")


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('vendors')}/rapport.db"
    asyncio.run(fill(url))
    return url


@pytest.fixture
async def server() -> AsyncIterator[VendorServer]:
    async with vendor_server() as running:
        yield running


@pytest.fixture(params=PROVIDERS)
async def desk(request: pytest.FixtureRequest, server: VendorServer, database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(request.param, server, database_url) as opened:
        yield opened


async def test_a_known_company_fills_its_section(desk: Desk) -> None:
    assert await desk.fetch() == KNOWN[desk.vendor]


async def test_a_company_the_vendor_does_not_know_is_no_failure(desk: Desk) -> None:
    assert await desk.fetch("customer_3") is None
    assert len(desk.server.calls) == 1
    assert await desk.fetch() == KNOWN[desk.vendor]


async def test_nothing_leaves_but_the_name_or_the_domain_of_the_company(desk: Desk) -> None:
    await desk.fetch()
    sent = b"".join(call.raw for call in desk.server.calls).lower()
    assert [personal for personal in PERSONAL if personal in sent] == []
    assert all(KEYS[desk.vendor] not in call.path + str(call.query) for call in desk.server.calls)
    first = desk.server.calls[0]
    told: dict[str, object] = {
        "clearbit": first.query,
        "crunchbase": json.loads(first.body)["query"][0]["values"] if first.body else None,
        "news_api": first.query.get("q"),
    }
    expected: dict[str, object] = {"clearbit": {"domain": DOMAIN}, "crunchbase": [DOMAIN], "news_api": '"Acme Corp"'}
    assert told[desk.vendor] == expected[desk.vendor]


@pytest.mark.parametrize("customer_id", ["customer_1", "customer_2"])
async def test_without_a_usable_domain_those_who_search_by_it_are_not_asked(desk: Desk, customer_id: str) -> None:
    assert await desk.fetch(customer_id) is None
    assert len(desk.server.calls) == (1 if desk.vendor == "news_api" else 0)
    assert all("dana" not in call.raw.decode() for call in desk.server.calls)


async def test_an_unknown_customer_is_said_to_be_one_and_nobody_is_asked(desk: Desk) -> None:
    with pytest.raises(UnknownCustomer):
        await desk.fetch("customer_99")
    assert desk.server.calls == []


async def test_a_missing_database_is_our_failure(desk: Desk, tmp_path: Path) -> None:
    provider = PROVIDERS[desk.vendor](
        ProviderResources(
            database=Database(f"sqlite+aiosqlite:///{tmp_path}/none.db"), settings=settings_of(desk.server)
        )
    )
    with pytest.raises(ProviderUnavailable):
        await provider.fetch(CUSTOMER, deadline=Deadline.after(20), known={})
    await provider.close()


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_vendor_that_refuses_us_is_left_alone_for_a_while(desk: Desk, status: int) -> None:
    assert isinstance(await desk.failure(refusal(status)), Forbidden)
    assert isinstance(await desk.failure(), Forbidden)
    assert len(desk.server.calls) == 1
    desk.clock.forward(desk.provider.pause_s)
    assert await desk.fetch() == KNOWN[desk.vendor]


async def test_a_wrong_key_is_a_refusal(desk: Desk) -> None:
    desk.provider = desk.build(**{VENDORS[desk.vendor].key: "another_key"})
    assert isinstance(await desk.failure(), Forbidden)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_vendor_that_says_when_to_come_back_is_not_asked_before(desk: Desk, status: int, form: str) -> None:
    until = desk.clock.wall() + timedelta(seconds=120)
    said = "120" if form == "seconds" else format_datetime(until, usegmt=True)
    error = await desk.failure(refusal(status, {"retry-after": said}))
    assert isinstance(error, ProviderUnavailable)
    assert error.retry_after_s == 120.0
    desk.clock.forward(119.0)
    assert (await desk.failure()).retry_after_s == pytest.approx(1.0)
    assert len(desk.server.calls) == 1
    desk.clock.forward(1.0)
    assert await desk.fetch() == KNOWN[desk.vendor]


@pytest.mark.parametrize("said", [{}, {"retry-after": "soon"}, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}])
async def test_a_vendor_that_only_wants_us_to_slow_down_is_left_alone_too(desk: Desk, said: dict[str, str]) -> None:
    error = await desk.failure(refusal(429, said))
    assert error.retry_after_s == desk.provider.pause_s
    await desk.failure()
    assert len(desk.server.calls) == 1


async def test_no_vendor_can_send_us_away_for_ever(desk: Desk) -> None:
    await desk.failure(refusal(429, {"retry-after": "999999999"}))
    desk.clock.forward(24 * 3600.0)
    assert await desk.fetch() == KNOWN[desk.vendor]


#: What every vendor could say.
NOTHING_FOUND = b'{"domain":"a.example","count":0,"entities":[],"status":"ok","totalResults":0,"articles":[]}'
BROKEN: dict[str, Fault] = {
    "500": refusal(500),
    "400": refusal(400),
    "418": refusal(418),
    "204": whole(status=204),
    "redirect": whole(status=302, headers={"location": "/v2/elsewhere"}),
    "empty": whole(),
    "not JSON": whole(b"{nonsense"),
    "not JSON by its head": whole(b"<html>sign in</html>", headers={"content-type": "text/html"}),
    "no media type": whole(b"{}", headers={"content-type": ""}),
    "another shape": whole(b'["a"]'),
    "fields of other types": whole(b'{"domain":7,"count":"x","entities":7,"status":"ok","articles":7}'),
    "not a number": whole(b'{"domain":"a","metrics":{"annualRevenue":NaN}}'),
    "bottomless": whole(b"[" * 100_000),
    "half a body": cut(head({**JSON, "content-length": 1000}) + b'{"name":'),
    "half a chunk": cut(head({**JSON, "transfer-encoding": "chunked"}) + b'40\r\n{"name":'),
    "half a gzip": whole(gzip.compress(NOTHING_FOUND)[:-4], headers={"content-encoding": "gzip"}),
    "no gzip": whole(b'{"domain":"acme.example"}', headers={"content-encoding": "gzip"}),
    "unknown encoding": whole(b"\x00\x01", headers={"content-encoding": "br"}),
    "huge": flood(),
    "huge and says so": flood({"content-length": 60 * 1024 * 1024}),
    "huge and says otherwise": flood({"content-length": 12}),
    "gzip bomb": whole(BOMB, headers={"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_answer_makes_the_vendor_unavailable_and_is_not_asked_for_again(desk: Desk, kind: str) -> None:
    error = await desk.failure(BROKEN[kind])
    assert isinstance(error, ProviderUnavailable)
    assert len(desk.server.calls) == 1
    assert await desk.fetch() == KNOWN[desk.vendor]


@pytest.mark.parametrize("kind", ["huge", "gzip bomb"])
async def test_an_answer_of_50_mb_is_never_held(desk: Desk, kind: str) -> None:
    await desk.fetch()
    tracemalloc.start()
    try:
        await desk.failure(BROKEN[kind])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * 1024 * 1024


async def test_a_compressed_answer_is_read(desk: Desk) -> None:
    desk.server.compresses = True
    assert await desk.fetch() == KNOWN[desk.vendor]


LOST: dict[str, Fault] = {
    "502": refusal(502),
    "503": refusal(503),
    "504": refusal(504),
    "connection lost": cut(b""),
}


@pytest.mark.parametrize("kind", LOST)
async def test_a_lost_connection_or_a_failing_gateway_gets_one_more_try(desk: Desk, kind: str) -> None:
    desk.server.faults.append(LOST[kind])
    assert await desk.fetch() == KNOWN[desk.vendor]
    before = len(desk.server.calls)
    assert isinstance(await desk.failure(LOST[kind], LOST[kind]), ProviderUnavailable)
    assert len(desk.server.calls) == before + 2


async def test_nobody_listening_is_a_failure(desk: Desk) -> None:
    desk.provider = desk.build(**{VENDORS[desk.vendor].base_url: "http://127.0.0.1:1"})
    assert isinstance(await desk.failure(), ProviderUnavailable)


async def test_a_slow_vendor_ends_with_the_deadline_and_the_connection_with_it(desk: Desk) -> None:
    desk.server.faults.append(hang)
    with pytest.raises(DeadlineExceeded):
        await desk.fetch(timeout_s=0.2)
    async with asyncio.timeout(20):
        await desk.server.hung_up.wait()
    assert await desk.fetch() == KNOWN[desk.vendor]


async def test_a_cancelled_fetch_hangs_up(desk: Desk) -> None:
    desk.server.faults.append(hang)
    fetching = asyncio.ensure_future(desk.fetch())
    await desk.server.called.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    async with asyncio.timeout(20):
        await desk.server.hung_up.wait()


async def test_we_never_ask_more_often_than_we_may(desk: Desk) -> None:
    desk.provider.limit = never_above(8, within_s=60.0)
    while len(desk.server.calls) < 4:
        await desk.fetch()
    error = await desk.failure()
    assert isinstance(error, ProviderUnavailable)
    assert error.retry_after_s == pytest.approx(15.0)
    assert len(desk.server.calls) == 4
    desk.clock.forward(60.0)
    assert await desk.fetch() == KNOWN[desk.vendor]


async def test_replicas_that_share_redis_share_the_limit_and_do_without_when_it_is_away(desk: Desk) -> None:
    server = RedisServer()
    redis = connect(server.url, timeout_s=5.0)
    desk.provider, other = desk.build(redis=redis), desk.build(redis=redis)
    desk.provider.limit = other.limit = never_above(8, within_s=3600.0)
    try:
        while len(desk.server.calls) < 4:
            await desk.fetch()
        with pytest.raises(ProviderUnavailable):
            await other.fetch(CUSTOMER, deadline=Deadline.after(20), known={})
        assert len(desk.server.calls) == 4
    finally:
        server.stop()
    assert await desk.fetch() == KNOWN[desk.vendor]
    await redis.aclose()


async def test_customers_who_pay_less_than_the_gate_are_not_asked_about(desk: Desk) -> None:
    profile = ACME["customer_intelligence"]
    assert isinstance(profile, CustomerIntelligence)
    desk.provider = desk.build(external_min_mrr=500.0)
    assert await desk.fetch(known={"customer_intelligence": replace(profile, mrr=499.0)}) is None
    with pytest.raises(ProviderUnavailable):
        await desk.fetch(known={})
    assert desk.server.calls == []
    assert await desk.fetch(known={"customer_intelligence": replace(profile, mrr=500.0)}) == KNOWN[desk.vendor]


async def test_the_key_travels_to_the_vendor_and_nowhere_else(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await desk.fetch()
    for faults in ([refusal(500)], [cut(b""), cut(b"")], [refusal(401)]):
        desk.server.faults += faults
        try:
            await desk.fetch()
        except RapportError as error:
            logging.getLogger(__name__).warning("failed: %r", error, exc_info=True)
    assert "failed: Forbidden" in caplog.text
    assert KEYS[desk.vendor] in "".join(call.raw.decode() for call in desk.server.calls)
    assert KEYS[desk.vendor] not in caplog.text
    assert KEYS[desk.vendor] not in repr(vars(desk.provider)) + repr(settings_of(desk.server))


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_provider_without_a_usable_key_is_refused(desk: Desk, key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        desk.build(**{VENDORS[desk.vendor].key: key})
    assert not key or key not in str(caught.value)


def test_every_vendor_is_off_without_its_key_or_when_all_are_switched_off(desk: Desk) -> None:
    assert configured(settings_of(desk.server)) == set(PROVIDERS)
    assert configured(settings_of(desk.server, **{VENDORS[desk.vendor].key: ""})) == set(PROVIDERS) - {desk.vendor}
    assert configured(settings_of(desk.server, external_enabled=False)) == set()
    assert configured(ContextSettings()) == set()


def test_a_vendor_says_who_it_is(desk: Desk) -> None:
    spec = desk.provider.spec
    assert (spec.name, spec.source) == (desk.vendor, desk.vendor)
    assert spec.timeout_s <= 3.0


def test_only_a_limit_on_what_customers_pay_makes_a_vendor_wait_for_it(desk: Desk) -> None:
    assert desk.provider.spec.depends_on == ()
    assert desk.build(external_min_mrr=100.0).spec.depends_on == ("customer_intelligence",)
    assert desk.build().spec.depends_on == ()


async def most_in_a_minute(limit: Limit) -> int:
    """The most that a steady crowd gets through in any stretch of 60 seconds."""
    clock = HandClock()
    store, taken = MemoryTokenStore(clock), []
    for _ in range(600):
        if (await store.lease("vendor", limit, 1)).granted:
            taken.append(clock())
        clock.forward(0.5)
    return max(sum(start <= at < start + 60.0 for at in taken) for start in taken)


async def test_no_stretch_of_time_sees_more_than_the_published_limit() -> None:
    assert 5 < await most_in_a_minute(never_above(8, within_s=60.0)) <= 8
    assert await most_in_a_minute(Limit.per_minute(8)) > 8, "a bucket of the whole limit would exceed it"


async def test_the_plan_at_newsapi_is_never_exceeded(server: VendorServer, database_url: str) -> None:
    async with open_desk("news_api", server, database_url) as desk:
        for requests in (4, 100, 250_000):
            limit = desk.build(news_requests_per_day=requests).limit
            asked_in_half_a_day = limit.capacity + limit.per_second * 12 * 3600
            assert asked_in_half_a_day == pytest.approx(requests / 2)
            assert limit.capacity >= 1
