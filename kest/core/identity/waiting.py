"""Asking a provider that may wait for another process or host: in a thread, and not for ever (ATTACKS D5).

The threads are daemons, unlike those of `concurrent.futures`: a provider that hangs must not keep an interpreter from
ending. A call that is given up does not sign later if it had not begun; what had begun goes on, and its result is dropped.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kest.errors import IdentityError
from kest.locks import Lock

if TYPE_CHECKING:
    from concurrent.futures import Future
    from queue import SimpleQueue

__all__ = ["CALL_TIMEOUT", "MAX_THREADS", "answer", "answer_async", "awaited"]

CALL_TIMEOUT = 15.0
"""Seconds after which a call of a provider is given up; a provider's attribute ``call_timeout`` says otherwise."""
MAX_THREADS = 64
"""That many calls of providers can be under way at once; further ones wait for their turn, as long as they may."""

T = TypeVar("T")


class _Threads:
    """A pool of daemon threads, made as they are needed."""

    def __init__(self) -> None:
        from queue import SimpleQueue

        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0
        self._lock = Lock()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        from concurrent.futures import Future

        future: Future[T] = Future()
        with self._lock:
            if not self._idle.acquire(blocking=False) and self._count < MAX_THREADS:
                threading.Thread(
                    target=_serve, args=(self._jobs, self._idle), name="kest-identity", daemon=True
                ).start()
                self._count += 1
        self._jobs.put((future, call))
        return future


def _serve(jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]], idle: threading.Semaphore) -> None:
    while True:
        future, call = jobs.get()
        if future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del future, call  # an idle thread keeps nothing alive
        idle.release()


_threads: _Threads | None = None
_threads_lock = Lock()


def _submit(function: Callable[..., T], arguments: tuple[Any, ...]) -> Future[T]:
    global _threads
    threads = _threads
    if threads is None:
        with _threads_lock:
            threads = _threads = _threads or _Threads()
    context = contextvars.copy_context()
    return threads.submit(lambda: context.run(function, *arguments))


def answer(provider: object, function: Callable[..., T], *arguments: Any) -> T:
    """What ``function`` returns or raises, if it does so within the provider's `call_timeout`.

    Raises:
        IdentityError: it does not.
    """
    limit = _limit(provider)
    future = _started(provider, function, arguments)
    from concurrent.futures import TimeoutError as Late

    try:
        return future.result(limit)
    except Late:
        # What came at the last moment counts, and a TimeoutError (the same class since 3.11) may be one of `function`'s own.
        if future.done() and not future.cancelled():
            return future.result()
    finally:
        future.cancel()
    raise _given_up(provider, limit)


async def answer_async(provider: object, function: Callable[..., T], *arguments: Any) -> T:
    """`answer` for async callers: the event loop goes on meanwhile."""
    import asyncio

    return await awaited(provider, asyncio.wrap_future(_started(provider, function, arguments)))


async def awaited(provider: object, answer: Awaitable[T]) -> T:
    """What an awaitable of a provider comes to, within its `call_timeout`; it is cancelled if this is.

    Raises:
        IdentityError: it takes longer.
    """
    import asyncio

    limit = _limit(provider)
    future = asyncio.ensure_future(answer)
    try:
        await asyncio.wait([future], timeout=limit)
        if future.done():
            return future.result()
    finally:
        future.cancel()
    raise _given_up(provider, limit)


def _started(provider: object, function: Callable[..., T], arguments: tuple[Any, ...]) -> Future[T]:
    try:
        return _submit(function, arguments)
    except RuntimeError as error:  # no further thread: too many in this process, or the interpreter is ending
        raise IdentityError(
            f"{type(provider).__qualname__} cannot be asked: no thread can be started ({error}); nothing was signed"
        ) from error


def _limit(provider: object) -> float:
    limit = getattr(provider, "call_timeout", CALL_TIMEOUT)
    if type(limit) not in (int, float) or not 0 < limit <= threading.TIMEOUT_MAX:
        raise IdentityError(f"{type(provider).__qualname__}.call_timeout must be a number of seconds above 0")
    return float(limit)


def _given_up(provider: object, limit: float) -> IdentityError:
    return IdentityError(
        f"{type(provider).__qualname__} did not answer within {limit:g} s; nothing was signed. Check what it waits for, "
        "or set its attribute call_timeout (seconds)"
    )


def _forget() -> None:
    global _threads
    _threads = None  # the threads of the process that forked this one do not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
