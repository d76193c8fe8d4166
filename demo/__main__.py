"""Makes the demo company Medley ready on this machine: migrations, customers, knowledge.

    python -m demo [--customers 2000] [--seed 7]

Idempotent: what is already there is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from demo.seed import seed
from models.embedding.engines import build_embedder
from models.errors import RapportError
from models.knowledge.chroma import ChromaKnowledgeStore
from models.knowledge.ingest import ingest
from models.resilience.deadline import Deadline
from models.resilience.retry import RetryPolicy
from models.settings import Settings, load_settings
from providers.database import migrate

#: The launcher starts Chroma at the same time as this.
CHROMA_STARTS = RetryPolicy(retries=1_000, base_s=0.5, max_s=0.5)
CHROMA_TIMEOUT_S = 60.0
ARTICLES = Path(__file__).parent / "articles"


def say(text: str) -> None:
    sys.stdout.write(f"  demo: {text}\n")
    sys.stdout.flush()


async def fill_knowledge(settings: Settings) -> None:
    """Chunk, embed and store the articles. Raises `KnowledgeUnavailable` when Chroma does not come up."""
    chosen = settings.knowledge
    store = ChromaKnowledgeStore(chosen.host, chosen.port, chosen.collection, timeout_s=10.0)
    await CHROMA_STARTS.run(store.check_health, deadline=Deadline.after(CHROMA_TIMEOUT_S))
    embedder = build_embedder(settings.embedding)
    await embedder.load()
    try:
        await ingest(sorted(ARTICLES.glob("*.md")), store, embedder, progress=say)
    finally:
        await embedder.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=2000, help="1 to 1,000,000")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        say("database: migrating")
        migrate(settings.database_url)
        seed(
            settings.database_url,
            customers=arguments.customers,
            seed=arguments.seed,
            now=datetime.now(UTC),
            progress=say,
        )
        say("knowledge: ingesting articles")
        asyncio.run(fill_knowledge(settings))
    except RapportError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
