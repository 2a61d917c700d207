"""Kest configured for services in this process, and a real Redis."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kest_services.processes import Processes
from kest_services.redis import Redis


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
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A redis-server of this session's own."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("redis")
    with Processes(folder) as processes, Redis(processes, folder / "data", limit=0) as server:
        yield SimpleNamespace(port=server.port, url=server.url)
