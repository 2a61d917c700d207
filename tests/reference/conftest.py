"""Lets the tests import the specification as ``reference`` however pytest was started."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parent.parent)
if _TESTS not in sys.path:
    sys.path.append(_TESTS)  # last, so that tests/threading and tests/typing never shadow the standard library
