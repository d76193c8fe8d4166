"""`make bench`: measure the graph beside its baselines; `--topology` compares Ray Serve's proxy modes instead."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime

from bench import embedder, graph, streaming, topology, vllm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", action="store_true", help="compare proxy modes (about 5 minutes)")
    parser.add_argument("--streaming", action="store_true", help="what the graph adds to streamed replies (2 minutes)")
    parser.add_argument("--embedder", action="store_true", help="embeddings of many callers (about 4 minutes)")
    parser.add_argument("--vllm", action="store_true", help="vLLM through our API beside the bare engine (10 minutes)")
    parser.add_argument("--customers", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}")
    if arguments.topology:
        sys.argv = sys.argv[:1]
        return topology.main()
    if arguments.streaming:
        streaming.measure(arguments.customers)
        return 0
    if arguments.embedder:
        embedder.measure(arguments.seconds)
        return 0
    if arguments.vllm:
        vllm.measure()
        return 0
    graph.measure(arguments.customers, arguments.seconds, tuple(arguments.connections))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
