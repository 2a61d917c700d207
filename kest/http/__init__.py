"""Lineage over HTTP: middlewares, interceptors, a propagator. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kest.http.edge import Arrival, Edge
    from kest.http.egress import EgressGuard, hashed_user
    from kest.http.httpx_transport import KestHttpxInterceptor
    from kest.http.identity_middleware import KestIdentityMiddleware
    from kest.http.middleware import KestMiddleware
    from kest.http.problem import RejectedLineageError, TokenError, problem_document
    from kest.http.propagator import KestPropagator
    from kest.http.wsgi import KestWSGIMiddleware

_HOME = {
    "Arrival": "kest.http.edge",
    "Edge": "kest.http.edge",
    "EgressGuard": "kest.http.egress",
    "KestHttpxInterceptor": "kest.http.httpx_transport",
    "KestIdentityMiddleware": "kest.http.identity_middleware",
    "KestMiddleware": "kest.http.middleware",
    "KestPropagator": "kest.http.propagator",
    "KestWSGIMiddleware": "kest.http.wsgi",
    "RejectedLineageError": "kest.http.problem",
    "TokenError": "kest.http.problem",
    "hashed_user": "kest.http.egress",
    "problem_document": "kest.http.problem",
}

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


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
