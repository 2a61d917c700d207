"""Kest configured for services in this process, and a real Redis."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An engine that allows and remembers; ALICE signs by default. Warnings that come once come once per test."""
    from wire import ALICE

    from kest.core import configure
    from kest.http import egress, live_baggage

    for name in ("KEST_ALLOWED_HOSTS", "KEST_INSECURE_NO_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(egress, "_warned", set())
    monkeypatch.setattr(live_baggage, "_packer", None)
    monkeypatch.setattr(live_baggage, "_guard", None)

    class Engine:
        in_process = True

        def __init__(self) -> None:
            self.asked: list[dict[str, Any]] = []
            self.answer: Any = True

        def evaluate(self, entry_id: str, policy_names: Any, context: Any) -> Any:
            self.asked.append(dict(context))
            return self.answer

    engine = Engine()
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", "0")
    configure(engine=engine, identity=ALICE)
    return engine


@pytest.fixture(scope="session")
def redis_server() -> Iterator[SimpleNamespace]:
    """A redis-server of this session's own."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            binary,
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            folder,
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                    break
                assert process.poll() is None, "redis-server did not start"
                assert time.monotonic() < end, "redis-server did not start in time"
                time.sleep(0.01)
            yield SimpleNamespace(port=port, url=f"redis://127.0.0.1:{port}/0", process=process)
        finally:
            process.terminate()
            process.wait(10)
