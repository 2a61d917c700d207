"""`KestWSGIMiddleware`: lineage for WSGI applications (Flask, Django, Pyramid)."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from kest.errors import KestError, PolicyDeniedError
from kest.http.entering import LineageMiddleware, enter
from kest.http.problem import CONTENT_TYPE, problem_body, problem_headers, status_of

__all__ = ["KestWSGIMiddleware", "refused", "run_in"]

log = logging.getLogger("kest.http")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

ARRIVAL = "kest.arrival"


class KestWSGIMiddleware(LineageMiddleware):
    """What `KestMiddleware` is for ASGI: ``app.wsgi_app = KestWSGIMiddleware(app.wsgi_app)``.

    The application, and each step of a streamed response, runs in a context of the request's own. The arguments are those of
    `KestMiddleware`. WSGI servers join several header lines with commas, which for baggage means the same.
    """

    app: WSGIApp

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        if ARRIVAL in environ:
            return self.app(environ, start_response)
        header = environ.get("HTTP_BAGGAGE")
        try:
            # PEP 3333: header values are bytes in the guise of latin-1 text.
            arrival = self._edge.read([] if header is None else [header.encode("latin-1")])
        except KestError as error:
            return refused(error, start_response)
        environ[ARRIVAL] = arrival
        context = contextvars.copy_context()
        context.run(enter, arrival)
        return run_in(context, self.app, environ, start_response, (PolicyDeniedError,) if self._problems else ())


def run_in(
    context: contextvars.Context,
    app: WSGIApp,
    environ: Environ,
    start_response: StartResponse,
    answered: tuple[type[KestError], ...],
) -> Iterable[bytes]:
    """Run an application, and each step of its response, in a context; errors of these types become problem documents
    unless the response has begun."""
    started = False

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal started
        started = True
        return start_response(*args, **kwargs)

    try:
        body = context.run(app, environ, watched)
    except answered as denied:
        if started:
            raise
        return refused(denied, start_response)
    return body if isinstance(body, (list, tuple)) and not hasattr(body, "close") else _Body(body, context)


class _Body:
    """A streamed response whose every step, and whose closing, runs in the request's context."""

    __slots__ = ("_body", "_context", "_iterator")

    def __init__(self, body: Iterable[bytes], context: contextvars.Context) -> None:
        self._body, self._context = body, context
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = self._context.run(iter, self._body)
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        """Close the application's iterable (PEP 3333 asks servers to)."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._context.run(close)


def refused(error: KestError, start_response: StartResponse) -> list[bytes]:
    """Answer with a problem document."""
    status = status_of(error)
    log.warning("request refused: status=%d reason=%s", status, error)
    body = problem_body(error)
    headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers + problem_headers(error))
    return [body]
