"""A gate before web applications: ASGI and WSGI middlewares, and what FastAPI and Flask need.

`kest.gate.http.fastapi` has a dependency for single routes, `kest.gate.http.flask` installs a gate in an application.
"""

from __future__ import annotations

from kest.gate.current import current_permit
from kest.gate.http.asgi import GateMiddleware
from kest.gate.http.gate import HttpGate, Identify
from kest.gate.http.places import GeoResolver, GeoResult
from kest.gate.http.wsgi import GateWSGIMiddleware
from kest.gate.principal import Principal

__all__ = [
    "GateMiddleware",
    "GateWSGIMiddleware",
    "GeoResolver",
    "GeoResult",
    "HttpGate",
    "Identify",
    "Principal",
    "current_permit",
]
