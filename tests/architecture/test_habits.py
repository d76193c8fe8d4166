"""Rules of the house that a tool can check."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from deployments.metrics_table import METRICS

ROOT = Path(__file__).resolve().parents[2]
#: Technology library -> the files that alone may import it.
OWNERS = {
    "chromadb": {"models/knowledge/chroma.py"},
    "azure": {"models/llm/azure_identity.py"},
    "cryptography": {"models/enrichment/cryptography_tokens.py"},
    "httpx": {"providers/http_base.py", "deployments/launch.py", "deployments/metrics_scrape.py"},
    "openai": {"models/llm/azure_openai.py", "models/llm/openai.py"},
    "sentence_transformers": {"models/embedding/sentence_transformers_encoder.py"},
    "redis": {
        "models/enrichment/redis_cache.py",
        "models/enrichment/redis_invalidations.py",
        "models/llm/redis_spend.py",
        "models/resilience/redis_bucket.py",
        "models/resilience/redis_client.py",
        "models/sessions/redis.py",
        "models/sessions/redis_lock.py",
        "providers/systems/activity.py",
        "deployments/ingress/redis_counters.py",
    },
    "matplotlib": {"models/campaign/plots.py", "models/figures.py", "models/insights/plots.py"},
    "sklearn": {
        "models/campaign/kmeans.py",
        "models/insights/action_training.py",
        "models/insights/churn_training.py",
    },
    "jsonschema": {"deployments/ingress/http/openai/json_schema.py"},
    "referencing": {"deployments/ingress/http/openai/json_schema.py"},
    "opentelemetry": {"models/llm/opentelemetry.py"},
}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


@pytest.mark.parametrize(("library", "owners"), OWNERS.items())
def test_a_technology_is_imported_by_the_files_named_after_it(library: str, owners: set[str]) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in modules("models", "providers", "deployments", "batch")
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users <= owners


def test_environment_variables_are_read_in_settings_only() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in modules("models", "providers", "deployments", "batch")
        if re.search(r"os\.(environ|getenv)", path.read_text())
    }
    # The launcher sets variables for what it starts; RAY_ADDRESS is Ray's own; a model library is switched offline.
    allowed = {
        "models/settings.py",
        "deployments/launch.py",
        "deployments/local.py",
        "batch/cli.py",
        "models/embedding/sentence_transformers.py",
    }
    assert readers <= allowed


def test_only_the_handle_files_call_remote() -> None:
    callers = {
        str(path.relative_to(ROOT))
        for path in modules("models", "providers", "deployments", "batch")
        if re.search(r"\.remote\(", path.read_text())
    }
    assert callers <= {"deployments/handles.py", "batch/handles.py"}


def test_only_app_binds() -> None:
    binders = {path.name for path in modules("deployments") if re.search(r"\.bind\(", path.read_text())}
    assert binders <= {"app.py", "launch.py"}  # the launcher binds sockets


def test_only_the_ingress_deployment_file_knows_ray() -> None:
    files = modules("deployments/ingress")
    users = {path.name for path in files if any(name.split(".")[0] == "ray" for name in imports(path))}
    assert users <= {"deployment.py"}


def test_every_metric_is_counted_or_observed_somewhere() -> None:
    named = {
        node.value
        for path in modules("models", "providers", "deployments")
        if path.name != "metrics_table.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert METRICS.keys() <= named, METRICS.keys() - named


def test_no_file_names_a_machine_path() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(r"(?:^|[^\w.])/(?:work|farm|root|home)/|\.\./shared")
    offenders = []
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".sh"} and path != Path(__file__):
            offenders += [name for line in path.read_text().splitlines() if pattern.search(line)]
    assert offenders == []
