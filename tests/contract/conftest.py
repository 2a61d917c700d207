"""``engine``: every engine in turn. Engines that need a server join when a fixture provides one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engines import FACTORIES, INSTALLED

from kest.core.engine import PolicyEngine


@pytest.fixture(params=sorted(FACTORIES))
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    if request.param not in INSTALLED:
        pytest.skip(f"{FACTORIES[request.param][0]} is not installed")
    with FACTORIES[request.param][1]() as made:
        yield made
