"""Trains the moderation probe: `python -m models.safety.training DATA.jsonl OUT_DIR [--ordinary MESSAGES.jsonl]`.

DATA has one JSON object a line: `text`, `source`, and 0, 1 or null (not labelled) for each harm. Own-written examples
from OUT_DIR/own_examples.yaml join it. Every figure in the model card is out of fold; folds keep near-duplicates
together. The ordinary messages are never trained on: they only measure how often harmless text would be blocked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.embedding.protocol import Embedder
from models.registry import Registry
from models.safety.card import Report, Row, recall_row, render
from models.safety.corpus import HARMS, OWN, Corpus, assign_folds, embed_corpus, load_examples
from models.safety.probe import Floats, ProbeModerator, ProbeWeights
from models.safety.types import Harm

Bools = NDArray[np.bool_]

#: Sources without any harm that look harmful on purpose; they bound the false blocks.
HARD_BENIGN = ("xstest_safe", f"{OWN}_benign")
L2 = 1 / 3
FOLDS = 5
REPEATS = 2
SEED = 7
#: The blocking threshold of a harm is the smallest probability with false blocks, out of fold, within both bounds.
MAX_FALSE_BLOCKS_HARD_BENIGN = 0.02
MAX_FALSE_BLOCKS_OTHER = 0.10
#: Severities 1 to 3 divide the way up to the blocking threshold, 5 to 7 the way from there to certainty.
BELOW = (0.25, 0.5, 0.75)
ABOVE = (0.4, 0.7, 0.9)

_log = logging.getLogger(__name__)


def fit_logistic(x: Floats, y: Floats, weights: Floats, l2: float, start: Floats | None = None) -> Floats:
    """Coefficients with the intercept last, minimising weighted log-loss + l2/2 |coefficients|^2 (L-BFGS)."""
    penalty = np.append(np.full(x.shape[1], l2), 0.0)

    def loss(beta: Floats) -> tuple[float, Floats]:
        z = x @ beta[:-1] + beta[-1]
        value = (weights * (np.logaddexp(0.0, z) - y * z)).sum() + 0.5 * (penalty * beta * beta).sum()
        error = weights * (0.5 * (1 + np.tanh(0.5 * z)) - y)
        return float(value), np.append(x.T @ error, error.sum()) + penalty * beta

    first = np.zeros(len(penalty)) if start is None else start
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-4})
    return np.asarray(found.x, dtype=np.float64)


def fit_harm(corpus: Corpus, labels: Floats, use: Bools) -> Floats:
    """Coefficients for one harm from the texts in `use`.

    All windows of a harmless text are harmless; of a harmful one only the worst is taken to be harmful, found in two
    rounds (multiple-instance learning). A text of n windows weighs sqrt(n), as more windows are more chances to be
    blocked by mistake; positives weigh the square root of the imbalance.
    """
    inside = use[corpus.owners]
    x, owners = corpus.vectors[inside].astype(np.float64), corpus.owners[inside]
    y = labels[owners]
    share = np.bincount(owners, minlength=len(labels))[owners] ** -0.5
    positive = labels[use] == 1
    balance = np.sqrt((~positive).sum() / max(1, positive.sum()))
    weights = share * np.where(y == 1, balance, 1.0)
    beta = fit_logistic(x, y, weights, L2)
    for _ in range(2):
        score = x @ beta[:-1]
        worst = np.full(len(labels), -np.inf)
        np.maximum.at(worst, owners, score)
        chosen = np.where(y == 1, (score == worst[owners]).astype(float), share)
        beta = fit_logistic(x, y, chosen * np.where(y == 1, balance, 1.0), L2, start=beta)
    return beta


def worst_logits(corpus: Corpus, beta: Floats) -> Floats:
    """Highest log-odds over the windows of each text, as `ProbeModerator` will see it."""
    worst = np.full(len(corpus.labels), -np.inf)
    np.maximum.at(worst, corpus.owners, corpus.vectors.astype(np.float64) @ beta[:-1] + beta[-1])
    return worst


def out_of_fold(corpus: Corpus, labels: Floats) -> Floats:
    """Log-odds of every text from models that saw neither it nor its near-duplicates, averaged over the splits."""
    known = np.isfinite(labels)
    total = np.zeros(len(labels))
    for repeat in range(REPEATS):
        folds = assign_folds(corpus.groups, labels == 1, FOLDS, SEED + repeat)
        for fold in range(FOLDS):
            held_out = folds == fold
            total[held_out] += worst_logits(corpus, fit_harm(corpus, labels, known & ~held_out))[held_out]
    return total / REPEATS


def choose_threshold(probability: Floats, harmless: Bools, hard_benign: Bools) -> float:
    """The smallest probability within both bounds on false blocks; see the constants above."""

    def bound(scores: Floats, rate: float) -> float:
        allowed = int(np.floor(rate * len(scores)))
        return float(np.sort(scores)[::-1][allowed]) if len(scores) else 0.0

    threshold = max(
        bound(probability[hard_benign], MAX_FALSE_BLOCKS_HARD_BENIGN),
        bound(probability[harmless & ~hard_benign], MAX_FALSE_BLOCKS_OTHER),
    )
    return min(0.95, max(0.02, threshold + 1e-6))


def cuts(threshold: float) -> list[float]:
    """The seven severity cuts around a blocking threshold."""
    return [threshold * f for f in BELOW] + [threshold] + [threshold + (1 - threshold) * f for f in ABOVE]


def train(corpus: Corpus, model_id: str) -> tuple[ProbeWeights, tuple[Row, ...]]:
    """Weights from everything, and the out-of-fold figures that say how well such weights do."""
    coefficients, intercepts, severity_cuts, rows = [], [], [], []
    hard_benign = corpus.is_source(*HARD_BENIGN)
    own = np.char.startswith(corpus.sources, OWN)
    for index, harm in enumerate(HARMS):
        labels = corpus.labels[:, index]
        known = np.isfinite(labels)
        logits = out_of_fold(corpus, labels)
        slope, offset = fit_logistic(logits[known, None], labels[known], np.ones(int(known.sum())), 1e-3)
        probability = np.where(known, 1 / (1 + np.exp(-(slope * logits + offset))), np.nan)
        threshold = choose_threshold(probability, labels == 0, hard_benign)
        beta = fit_harm(corpus, labels, known)
        coefficients.append(slope * beta[:-1])
        intercepts.append(slope * beta[-1] + offset)
        severity_cuts.append(cuts(threshold))

        def score(use: Bools, on: Bools, labels: Floats = labels, s: float = slope, o: float = offset) -> Floats:
            logits = worst_logits(corpus, fit_harm(corpus, labels, use))[on]
            return np.asarray(1 / (1 + np.exp(-(s * logits + o))))

        rows.append(_row(harm, corpus, labels, probability, threshold, own, hard_benign, score))
        _log.info("%s: threshold %.3f", harm.value, threshold)
    weights = ProbeWeights(
        model_id=model_id,
        harms=HARMS,
        coefficients=np.array(coefficients),
        intercepts=np.array(intercepts),
        severity_cuts=np.array(severity_cuts),
    )
    return weights, tuple(rows)


def _row(
    harm: Harm,
    corpus: Corpus,
    labels: Floats,
    probability: Floats,
    threshold: float,
    own: Bools,
    hard_benign: Bools,
    score: Callable[[Bools, Bools], Floats],
) -> Row:
    known, positive = np.isfinite(labels), labels == 1
    public = known & ~own & ~corpus.is_source("xstest_safe")
    xstest = corpus.is_source("xstest_safe")
    return recall_row(
        harm=harm,
        threshold=threshold,
        public=(labels[public], probability[public]),
        own_found=probability[own & positive] >= threshold,
        benign_blocked=probability[hard_benign] >= threshold,
        own_found_unseen=score(known & ~own, own & positive) >= threshold,
        xstest_blocked_unseen=score(known & ~xstest, xstest) >= threshold,
        calibration=(labels[known], probability[known]),
    )


async def _main(data: Path, out: Path, ordinary: Path | None) -> None:
    embedders: Registry[Embedder] = Registry("embedding engine")
    embedders.register("bundled", "models.embedding.sentence_transformers:SentenceTransformerEmbedder")
    embedder = embedders.load("bundled")()
    corpus = await embed_corpus(load_examples(data, out / "own_examples.yaml"), embedder)
    weights, rows = train(corpus, embedder.model_id)
    weights.save(out / "moderation_probe.npz")
    everyday = {} if ordinary is None else await judge_ordinary(ordinary, ProbeModerator(embedder, weights))
    report = Report(model_id=embedder.model_id, harms=rows, ordinary=everyday)
    (out / "MODEL_CARD.md").write_text(render(report), encoding="utf-8")


async def judge_ordinary(messages: Path, moderator: ProbeModerator) -> dict[str, Bools]:
    """Which harms reach severity 4 in the first thousand messages of each source, shape (texts, H)."""
    texts: dict[str, list[str]] = {}
    with messages.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            texts.setdefault(row["source"], []).append(row["text"])
    judged = {source: await moderator.moderate(some[:1000]) for source, some in texts.items()}
    return {
        source: np.array([[finding.severity >= 4 for finding in findings] for findings in found])
        for source, found in judged.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the moderation probe and write its model card.")
    parser.add_argument("data", type=Path, help="labelled texts, JSON lines")
    parser.add_argument("out", type=Path, help="folder with own_examples.yaml; receives weights and card")
    parser.add_argument("--ordinary", type=Path, help="everyday messages, JSON lines with text and source")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main(arguments.data, arguments.out, arguments.ordinary))


if __name__ == "__main__":
    main()
