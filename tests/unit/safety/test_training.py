from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.safety import training
from models.safety.card import average_precision, roc_auc, wilson
from models.safety.corpus import Part, assign_folds, embed_corpus, load_examples, load_families
from models.safety.probe import ProbeModerator
from models.safety.training import choose_threshold, cuts, fit_logistic, train, untaught
from models.safety.types import Harm
from tests.fakes.embedder import HashingEmbedder

HARM_WORDS = {"hate": "grum", "violence": "blorp", "self_harm": "snarf", "sexual": "quux"}
FILLER = ("parcel", "invoice", "seat", "calendar", "order", "refund", "plan", "label", "box", "glove", "desk", "chart")


def _sentence(rng: np.random.Generator, *extra: str) -> str:
    words = [*rng.choice(FILLER, 6), *extra]
    rng.shuffle(words)
    return " ".join(words)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A made-up language in which one word makes each harm; some labels are missing."""
    rng = np.random.default_rng(3)
    rows = []
    for harm, word in HARM_WORDS.items():
        rows += [
            {"text": _sentence(rng, word, word), "source": "made_up", **dict.fromkeys(HARM_WORDS), harm: 1}
            for _ in range(25)
        ]
    rows += [{"text": _sentence(rng), "source": "made_up", **dict.fromkeys(HARM_WORDS, 0)} for _ in range(120)]
    rows += [{"text": _sentence(rng), "source": "xstest_safe", **dict.fromkeys(HARM_WORDS, 0)} for _ in range(60)]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    kinds = {"benign": [_sentence(rng) for _ in range(40)]}
    kinds |= {h: [_sentence(rng, w) for _ in range(6)] for h, w in HARM_WORDS.items()}
    (tmp_path / "own_examples.yaml").write_text(json.dumps(kinds))
    return path


async def test_training_learns_the_harm_of_each_word(data: Path) -> None:
    embedder = HashingEmbedder()
    corpus = await embed_corpus(load_examples(data, data.parent / "own_examples.yaml"), embedder)
    weights, rows = train(corpus, embedder.model_id)
    moderator = ProbeModerator(embedder, weights)
    for harm in Harm:
        (findings,) = await moderator.moderate(
            [f"parcel {HARM_WORDS[harm.value]} {HARM_WORDS[harm.value]} invoice order"]
        )
        assert [f.harm for f in findings if f.severity >= 4] == [harm]
    (clean,) = await moderator.moderate(["parcel invoice label chart"])
    assert max(finding.severity for finding in clean) < 4
    for row in rows:
        assert row.average_precision[0] > 0.8
        assert row.benign_blocked.hits <= training.MAX_FALSE_BLOCKS_HARD_BENIGN * row.benign_blocked.total


def test_a_missing_label_is_not_harmless(data: Path) -> None:
    examples = load_examples(data, data.parent / "own_examples.yaml")
    labels = {example.source: example.labels for example in examples}
    assert np.isnan(examples[0].labels[1])
    threat = dict(zip(Harm, labels["own_violence"], strict=True))
    assert threat[Harm.VIOLENCE] == 1
    assert threat[Harm.SEXUAL] == 0
    assert np.isnan(threat[Harm.HATE])


CONTACT_CENTRE = Path(training.__file__).parent / "artifacts" / "contact_centre.yaml"


def test_the_parts_of_the_contact_centre_share_neither_family_nor_sentence() -> None:
    parts = [load_families(CONTACT_CENTRE, part) for part in Part]
    for of in ("family", "text"):
        names = [{getattr(example, of).casefold() for example in part} for part in parts]
        assert sum(map(len, names)) == len(set.union(*names))
    assert all({example.source for example in part} == {"contact_benign", "contact_self_harm"} for part in parts)


async def test_a_family_never_stands_on_both_sides_of_a_fold() -> None:
    examples = load_families(CONTACT_CENTRE, Part.TRAIN)
    corpus = await embed_corpus(examples, HashingEmbedder())
    families = np.array([example.family for example in examples])
    for family in set(families):
        assert len(set(corpus.groups[families == family])) == 1


async def test_what_is_untaught_is_hidden_and_nothing_else(data: Path) -> None:
    examples = [
        *load_examples(data, data.parent / "own_examples.yaml"),
        *load_families(CONTACT_CENTRE, Part.TRAIN),
    ]
    corpus = await embed_corpus(examples, HashingEmbedder())
    hidden = untaught(corpus).labels
    contact = corpus.is_source("contact_benign", "contact_self_harm")
    assert np.isnan(hidden[contact]).all()
    assert np.array_equal(hidden[~contact], corpus.labels[~contact], equal_nan=True)


def test_folds_keep_groups_whole_and_spread_positives() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 300, 500)
    positive = rng.random(500) < 0.05
    folds = assign_folds(groups, positive, 5, seed=1)
    assert all(len(set(folds[groups == g])) == 1 for g in np.unique(groups))
    counts = [int(positive[folds == f].sum()) for f in range(5)]
    assert max(counts) - min(counts) <= 2
    sizes = [int((folds == f).sum()) for f in range(5)]
    assert max(sizes) - min(sizes) <= 25


def test_the_threshold_keeps_both_bounds_and_is_the_smallest_that_does() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(1000) * 0.6
    harmless, look_alike = np.ones(1000, bool), np.arange(1000) < 400
    threshold = choose_threshold(scores, harmless, look_alike)
    assert (scores[look_alike] >= threshold).mean() <= training.MAX_FALSE_BLOCKS_HARD_BENIGN
    assert (scores[~look_alike] >= threshold).mean() <= training.MAX_FALSE_BLOCKS_OTHER
    lower = threshold - 0.01
    assert (scores[look_alike] >= lower).mean() > training.MAX_FALSE_BLOCKS_HARD_BENIGN


@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.95])
def test_cuts_rise_and_the_fourth_is_the_threshold(threshold: float) -> None:
    assert cuts(threshold) == sorted(set(cuts(threshold)))
    assert cuts(threshold)[3] == threshold


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = (x[:, 0] + rng.normal(size=200) > 0).astype(float)
    weights = rng.random(200) + 0.5
    ours = fit_logistic(x, y, weights, 0.5)
    theirs = LogisticRegression(C=2.0, tol=1e-8, max_iter=1000).fit(x, y, sample_weight=weights)
    assert ours == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=1e-3)


def test_metrics_agree_with_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    labels, scores = (rng.random(300) < 0.2).astype(float), rng.random(300)
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
