"""FastAPI and Starlette: a gate before single routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request

from kest.gate.http.gate import HttpGate
from kest.gate.permit import PermitToken
from kest.http.fastapi import install_problem_handlers

__all__ = ["gated", "install_problem_handlers"]


def gated(http: HttpGate, action: str | None = None) -> Callable[[Request], Awaitable[PermitToken | None]]:
    """A dependency that asks a gate before its route runs: ``dependencies=[Depends(gated(http, "refunds.create"))]``.

    ``action`` names the action, whatever the path says. What is no permit raises Refused or Invalidated, which
    `install_problem_handlers(app)` answers with a problem document.
    """

    async def permit(request: Request) -> PermitToken | None:
        return await http.check_fastapi(request, action=action)

    return permit
