"""ATTACKS.md, rows B6, C1 and C3 to C6 for every engine that needs no server; tests/services asks the others the same."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("row_cases")

from local_engines import engine  # noqa: E402, F401
from row_cases import *  # noqa: E402, F403
