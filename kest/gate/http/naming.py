"""Paths: which are excluded from gating, and what an action is called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from kest._kestcore import gate_path
from kest.errors import GateInputError

__all__ = ["DEFAULT_EXCLUDED", "SAFE_METHODS", "Exclusions", "action_name"]

DEFAULT_EXCLUDED = ("/health", "/ready", "/metrics")
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
"""What a gate of mutations only lets pass. TRACE is safe as well (RFC 9110, section 9.2.1) and has no business here."""

_VERBS = {
    "GET": "read",
    "HEAD": "read",
    "POST": "create",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "delete",
    "WEBSOCKET": "connect",
}
_ODD = frozenset("%\\;?#\ufffd")
_VERSION = re.compile(r"v\d[\w.\-]*", re.ASCII)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class Exclusions:
    """Paths that are not gated: each of these, and everything below it.

    Only a path that is written in the one normal way is excluded: with ``//``, ``..``, a backslash, a semicolon, anything
    still percent-encoded, or characters that have a plainer form, routers and proxies may disagree on where it leads.
    """

    __slots__ = ("_below", "_paths")

    def __init__(self, prefixes: Iterable[str]) -> None:
        if isinstance(prefixes, str):
            raise TypeError("excluded_paths is a list of paths, not one str")
        paths: list[str] = []
        for prefix in prefixes:
            if not isinstance(prefix, str) or not prefix.startswith("/") or not _normal(prefix):
                raise GateInputError(f"excluded_paths: {prefix!r:.80} is not a path like /health")
            paths.append(prefix.rstrip("/"))
        self._paths = frozenset(paths)
        self._below = tuple(path + "/" for path in paths)

    def __contains__(self, path: str) -> bool:
        return (path in self._paths or path.startswith(self._below)) and _normal(path)


def _normal(path: str) -> bool:
    if not _ODD.isdisjoint(path) or not path.isprintable() or unicodedata.normalize("NFKC", path) != path:
        return False
    return (path.removesuffix("/") or "/") == gate_path(path)


def action_name(method: str, path: str) -> str:
    """``<resource>.<verb>``: POST /api/v1/refunds/17 is ``refunds.create``.

    The resource is the last segment of the path that is not ``api``, a version (``v1``), a number or a UUID.
    """
    return f"{_resource(path)}.{_VERBS.get(method, 'unknown')}"


def _resource(path: str) -> str:
    for segment in reversed((gate_path(path) or "").split("/")):
        plain = segment in ("", "api") or segment.isdigit() or _VERSION.fullmatch(segment) or _UUID.fullmatch(segment)
        if not plain:
            return segment
    return "unknown"
