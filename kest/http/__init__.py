"""Lineage over HTTP: middlewares, interceptors, a propagator. Names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kest.lazy import lazy

if TYPE_CHECKING:
    from kest.http.edge import Arrival, Edge
    from kest.http.egress import EgressGuard, hashed_user
    from kest.http.httpx_transport import KestHttpxInterceptor
    from kest.http.identity_middleware import KestIdentityMiddleware
    from kest.http.middleware import KestMiddleware
    from kest.http.problem import RejectedLineageError, TokenError, problem_document
    from kest.http.propagator import KestPropagator
    from kest.http.wsgi import KestWSGIMiddleware

__getattr__, __dir__ = lazy(
    globals(),
    {
        "Arrival": ".edge",
        "Edge": ".edge",
        "EgressGuard": ".egress",
        "KestHttpxInterceptor": ".httpx_transport",
        "KestIdentityMiddleware": ".identity_middleware",
        "KestMiddleware": ".middleware",
        "KestPropagator": ".propagator",
        "KestWSGIMiddleware": ".wsgi",
        "RejectedLineageError": ".problem",
        "TokenError": ".problem",
        "hashed_user": ".egress",
        "problem_document": ".problem",
    },
)

__all__ = [
    "Arrival",
    "Edge",
    "EgressGuard",
    "KestHttpxInterceptor",
    "KestIdentityMiddleware",
    "KestMiddleware",
    "KestPropagator",
    "KestWSGIMiddleware",
    "RejectedLineageError",
    "TokenError",
    "hashed_user",
    "problem_document",
]
