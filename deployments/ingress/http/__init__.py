"""The HTTP routes and the two applications made of them."""

from deployments.ingress.http.application import build_api, build_context_api

__all__ = ["build_api", "build_context_api"]
