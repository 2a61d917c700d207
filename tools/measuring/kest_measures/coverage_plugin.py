"""A plug-in for coverage.py that measures nothing: it has the C counters written too when a process ends by ``os._exit``.

Forked children do, and gcov's own exit handler does not run then. Coverage.py's ``patch = _exit`` is the same for Python.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, NoReturn


def coverage_init(registry: Any, options: Any) -> None:
    """Called by coverage.py in every process it measures."""
    leave = os._exit

    def flush_and_leave(status: int) -> NoReturn:
        core = sys.modules.get("kest._kestcore")
        if core is not None:
            ctypes.CDLL(core.__file__).kest_gcov_flush()
        leave(status)

    os._exit = flush_and_leave
