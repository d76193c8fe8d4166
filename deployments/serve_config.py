"""The Serve config file as the launcher reads it: what it deploys, and which settings its applications are given."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from models.errors import ConfigurationError
from models.settings import PREFIX, Settings

Config = dict[str, Any]

_SHARED_BY_REDIS = frozenset({"conversation", "enrichment"})


def read_config(path: Path) -> Config:
    """The parsed file. Raises `ConfigurationError` naming it when it is absent, not YAML, or no Serve config."""
    try:
        config: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"{path}: cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path}: is not UTF-8") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path}: is not YAML{where}") from exc
    applications = config.get("applications") if isinstance(config, dict) else None
    if not isinstance(applications, list) or not applications:
        raise ConfigurationError(f"{path}: has no list `applications`")
    for number, application in enumerate(applications):
        if not isinstance(application, dict):
            raise ConfigurationError(f"{path}: applications[{number}] is not a mapping")
        if not isinstance(application.get("args") or {}, dict):
            raise ConfigurationError(f"{path}: applications[{number}].args is not a mapping")
    return dict(config)


def arguments(config: Config) -> dict[str, Any]:
    """The `args` of all applications as one tree; where two differ, the later one counts."""
    merged: dict[str, Any] = {}
    for application in config["applications"]:
        _merge(merged, application.get("args") or {})
    return merged


def as_environment(settings: Settings, args: Mapping[str, Any]) -> dict[str, str]:
    """Variables that give a process without this file the same settings: those that `args` names, as they came out."""
    resolved = settings.model_dump(mode="json")
    found = {}
    for path in _leaves(args):
        value: Any = resolved
        for part in path:
            value = value[part]
        if value is not None:
            found[PREFIX + "__".join(path).upper()] = value if isinstance(value, str) else json.dumps(value)
    return found


def for_memory_only(config: Config) -> Config:
    """The same config with one replica of what keeps its state in its own process where there is no Redis.

    That is `conversation` with its sessions, and `enrichment`: nobody could tell a second one what it must forget.
    """
    config = copy.deepcopy(config)
    for application in config["applications"]:
        for deployment in application.get("deployments") or []:
            if deployment["name"] in _SHARED_BY_REDIS:
                deployment["num_replicas"] = 1
                deployment.pop("autoscaling_config", None)
    return config


def _merge(into: dict[str, Any], args: Mapping[str, Any]) -> None:
    for name, value in args.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = copy.deepcopy(value)


def _leaves(args: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in args.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name)
