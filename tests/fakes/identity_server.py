"""The identity endpoint that Azure App Service offers the processes it runs."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class IdentityServer:
    """Hands out `token`, or answers with `status`; `queries` holds what was asked for."""

    header = "identity-secret"
    token = "token-of-the-identity"

    def __init__(self) -> None:
        self.queries: list[dict[str, list[str]]] = []
        self.status = 200
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/msi/token"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # the base class names it so
                return None

            def do_GET(self) -> None:
                assert self.headers["x-identity-header"] == server.header
                server.queries.append(parse_qs(urlsplit(self.path).query))
                answer = {
                    "access_token": server.token,
                    "expires_on": "4102444800",
                    "resource": "https://cognitiveservices.azure.com",
                    "token_type": "Bearer",
                }
                body = json.dumps(answer if server.status == 200 else {"error": "invalid_request"}).encode()
                self.send_response(server.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
