"""The pack's policies, decided by the libraries themselves, without Kest's engines around them."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
from reference.policy_tables import Input

from kest.core.policies import load

Decide = Callable[[str, Input], bool]


def module(name: str) -> Any:
    """A library that may be missing: lakera-regorus has wheels for Python 3.11 only."""
    return pytest.importorskip(name)


@cache
def regorus_engine(model: str, more: str = "") -> Any:
    engine = module("lakera_regorus").Engine()
    engine.add_policy(f"{model}.rego", load(model, "rego"))
    if more:
        engine.add_policy("more.rego", more)
    return engine


def regorus_value(model: str, rule: str, given: Any, more: str = "") -> Any:
    engine = regorus_engine(model, more)
    engine.set_input_json(json.dumps(given))
    return engine.eval_query(f"data.kest.policies.{model}.{rule}")["result"][0]["expressions"][0]["value"]


def by_regorus(model: str, given: Input) -> bool:
    return regorus_value(model, "allow", given) is True


@cache
def regopy_interpreter(model: str) -> Any:
    interpreter = module("regopy").Interpreter()
    interpreter.add_module(model, load(model, "rego"))
    return interpreter


def by_regopy(model: str, given: Input) -> bool:
    interpreter = regopy_interpreter(model)
    interpreter.set_input(given)
    return str(interpreter.query(f"data.kest.policies.{model}.allow")) == '{"expressions":[true]}'


@cache
def cedar_policies(model: str, more: str = "") -> Any:
    return module("cedarpy").PolicySet.from_str(load(model, "cedar") + more)


def cedar_context(value: Any) -> Any:
    """The policy input as a Cedar record: no null, and a float is a decimal, which no rule of the pack takes."""
    if isinstance(value, dict):
        return {key: cedar_context(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [cedar_context(item) for item in value]
    return {"__extn": {"fn": "decimal", "arg": repr(value)}} if isinstance(value, float) else value


def by_cedar_all(model: str, given: Iterable[Input], *, more: str = "", action: str = "check") -> list[bool]:
    requests = [
        {
            "principal": {"type": "Workload", "id": "spiffe://example.org/payments"},
            "action": {"type": "Action", "id": action},
            "resource": {"type": "Resource", "id": "document-7"},
            "context": cedar_context(one),
        }
        for one in given
    ]
    answers = module("cedarpy").is_authorized_batch(requests, cedar_policies(model, more), "[]")
    assert not [answer for answer in answers if answer.allowed and answer.diagnostics.errors]
    return [answer.allowed for answer in answers]


def by_cedar(model: str, given: Input) -> bool:
    return by_cedar_all(model, [given])[0]


REGO: tuple[Decide, ...] = tuple(
    decide for name, decide in (("lakera_regorus", by_regorus), ("regopy", by_regopy)) if importlib.util.find_spec(name)
)
"""The Rego libraries that are installed, the faster one first."""
