"""`make bench`: measure the graph beside its baselines; `--topology` compares Ray Serve's proxy modes instead."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from bench import (
    context_cold,
    context_faults,
    context_hits,
    context_many,
    context_traffic,
    embedder,
    graph,
    streaming,
    topology,
    vllm,
)

#: Where the number of customers is part of what is measured.
MANY_CUSTOMERS = 100_000
SOME_CUSTOMERS = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", action="store_true", help="compare proxy modes (about 5 minutes)")
    parser.add_argument("--streaming", action="store_true", help="what the graph adds to streamed replies (2 minutes)")
    parser.add_argument("--embedder", action="store_true", help="embeddings of many callers (about 4 minutes)")
    parser.add_argument("--vllm", action="store_true", help="vLLM through our API beside the bare engine (10 minutes)")
    parser.add_argument("--context", action="store_true", help="hits of the context cache (5 minutes)")
    parser.add_argument("--context-cold", action="store_true", help="context past every cache (2 minutes and seeding)")
    parser.add_argument("--context-traffic", action="store_true", help="a simulated day on two replicas (5 minutes)")
    parser.add_argument("--context-many", action="store_true", help="1,000 customers a call, hung providers, memory")
    parser.add_argument("--context-faults", action="store_true", help="reads while parts are taken away (3 minutes)")
    parser.add_argument("--customers", type=int, help="default 2,000, more where the number of them matters")
    parser.add_argument("--seconds", type=float, help="length of each measurement")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second of the simulated day")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where databases of many customers stay for other runs"
    )
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}", flush=True)
    customers = arguments.customers or 2000
    seconds = arguments.seconds or 5.0
    many, some = arguments.customers or MANY_CUSTOMERS, arguments.customers or SOME_CUSTOMERS
    if arguments.topology:
        sys.argv = sys.argv[:1]
        return topology.main()
    if arguments.streaming:
        streaming.measure(customers)
    elif arguments.embedder:
        embedder.measure(seconds)
    elif arguments.vllm:
        vllm.measure()
    elif arguments.context:
        context_hits.measure(customers, seconds)
    elif arguments.context_cold:
        context_cold.measure(many, arguments.seconds or 20.0, arguments.keep)
    elif arguments.context_traffic:
        context_traffic.measure(many, arguments.seconds or 120.0, arguments.rate, arguments.keep)
    elif arguments.context_many:
        context_many.measure(some, seconds, arguments.keep)
    elif arguments.context_faults:
        context_faults.measure(customers, arguments.seconds or 60.0)
    else:
        graph.measure(customers, seconds, tuple(arguments.connections))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
