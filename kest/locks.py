"""Locks that a fork does not leave locked, nor an exception that a signal's handler raises.

A thread that holds a lock while another one forks does not exist in the child: there the lock would stay locked for ever. And
where ``__enter__`` or ``__exit__`` is Python, KeyboardInterrupt can be raised within it, behind ``acquire`` or before
``release``: every other thread would wait for ever. So a lock is the interpreter's own, whose methods nothing interrupts.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

__all__ = ["Lock"]

if TYPE_CHECKING:

    class _RLock:
        """What is used of `threading.RLock`, which type checkers take for final; it is not."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...
        def release(self) -> None: ...
        def __enter__(self) -> bool: ...
        def __exit__(self, *_: object) -> None: ...
        def _at_fork_reinit(self) -> None: ...

else:
    _RLock = type(threading.RLock())


class Lock(_RLock):
    """A reentrant lock, fresh in the child of a fork. What it protects must be whole whenever code of others can fork,
    or not matter in the child: caches, lazily made objects, lists that are replaced rather than changed."""

    def __init__(self) -> None:
        _all.add(self)


_all: weakref.WeakSet[Lock] = weakref.WeakSet()


def _renew() -> None:
    for lock in list(_all):
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
