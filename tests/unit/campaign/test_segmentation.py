"""Rules, clusters, and what a segment is said to be like."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from models.campaign.config import ClusterOptions, load_campaign_config
from models.campaign.kmeans import fit
from models.campaign.segmentation import RuleSegmenter, summarise
from models.campaign.types import FEATURE_NAMES, CustomerFeatures
from models.errors import ConfigurationError, InvalidRequest

DEMO = Path(__file__).resolve().parents[3] / "config" / "campaign" / "demo.yaml"
RULES = RuleSegmenter(load_campaign_config(DEMO).segmentation.rules)
STEADY = CustomerFeatures(
    customer_id="c", recency_days=40, frequency=5, monetary=2_000, engagement=0.4, tenure_days=900, churn_risk=0.2
)


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"churn_risk": 0.9, "recency_days": 5, "frequency": 20, "monetary": 9_000}, "at_risk"),
        ({"recency_days": 5, "frequency": 20, "monetary": 9_000}, "champions"),
        ({}, "loyal"),
        ({"recency_days": 200, "tenure_days": 100}, "newcomers"),
        ({"recency_days": 200}, "occasional"),
    ],
)
def test_the_first_matching_rule_names_the_segment(change: dict[str, float], label: str) -> None:
    assert RULES.label(replace(STEADY, **change)) == label  # type: ignore[arg-type]  # all changes are float features


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, None])
def test_impossible_features_are_refused_by_name(value: float) -> None:
    with pytest.raises(InvalidRequest, match="monetary"):
        RULES.label(replace(STEADY, monetary=value))


def matrix(*customers: CustomerFeatures) -> np.ndarray:
    return np.array([[getattr(customer, name) for name in FEATURE_NAMES] for customer in customers])


def test_a_summary_tells_size_share_means_and_what_is_different() -> None:
    big, small = replace(STEADY, monetary=9_000), replace(STEADY, monetary=100)
    found = summarise(["a", "b", "b"], matrix(big, small, small), descriptions={"a": "The big ones."})
    assert [(s.label, s.size) for s in found] == [("b", 2), ("a", 1)]
    assert found[1].share == pytest.approx(1 / 3)
    assert found[1].characteristics["monetary"] == 9_000
    assert found[1].summary == "The big ones. Compared with the whole audience they spend more than most."
    assert "spend less than most" in found[0].traits
    assert summarise([], np.empty((0, len(FEATURE_NAMES)))) == ()


def crowd(seed: int = 0) -> list[CustomerFeatures]:
    """Three kinds of customers that no method should confuse."""
    rng = np.random.default_rng(seed)
    kinds = [(5, 30, 20_000, 0.9), (60, 8, 2_000, 0.5), (400, 1, 50, 0.05)]
    return [
        replace(
            STEADY,
            customer_id=f"{kind}_{i}",
            recency_days=kinds[kind][0] * rng.uniform(0.8, 1.2),
            frequency=kinds[kind][1] * rng.uniform(0.8, 1.2),
            monetary=kinds[kind][2] * rng.uniform(0.8, 1.2),
            engagement=kinds[kind][3] * rng.uniform(0.8, 1.0),
        )
        for kind in range(3)
        for i in range(60)
    ]


def test_clusters_are_found_stable_and_named() -> None:
    customers = crowd()
    segmenter, qualities = fit(customers, ClusterOptions(bootstrap_draws=2), seed=1, namer=RULES)
    labels = {customer.customer_id: segmenter.label(customer) for customer in customers}
    by_kind = [{label for customer, label in labels.items() if customer.startswith(f"{kind}_")} for kind in range(3)]
    assert [len(found) for found in by_kind] == [1, 1, 1]
    assert len(set.union(*by_kind)) == 3
    assert by_kind[0] == {"champions"}
    assert qualities[0].clusters == 3
    assert qualities[0].mean_stability > 0.99
    again, _ = fit(customers, ClusterOptions(bootstrap_draws=2), seed=1, namer=RULES)
    assert [again.label(c) for c in customers] == list(labels.values())


def test_clusters_need_customers_that_differ() -> None:
    with pytest.raises(InvalidRequest):
        fit([STEADY] * 100, ClusterOptions(), seed=1, namer=RULES)
    with pytest.raises(InvalidRequest):
        fit(crowd()[:20], ClusterOptions(), seed=1, namer=RULES)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("segmentation", "rules", 0, "when"), {"shoe_size": {"min": 40}}, "shoe_size"),
        (("segmentation", "rules", -1, "when"), {"frequency": {"min": 1}}, "match everyone"),
        (("segmentation", "rules", 0, "label"), "loyal", "same label"),
        (("retrieval", "limit"), 9, "retrieval.limit"),
        (("experiment", "alpha"), 0, "experiment.alpha"),
        (("seed",), "many", "seed"),
        (("hold_back", "open_tickets"), 0, r"hold_back\.open_tickets"),
        (("hold_back", "open_tickets"), True, r"hold_back\.open_tickets"),
        (("hold_back", "red_flags"), "Payment overdue", r"hold_back\.red_flags"),
        (("hold_back", "red_flags"), [""], r"hold_back\.red_flags\.0"),
        (("hold_back", "yellow_flags"), [], r"hold_back\.yellow_flags"),
        (("colour",), "blue", "colour"),
    ],
)
def test_a_wrong_campaign_file_is_refused_naming_the_field(
    path: tuple[str | int, ...], value: object, named: str, tmp_path: Path
) -> None:
    tree = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    node = tree
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=named):
        load_campaign_config(tmp_path / "bad.yaml")


@pytest.mark.parametrize("content", [b"name: [", b"\xff\xfe", b"", b"- 1"])
def test_a_file_that_is_no_campaign_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_campaign_config(tmp_path / "bad.yaml")
    with pytest.raises(ConfigurationError):
        load_campaign_config(tmp_path / "missing.yaml")
