"""FastAPI and Starlette: the current passport as a dependency, and Kest's errors as problem documents.

``install(app)`` is all an application needs; ``Depends(current_passport)`` gives a handler the lineage of its request.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kest._kestcore import Passport
from kest.core.context import Caller, caller_var, get_current_passport
from kest.errors import KestError
from kest.http.middleware import KestMiddleware
from kest.http.problem import CONTENT_TYPE, problem_body, problem_headers, status_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["current_caller", "current_passport", "install", "install_problem_handlers"]

log = logging.getLogger("kest.http")


async def current_passport() -> Passport:
    """A dependency: the passport of the request as it stands; empty when it brought none and nothing has run yet."""
    return get_current_passport()


async def current_caller() -> Caller:
    """A dependency: user, agent and task of the request, as far as they were verified."""
    return caller_var.get()


def install(app: Starlette, **settings: Any) -> None:
    """Add `KestMiddleware` (``settings`` are its arguments) and the problem handlers."""
    app.add_middleware(KestMiddleware, **settings)
    install_problem_handlers(app)


def install_problem_handlers(app: Starlette) -> None:
    """Answer every `KestError` that a handler raises with its status and a problem document (RFC 9457)."""
    app.add_exception_handler(KestError, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    from starlette.responses import Response

    status = status_of(error)
    if status >= 500:  # what failed here is for the log, not for the client
        log.error("a request failed: %s", error, exc_info=error)
    headers = {"cache-control": "no-store", **dict(problem_headers(error))}
    return Response(problem_body(error), status, media_type=CONTENT_TYPE, headers=headers)
