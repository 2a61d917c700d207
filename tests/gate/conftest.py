"""What the gate's tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
