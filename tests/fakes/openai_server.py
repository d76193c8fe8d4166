"""A local endpoint that speaks OpenAI's wire formats and answers what a test scripted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Event = dict[str, Any]


def text_chunks(*pieces: str, finish: str = "stop") -> list[Event]:
    """A streamed completion of these pieces, with usage in the last chunk."""
    return [*(_chunk({"content": piece}) for piece in pieces), _chunk({}, finish), usage_chunk(len(pieces))]


def tool_chunks(name: str, *arguments: str, finish: str = "tool_calls") -> list[Event]:
    """A streamed tool call whose arguments come in pieces."""
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in arguments]
    calls = [_chunk({"tool_calls": [call]}) for call in (first, *rest)]
    return [*calls, _chunk({}, finish), usage_chunk(len(arguments))]


def usage_chunk(completion_tokens: int, *, prompt_tokens: int = 7, cached_tokens: int = 3) -> Event:
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }
    return {**_chunk({}), "choices": [], "usage": usage}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> Event:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "wire-model",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def text_events(*pieces: str, finish: str = "stop") -> list[Event]:
    """The same reply by the Responses API."""
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    deltas = [
        {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": p}
        for p in pieces
    ]
    return _response_events({"output_index": 0, "item": item}, deltas, len(pieces), finish)


def tool_events(name: str, *arguments: str) -> list[Event]:
    """The same tool call by the Responses API."""
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": ""}
    deltas = [
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": piece}
        for piece in arguments
    ]
    return _response_events({"output_index": 0, "item": item}, deltas, len(arguments), "stop")


def _response_events(added: Event, deltas: Iterable[Event], tokens: int, finish: str) -> list[Event]:
    response: Event = {"id": "resp_1", "object": "response", "model": "wire-model", "status": "in_progress"}
    last: Event = {
        **response,
        "status": "completed" if finish == "stop" else "incomplete",
        "incomplete_details": {"length": {"reason": "max_output_tokens"}, "content_filter": {"reason": finish}}.get(
            finish
        ),
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 3},
            "output_tokens": tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7 + tokens,
        },
    }
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", **added},
        *deltas,
        {"type": f"response.{last['status']}", "response": last},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as it arrived; header names are in lower case."""

    path: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    lines: tuple[str, ...] = ()
    hangs: bool = False
    cut: bool = False


class OpenAIServer:
    """Each request takes the next scripted answer; `requests` holds the bodies received, `hung_up` left clients."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.calls: list[Call] = []
        self.hung_up = threading.Event()
        self._script: list[_Answer] = []
        self._released = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        self.base_url = f"{self.endpoint}/v1"

    def streams(self, events: Sequence[Event], *, then_hangs: bool = False, cut: bool = False) -> None:
        """Answer with these events; `then_hangs` keeps the connection open without another word.

        `cut` closes it in the middle of a chunk of HTTP's chunked encoding.
        """
        lines = [json.dumps(event) for event in events]
        self.says(*lines, *([] if then_hangs or cut else ["[DONE]"]), then_hangs=then_hangs, cut=cut)

    def says(self, *data: str, then_hangs: bool = False, cut: bool = False) -> None:
        """Answer with events that hold exactly these texts, whatever they are, and end."""
        self._script.append(_Answer(lines=data, hangs=then_hangs, cut=cut))

    def answers(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Answer with this body, which need not be anything an API would say."""
        self._script.append(_Answer(status=status, headers=headers or {}, body=body))

    def fails(
        self,
        status: int,
        *,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        message: str = "secret upstream text",
    ) -> None:
        """Answer with an error in OpenAI's shape."""
        error = {"error": {"message": message, "type": "error", "code": code, "param": None}}
        self.answers(
            json.dumps(error).encode(), status=status, headers={"content-type": "application/json", **(headers or {})}
        )

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
                self._note()
                self._whole(
                    _Answer(body=b'{"object": "list", "data": []}', headers={"content-type": "application/json"})
                )

            def do_POST(self) -> None:
                self._note()
                server.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                answer = server._script.pop(0)
                if answer.body is not None:
                    self._whole(answer)
                    return
                self.close_connection = True
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.send_header("connection", "close")
                self.end_headers()
                for line in answer.lines:
                    self._chunk(f"data: {line}\n\n".encode())
                if answer.hangs:
                    self._hang()
                elif answer.cut:
                    self.wfile.write(b'40\r\ndata: {"choices": [{"delta"')
                else:
                    self.wfile.write(b"0\r\n\r\n")

            def _note(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.calls.append(Call(path=self.path, headers=headers))

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

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def _whole(self, answer: _Answer) -> None:
                body = answer.body or b""
                self.send_response(answer.status)
                self.send_header("content-length", str(len(body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        return Handler
