"""What the gate's tests share."""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kest_services.processes import Processes
from kest_services.redis import Redis

from kest.gate import ActionContext, Gate

SECOND = 1_000_000_000


@pytest.fixture
def context() -> Callable[..., ActionContext]:
    """A context with defaults for what does not matter."""

    def make(action: str = "pay", **given: Any) -> ActionContext:
        return ActionContext(**{"principal_id": "alice", "principal_kind": "user", "action_name": action, **given})

    return make


@pytest.fixture
def permitting() -> Callable[..., Gate]:
    """A gate with one policy: permit what these conditions say."""

    def make(*conditions: dict[str, Any], **options: Any) -> Gate:
        return Gate.from_dict(
            {"policies": [{"name": "p", "effect": "permit", "conditions": list(conditions)}]}, **options
        )

    return make


@pytest.fixture
def at() -> Callable[..., None]:
    """Stops a gate's clocks: seconds of Unix time, and of the steady clock (the same unless said otherwise)."""

    def stop(gate: Gate, wall: float, steady: float | None = None) -> None:
        gate._core.set_clock(round(wall * SECOND), round((wall if steady is None else steady) * SECOND))

    return stop


@pytest.fixture
def shared(redis_server: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """The session's Redis, with names for this test alone, and a client that looks behind the scenes."""
    redis = pytest.importorskip("redis", reason="redis-py is not installed")
    with redis.Redis(port=redis_server.port) as client:
        name = f"t:{uuid.uuid4()}:"
        yield SimpleNamespace(url=redis_server.url, port=redis_server.port, prefix=name, channel=name, client=client)


@pytest.fixture
def closing() -> Iterator[Callable[[Any], Any]]:
    """Closes what it is given when the test ends."""
    with ExitStack() as stack:

        def keep(one: Any) -> Any:
            stack.callback(one.close)
            return one

        yield keep


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., Redis]]:
    """Starts servers that a test may stop, kill and flush."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("redis", reason="redis-py is not installed")
    with Processes(tmp_path) as processes:

        def start(**options: Any) -> Redis:
            server = Redis(processes, tmp_path / f"redis-{uuid.uuid4()}", **options)
            server.start()
            return server

        yield start


@pytest.fixture
def stopped() -> Callable[..., Any]:
    """A context in which a server (or another process) does not run, though it exists."""

    @contextmanager
    def stop(server: Any) -> Iterator[None]:
        process = getattr(server, "running", server)
        process.end(signal.SIGSTOP)
        try:
            yield
        finally:
            process.end(signal.SIGCONT)

    return stop
