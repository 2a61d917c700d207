"""One limit for a whole decision, whatever it consists of."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TypeVar

from kest.errors import ConfigurationError

__all__ = ["call_with_deadline", "check_timeout"]

T = TypeVar("T")


def check_timeout(timeout: float) -> float:
    """``timeout`` in seconds as a float.

    Raises:
        ConfigurationError: not a finite number greater than zero.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise ConfigurationError("timeout must be a number of seconds greater than 0")
    return float(timeout)


def call_with_deadline(function: Callable[[], T], seconds: float) -> T:
    """Run a call that cannot be interrupted in a thread of its own and give up on it after ``seconds``.

    Not in the threads that ask identities (``kest.core.identity.waiting``): of those there are only so many, and policies
    that hang must not keep anybody from signing.

    Raises:
        TimeoutError: it was not done in time; it goes on, and its result is dropped.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="kest-engine-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    if errors:
        raise errors[0]
    raise TimeoutError
