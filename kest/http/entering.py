"""What the server sides have in common: their settings, and entering the flow that a request brought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kest.core.context import Caller, caller_var, passport_var
from kest.core.truststore import TrustStore
from kest.http import live_baggage
from kest.http.edge import Arrival, Edge
from kest.http.outgoing import foreign_var

__all__ = ["LineageMiddleware", "enter", "entered"]


class LineageMiddleware:
    """The constructor of `KestMiddleware` and `KestWSGIMiddleware`.

    Args:
        app: the application.
        trust_store, on_unverified, cache: override what `configure` set.
        require_passport: refuse requests that bring no lineage.
        origin: what a request without lineage counts as, for example ``"internet"`` at a public edge.
        problems: answer an uncaught `PolicyDeniedError` with 403 and a problem document.
    """

    def __init__(
        self,
        app: Any,
        trust_store: TrustStore | Mapping[str, Any] | None = None,
        on_unverified: str | None = None,
        cache: Any = None,
        *,
        require_passport: bool = False,
        origin: str | None = None,
        problems: bool = True,
    ) -> None:
        self.app: Any = app
        self._edge = Edge(trust_store, on_unverified, cache, require_passport=require_passport, origin=origin)
        self._problems = problems


def enter(arrival: Arrival) -> None:
    """Continue in what came, in a context that belongs to the request and ends with it."""
    passport_var.set(arrival.passport)
    caller_var.set(arrival.caller)
    foreign_var.set(arrival.foreign)
    live_baggage.attach()


class entered:
    """Continue in what came; afterwards everything is as it was.

    Not a generator's context manager, which costs several times as much: one is entered for each request.

    Args:
        arrival: what the edge found.
        caller: who a token verified further out names; lineage does not overrule it.
        otel: an OpenTelemetry context to make current, with live baggage. None: the current one.
    """

    __slots__ = ("_arrival", "_baggage", "_caller", "_otel", "_tokens")

    def __init__(self, arrival: Arrival, caller: Caller | None = None, otel: Any = None) -> None:
        self._arrival, self._caller, self._otel = arrival, arrival.caller if caller is None else caller, otel

    def __enter__(self) -> None:
        arrival = self._arrival
        self._tokens = (
            passport_var.set(arrival.passport),
            caller_var.set(self._caller),
            foreign_var.set(arrival.foreign),
        )
        self._baggage = live_baggage.attach(self._otel)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        live_baggage.detach(self._baggage)
        passport, caller, foreign = self._tokens
        foreign_var.reset(foreign)
        caller_var.reset(caller)
        passport_var.reset(passport)
