"""The deployment files are valid against Ray's own schemas, with unknown keys refused."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import ray
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).resolve().parents[2]


def unknown_keys(data: Any, schema: type[BaseModel], path: str = "") -> list[str]:
    """Keys that Ray's schema does not have; Ray drops most of them in silence, so a typo would go unseen."""
    found = []
    for key, value in data.items():
        field = schema.model_fields.get(key)
        if field is None:
            found.append(f"{path}/{key}")
            continue
        nested = [t for t in (field.annotation, *get_args(field.annotation)) if inspect.isclass(t)]
        nested += [t for part in get_args(field.annotation) for t in get_args(part) if inspect.isclass(t)]
        models = [t for t in nested if issubclass(t, BaseModel)]
        for model in models[:1]:
            items = value if isinstance(value, list) else [value]
            for index, item in enumerate(items):
                if isinstance(item, dict):
                    found += unknown_keys(item, model, f"{path}/{key}/{index}")
    return found


def serve_config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    return loaded


def test_serve_config_is_valid_and_has_no_unknown_key() -> None:
    assert unknown_keys(serve_config(), ServeDeploySchema) == []
    ServeDeploySchema.model_validate(serve_config())


def test_a_misspelt_key_is_found() -> None:
    config = serve_config()
    config["applications"][0]["deployments"][0]["max_ongoing_request"] = 5
    assert unknown_keys(config, ServeDeploySchema) == ["/applications/0/deployments/0/max_ongoing_request"]


def test_every_autoscaled_deployment_says_auto() -> None:
    """Without `num_replicas: auto` Ray keeps one replica whatever `autoscaling_config` says."""
    for application in serve_config()["applications"]:
        for deployment in application["deployments"]:
            if "autoscaling_config" in deployment:
                assert deployment["num_replicas"] == "auto", deployment["name"]


def test_the_local_default_leaves_room_for_campaigns() -> None:
    reserved = [
        deployment["ray_actor_options"]["num_cpus"]
        for application in serve_config()["applications"]
        for deployment in application["deployments"]
    ]
    assert sum(reserved) <= 1.0


def test_no_secret_stands_in_serve_arguments() -> None:
    """The dashboard shows `args` to whoever may open it."""
    assert all(application["args"] == {} for application in serve_config()["applications"])


def test_cluster_file_is_valid_for_the_cluster_launcher() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    validate_config(prepare_config(cluster))
    assert cluster["head_node_type"] in cluster["available_node_types"]


@pytest.mark.parametrize("name", ["serve", "batch", "gpu"])
def test_node_types_carry_the_label_that_deployments_select(name: str) -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert cluster["available_node_types"][name]["labels"] == {"ray-subcluster": name}
