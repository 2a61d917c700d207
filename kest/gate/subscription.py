"""Invalidations for async code: an iterator over what a broadcaster carries from now on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from kest.gate.invalidation import MAX_PENDING, InvalidationBroadcaster, InvalidationScope, InvalidationTarget, log

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["InvalidationSubscription"]


@final
class InvalidationSubscription:
    """``async with broadcaster.subscribe() as events: async for scope in events: ...``, on one event loop.

    It begins with ``async with``, or else with the first iteration. Invalidations of one target that wait are one.
    """

    listens = True

    def __init__(self, broadcaster: InvalidationBroadcaster) -> None:
        self._broadcaster = broadcaster
        self._detach: Callable[[], None] | None = None
        self._pending: dict[InvalidationTarget, InvalidationScope] = {}
        self._changed = asyncio.Event()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def deliver(self, scope: InvalidationScope) -> None:
        """Called by the broadcaster, on any thread."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody reads any more
                loop.call_soon_threadsafe(self._put, scope)

    def _put(self, scope: InvalidationScope) -> None:
        if self._closed:
            return
        if scope.target not in self._pending and len(self._pending) >= MAX_PENDING:
            log.error("a subscription has %d invalidations waiting; one was dropped: nobody reads it", MAX_PENDING)
            return
        self._pending[scope.target] = scope
        self._changed.set()

    async def _begin(self) -> None:
        if self._detach is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            self._detach = await asyncio.to_thread(self._broadcaster.attach, self.deliver)

    async def aclose(self) -> None:
        """End it; a pending iteration ends too."""
        self._closed = True
        self._pending.clear()
        self._changed.set()
        detach, self._detach = self._detach, None
        if detach is not None:
            detach()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InvalidationScope:
        await self._begin()
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._pending.pop(next(iter(self._pending)))
