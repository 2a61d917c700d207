"""`KestMiddleware`: lineage for ASGI applications (FastAPI, Starlette, Quart, Django; any server)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from kest.errors import KestError, PolicyDeniedError
from kest.http.entering import LineageMiddleware, entered
from kest.http.problem import CONTENT_TYPE, problem_body, status_of

__all__ = ["ARRIVAL", "IDENTITY", "KestMiddleware", "refuse"]

log = logging.getLogger("kest.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

ARRIVAL, IDENTITY = "kest.arrival", "kest.identity"
"""Keys of the ASGI scope: what the edge found, and the caller that a verified token names."""


class KestMiddleware(LineageMiddleware):
    """Opens a lineage per request and continues in it what came with the request.

    ``app.add_middleware(KestMiddleware)``. Incoming baggage is verified before anything reads it; what cannot be read,
    redeemed or verified is answered with a problem document (400, 424, 403) and the application is not run. Decorated
    functions continue from the passport that came. HTTP and WebSocket; lifespan messages pass untouched. It may stand
    before or after `KestIdentityMiddleware`. See `LineageMiddleware` for the arguments.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification, version 3."""
        if scope["type"] not in ("http", "websocket") or ARRIVAL in scope:  # a second one has nothing left to do
            await self.app(scope, receive, send)
            return
        try:
            arrival = await self._edge.read_async(baggage_lines(scope["headers"]))
        except KestError as error:
            await refuse(scope, send, error)
            return
        scope[ARRIVAL] = arrival
        started = False

        def watched(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        try:
            with entered(arrival, scope.get(IDENTITY)):
                await self.app(scope, receive, watched)
        except PolicyDeniedError as denied:
            if started or not self._problems:
                raise
            await refuse(scope, send, denied)


def baggage_lines(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """The values of all ``baggage`` headers; ASGI header names are lower case."""
    return [value for name, value in headers if name == b"baggage"]


async def refuse(scope: Scope, send: Send, error: KestError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with a problem document; a WebSocket is denied before it opens."""
    status = status_of(error)
    log.warning("request refused: status=%d reason=%s", status, error)
    body = problem_body(error)
    prefix = "http"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": "refused by Kest"})
            return
        prefix = "websocket.http"
    fields = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": f"{prefix}.response.start", "status": status, "headers": fields})
    await send({"type": f"{prefix}.response.body", "body": body})
