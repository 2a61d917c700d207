"""Flask: a gate before every view, and Kest's errors as problem documents."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kest.errors import KestError
from kest.gate.http.gate import HttpGate
from kest.http.problem import CONTENT_TYPE, problem_body, problem_headers, status_of

if TYPE_CHECKING:
    from flask import Flask, Response

__all__ = ["install", "install_problem_handlers"]

log = logging.getLogger("kest.http")


def install(app: Flask, http: HttpGate) -> None:
    """Ask a gate before each request of an application; its permit is ``request.environ["kest.permit"]``."""
    from flask import request

    def ask() -> None:
        http.check_flask(request)

    app.before_request(ask)
    install_problem_handlers(app)


def install_problem_handlers(app: Flask) -> None:
    """Answer every `KestError` that a view raises with its status and a problem document (RFC 9457)."""
    app.register_error_handler(KestError, _answer)


def _answer(error: KestError) -> Response:
    from flask import Response

    status = status_of(error)
    if status >= 500:  # what failed here is for the log, not for the client
        log.error("a request failed: %s", error, exc_info=error)
    headers = [("Cache-Control", "no-store"), *problem_headers(error)]
    return Response(problem_body(error), status, headers, content_type=CONTENT_TYPE)
