"""How often the section that a person would look at is ranked first: `python -m bench.relevance`.

Runs the real embedder over `relevance_questions.yaml`, with all sections present and fresh, beside the order of tiers
alone, which is what a context without a message gets.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml

from models.embedding.sentence_transformers import SentenceTransformerEmbedder
from models.enrichment.relevance import QUESTIONS, RelevanceScorer
from models.enrichment.types import SECTIONS
from models.resilience.deadline import Deadline

ROOT = Path(__file__).parents[1]
#: As the built-in providers have it.
TIERS = {"customer_intelligence": 0, "subscription_details": 0, "account_health": 0}


async def main() -> None:
    scorer = RelevanceScorer(SentenceTransformerEmbedder(), at_most_s=60.0)
    parts = yaml.safe_load((ROOT / "bench" / "relevance_questions.yaml").read_text(encoding="utf-8"))
    asked = {question.casefold() for questions in QUESTIONS.values() for question in questions}
    for part, items in parts.items():
        assert not any(item["message"].casefold() in asked for item in items)
        places, baseline, misses = [], [], []
        for item in items:
            vector = await scorer.vector(item["message"], Deadline.after(200))
            ranked = list(scorer.scores(SECTIONS, vector, tiers=TIERS, freshness={}))
            places.append(ranked.index(item["section"]))
            baseline.append(list(scorer.scores(SECTIONS, None, tiers=TIERS, freshness={})).index(item["section"]))
            if places[-1]:
                misses.append(f"  {item['message']} -> {ranked[0]}, {item['section']} is {places[-1] + 1}")
        print(f"{part} ({len(items)} messages): {_shares(places)}; by tier alone {_shares(baseline)}")
        print("\n".join(misses) if part == "dev" else f"  {len(misses)} not first")


def _shares(places: list[int]) -> str:
    first, three = (sum(place < limit for place in places) / len(places) for limit in (1, 3))
    return f"first {first:.0%}, in three {three:.0%}"


if __name__ == "__main__":
    asyncio.run(main())
