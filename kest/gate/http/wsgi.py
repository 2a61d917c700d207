"""`GateWSGIMiddleware`: a gate before a WSGI application."""

from __future__ import annotations

import contextvars
import io
from collections.abc import Iterable
from typing import Any

from kest._kestcore import Verdict
from kest.errors import GateRequestError, Invalidated, Refused
from kest.gate.current import enter
from kest.gate.gate import Gate
from kest.gate.http.asgi import http_gate, permitted
from kest.gate.http.gate import PERMIT, HttpGate
from kest.gate.http.request import Asked, asked_of_environ
from kest.http.wsgi import Environ, StartResponse, WSGIApp, refused, run_in

__all__ = ["GateWSGIMiddleware"]


class GateWSGIMiddleware:
    """What `GateMiddleware` is for ASGI: ``app.wsgi_app = GateWSGIMiddleware(app.wsgi_app, gate)``.

    The permit is ``environ["kest.permit"]`` and `current_permit()`. It stands behind `KestWSGIMiddleware`.
    """

    def __init__(self, app: WSGIApp, gate: Gate | HttpGate, **settings: Any) -> None:
        self.app = app
        self.http = http_gate(gate, settings)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        asked = asked_of_environ(environ)
        if not self.http.gates(asked):
            return self.app(environ, start_response)
        try:
            verdict = self._verdict(asked, environ)
        except (Refused, Invalidated, GateRequestError) as error:
            return refused(error, start_response)
        environ[PERMIT] = None if verdict is None else verdict.permit_token
        context = contextvars.copy_context()
        context.run(enter, verdict)
        return run_in(context, self.app, environ, start_response, (Refused, Invalidated))

    def _verdict(self, asked: Asked, environ: Environ) -> Verdict | None:
        """The permit; None where a gate that observes could not be asked."""
        http, body = self.http, None
        try:
            if http.reads_body(asked):
                http.check_length(asked.declared_length)
                body = http.read(_body(environ, asked.declared_length, http.max_body))
            return permitted(http.decide(asked, http.facts(asked, body)))
        except GateRequestError as error:
            http.undecided(error)
            return None


def _body(environ: Environ, declared: int, most: int) -> bytes:
    """The body, or a byte more than ``most`` of a larger one; the application finds all of it there again.

    Where its length is not declared there is one only if the server ends it.
    """
    if not declared and not environ.get("wsgi.input_terminated"):
        return b""
    stream = environ["wsgi.input"]
    left = declared or most + 1
    chunks: list[bytes] = []
    while left and (chunk := stream.read(left)):
        chunks.append(chunk)
        left -= len(chunk)
    data = b"".join(chunks)
    environ["wsgi.input"] = io.BufferedReader(_Rejoined(data, stream)) if len(data) > most else io.BytesIO(data)
    return data


class _Rejoined(io.RawIOBase):
    """What was read of a stream, then its rest."""

    def __init__(self, data: bytes, rest: Any) -> None:
        self._parts = [io.BytesIO(data), rest]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while self._parts and not (data := self._parts[0].read(len(buffer))):
            self._parts.pop(0)
        buffer[: len(data)] = data
        return len(data)
