"""Kest configured for services in this process."""

from __future__ import annotations

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
