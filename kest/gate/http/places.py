"""Where clients are, as a resolver says. One that fails, or answers with something else, leaves the place unknown."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from kest.errors import ConfigurationError
from kest.gate.context import GeoLocation
from kest.gate.http.request import Asked

__all__ = ["GeoResolver", "GeoResult", "Places"]

log = logging.getLogger("kest.gate")

GeoResult = GeoLocation | tuple[GeoLocation | None, GeoLocation | None] | None
"""Where the client is; or that, and where its session began."""
GeoResolver = Callable[..., "GeoResult | Awaitable[GeoResult]"]
"""Called with ``method=, path=, ip=, headers=`` (a dict, names in lower case)."""


_NAMES = ("current_geo", "origin_geo")


class Places:
    """Asks a resolver, which may be a coroutine function."""

    def __init__(self, resolver: GeoResolver | None) -> None:
        if resolver is not None and not callable(resolver):
            raise TypeError(f"geo_resolver is callable, not {type(resolver).__name__}")
        self._resolver = resolver
        self._coroutine = inspect.iscoroutinefunction(resolver)

    def __bool__(self) -> bool:
        return self._resolver is not None

    def ask(self, asked: Asked, ip: str | None) -> dict[str, GeoLocation]:
        """The places of a context. ConfigurationError for a coroutine function on a thread that runs an event loop."""
        answer = self._ask(asked, ip)
        return _places(_finished(answer) if inspect.isawaitable(answer) else answer)

    async def ask_async(self, asked: Asked, ip: str | None) -> dict[str, GeoLocation]:
        """`ask` without holding up the event loop: a plain function may look into a file, and runs in a thread."""
        answer = self._ask(asked, ip) if self._coroutine else await asyncio.to_thread(self._ask, asked, ip)
        return _places(await _awaited(answer) if inspect.isawaitable(answer) else answer)

    def _ask(self, asked: Asked, ip: str | None) -> Any:
        if self._resolver is None:
            return None
        try:
            return self._resolver(method=asked.method, path=asked.path, ip=ip, headers=dict(asked.headers))
        except Exception:
            log.exception("the geo_resolver raised; the place is unknown")
            return None


def _places(answer: object) -> dict[str, GeoLocation]:
    pair: tuple[object, ...] = answer if isinstance(answer, tuple) else (answer, None)
    places = {name: place for name, place in zip(_NAMES, pair, strict=False) if isinstance(place, GeoLocation)}
    if len(pair) != 2 or len(places) + pair.count(None) != 2:
        log.error("the geo_resolver returned %s, not a GeoLocation; the place is unknown", type(answer).__name__)
        return {}
    return places


async def _awaited(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except Exception:
        log.exception("the geo_resolver raised; the place is unknown")
        return None


def _finished(answer: Awaitable[Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(answer))  # nothing runs here that it could hold up
    if inspect.iscoroutine(answer):
        answer.close()
    raise ConfigurationError("the geo_resolver is a coroutine function: ask with evaluate_async or evaluate_fastapi")
