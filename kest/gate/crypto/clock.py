"""The one clock of signed things, so that a test can stop it."""

from __future__ import annotations

import time

__all__ = ["now"]


def now() -> float:
    """Unix time in seconds."""
    return time.time()
