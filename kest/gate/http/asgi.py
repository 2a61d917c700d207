"""`GateMiddleware`: a gate before an ASGI application."""

from __future__ import annotations

from collections import deque
from typing import Any

from kest._kestcore import Verdict
from kest.errors import GateRequestError, Invalidated, Refused
from kest.gate.current import enter, leave
from kest.gate.gate import Gate
from kest.gate.http.gate import PERMIT, HttpGate
from kest.gate.http.request import Asked, asked_of_scope
from kest.gate.reasons import refusal
from kest.http.middleware import ASGIApp, Message, Receive, Scope, Send, refuse
from kest.http.problem import problem_headers

__all__ = ["GateMiddleware"]


class GateMiddleware:
    """Asks a gate about each request (and WebSocket) before the application sees it. Pure ASGI.

    ``app.add_middleware(GateMiddleware, gate=gate)``. What is no permit is answered with a problem document (RFC 9457) that
    has code, evaluator and reason: 403, 429 with Retry-After for RATE_LIMIT_EXCEEDED, 401 when the session is over, 503 when
    a store does not answer; a body that is not strict JSON with 400, one that is too large with 413. So are Refused and
    Invalidated that the application raises before it responds. The permit is ``request.state.kest_permit``,
    ``scope["kest.permit"]`` and `current_permit()`.

    It stands behind `KestIdentityMiddleware` and `KestMiddleware`, which verify whom it asks about: with ``add_middleware``,
    which puts each new one in front, that is to say before they are added.

    Args:
        app: the application.
        gate: a Gate, or an HttpGate.
        settings: those of `HttpGate`.
    """

    def __init__(self, app: ASGIApp, gate: Gate | HttpGate, **settings: Any) -> None:
        self.app = app
        self.http = http_gate(gate, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification, version 3."""
        asked = asked_of_scope(scope) if scope["type"] in ("http", "websocket") else None
        if asked is None or not self.http.gates(asked):
            await self.app(scope, receive, send)
            return
        incoming = _Body(receive)
        try:
            verdict = await self._verdict(asked, incoming)
        except _GoneError:
            return
        except (Refused, Invalidated, GateRequestError) as error:
            await _answer(scope, send, error)
            return
        await self._run(verdict, scope, incoming.replayed, send)

    async def _verdict(self, asked: Asked, incoming: _Body) -> Verdict | None:
        """The permit; None where a gate that observes could not be asked."""
        http, body = self.http, None
        try:
            if http.reads_body(asked):
                http.check_length(asked.declared_length)
                body = http.read(await incoming.read(http.max_body))
            return permitted(await http.decide_async(asked, http.facts(asked, body)))
        except GateRequestError as error:
            http.undecided(error)
            return None

    async def _run(self, verdict: Verdict | None, scope: Scope, receive: Receive, send: Send) -> None:
        permit = None if verdict is None else verdict.permit_token
        scope[PERMIT] = permit
        scope.setdefault("state", {})["kest_permit"] = permit
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        before = enter(verdict)
        try:
            await self.app(scope, receive, watched)
        except (Refused, Invalidated) as error:
            if started:
                raise
            await _answer(scope, send, error)
        finally:
            leave(before)


def http_gate(gate: Gate | HttpGate, settings: dict[str, Any]) -> HttpGate:
    """The gate of a middleware."""
    if isinstance(gate, HttpGate):
        if settings:
            raise TypeError(f"{next(iter(settings))} is a setting of the HttpGate that was given")
        return gate
    return HttpGate(gate, **settings)


def permitted(verdict: Verdict) -> Verdict:
    """A verdict that is a permit. Refused or Invalidated where it is none; the answer to the request logs that."""
    if not verdict.is_permit:
        raise refusal(verdict)
    return verdict


async def _answer(scope: Scope, send: Send, error: Refused | Invalidated | GateRequestError) -> None:
    fields = [(name.lower().encode(), value.encode()) for name, value in problem_headers(error)]
    await refuse(scope, send, error, fields)


class _GoneError(Exception):
    """The client has gone."""


class _Body:
    """Reads a request's body ahead of the application, which receives the same messages afterwards."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: deque[Message] = deque()

    async def read(self, most: int) -> bytes:
        """The whole body, or a little more than ``most`` bytes of a larger one."""
        chunks: list[bytes] = []
        size = 0
        while size <= most:
            message = await self._receive()
            self._messages.append(message)
            if message["type"] != "http.request":
                raise _GoneError
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if not message.get("more_body", False):
                break
        return b"".join(chunks)

    async def replayed(self) -> Message:
        """For the application: what was read, then what comes."""
        return self._messages.popleft() if self._messages else await self._receive()
