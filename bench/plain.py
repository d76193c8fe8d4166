"""The same `models/` objects and routes in one plain Uvicorn process: the baseline that shows what the graph costs.

python -m bench.plain --port 9000      (settings as for `make serve`; Chroma and Redis must run)
"""

from __future__ import annotations

import argparse
import asyncio

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.context_desk import build_context_desk
from deployments.conversation import build_conversation
from deployments.ingress.http.application import build_api, build_context_api
from deployments.ingress.services import ApiServices, ContextServices
from deployments.limits import build_rate_limiter
from deployments.processes import configure_process, open_database
from deployments.readiness import ReadinessChecks
from models.classification.engines import build_classifier
from models.embedding.engines import build_embedder
from models.knowledge.chroma import ChromaKnowledgeStore
from models.knowledge.retriever import Retriever
from models.llm.factory import build_chain
from models.safety.factory import build_gate
from models.safety.pii import PatternPIIDetector
from models.settings import Settings, load_settings
from models.telemetry import NoMetrics
from providers.context_service import build_orchestrator, load_views
from providers.systems.idempotency import SqlIdempotencyStore

CONTEXT_PREFIX = "/api/v1/customers"


class NotHere:
    """Campaigns and cluster metrics need a cluster, which this process is not."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(f"{name} needs a Ray cluster")


async def build(settings: Settings) -> ASGIApp:
    """Both applications behind one entrance, everything in this process."""
    configure_process(settings)
    database = open_database(settings)
    embedder = build_embedder(settings.embedding)
    await embedder.load()
    classifier = build_classifier(settings.classification, embedder)
    await classifier.load()
    knowledge = settings.knowledge
    store = ChromaKnowledgeStore(knowledge.host, knowledge.port, knowledge.collection, timeout_s=knowledge.timeout_s)
    context = build_orchestrator(
        database,
        settings=settings.context,
        views=load_views(settings.context),
        redis_url=settings.redis.url.get_secret_value(),
        embedder=embedder,
        metrics=NoMetrics(),
    )
    context.start()
    safety = build_gate(settings.safety, embedder)
    language_model = build_chain(settings, embedder, pii=PatternPIIDetector())
    router, agent = build_conversation(
        settings,
        database,
        embedder=embedder,
        safety=safety,
        classifier=classifier,
        knowledge=Retriever(store, embedder),
        language_model=language_model,
        context=context,
        metrics=NoMetrics(),
    )
    await agent.load()
    limiter = build_rate_limiter(settings)
    absent = NotHere()
    api = build_api(
        ApiServices(
            router=router,
            conversation=agent,
            language_model=language_model,
            embedder=embedder,
            safety=safety,
            context=build_context_desk(settings, database, NotHere(), NoMetrics()),  # type: ignore[arg-type]  # as below
            campaigns=absent,  # type: ignore[arg-type]  # not part of the comparison
            idempotency=SqlIdempotencyStore(database),
            readiness=ReadinessChecks([]),
            metrics_page=absent,  # type: ignore[arg-type]  # not part of the comparison
            rate_limiter=limiter,
        ),
        settings,
    )
    contexts = build_context_api(
        ContextServices(
            reader=context,
            history=absent,  # type: ignore[arg-type]  # as above
            rate_limiter=limiter,
        ),
        settings,
    )

    async def entrance(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(CONTEXT_PREFIX):
            await contexts({**scope, "root_path": CONTEXT_PREFIX}, receive, send)
        else:
            await api(scope, receive, send)

    return entrance


async def serve(port: int) -> None:
    config = uvicorn.Config(
        await build(load_settings()), host="127.0.0.1", port=port, access_log=False, log_config=None
    )
    await uvicorn.Server(config).serve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
