"""Fixtures for tests of engines."""

from __future__ import annotations

from typing import Any

import pytest
from engine_samples import decide_in_a_coroutine

from kest.core.engine import decide_async


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Any:
    """``decide`` and ``decide_async``, both to be awaited."""
    return decide_async if request.param == "async" else decide_in_a_coroutine
