"""A local endpoint that speaks the chat-completions wire format and answers what a test scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Chunk = dict[str, Any]


def text_chunks(*pieces: str, finish: str = "stop") -> list[Chunk]:
    """A streamed completion of these pieces, with usage in the last chunk."""
    chunks = [_chunk({"content": piece}) for piece in pieces]
    chunks.append(_chunk({}, finish))
    usage = {"prompt_tokens": 7, "completion_tokens": len(pieces), "total_tokens": 7 + len(pieces)}
    return [*chunks, {**_chunk({}), "choices": [], "usage": usage}]


def tool_chunks(name: str, *arguments: str) -> list[Chunk]:
    """A streamed tool call whose arguments come in pieces."""
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in arguments]
    return [*(_chunk({"tool_calls": [call]}) for call in (first, *rest)), _chunk({}, "tool_calls")]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> Chunk:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "wire-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


class OpenAIServer:
    """Each request takes the next scripted answer; `requests` holds the bodies received, `hung_up` left clients."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.hung_up = threading.Event()
        self._script: list[tuple[int, dict[str, str], Any, bool]] = []
        self._released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def streams(self, chunks: Sequence[Chunk], *, then_hangs: bool = False) -> None:
        """Answer with these events; `then_hangs` keeps the connection open without another word."""
        self._script.append((200, {}, list(chunks), then_hangs))

    def fails(self, status: int, *, code: str | None = None, headers: dict[str, str] | None = None) -> None:
        """Answer with an error in OpenAI's shape."""
        error = {"error": {"message": "secret upstream text", "type": "error", "code": code, "param": None}}
        self._script.append((status, headers or {}, error, False))

    @property
    def unused(self) -> int:
        return len(self._script)

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # the base class names it so
                return None

            def do_GET(self) -> None:
                self._json(200, {}, {"object": "list", "data": []})

            def do_POST(self) -> None:
                server.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                status, headers, payload, hangs = server._script.pop(0)
                if status != 200:
                    self._json(status, headers, payload)
                    return
                self.close_connection = True
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for chunk in payload:
                    self._event(json.dumps(chunk))
                if hangs:
                    self._hang()
                else:
                    self._event("[DONE]")

            def _hang(self) -> None:
                self.connection.settimeout(0.05)
                while not server._released.is_set():
                    try:
                        if self.connection.recv(1) == b"":
                            server.hung_up.set()
                            return
                    except TimeoutError:
                        continue
                    except OSError:
                        server.hung_up.set()
                        return

            def _event(self, data: str) -> None:
                self.wfile.write(f"data: {data}\n\n".encode())
                self.wfile.flush()

            def _json(self, status: int, headers: dict[str, str], payload: Any) -> None:
                body = json.dumps(payload).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        return Handler
