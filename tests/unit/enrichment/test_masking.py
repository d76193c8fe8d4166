"""What is hidden stays hidden, whatever the value is and whatever goes wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from models.enrichment.cryptography_tokens import Tokeniser
from models.enrichment.masking import FREE_TEXT_RULE, REDACTED, Mask, Masker, RuleSet
from models.enrichment.types import (
    PERSONAL_FIELDS,
    CompanyEnrichment,
    CompanyNews,
    CustomerIntelligence,
    NewsArticle,
    OpenIncident,
    ProductStatus,
    SecurityContext,
)
from models.errors import InvalidRequest
from models.safety.types import PIISpan
from tests.fakes.enrichment import ACME, NOW

SECRET = "pepper"
CARD, IBAN = "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"


def rules(mask: Mask, free_text: Mask = Mask.REDACT) -> RuleSet:
    return RuleSet({**dict.fromkeys(PERSONAL_FIELDS, mask), FREE_TEXT_RULE: free_text})


def contact(mask: Mask, *, secret: str = SECRET, **values: Any) -> CustomerIntelligence:
    section = ACME["customer_intelligence"]
    assert isinstance(section, CustomerIntelligence)
    hide = Masker(secret).compile(rules(mask))["customer_intelligence"]
    seen = hide(replace(section, **values))
    assert isinstance(seen, CustomerIntelligence)
    return seen


def security(detail: Any) -> SecurityContext:
    return SecurityContext(
        open_events=1,
        events_90d=1,
        highest_open_severity="high",
        last_event_at=NOW,
        last_event_kind="login",
        last_event_detail=detail,
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("jordan.blake@example.com", "j***@example.com"),
        ("Jordan Blake", "Jordan B."),
        ("Jordan van der Blake", "Jordan B."),
        ("Björk", "B."),
        ("", REDACTED),
        ("  ", REDACTED),
        ("Login by jordan@example.com from 203.0.113.7", REDACTED),
        ("a@b@c", REDACTED),
        ("+44 20 7946 0958", REDACTED),
        ("Jordan\x00Blake", REDACTED),
    ],
)
def test_partial_hints_at_names_and_addresses_and_shows_nothing_else(value: str, shown: str) -> None:
    assert contact(Mask.PARTIAL, contact_name=value).contact_name == shown


def test_a_hash_is_the_same_for_the_same_value_and_secret_only() -> None:
    one, again = contact(Mask.HASH), contact(Mask.HASH)
    assert one.contact_email == again.contact_email
    assert one.contact_email.startswith("hash_")
    assert len({one.contact_email, one.contact_name, contact(Mask.HASH, secret="other").contact_email}) == 3


def test_a_token_can_be_turned_back_by_whoever_has_the_secret() -> None:
    token = contact(Mask.TOKENISE).contact_email
    assert token == contact(Mask.TOKENISE).contact_email
    assert token.startswith("tok_")
    assert Tokeniser(SECRET).detokenise(token) == "jordan.blake@example.com"
    with pytest.raises(InvalidRequest):
        Tokeniser("other").detokenise(token)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t[:-4] + "AAAA",
        lambda t: "tok_",
        lambda t: t[4:],
        lambda t: t + "é",
        lambda t: "tok_====",
        lambda t: t[:10],
    ],
)
def test_a_token_that_we_did_not_make_is_refused(spoil: Any) -> None:
    token = Tokeniser(SECRET).tokenise("jordan.blake@example.com")
    with pytest.raises(InvalidRequest, match="token") as failure:
        Tokeniser(SECRET).detokenise(spoil(token))
    assert "jordan" not in str(failure.value)


@pytest.mark.parametrize("mask", [Mask.TOKENISE, Mask.HASH])
def test_without_a_secret_nothing_is_shown(mask: Mask) -> None:
    seen = contact(mask, secret="")
    assert (seen.contact_name, seen.contact_email) == (REDACTED, REDACTED)


@pytest.mark.parametrize("mask", [mask for mask in Mask if mask is not Mask.KEEP])
@pytest.mark.parametrize("value", ["\ud800 Jordan Blake", 42, b"Jordan Blake", object(), {"name": "Jordan Blake"}])
def test_a_value_that_cannot_be_masked_is_redacted(mask: Mask, value: Any) -> None:
    seen = contact(mask, contact_name=value)
    assert seen.contact_name == REDACTED
    assert seen.contact_email != "jordan.blake@example.com", "the other field is masked as ever"


def test_every_text_of_a_personal_field_is_masked() -> None:
    hide = Masker().compile(rules(Mask.REDACT))["security_context"]
    assert hide(security(("Jordan", None))) == security((REDACTED, None))


def test_masks_run_from_open_to_closed() -> None:
    assert [mask.strictness for mask in (Mask.KEEP, Mask.PARTIAL, Mask.TOKENISE, Mask.HASH, Mask.REDACT)] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert rules(Mask.HASH).stricter_than(rules(Mask.TOKENISE)) == PERSONAL_FIELDS[0]
    assert rules(Mask.HASH).stricter_than(rules(Mask.HASH)) is None
    assert rules(Mask.KEEP).stricter_than(rules(Mask.KEEP, Mask.KEEP)) == FREE_TEXT_RULE


def test_sections_that_are_shown_as_they_are_cost_nothing() -> None:
    assert dict(Masker().compile(rules(Mask.KEEP, Mask.KEEP))) == {}
    assert "subscription_details" not in Masker().compile(rules(Mask.REDACT))


@pytest.mark.parametrize(
    "personal",
    ["jordan.blake@example.com", "+44 20 7946 0958", CARD, IBAN, "203.0.113.7", "12 Baker Street"],
)
def test_personal_data_in_peoples_own_words_is_replaced_by_its_kind(personal: str) -> None:
    masks = Masker().compile(rules(Mask.KEEP))
    text = f"Reminders fail, call {personal}, says the clinic"
    incident = OpenIncident(component="reminders", title=text, severity="high", started_at=NOW)
    status = masks["product_status"](ProductStatus(status="degraded", incidents=(incident,), resolved_24h=0))
    article = NewsArticle(title=text, source="Gazette", url="https://example.com/a", published_at=NOW)
    news = masks["company_news"](CompanyNews(total=1, articles=(article,)))
    assert isinstance(status, ProductStatus)
    assert isinstance(news, CompanyNews)
    for shown in (status.incidents[0].title, news.articles[0].title):
        assert personal not in shown
        assert shown.startswith("Reminders fail, call [")
        assert shown.endswith("says the clinic")
    assert status.incidents[0].started_at == NOW
    assert news.articles[0].url == "https://example.com/a"


def test_the_name_of_a_patient_is_replaced() -> None:
    hide = Masker().compile(rules(Mask.KEEP))["company_enrichment"]
    company = CompanyEnrichment(
        legal_name="Acme",
        domain="acme.example",
        industry=None,
        employees=None,
        employees_range=None,
        annual_revenue_usd=None,
        founded_year=None,
        country=None,
        description="Treated the patient Jordan Blake in May.",
    )
    seen = hide(company)
    assert isinstance(seen, CompanyEnrichment)
    assert seen.description == "Treated the patient [PERSON] in May."


@pytest.mark.parametrize("value", [["jordan@example.com"], ({"by": "jordan@example.com"},), b"jordan@example.com"])
def test_words_in_an_unexpected_shape_are_not_shown_unsearched(value: Any) -> None:
    hide = Masker().compile(rules(Mask.KEEP))["company_news"]
    assert "jordan" not in repr(hide(CompanyNews(total=1, articles=value)))


class BrokenDetector:
    def detect(self, text: str) -> tuple[PIISpan, ...]:
        raise RuntimeError(text)

    redact: Any = detect


def test_a_broken_detector_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    hide = Masker(detector=BrokenDetector()).compile(rules(Mask.KEEP))["product_status"]
    incident = OpenIncident(component="api", title="Call Jordan", severity="high", started_at=NOW)
    seen = hide(ProductStatus(status="degraded", incidents=(incident,), resolved_24h=0))
    assert isinstance(seen, ProductStatus)
    assert seen.incidents[0].title == REDACTED
    assert "Jordan" not in caplog.text
