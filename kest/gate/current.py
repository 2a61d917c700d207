"""The permit under which the code of here and now runs."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kest.gate.permit import PermitToken

__all__ = ["current_permit", "permitted"]

permit_var: contextvars.ContextVar[PermitToken | None] = contextvars.ContextVar("kest.gate.permit", default=None)


def current_permit() -> PermitToken | None:
    """The permit of the guarded function, request or tool call that is running; None outside of one.

    Generators run in their consumer's context, and so under their consumer's permit.
    """
    return permit_var.get()


@contextmanager
def permitted(permit: PermitToken | None) -> Iterator[None]:
    """Run under this permit."""
    before = permit_var.set(permit)
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine that somebody else's context closes
            permit_var.reset(before)
