"""The fixture ``engine`` for engines that need no server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engines import FACTORIES, INSTALLED

from kest.core.engine import PolicyEngine

__all__ = ["engine"]


@pytest.fixture(params=sorted(FACTORIES))
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    """Each engine in turn."""
    if request.param not in INSTALLED:
        pytest.skip(f"{FACTORIES[request.param][0]} is not installed")
    with FACTORIES[request.param][1]() as made:
        yield made
