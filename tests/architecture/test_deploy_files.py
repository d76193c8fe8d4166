"""The deployment files are valid against Ray's own schemas, with unknown keys refused."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import ray
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from deployments.launch import free_port, haproxy_binary
from deployments.metrics_table import METRICS
from models.settings import LanguageModelSettings, VLLMSettings, load_settings

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


CONFIGS = ("serve_config.yaml", "serve_config.vllm.yaml", "serve_config.gpu.yaml")
#: CPUs that one vLLM replica reserves on a processor: its bundle stands in the settings, not in `ray_actor_options`.
VLLM_CPUS = VLLMSettings().cpus


def serve_config(name: str = "serve_config.yaml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return loaded


def deployments(name: str) -> dict[str, dict[str, Any]]:
    applications = serve_config(name)["applications"]
    return {one["name"]: one for application in applications for one in application["deployments"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_serve_config_is_valid_and_has_no_unknown_key(name: str) -> None:
    assert unknown_keys(serve_config(name), ServeDeploySchema) == []
    ServeDeploySchema.model_validate(serve_config(name))


@pytest.mark.parametrize("name", CONFIGS[1:])
def test_the_vllm_configs_are_the_default_one_and_a_model(name: str) -> None:
    assert set(deployments(name)) - set(deployments("serve_config.yaml")) == {"vllm"}
    assert not set(deployments("serve_config.yaml")) - set(deployments(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_arguments_are_settings_and_hold_no_secret(name: str) -> None:
    """The dashboard shows `args` to whoever may open it."""
    for application in serve_config(name)["applications"]:
        load_settings(application["args"], env_file=None)  # raises for secrets and for names that do not exist


def test_a_misspelt_key_is_found() -> None:
    config = serve_config()
    config["applications"][0]["deployments"][0]["max_ongoing_request"] = 5
    assert unknown_keys(config, ServeDeploySchema) == ["/applications/0/deployments/0/max_ongoing_request"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_autoscaled_deployment_says_auto(name: str) -> None:
    """Without `num_replicas: auto` Ray keeps one replica whatever `autoscaling_config` says."""
    for deployment in deployments(name).values():
        if "autoscaling_config" in deployment:
            assert deployment["num_replicas"] == "auto", deployment["name"]


@pytest.mark.parametrize("name", CONFIGS[:2])
def test_the_local_configs_leave_room_for_campaigns(name: str) -> None:
    """On two cores; with a second vLLM replica there is none, and campaigns wait."""
    reserved = [one.get("ray_actor_options", {"num_cpus": VLLM_CPUS})["num_cpus"] for one in deployments(name).values()]
    assert sum(reserved) <= 1.5


@pytest.mark.parametrize("name", CONFIGS)
def test_a_full_language_model_says_so_before_serve_queues(name: str) -> None:
    assert deployments(name)["language_model"]["max_ongoing_requests"] > LanguageModelSettings().max_concurrent


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


def test_every_dashboard_asks_only_for_metrics_that_exist_with_their_labels() -> None:
    asked = []
    for file in (ROOT / "deploy" / "grafana").glob("*.json"):
        dashboard = json.loads(file.read_text())
        asked += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert asked
    for expression in asked:
        names = set(re.findall(r"\bray_([a-z0-9_]+)", expression))
        assert names, expression
        metrics = [METRICS[name.removesuffix("_bucket")] for name in names]
        known = {label for metric in metrics for label in metric.labels} | {"le"}
        grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
        filtered = {
            label for group in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)[=!]", group)
        }
        assert grouped | filtered <= known, expression


def test_haproxy_sends_reads_of_one_customer_to_one_replica_and_opens_nothing_to_the_network(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    application = next(one for one in serve_config()["applications"] if one["route_prefix"] == "/api/v1/customers")
    config.write_text(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n"
        "    balance leastconn\n"
        f"frontend metrics\n    bind :{free_port()}\n"
        f"frontend front\n    bind *:{free_port()}\n    default_backend http-{application['name']}\n"
        f"backend http-{application['name']}\n    server a 127.0.0.1:1\n    server b 127.0.0.1:2\n"
    )
    command = ["sh", str(ROOT / "deploy" / "haproxy.sh"), "-c", "-f", str(config)]
    checked = subprocess.run(command, env={**os.environ, "HAPROXY_BINARY": haproxy_binary()}, check=False)
    assert checked.returncode == 0
    lines = [line.strip() for line in config.read_text().splitlines()]
    assert [line for line in lines if line.startswith("bind")] == [
        line for line in lines if line.startswith("bind 127.0.0.1:")
    ]
    assert lines.index("balance hash path,word(4,/)") > lines.index(f"backend http-{application['name']}")
