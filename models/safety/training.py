"""Trains the moderation probe: `python -m models.safety.training DATA.jsonl OUT_DIR [--ordinary MESSAGES.jsonl]`.

DATA has one JSON object a line: `text`, `source`, and 0, 1 or null (not labelled) for each harm. Own-written examples
from OUT_DIR/own_examples.yaml and the `train` part of OUT_DIR/contact_centre.yaml join it. Every figure in the model
card is out of fold; folds keep near-duplicates and families together. The other parts of the contact centre and the
ordinary messages are never trained on: they only measure how often harmless text would be stopped, and harm missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.embedding.protocol import Embedder, Vectors
from models.registry import Registry
from models.resilience.deadline import Deadline
from models.safety.card import ContactRow, Report, Row, recall_row, render, share_of
from models.safety.corpus import (
    CONTACT,
    HARMS,
    OWN,
    Corpus,
    Example,
    Ints,
    Part,
    assign_folds,
    embed_corpus,
    load_examples,
    load_families,
)
from models.safety.policy import SafetyPolicy
from models.safety.probe import Floats, ProbeModerator, ProbeWeights
from models.safety.types import Harm, Purpose

Bools = NDArray[np.bool_]

#: Sources without any harm that look harmful on purpose; they bound the false blocks.
HARD_BENIGN = ("xstest_safe", f"{OWN}_benign", f"{CONTACT}_benign")
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

#: Says from which severity a customer's message is heard as harmful; never changed by training.
POLICY = SafetyPolicy.load()

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
    for index, harm in enumerate(HARMS):
        labels = corpus.labels[:, index]
        known = np.isfinite(labels)
        # The contact centre's messages look like self-harm and nothing else: elsewhere they would make a bound easy.
        bounding = known & ((harm is Harm.SELF_HARM) | ~np.char.startswith(corpus.sources, CONTACT))
        hard_benign = bounding & corpus.is_source(*HARD_BENIGN)
        logits = out_of_fold(corpus, labels)
        slope, offset = fit_logistic(logits[known, None], labels[known], np.ones(int(known.sum())), 1e-3)
        probability = np.where(known, 1 / (1 + np.exp(-(slope * logits + offset))), np.nan)
        threshold = choose_threshold(probability, bounding & (labels == 0), hard_benign)
        beta = fit_harm(corpus, labels, known)
        coefficients.append(slope * beta[:-1])
        intercepts.append(slope * beta[-1] + offset)
        severity_cuts.append(cuts(threshold))

        def score(use: Bools, on: Bools, labels: Floats = labels, s: float = slope, o: float = offset) -> Floats:
            logits = worst_logits(corpus, fit_harm(corpus, labels, use))[on]
            return np.asarray(1 / (1 + np.exp(-(s * logits + o))))

        rows.append(_row(harm, corpus, labels, probability, threshold, hard_benign, score))
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
    hard_benign: Bools,
    score: Callable[[Bools, Bools], Floats],
) -> Row:
    known, positive = np.isfinite(labels), labels == 1
    own = np.char.startswith(corpus.sources, OWN)
    xstest = corpus.is_source("xstest_safe")
    public = known & ~own & ~xstest & ~np.char.startswith(corpus.sources, CONTACT)
    return recall_row(
        harm=harm,
        threshold=threshold,
        heard_at=cuts(threshold)[POLICY.threshold(Purpose.CUSTOMER_MESSAGE, harm) - 1],
        public=(labels[public], probability[public]),
        own_found=probability[own & positive] >= threshold,
        benign_blocked=probability[hard_benign] >= threshold,
        own_found_unseen=score(known & ~own, own & positive) >= threshold,
        xstest_blocked_unseen=score(known & ~xstest, xstest) >= threshold,
        calibration=(labels[known], probability[known]),
    )


def untaught(corpus: Corpus) -> Corpus:
    """The corpus with the contact centre's labels hidden, to see what they are worth."""
    contact = np.char.startswith(corpus.sources, CONTACT)
    return replace(corpus, labels=np.where(contact[:, None], np.nan, corpus.labels))


async def judge_contact(examples: Sequence[Example], moderator: ProbeModerator, heard_from: int) -> ContactRow:
    """How one part of the contact centre's messages is judged; `heard_from` is the severity that alarms a person."""
    seen = await severities([example.text for example in examples], moderator)
    self_harm = HARMS.index(Harm.SELF_HARM)
    heard, answered = seen[:, self_harm] >= heard_from, seen[:, self_harm] >= 4
    danger = np.array([example.labels[self_harm] == 1 for example in examples])
    return ContactRow(
        alarmed=share_of(heard[~danger]),
        crises=share_of(answered[~danger]),
        blocked=share_of((seen[~danger] >= 4).any(axis=1)),
        found=share_of(heard[danger]),
        found_crises=share_of(answered[danger]),
    )


async def severities(texts: Sequence[str], moderator: ProbeModerator) -> Ints:
    """The severity of each harm, shape (texts, H)."""
    findings = await moderator.moderate(texts)
    return np.array([[finding.severity for finding in each] for each in findings], dtype=np.int64)


async def judge_ordinary(messages: Path, moderator: ProbeModerator) -> dict[str, Ints]:
    """The severities of the first thousand messages of each source."""
    texts: dict[str, list[str]] = {}
    with messages.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            texts.setdefault(row["source"], []).append(row["text"])
    return {source: await severities(some[:1000], moderator) for source, some in texts.items()}


class Remembering:
    """Embeds each text once: the same messages are judged with and without what was learnt from the contact centre."""

    def __init__(self, embedder: Embedder) -> None:
        self.model_id = embedder.model_id
        self._embedder = embedder
        self._vectors: dict[str, NDArray[np.float32]] = {}

    async def embed(self, texts: Sequence[str], *, deadline: Deadline | None = None) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, await self._embedder.embed(new, deadline=deadline), strict=True))
        return np.stack([self._vectors[text] for text in texts])


async def _main(data: Path, out: Path, ordinary: Path | None) -> None:
    embedders: Registry[Embedder] = Registry("embedding engine")
    embedders.register("bundled", "models.embedding.sentence_transformers:SentenceTransformerEmbedder")
    embedder = Remembering(embedders.load("bundled")())
    families = {part: load_families(out / "contact_centre.yaml", part) for part in Part}
    corpus = await embed_corpus([*load_examples(data, out / "own_examples.yaml"), *families[Part.TRAIN]], embedder)
    weights, rows = train(corpus, embedder.model_id)
    weights.save(out / "moderation_probe.npz")
    moderator = ProbeModerator(embedder, weights)
    before = ProbeModerator(embedder, train(untaught(corpus), embedder.model_id)[0])
    heard_from = POLICY.threshold(Purpose.CUSTOMER_MESSAGE, Harm.SELF_HARM)
    report = Report(
        model_id=embedder.model_id,
        heard_from=heard_from,
        harms=rows,
        contact={
            (part.value, taught): await judge_contact(families[part], judge, heard_from)
            for part in (Part.DEV, Part.HELD_OUT)
            for taught, judge in ((True, moderator), (False, before))
        },
        ordinary={} if ordinary is None else await judge_ordinary(ordinary, moderator),
        ordinary_untaught={} if ordinary is None else await judge_ordinary(ordinary, before),
    )
    (out / "MODEL_CARD.md").write_text(render(report), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the moderation probe and write its model card.")
    parser.add_argument("data", type=Path, help="labelled texts, JSON lines")
    parser.add_argument("out", type=Path, help="folder with the own examples; receives weights and card")
    parser.add_argument("--ordinary", type=Path, help="everyday messages, JSON lines with text and source")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main(arguments.data, arguments.out, arguments.ordinary))


if __name__ == "__main__":
    main()
