"""The Serve config file as the launcher reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deployments.launch import STARTUP_TIMEOUT_S, STARTUP_WITH_VLLM_TIMEOUT_S, startup_timeout_s
from deployments.serve_config import arguments, as_environment, for_memory_only, read_config
from models.errors import ConfigurationError
from models.settings import load_settings

ROOT = Path(__file__).resolve().parents[3]


def config(*args: dict[str, Any]) -> dict[str, Any]:
    return {"applications": [{"name": f"app{number}", "args": one} for number, one in enumerate(args)]}


def test_the_shipped_file_is_read() -> None:
    shipped = read_config(ROOT / "serve_config.yaml")
    assert {application["name"] for application in shipped["applications"]} == {"rapport", "context"}
    assert load_settings(arguments(shipped), env_file=None).ingress.port == shipped["http_options"]["port"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"applications: [", "not YAML, line 1"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "no list `applications`"),
        (b"applications: {}", "no list `applications`"),
        (b"applications: [rapport]", r"applications\[0\] is not a mapping"),
        (b"applications: [{name: a}, {name: b, args: [1]}]", r"applications\[1\].args is not a mapping"),
    ],
)
def test_a_wrong_file_is_named(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"mine\.yaml: .*{reason}"):
        read_config(path)


def test_the_arguments_of_all_applications_make_one_tree() -> None:
    found = arguments(
        config(
            {"log_level": "ERROR", "knowledge": {"port": 8200, "limit": 3}},
            {"log_level": "DEBUG", "knowledge": {"port": 8300}},
        )
    )
    assert found == {"log_level": "DEBUG", "knowledge": {"port": 8300, "limit": 3}}


def test_a_process_without_the_file_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPPORT_KNOWLEDGE__LIMIT", "9")  # the environment beats the file
    args = arguments(
        config(
            {
                "log_level": "DEBUG",
                "knowledge": {"port": 8300, "limit": 3},
                "language_model": {"fallbacks": ["extractive"], "redact_local": True, "budget_usd_per_day": None},
                "sessions": {"ttl_s": 60.5},
            }
        )
    )
    settings = load_settings(args, env_file=None)
    variables = as_environment(settings, args)
    assert variables["RAPPORT_KNOWLEDGE__LIMIT"] == "9"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings(env_file=None) == settings


@pytest.mark.parametrize("name", ["conversation", "enrichment"])
def test_without_redis_what_it_shares_is_one_process(name: str) -> None:
    def chosen(config: dict[str, Any]) -> list[dict[str, Any]]:
        return [each for app in config["applications"] for each in app["deployments"] if each["name"] == name]

    shipped = read_config(ROOT / "serve_config.yaml")
    for deployment in chosen(shipped):
        deployment |= {"num_replicas": "auto", "autoscaling_config": {"min_replicas": 2, "max_replicas": 8}}
    one = chosen(for_memory_only(shipped))
    assert [(each["num_replicas"], "autoscaling_config" in each) for each in one] == [(1, False)]
    assert chosen(shipped) != one, "the file's own config is left alone"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"engine": "extractive"}, STARTUP_TIMEOUT_S),
        ({"engine": "vllm", "fallbacks": ["extractive"]}, STARTUP_WITH_VLLM_TIMEOUT_S),
        ({"engine": "openai", "fallbacks": ["vllm:polite"]}, STARTUP_WITH_VLLM_TIMEOUT_S),
    ],
)
def test_a_model_that_has_to_be_loaded_is_given_time(chosen: dict[str, Any], expected: float) -> None:
    assert startup_timeout_s(load_settings({"language_model": chosen}, env_file=None)) == expected
