"""Locks that a fork does not leave locked.

A thread that holds a lock while another one forks does not exist in the child: there the lock would stay locked for ever.
"""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["Lock"]


class Lock:
    """A reentrant lock, fresh in the child of a fork. What it protects must be whole whenever code of others can fork,
    or not matter in the child: caches, lazily made objects, lists that are replaced rather than changed."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_all: weakref.WeakSet[Lock] = weakref.WeakSet()


def _renew() -> None:
    for lock in list(_all):
        lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
