"""The two HTML pages; each stands alone, so that it works without any other host."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

_FOLDER = Path(__file__).parent / "pages"


@dataclass(frozen=True, slots=True)
class Page:
    """An HTML page and the policy under which exactly its own script and style run."""

    html: bytes
    policy: str

    @classmethod
    def load(cls, name: str) -> Page:
        html = (_FOLDER / name).read_text(encoding="utf-8")
        policy = (
            f"default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; "
            f"script-src {_hashes(html, 'script')}; style-src {_hashes(html, 'style')}"
        )
        return cls(html.encode(), policy)

    def response(self) -> Response:
        headers = {"Content-Security-Policy": self.policy, "Cache-Control": "no-cache", "Vary": "Accept"}
        return Response(self.html, headers=headers, media_type="text/html; charset=utf-8")


def _hashes(html: str, element: str) -> str:
    found = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


DOCS = Page.load("docs.html")
LANDING = Page.load("landing.html")
