"""Telling everybody that a session, principal or role is over: scopes, the broadcaster of one process, listeners."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import uuid
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final, runtime_checkable

from kest.errors import GateInputError
from kest.locks import Lock

if TYPE_CHECKING:
    from kest.gate.subscription import InvalidationSubscription

__all__ = [
    "InMemoryInvalidationBroadcaster", "InvalidationBroadcaster", "InvalidationListenerHandle", "InvalidationScope",
    "InvalidationTarget", "spawn_invalidation_listener",
]  # fmt: skip

log = logging.getLogger("kest.gate")

KINDS = ("session", "principal", "role")
MAX_PENDING = 65_536  # different targets that one listener may have waiting
MAX_ID = 1_024


class InvalidationTarget(NamedTuple):
    """What is over: ``kind`` is session, principal or role."""

    kind: str
    id: str


class InvalidationScope(NamedTuple):
    """An invalidation: what is over, why, and who decided it."""

    target: InvalidationTarget
    reason: str
    evaluator: str = "manual"

    @property
    def target_kind(self) -> str:
        """session, principal or role."""
        return self.target.kind

    @property
    def target_id(self) -> str:
        """The id of the session or principal, the name of the role."""
        return self.target.id


Deliver = Callable[[InvalidationScope], object]
Callback = Callable[[InvalidationScope], "Awaitable[object] | object"]


@runtime_checkable
class InvalidationBroadcaster(Protocol):
    """Carries invalidations to gates and listeners; of this process, or of all replicas."""

    def publish(self, target_kind: str, target_id: str, reason: str, evaluator: str = "manual") -> None:
        """Tell everybody."""
        ...

    def attach(self, deliver: Deliver, /) -> Callable[[], None]:
        """Call ``deliver`` for each invalidation from now on, until the returned function is called. ``deliver`` must
        neither block nor raise."""
        ...


def checked_scope(target_kind: str, target_id: str, reason: str, evaluator: str) -> InvalidationScope:
    """A scope of known kind, with a session id in the spelling that contexts use."""
    if target_kind not in KINDS:
        raise GateInputError(f"target_kind must be session, principal or role, not {target_kind!r:.60}")
    for value, what in ((target_id, "target_id"), (reason, "reason"), (evaluator, "evaluator")):
        if not isinstance(value, str):
            raise TypeError(f"{what} is a str, not {type(value).__name__}")
    if not 0 < len(target_id) <= MAX_ID:
        raise GateInputError(f"target_id has from 1 to {MAX_ID} characters")
    if target_kind == "session":
        try:
            target_id = str(uuid.UUID(target_id))
        except ValueError:
            if not target_id.isascii() or not target_id.isprintable() or " " in target_id:
                raise GateInputError("target_id is no session id: a UUID, or visible ASCII characters") from None
    return InvalidationScope(InvalidationTarget(target_kind, target_id), reason[:MAX_ID], evaluator[:MAX_ID])


@final
class InMemoryInvalidationBroadcaster:
    """Carries invalidations between the gates and listeners of one process. Nothing is kept for later subscribers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._deliveries: tuple[Deliver, ...] = ()
        self._listeners = 0

    @property
    def subscriber_count(self) -> int:
        """Listeners; gates are not counted."""
        return self._listeners

    def publish(self, target_kind: str, target_id: str, reason: str, evaluator: str = "manual") -> None:
        """Tell all gates (at once) and listeners (on their own threads). GateInputError for what is no target."""
        scope = checked_scope(target_kind, target_id, reason, evaluator)
        for deliver in self._deliveries:
            try:
                deliver(scope)
            except Exception:
                log.exception("an invalidation could not be delivered to one of its subscribers")

    def attach(self, deliver: Deliver, /) -> Callable[[], None]:
        """Call ``deliver`` for each invalidation from now on; returns what ends that."""
        counted = is_listener(deliver)
        with self._lock:
            self._deliveries = (*self._deliveries, deliver)
            self._listeners += counted

        def detach() -> None:
            with self._lock:
                kept = tuple(one for one in self._deliveries if one is not deliver)
                self._listeners -= counted and len(kept) < len(self._deliveries)
                self._deliveries = kept

        return detach

    def subscribe(self) -> InvalidationSubscription:
        """The same for async code: ``async with broadcaster.subscribe() as events: async for scope in events: ...``"""
        from kest.gate.subscription import InvalidationSubscription

        return InvalidationSubscription(self)


def is_listener(deliver: Deliver) -> bool:
    """Whether it is for code of the application, and not for a gate."""
    return getattr(getattr(deliver, "__self__", None), "listens", False) is True


class _Listener:
    """A thread that calls back for each invalidation, in order. Invalidations of one target that wait are one.

    The thread belongs to one process; in the child of a fork another one is started when there is something to do.
    """

    listens = True

    def __init__(self, callback: Callback, loop: asyncio.AbstractEventLoop | None) -> None:
        self.callback = callback
        self.loop = loop
        self.pending: dict[InvalidationTarget, InvalidationScope] = {}
        self.lock = Lock()
        self.wake = threading.Event()
        self.thread: threading.Thread | None = None
        self.pid = 0
        self.stopped = False
        self.dropped = 0

    def deliver(self, scope: InvalidationScope) -> None:
        with self.lock:
            if self.stopped:
                return
            if scope.target not in self.pending and len(self.pending) >= MAX_PENDING:
                self.dropped += 1
                log.error("a listener has %d invalidations waiting; one was dropped: its callback hangs", MAX_PENDING)
                return
            self.pending[scope.target] = scope
            if self.pid != os.getpid():
                self.start()
            self.wake.set()

    def start(self) -> None:
        """Under the lock."""
        self.pid = os.getpid()
        self.wake = threading.Event()  # the parent's may be in any state
        self.thread = threading.Thread(target=self.run, args=(self.wake,), name="kest-invalidations", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            self.pending.clear()
            self.wake.set()

    def run(self, wake: threading.Event) -> None:
        while True:
            wake.wait()
            with self.lock:
                if self.stopped:
                    return
                if not self.pending:
                    wake.clear()
                    continue
                target = next(iter(self.pending))
                scope = self.pending.pop(target)
            self.call(scope)

    def call(self, scope: InvalidationScope) -> None:
        try:
            result = self.callback(scope)
            if inspect.isawaitable(result):
                self.finish(result)
        except Exception:
            log.exception("an invalidation listener's callback raised; listening goes on")

    def finish(self, result: Awaitable[object]) -> None:
        async def wait() -> object:
            return await result

        if self.loop is not None and self.loop.is_running():
            asyncio.run_coroutine_threadsafe(wait(), self.loop).result()
        else:
            asyncio.run(wait())


@final
class InvalidationListenerHandle:
    """Stops a listener. Dropping the handle does not."""

    def __init__(self, listener: _Listener, detach: Callable[[], None]) -> None:
        self._listener = listener
        self._detach = detach

    def abort(self) -> None:
        """No further callback starts. May be called again."""
        self._detach()
        self._listener.stop()

    @property
    def is_finished(self) -> bool:
        """Whether it was aborted and its last callback has returned."""
        listener = self._listener
        if not listener.stopped:
            return False
        return listener.pid != os.getpid() or listener.thread is None or not listener.thread.is_alive()

    @property
    def dropped(self) -> int:
        """Invalidations that found no room because the callback hung."""
        return self._listener.dropped

    def join(self, timeout: float | None = None) -> None:
        """Wait until `is_finished`, at most ``timeout`` seconds."""
        thread = self._listener.thread
        if thread is not None and self._listener.pid == os.getpid() and thread is not threading.current_thread():
            thread.join(timeout)


def spawn_invalidation_listener(broadcaster: InvalidationBroadcaster, callback: Callback) -> InvalidationListenerHandle:
    """Call back for each invalidation, one after another, on a thread of its own.

    A coroutine function runs on the event loop from which this is called; without one, on a loop of its own. The callback
    may use everything in Kest. What it raises is logged.
    """
    if not isinstance(broadcaster, InvalidationBroadcaster):
        raise GateInputError(f"broadcaster must be an invalidation broadcaster, not {type(broadcaster).__name__}")
    if not callable(callback):
        raise TypeError(f"callback is callable, not {type(callback).__name__}")
    try:
        loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    listener = _Listener(callback, loop)
    return InvalidationListenerHandle(listener, broadcaster.attach(listener.deliver))


def attach_weakly(broadcaster: InvalidationBroadcaster, owner: Any, method: str) -> None:
    """Deliver to a method as long as its owner lives."""
    reference = weakref.ref(owner)
    detach: list[Callable[[], None]] = []

    def deliver(scope: InvalidationScope) -> None:
        alive = reference()
        if alive is not None:
            getattr(alive, method)(scope)
        elif detach:
            detach[0]()

    detach.append(broadcaster.attach(deliver))
