"""``engine``: every engine that needs no server, in turn."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("engine_cases")

from local_engines import engine  # noqa: E402, F401
