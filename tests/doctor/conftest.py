"""Applications behind a real server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import uvicorn


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEST_ALLOWED_HOSTS", "KEST_USER_SALT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_PROPAGATORS"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def _serving(app: Any, **settings: Any) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", ws="none", http="h11", loop="asyncio", **settings)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        end = time.monotonic() + 20
        try:
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < end
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture
def serving() -> Callable[..., AbstractContextManager[str]]:
    """The URL of an application behind uvicorn."""
    return _serving
