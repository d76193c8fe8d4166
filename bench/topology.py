"""Compares Ray Serve's proxy modes on a no-op route and on one inner hop, in one run on one machine.

    python -m bench.topology

Each mode starts its own Ray in a child process, since Serve reads its switches at import. The order of modes is
repeated so that a drift of the machine's speed shows. Prints a table and the ratios to the default mode.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODES: dict[str, dict[str, str]] = {
    "default proxy": {},
    "default proxy, gRPC hops": {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"},
    "throughput, Python proxy": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"},
    "HAProxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"},
    "HAProxy + throughput": {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
}


def drive(plan: dict[str, Any]) -> dict[str, float]:
    """One closed-loop run by `bench.load`, in a process of its own so that it shares no interpreter."""
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(command, input=json.dumps(plan), text=True, capture_output=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def serve_and_measure(port: int, seconds: float) -> dict[str, dict[str, float]]:
    """Deploy the two routes in this process's Ray and drive each at 1 and 32 connections."""
    import ray
    from ray import serve
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    class Inner:
        async def answer(self, text: str) -> str:
            return text

    class Entrance:
        def __init__(self, inner: serve.handle.DeploymentHandle[Any]) -> None:
            self.inner = inner

        def __serve_build_asgi_app__(self) -> Starlette:  # the name is Ray's
            async def noop(_: Request) -> Response:
                return Response(b"ok")

            async def hop(_: Request) -> Response:
                return Response(await self.inner.answer.remote("ok"))

            return Starlette(routes=[Route("/noop", noop), Route("/hop", hop)])

    # Socket names have a length limit, so the session folder must be short.
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp") as folder:
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        options: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0.1}, "max_ongoing_requests": 200}
        entrance = serve.deployment(**options)(serve.ingress()(Entrance))
        serve.run(entrance.bind(serve.deployment(**options)(Inner).bind()), name="bench")
        measured = {}
        for path in ("/noop", "/hop"):
            for connections in (1, 32):
                plan = {
                    "host": "127.0.0.1",
                    "port": port,
                    "connections": connections,
                    "seconds": seconds,
                    "requests": [{"method": "GET", "path": path}],
                }
                done = subprocess.run(
                    [sys.executable, "-m", "bench.load"],
                    input=json.dumps(plan),
                    text=True,
                    capture_output=True,
                    check=True,
                )
                measured[f"{path} {connections}"] = json.loads(done.stdout)
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's own signature
        ray.shutdown()
    return measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=18000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=list(MODES), help="one mode, printed as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(serve_and_measure(args.port, args.seconds)))
        return 0
    rows: dict[str, list[dict[str, dict[str, float]]]] = {mode: [] for mode in MODES}
    for turn in range(args.rounds):
        for mode, switches in MODES.items():
            environment = {**os.environ, **switches, "RAY_AUTH_MODE": "disabled", "RAY_SERVE_LOG_TO_STDERR": "0"}
            command = [sys.executable, "-m", "bench.topology", "--only", mode, "--port", str(args.port)]
            command += ["--seconds", str(args.seconds)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{mode}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
                continue
            rows[mode].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(f"round {turn + 1}: {mode} done", file=sys.stderr)
    print("| mode | no-op p50 ms (1) | no-op req/s (32) | × default | hop p50 ms (1) | hop req/s (32) | × default |")
    print("|---|---|---|---|---|---|---|")
    base: dict[str, float] = {}
    for mode, runs in rows.items():
        if not runs:
            continue
        median = {
            key: statistics.median(run[key][field] for run in runs)
            for key, field in (
                ("/noop 1", "p50_ms"),
                ("/noop 32", "requests_per_s"),
                ("/hop 1", "p50_ms"),
                ("/hop 32", "requests_per_s"),
            )
        }
        base = base or median
        cells = [
            f"{median['/noop 1']:.2f}",
            f"{median['/noop 32']:.0f}",
            f"{median['/noop 32'] / base['/noop 32']:.1f}",
        ]
        cells += [f"{median['/hop 1']:.2f}", f"{median['/hop 32']:.0f}", f"{median['/hop 32'] / base['/hop 32']:.1f}"]
        print(f"| {mode} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    raise SystemExit(main())
