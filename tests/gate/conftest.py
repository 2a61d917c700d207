"""What the gate's tests share."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
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

sys.path.append(str(Path(__file__).resolve().parents[1] / "http"))  # wire: servers on real sockets

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


@pytest.fixture(autouse=True)
def _warnings_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings that come once come once per test."""
    from kest.http import egress

    monkeypatch.setattr(egress, "_warned", set())


@pytest.fixture
def login(tmp_path: Path, run_python: Callable[..., Any]) -> Path:
    """A folder with the keys of a login."""
    code = "import sys; from kest.cli.main import main; sys.exit(main(sys.argv[1:]))"
    key, public = str(tmp_path / "login.key"), str(tmp_path / "login.jwks.json")
    run_python(code, "keygen", "--principal", "https://login.example", "--out", key, "--jwks", public)
    return tmp_path


@pytest.fixture
def bearer(login: Path) -> Callable[..., str]:
    """Bearer tokens of that login: for Ann, with these roles."""
    import jwt
    from cryptography.hazmat.primitives import serialization

    key: Any = serialization.load_pem_private_key((login / "login.key").read_bytes(), None)
    kid = json.loads((login / "login.jwks.json").read_text())["keys"][0]["kid"]

    def token(*roles: str) -> str:
        claims = {"sub": "ann", "iss": "https://login.example", "aud": "shop", "exp": int(time.time()) + 600}
        return jwt.encode({**claims, "roles": [*roles]}, key, "EdDSA", {"kid": kid, "typ": "at+jwt"})

    return token


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
