"""``engine``: every engine that needs no server, in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("engine_cases")

from engines import FACTORIES, INSTALLED  # noqa: E402

from kest.core.engine import PolicyEngine  # noqa: E402


@pytest.fixture(params=sorted(FACTORIES))
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    if request.param not in INSTALLED:
        pytest.skip(f"{FACTORIES[request.param][0]} is not installed")
    with FACTORIES[request.param][1]() as made:
        yield made
