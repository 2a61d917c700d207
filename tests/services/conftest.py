"""Real servers. What cannot be built here is a skip that says why, what is not built yet an error that says how."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kest_services import components
from kest_services.processes import Processes
from kest_services.toolchains import wanting

from kest.core.engine import http_wire

# SPIRE's client speaks gRPC, whose fork handlers start threads again in a child that is about to become a server, and end
# it now and then (seen: 12 of 400) with "epoll_wait error". Read when gRPC is first used.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes for one test, and stops what the test leaves running."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def built() -> Callable[[str], Path]:
    """The folder of a component's build."""

    def folder(name: str) -> Path:
        problems = [] if components.expected(name).is_dir() else wanting(name)
        if problems:
            pytest.skip(f"{name} cannot be built here: it needs {', '.join(problems)}")
        return components.folder(name)

    return folder


@pytest.fixture(params=["pattern", "h11"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What reads plain HTTP answers of policy servers: the pattern for them, or h11, as it reads all others."""
    if request.param == "h11":
        monkeypatch.setattr(http_wire, "plain_body", lambda data: None)
    return str(request.param)
