"""What the tests of engines share: a context, and an engine that answers what it is told to."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from kest.core.engine import Decision, PolicyEngine, decide

CONTEXT: dict[str, Any] = {
    "subject": {
        "workload": "spiffe://t/w",
        "user": "alice",
        "agent": None,
        "task": None,
        "trust_score": 80,
        "taints": [],
    },
    "object": {"id": "doc-1", "attributes": {}},
    "environment": {"is_root": True, "source_type": "internal", "parent_hash": "0", "policy_tier": "function"},
    "identity": "spiffe://t/w",
    "trust_score": 80,
    "taints": [],
    "is_root": True,
    "user": "alice",
    "agent": None,
    "args": {"secret": "s3cr3t-value"},
}


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


class Answers(PolicyEngine):
    """Answers whatever it was made with, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def evaluate(self, entry_id: str, policy_names: Any, context: Any) -> bool:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer() if callable(self.answer) else self.answer


async def decide_in_a_coroutine(*arguments: Any) -> Decision:
    return decide(*arguments)
