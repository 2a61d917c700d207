"""The contract of tests/contract, and the rows of ATTACKS.md, asked of the engines whose servers run here for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("engine_cases", "row_cases")

from engine_cases import *  # noqa: E402, F403
from kest_services.processes import Processes  # noqa: E402
from policy_servers import KINDS, server  # noqa: E402
from row_cases import *  # noqa: E402, F403

from kest.core.engine import PolicyEngine  # noqa: E402


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Iterator[Callable[[str], str]]:
    """The URL of a kind's server, which is started once."""
    folder = tmp_path_factory.mktemp("servers")
    started: dict[str, str] = {}
    with Processes(folder) as processes:

        def url(name: str) -> str:
            built(name.removesuffix("-unix"))
            if name not in started:
                made = server(name, processes, folder / name)
                made.start()
                started[name] = made.url
            return started[name]

        yield url


@pytest.fixture(params=sorted(KINDS))
def engine(request: pytest.FixtureRequest, urls: Callable[[str], str], reader: str) -> Iterator[PolicyEngine]:
    name, make = KINDS[request.param]
    # The promise of one second is test_engine_faults'. Here answers count, on machines that others use too.
    with make(urls(name), timeout=10.0) as made:
        yield made
