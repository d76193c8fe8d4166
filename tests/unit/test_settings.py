"""One typed tree: who beats whom, and what stops a start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from models.errors import ConfigurationError
from models.settings import SECRETS, Settings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("RAPPORT_") or name in ("REDIS_URL", "DATABASE_URL", "CONTEXT_CACHE_TTL"):
            monkeypatch.delenv(name)


def test_the_environment_beats_the_file_which_beats_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("RAPPORT_SAFETY__BLOCK_AT=3\nRAPPORT_SAFETY__ESCALATE_AT=3\nREDIS_URL=redis://file\nOTHER=1\n")
    monkeypatch.setenv("RAPPORT_SAFETY__BLOCK_AT", "2")
    settings = load_settings({"safety": {"block_at": 7, "escalate_at": 7}, "sessions": {"max_turns": 9}}, env_file=file)
    assert settings.safety.block_at == 2
    assert settings.safety.escalate_at == 3
    assert settings.sessions.max_turns == 9
    assert settings.redis.url.get_secret_value() == "redis://file"


def test_documented_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXT_CACHE_TTL", "600")
    assert load_settings(env_file=None).context.l2_ttl_s == 600


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RAPPORT_COLOUR": "red"}, "RAPPORT_COLOUR"),
        ({"RAPPORT_SAFETY__COLOUR": "red"}, "RAPPORT_SAFETY__COLOUR"),
        ({"RAPPORT_SAFETY__BLOCK_AT": "nine"}, "RAPPORT_SAFETY__BLOCK_AT"),
        ({"CONTEXT_CACHE_TTL": "-1"}, "CONTEXT_CACHE_TTL"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], named: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=named):
        load_settings(env_file=None)


def test_a_list_that_is_no_json_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_LANGUAGE_MODEL__FALLBACKS", "extractive,openai")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file=None)
    assert "  RAPPORT_LANGUAGE_MODEL__FALLBACKS: not valid JSON" in str(caught.value).splitlines()
    assert "extractive,openai" not in str(caught.value)


@pytest.mark.parametrize("name", ["RAPPORT_COLOUR", "RAPPORT_SAFETY__COLOUR"])
def test_an_unknown_setting_is_told_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "red")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file=None)
    assert str(caught.value).splitlines()[1:] == [f"  {name}: there is no such setting"]


def test_a_malformed_key_table_is_told_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_INGRESS__API_KEYS", '{"very-secret-key": {"nom": "a"}}')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env_file=None)
    assert "RAPPORT_INGRESS__API_KEYS" in str(caught.value)
    assert "very-secret-key" not in str(caught.value)


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_secrets_are_refused_in_serve_arguments(secret: str) -> None:
    """The Ray dashboard shows the arguments of an application to whoever may open it."""
    section, _, name = secret.partition(".")
    arguments = {section: {name: "x"}} if name else {section: "x"}
    with pytest.raises(ConfigurationError, match="is a secret"):
        load_settings(arguments, env_file=None)


def test_every_secret_field_is_listed() -> None:
    """A new secret field must be refused in arguments too."""
    fields = {
        f"{section}.{name}" if name else section
        for section, field in Settings.model_fields.items()
        for name, inner in {"": field, **getattr(field.annotation, "model_fields", {})}.items()
        if "Secret" in str(inner.annotation)
    }
    assert fields <= SECRETS
