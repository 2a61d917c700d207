"""Every test starts unconfigured, with an empty decision cache, and outside any flow."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

_TESTS = str(Path(__file__).resolve().parent)
if _TESTS not in sys.path:
    sys.path.append(_TESTS)  # last, so that tests/threading and tests/typing never shadow the standard library

_VARIABLES = (
    "KEST_BACKEND", "KEST_CONFIG", "KEST_INSECURE_NO_VERIFY", "KEST_KMS_KEY_ID", "KEST_POLICY_CACHE_TTL", "KEST_USER_SALT",
    "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "OTEL_PYTHON_TRACER_PROVIDER", "SPIFFE_ENDPOINT_SOCKET",
)  # fmt: skip


def _reset() -> None:
    """Forget configuration, cached decisions and the flow of this context."""
    from kest.core import config, context
    from kest.core.decisions import invalidate_policy_cache

    config.configure(clear=True)
    invalidate_policy_cache()
    context.passport_var.set(None)
    context.caller_var.set(context.NOBODY)


@pytest.fixture
def within_minutes() -> Callable[[int], AbstractContextManager[None]]:
    """A block that ends in TimeoutError where it would hang, even in C, as long as that looks at signals."""

    @contextmanager
    def limited(minutes: int) -> Iterator[None]:
        def late(*_: object) -> None:
            raise TimeoutError("it hangs")

        before = signal.signal(signal.SIGALRM, late)
        signal.alarm(60 * minutes)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return limited


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With an installed kest, children that have the working directory on their path must not find the checkout's."""
    before = Path.cwd()
    try:
        import kest
    except ImportError:
        yield
        return
    if Path(kest.__file__).resolve().parents[1] != Path(__file__).resolve().parents[1]:
        os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def _process_log() -> Iterator[None]:
    """The command line has the process log to its standard error, which ends with each test: what is logged later would go
    to a closed stream, each record with a traceback."""
    loggers = logging.getLogger("kest"), logging.getLogger("kest.identity")
    before = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(autouse=True)
def _clean_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    try:
        import kest.core.config  # noqa: F401
    except ImportError:  # tests that need the package say so themselves; those of the reference do not need it
        yield
        return
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    _reset()
    yield
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    _reset()


class RecordingEngine:
    """Remembers what it was asked; ``answer`` is what it says, or a callable of (names, context)."""

    in_process = True

    def __init__(self, answer: Any = True) -> None:
        self.answer = answer
        self.asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def evaluate(self, entry_id: str, policy_names: Any, context: Any) -> Any:
        self.asked.append((tuple(policy_names), dict(context)))
        return self.answer(policy_names, context) if callable(self.answer) else self.answer


class ListSink:
    """An audit sink that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str]] = []

    def record(self, kind: str, jws: str) -> None:
        self.records.append((kind, jws))

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        return [_payload(jws) for what, jws in self.records if what == kind]


def _payload(jws: str) -> dict[str, Any]:
    from kest._kestcore import b64url_decode

    result: dict[str, Any] = json.loads(b64url_decode(jws.split(".")[1]))
    return result


@pytest.fixture
def payload_of() -> Callable[[str], dict[str, Any]]:
    """The payload of a JWS as a dict, unverified."""
    return _payload


@pytest.fixture
def identity() -> Any:
    """A fresh local identity."""
    from kest.core import LocalEd25519Provider

    return LocalEd25519Provider("spiffe://kest.test/unit")


@pytest.fixture
def recording() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def recording_engine() -> type[RecordingEngine]:
    return RecordingEngine


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
def configured(identity: Any, recording: RecordingEngine) -> SimpleNamespace:
    """Kest configured with an engine that allows (and remembers) everything, and ``identity``."""
    from kest.core import configure

    configure(engine=recording, identity=identity)
    return SimpleNamespace(identity=identity, engine=recording, keys={identity.get_identity(): identity})


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in another process, which must exit with ``expect`` (0)."""
    import kest

    root = str(Path(kest.__file__).resolve().parent.parent)

    def run(
        code: str, *args: str, env: Mapping[str, str] | None = None, timeout: float = 120, expect: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", code, *args],
            env={**os.environ, "PYTHONPATH": paths, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if expect is not None:
            assert done.returncode == expect, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def run_example(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a file of ``examples/`` in a folder of this test's; it must succeed."""
    import kest

    examples = Path(__file__).resolve().parents[1] / "examples"
    root = str(Path(kest.__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))

    def run(name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(examples / name), *arguments],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, **env}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A redis-server of this session's own."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    from kest_services.processes import Processes
    from kest_services.redis import Redis

    folder = tmp_path_factory.mktemp("redis")
    with Processes(folder) as processes, Redis(processes, folder / "data", limit=0) as server:
        yield SimpleNamespace(port=server.port, url=server.url)
