"""Engines one by one: what counts as an answer, and what each makes of bad policies and of bad servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kest.core.engine import (
    AVPPolicyEngine,
    CedarLocalEngine,
    CedarPolicyEngine,
    Decision,
    MockPolicyEngine,
    OPAPolicyEngine,
    PolicyEngine,
    RegoLocalEngine,
    decide,
    decide_async,
)
from kest.errors import ConfigurationError, MissingExtraError, PolicyDeniedError, PolicyEngineError

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


async def _coroutine() -> bool:
    return True


class Truthy:
    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


NOT_ANSWERS = ["true", "false", 1, 1.0, None, [], [True], {"allow": True}, Truthy(), ..., _coroutine]


# --- what counts as an answer


@pytest.mark.parametrize("answer", NOT_ANSWERS, ids=lambda value: type(value).__name__)
async def test_only_true_allows(answer: Any) -> None:
    for engine in (Answers(answer), type("Duck", (), {"evaluate": Answers(answer).evaluate})()):
        for decision in (decide(engine, "e", ["p"], {}), await decide_async(engine, "e", ["p"], {})):
            assert decision.allowed is False
            kind = "coroutine" if answer is _coroutine else type(answer).__name__
            assert kind in decision.reason
            assert "allow'" not in decision.reason
    gc.collect()  # a coroutine that nobody closed would warn here, and warnings are errors


async def test_true_allows_and_decisions_pass() -> None:
    assert decide(Answers(True), "e", ["p"], {}) == Decision(True)
    assert decide(Answers(False), "e", ["p"], {}).allowed is False
    given = Decision(False, "because", "p", ("id",))
    assert decide(Answers(given), "e", ["p"], {}) is given
    assert decide(Answers(Decision(1, "x")), "e", ["p"], {}).allowed is False  # type: ignore[arg-type]
    assert await Answers(True).async_evaluate("e", ["p"], {}) is True
    with Answers(True) as engine:
        assert engine.decide("e", ["p"], {}).allowed is True
    async with Answers(True) as engine:
        assert (await engine.async_decide("e", ["p"], {})).allowed is True


@pytest.mark.parametrize("names", [[], (), "", "policy"])
async def test_no_policy_denies(names: Any) -> None:
    assert decide(Answers(True), "e", names, {}).allowed is False
    assert (await decide_async(Answers(True), "e", names, {})).allowed is False
    assert MockPolicyEngine().evaluate("e", names, {}) is False


async def test_objects_without_evaluate_deny() -> None:
    assert decide(object(), "e", ["p"], {}).allowed is False
    assert (await decide_async(object(), "e", ["p"], {})).allowed is False


@pytest.mark.parametrize(
    "error", [ValueError("s3cr3t"), PolicyDeniedError("p"), ConfigurationError("x"), StopIteration()]
)
async def test_exceptions_become_engine_errors(error: Exception) -> None:
    with pytest.raises(PolicyEngineError) as caught:
        decide(Answers(error), "e", ["p"], {})
    assert caught.value.__cause__ is error
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(PolicyEngineError):
        await decide_async(Answers(error), "e", ["p"], {})


async def test_a_panic_is_an_engine_error() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(PolicyEngineError):
        decide(Answers(panic()), "e", ["p"], {})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), asyncio.CancelledError()])
def test_what_stops_a_program_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        decide(Answers(error), "e", ["p"], {})


def test_an_engine_error_passes_as_it_is() -> None:
    error = PolicyEngineError("x")
    with pytest.raises(PolicyEngineError) as caught:
        decide(Answers(error), "e", ["p"], {})
    assert caught.value is error
    assert error.__cause__ is None


async def test_async_methods_are_preferred() -> None:
    class Async:
        def evaluate(self, *_: Any) -> bool:
            raise AssertionError("the sync method was asked")

        async def async_evaluate(self, *_: Any) -> bool:
            return True

    class AsyncEngine(Async, PolicyEngine):
        pass

    assert (await decide_async(Async(), "e", ["p"], {})).allowed is True
    assert (await decide_async(AsyncEngine(), "e", ["p"], {})).allowed is True


async def test_test_doubles_are_asked_through_evaluate() -> None:
    from unittest.mock import MagicMock

    double = MagicMock()
    assert decide(double, "e", ["p"], {}).allowed is False
    double.evaluate.return_value = True
    assert decide(double, "e", ["p"], {}).allowed is True
    assert (await decide_async(double, "e", ["p"], {})).allowed is True


async def test_an_override_is_not_bypassed() -> None:
    class Stricter(MockPolicyEngine):
        def evaluate(self, entry_id: str, policy_names: Any, context: Any) -> bool:
            return super().evaluate(entry_id, policy_names, context) and context["ok"] is True

    assert decide(Stricter(), "e", ["p"], {"ok": False}).allowed is False
    assert (await decide_async(Stricter(), "e", ["p"], {"ok": False})).allowed is False
    assert decide(Stricter(), "e", ["p"], {"ok": True}).allowed is True
    patched = MockPolicyEngine()
    patched.evaluate = lambda *_: False  # type: ignore[method-assign]
    assert decide(patched, "e", ["p"], {}).allowed is False
    assert (await decide_async(patched, "e", ["p"], {})).allowed is False


async def test_a_blocking_engine_does_not_stop_the_loop() -> None:
    asked = asyncio.ensure_future(decide_async(Answers(lambda: time.sleep(0.5) or True), "e", ["p"], {}))
    worst, ticks = 0.0, 0
    while not asked.done():
        start = time.perf_counter()
        await asyncio.sleep(0.005)
        worst, ticks = max(worst, time.perf_counter() - start), ticks + 1
    assert (await asked).allowed is True
    assert ticks > 10
    assert worst < 0.3


async def test_context_variables_reach_the_thread() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default=False)
    variable.set(True)
    assert (await decide_async(Answers(lambda: variable.get()), "e", ["p"], {})).allowed is True


def test_mock() -> None:
    engine = MockPolicyEngine()
    assert engine.evaluate("e", ["p"], {}) is True
    engine.allow = False
    assert engine.decide("e", ["p"], {}).allowed is False
    for wrong in ("false", 1, None):
        with pytest.raises(TypeError):
            engine.allow = wrong  # type: ignore[assignment]
        with pytest.raises(TypeError):
            MockPolicyEngine(wrong)  # type: ignore[arg-type]


def test_importing_the_package_loads_no_stack() -> None:
    code = (
        "import sys\n"
        "from kest.core.engine import PolicyDeniedError, OPAPolicyEngine, CedarLocalEngine, RegoLocalEngine\n"
        "heavy = {'httpx', 'httpcore', 'anyio', 'asyncio', 'ssl', 'cedarpy', 'regopy', 'lakera_regorus', 'boto3'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "before = set(sys.argv[1].split(','))\n"
        "assert not loaded - before, loaded"
    )
    baseline = "import sys\ntry:\n import kest\nexcept ImportError:\n pass\nsys.stdout.write(','.join(sys.modules))"
    known = subprocess.run([sys.executable, "-c", baseline], capture_output=True, text=True, check=True).stdout
    subprocess.run([sys.executable, "-c", code, known], check=True)


def test_unknown_names_are_attribute_errors() -> None:
    import kest.core.engine as package

    assert "OPAPolicyEngine" in dir(package)
    with pytest.raises(AttributeError):
        _ = package.NoSuchEngine


# --- Cedar in process


def test_document_sample_cedar() -> None:
    engine = CedarLocalEngine(policies=['\npermit(\nprincipal,\naction == Action::"invoke",\nresource\n);\n'])
    assert decide(engine, "e", ["invoke"], CONTEXT).allowed is True
    assert decide(engine, "e", ["other"], CONTEXT).allowed is False
    assert (
        decide(CedarLocalEngine(policies=["permit(principal, action, resource);"]), "e", ["x"], CONTEXT).allowed is True
    )


def test_cedar_forbid_overrides_and_is_named() -> None:
    engine = CedarLocalEngine(
        [
            "permit(principal, action, resource);",
            '@id("no-alice") forbid(principal, action, resource) when { context.user == "alice" };',
        ]
    )
    decision = decide(engine, "e", ["x"], CONTEXT)
    assert decision.allowed is False
    assert decision.ids == ("no-alice",)
    assert "no-alice" in decision.reason
    assert decide(engine, "e", ["x"], {**CONTEXT, "user": "bob"}).allowed is True


def test_cedar_evaluation_error_denies() -> None:
    engine = CedarLocalEngine(
        ["permit(principal, action, resource);", "forbid(principal, action, resource) when { context.missing == 1 };"]
    )
    decision = decide(engine, "e", ["x"], CONTEXT)
    assert decision.allowed is False
    assert "missing" in decision.reason
    quoting = CedarLocalEngine(
        [
            "permit(principal, action, resource);",
            'forbid(principal, action, resource) when { ip(context.args.secret) == ip("1.1.1.1") };',
        ]
    )
    decision = decide(quoting, "e", ["x"], CONTEXT)
    assert decision.allowed is False
    assert "s3cr3t" not in decision.reason


def test_cedar_names_principal_and_resource() -> None:
    action = r'Action::"we\"ird\\ 名"'
    text = f'permit(principal == Workload::"spiffe://t/w", action == {action}, resource == Resource::"doc-1");'
    assert decide(CedarLocalEngine([text]), "e", ['we"ird\\ 名'], CONTEXT).allowed is True
    with pytest.raises(PolicyEngineError):
        decide(CedarLocalEngine([text]), "e", ["x"], {})


def test_cedar_entities_and_schema() -> None:
    entities = [
        {"uid": {"type": "Workload", "id": "spiffe://t/w"}, "attrs": {}, "parents": [{"type": "Team", "id": "red"}]},
        {"uid": {"type": "Team", "id": "red"}, "attrs": {}, "parents": []},
    ]
    text = 'permit(principal in Team::"red", action, resource);'
    for given in (entities, json.dumps(entities)):
        assert decide(CedarLocalEngine([text], entities=given), "e", ["x"], CONTEXT).allowed is True
    assert decide(CedarLocalEngine([text]), "e", ["x"], CONTEXT).allowed is False
    schema = """
    entity Team; entity Workload in [Team]; entity Resource;
    action x appliesTo { principal: Workload, resource: Resource, context: { trust_score: Long } };
    """
    engine = CedarLocalEngine([text], entities=entities, schema=schema)
    assert decide(engine, "e", ["x"], CONTEXT).allowed is True
    strict = CedarLocalEngine([text], entities=entities, schema=schema, validate_requests=True)
    assert decide(strict, "e", ["x"], CONTEXT).allowed is False  # the schema does not declare the whole context
    with pytest.raises(ConfigurationError, match="does not fit the schema"):
        CedarLocalEngine(["permit(principal, action, resource) when { context.trust == 1 };"], schema=schema)
    with pytest.raises(ConfigurationError, match="schema"):
        CedarLocalEngine([text], schema="entity (")
    with pytest.raises(ConfigurationError, match="entities"):
        CedarLocalEngine([text], entities="[{]")
    with pytest.raises(ConfigurationError, match="needs a schema"):
        CedarLocalEngine([text], validate_requests=True)


@pytest.mark.parametrize(
    ("policies", "where"),
    [
        (
            ["permit(principal, action, resource);", "// ; no\npermit(principal, action, resource);\n  forbid(;"],
            r"policies\[1\].*line 3, column 3",
        ),
        ({"a/b": "permit(principal"}, r"'a/b'.*line 1, column 1"),
        ([""], "no Cedar policy"),
        ([], "no policies"),
        ({}, "no policies"),
        ("permit(principal, action, resource);", "not one string"),
        ([b"permit"], "must be Cedar text"),
    ],
)
def test_bad_cedar_is_a_configuration_error(policies: Any, where: str) -> None:
    with pytest.raises(ConfigurationError, match=where):
        CedarLocalEngine(policies)


def test_cedar_context_is_flattened() -> None:
    from kest.core.engine.policy_input import cedar_context, cedar_context_json

    flat = cedar_context(CONTEXT)
    assert flat["workload"] == "spiffe://t/w"
    assert flat["parent_hash"] == "0"
    assert flat["subject"]["user"] == "alice"
    assert "agent" not in flat
    assert "agent" not in flat["subject"]
    assert cedar_context({**CONTEXT, "parent_hash": "mine"})["parent_hash"] == "mine"
    decimal = cedar_context({"a": 1.5, "b": 1e-7, "c": float("nan"), "d": 2**70, "e": -0.0, "f": [1e300], "g": 100.0})
    assert decimal == {
        "a": {"__extn": {"fn": "decimal", "arg": "1.5"}},
        "b": "1e-07",
        "c": "nan",
        "d": str(2**70),
        "e": {"__extn": {"fn": "decimal", "arg": "0.0"}},
        "f": ["1e+300"],
        "g": {"__extn": {"fn": "decimal", "arg": "100.0"}},
    }
    with pytest.raises(PolicyEngineError, match="None in a list"):  # a shorter list can be a weaker label
        cedar_context({"args": {"categories": [None, "nato"]}})
    for given in (
        CONTEXT,
        {"x": [",null", ",1.5", "a:null"]},
        {"a": {"b": {"c": None, "d": 1.25}}},
        {"a": float("inf")},
    ):
        assert json.loads(cedar_context_json(given)) == cedar_context(given)
    engine = CedarLocalEngine(
        ['permit(principal, action, resource) when { context.args.amount.lessThan(decimal("100.5")) };']
    )
    assert decide(engine, "e", ["x"], {**CONTEXT, "args": {"amount": 100.25}}).allowed is True
    assert decide(engine, "e", ["x"], {**CONTEXT, "args": {"amount": 100.50001}}).allowed is False
    assert decide(engine, "e", ["x"], {**CONTEXT, "args": {"amount": 1e300}}).allowed is False


@pytest.mark.parametrize("name", ["__entity", "__extn", "__expr"])
def test_an_argument_cannot_pose_as_an_entity(name: str) -> None:
    engine = CedarLocalEngine(['permit(principal, action, resource) when { context.args.who == Workload::"root" };'])
    forged = {**CONTEXT, "args": {"who": {name: {"type": "Workload", "id": "root"}}}}
    with pytest.raises(PolicyEngineError, match="__entity"):
        decide(engine, "e", ["x"], forged)
    harmless = {**CONTEXT, "args": {"who": name}}
    assert decide(engine, "e", ["x"], harmless).allowed is False


# --- Rego in process

HAS_REGORUS = importlib.util.find_spec("lakera_regorus") is not None
BACKENDS = [
    pytest.param("regorus", marks=needs("lakera_regorus")),
    pytest.param("regopy", marks=needs("regopy")),
]


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_document_samples_rego(backend: str | None) -> None:
    text = """
package kest.allow
import future.keywords
default allow := false
allow if {
input.trust_score >= 70 # integer, 0-100
input.is_root == false
}
"""
    engine = RegoLocalEngine(policies={"kest/allow": text}, backend=backend)
    for name in ("kest/allow", "kest.allow"):
        assert decide(engine, "e", [name], {**CONTEXT, "is_root": False}).allowed is True
        assert decide(engine, "e", [name], CONTEXT).allowed is False
    engine = RegoLocalEngine(policies={"pkg/name": "package pkg.name\ndefault allow = true"}, backend=backend)
    assert decide(engine, "e", ["pkg/name"], CONTEXT).allowed is True
    engine = RegoLocalEngine(
        policies={"kest/blp": "package models.bell_lapadula\nallow { input.trust_score > 1 }"}, backend=backend
    )
    for name in ("kest/blp", "models/bell_lapadula", "models.bell_lapadula"):
        assert decide(engine, "e", [name], CONTEXT).allowed is True
    assert decide(engine, "e", ["bell_lapadula"], CONTEXT).allowed is False


@needs("regopy")
def test_the_faster_backend_is_the_default() -> None:
    if not HAS_REGORUS:
        assert RegoLocalEngine({"a": "package a\nallow := true"}).backend == "regopy"
        return
    assert RegoLocalEngine({"a": "package a\nallow := true"}).backend == "regorus"
    # Regorus does not take both imports in one module, rego-cpp does.
    assert (
        RegoLocalEngine({"a": "package a\nimport future.keywords\nimport rego.v1\nallow if true"}).backend == "regopy"
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "rules",
    [
        "allow if input.no",
        "allow if { input.no }",
        "import rego.v1\nallow if input.no",
        "import future.keywords.in\nallow if 1 in input.no",
        "import future.keywords\nallow if { some x in input.no; x }",
        "# import rego.v1\nallow if input.no",
        "allow { input.no }",
        "allow = true { input.no }",
        "deny contains 1 if input.no\nallow if count(deny) == 1",
        "allow if every_one\nevery_one if input.no",
    ],
)
def test_a_condition_that_fails_never_allows(backend: str, rules: str) -> None:
    """An old Regorus reads 'allow if …' without an import as two rules, the first of which always allows."""
    engine = RegoLocalEngine({"a": f"package a\n{rules}\n"}, backend=backend)
    assert decide(engine, "e", ["a"], CONTEXT).allowed is False
    met = rules.replace("input.no", "[1, true]")
    allowing = RegoLocalEngine({"a": f"package a\n{met}\n"}, backend=backend)
    assert decide(allowing, "e", ["a"], CONTEXT).allowed is True


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", ['"true"', "1", "[]", "[true]", '{"allow": true}', "null", "false"])
def test_only_rego_true_allows(backend: str, value: str) -> None:
    engine = RegoLocalEngine({"a": f"package a\nallow := {value}"}, backend=backend)
    assert decide(engine, "e", ["a"], CONTEXT).allowed is False


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_rules_and_modules(backend: str) -> None:
    modules = {
        "main": "package main\nimport data.lib.util as u\nimport input.trust_score\n"
        "permit { u.enough; trust_score > 5 }",
        "lib/util": "package lib.util\nenough { input.trust_score > 10 }",
        "odd": 'package odd["with-dash"]\npermit = true',
    }
    engine = RegoLocalEngine(modules, query_rule="permit", backend=backend)
    assert decide(engine, "e", ["main"], CONTEXT).allowed is True
    assert decide(engine, "e", ["main"], {**CONTEXT, "trust_score": 7}).allowed is False
    assert decide(engine, "e", ["odd", "odd/with-dash"], CONTEXT).allowed is True
    assert decide(engine, "e", ["lib/util"], CONTEXT).allowed is False


@pytest.mark.parametrize("backend", [*BACKENDS, None])
@pytest.mark.parametrize(
    "text",
    [
        "package a\nallow {",
        "package a\n\nallow := ]",
        "allow := true",
        "",
        "package a\nallow if { no_such_function(1) }",
        "package a\nallow if { misspelt > 1 }",
        "package a\nallow if not misspelt.x",
        "package a\nallow := true\x00",
    ],
)
def test_bad_rego_is_a_configuration_error(backend: str | None, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RegoLocalEngine({"good": "package good\nallow := true", "bad/one": text}, backend=backend)
    assert "bad/one" in str(caught.value) or "package a" in str(caught.value)
    assert "Stack backtrace" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_rego_has_a_position(backend: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'m'.*line 3, column \d"):
        RegoLocalEngine({"m": "package a\n\nallow := ]"}, backend=backend)


@pytest.mark.parametrize(
    "arguments",
    [
        {"policies": {}},
        {"policies": ["package a"]},
        {"policies": {"a": "package a", "b": "package a"}},
        {"policies": {"a/b": "package a", "a.b": "package b"}},
        {"policies": {"a": "package a"}, "query_rule": "x; true"},
        {"policies": {"a": "package a"}, "backend": "opa"},
        {"policies": {"a": b"package a"}},
    ],
)
def test_bad_rego_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RegoLocalEngine(**arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rego_evaluation_errors_quote_no_input(backend: str) -> None:
    engine = RegoLocalEngine(
        {"a": "package a\nallow := input.args.secret\nallow := 1 if input.args.secret"}, backend=backend
    )
    with pytest.raises(PolicyEngineError) as caught:
        decide(engine, "e", ["a"], CONTEXT)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "value",
    [
        "",
        'q"uo\\te\n\t',
        "日本é😀",
        "a\x00b",
        "\\u0041",
        "{{x}}",
        "`",
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        0.5,
        1e300,
        True,
        False,
        None,
        [],
        {},
        [1, "a", None],
        {"k": {"é": [1]}},
    ],
    ids=repr,
)
def test_rego_values_arrive_as_they_are(backend: str, value: Any) -> None:
    literal = json.dumps(value, ensure_ascii=False)
    engine = RegoLocalEngine({"a": f"package a\nallow {{ input.args.value == {literal} }}"}, backend=backend)
    assert decide(engine, "e", ["a"], {"args": {"value": value}}).allowed is True
    assert decide(engine, "e", ["a"], {"args": {"value": [value, "other"]}}).allowed is False
    typed = RegoLocalEngine({"a": "package a\nallow { input.args.value == input.args.same }"}, backend=backend)
    assert decide(typed, "e", ["a"], {"args": {"value": value, "same": value}}).allowed is True


@needs("lakera_regorus")
def test_regorus_engines_die_with_their_threads() -> None:
    from kest.core.engine import rego_regorus

    engine = RegoLocalEngine({"a": "package a\nallow := true"}, backend="regorus")
    gc.collect()
    before = len(rego_regorus._every_thread)
    for _ in range(50):
        thread = threading.Thread(target=lambda: decide(engine, "e", ["a"], CONTEXT))
        thread.start()
        thread.join()
    assert len(rego_regorus._every_thread) <= before
    for _ in range(50):
        RegoLocalEngine({"a": "package a\nallow := true"}, backend="regorus")
    mine = rego_regorus._locals.engines
    assert mine is not None
    mine.prune()
    assert len(mine.by_token) <= len(rego_regorus._live)


@needs("lakera_regorus")
def test_regorus_is_silent_when_dropped_elsewhere(capfd: pytest.CaptureFixture[str]) -> None:
    kept: list[Exception] = []
    for text in ("allow {", "allow if x > 1", "allow if foo(1)", "allow if not x.y"):
        try:
            RegoLocalEngine({"a": f"package a\n{text}"}, backend="regorus")
        except ConfigurationError as error:
            kept.append(error)
    failing = RegoLocalEngine({"a": "package a\nallow := input.x\nallow := 1"}, backend="regorus")
    try:
        decide(failing, "e", ["a"], {"x": 2})
    except PolicyEngineError as error:
        kept.append(error)
    failing.close()
    assert len(kept) == 5
    thread = threading.Thread(target=lambda: (kept.clear(), gc.collect()))
    thread.start()
    thread.join()
    box = [RegoLocalEngine({"a": "package a\nallow := true"}, backend="regorus")]
    decide(box[0], "e", ["a"], CONTEXT)
    thread = threading.Thread(target=lambda: (box.clear(), gc.collect()))
    thread.start()
    thread.join()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("backend", BACKENDS)
def test_rego_survives_fork(backend: str) -> None:
    code = """
import os, sys, threading
from kest.core.engine import RegoLocalEngine, decide
engine = RegoLocalEngine({"a": "package a\\nallow := true"}, backend=sys.argv[1])
ask = lambda: decide(engine, "e", ["a"], {}).allowed
hold = threading.Event()
threads = [threading.Thread(target=lambda: (ask(), hold.wait()), daemon=True) for _ in range(4)]
[thread.start() for thread in threads]
ask()
pid = os.fork()
if pid == 0:
    os._exit(0 if ask() is True else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, backend], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.parametrize("backend", BACKENDS)
def test_rego_memory_is_bounded(backend: str) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    engine = RegoLocalEngine({"a": "package a\nallow { input.trust_score > 1 }"}, backend=backend)
    count = 8_000 if backend == "regorus" else 1_500
    for _ in range(count // 4):
        decide(engine, "e", ["a"], CONTEXT)
    start = resident()
    for _ in range(count):
        decide(engine, "e", ["a"], CONTEXT)
    assert resident() - start < 4_000_000


def test_rego_source_masks_what_is_no_code() -> None:
    from kest.core.engine.rego_source import for_regorus, package_path, with_plain_strings

    source = '# c\npackage a["b-c"].d\nx := `\nimport rego.v1\n` # import rego.v1\ny := "import rego.v1"'
    assert package_path("m", source) == ("a", "b-c", "d")
    assert 'package a["b-c"].d import future.keywords\n' in for_regorus("m", source)
    assert "future" not in for_regorus("m", "package a\nimport rego.v1\n")
    assert with_plain_strings(r'x := "\u00e9\/" # "\u00e9"') == 'x := "é/" # "\\u00e9"'
    assert with_plain_strings(r"x := `\u00e9`") == r"x := `\u00e9`"
    assert with_plain_strings(r'x := "\ud800"') == r'x := "\ud800"'
    aliased = for_regorus("m", 'package a\nimport data.l.u as z\nallow { z.ok; x.z; y["z"]; zz } # z')
    assert 'allow { data.l.u.ok; x.z; y["z"]; zz } # z' in aliased


@pytest.mark.parametrize(
    "rules",
    [
        "allow if not {}",
        "allow if not {}.x",
        "allow if count({}) == 0",
        "allow if {{ x := {}; x != 1 }}",
        "allow if not input.x == {}",
        "allow {{ not {}[input.x] }}",
        "allow if {{ every i in {} {{ i > 1 }} }}",
        "allow if count([x | x := {}]) == 0",
        "allow := {}.x",
    ],
)
def test_misspelt_names_are_found(rules: str) -> None:
    from kest.core.engine.rego_check import unbound_variable

    text = "package a\n" + rules.format("denied") + "\n"
    found = unbound_variable(text)
    assert found is not None
    assert (found[0], found[1]) == ("denied", 2)
    assert text.splitlines()[1][found[2] - 1 :].startswith("denied")
    assert unbound_variable(text + "denied := []\n") is None
    assert unbound_variable("package a\nimport data.lib.denied\n" + rules.format("denied")) is None


@pytest.mark.parametrize(
    "rules",
    [
        "allow { x = input.y; x > 1 }",
        "allow { input.y == x; x := 1 }",
        "f(x) = y { y := x }\nallow { f(1) }",
        "allow { input.a[i].b; i > 1 }",
        "allow { some i, j; input.a[i][j] }",
        "allow if { some k, v in input.o; v == k }",
        "allow if every x in input.l { x }",
        'deny[msg] { not input.x\n msg := sprintf("%v", [input.y])\n}',
        "deny contains msg if { msg := 1 }",
        "allow { [h, p, s] := io.jwt.decode(input.t); h.x; p; s }",
        'allow { {"a": z} = input.o; z }',
        'allow { split(input.x, ",", parts); parts[0] }',
        'f({"k": v}, [w]) = v { w }',
        "obj[k] = v { v := input.o[k] }",
        "allow = true {\n input.x\n} else = false {\n 1 == 1 }",
        "x.y.z := 1\nallow if x.y.z",
        "allow { walk(input, [path, value]); path; value }",
        'allow { x := "denied" } # denied `denied`',
    ],
)
def test_bound_names_are_not_reported(rules: str) -> None:
    from kest.core.engine.rego_check import unbound_variable

    assert unbound_variable(f"package a.b\nimport future.keywords\n{rules}\n") is None


# --- servers


class Server:
    """A TCP server that does to each connection what the test says; counts connections and requests."""

    def __init__(self, behave: Callable[[Server, socket.socket, bytes], None], family: int = socket.AF_INET) -> None:
        self.behave = behave
        self.connections = 0
        self.open = 0
        self.tls: ssl.SSLContext | None = None
        self.requests: list[bytes] = []
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.stopped = threading.Event()

    def start(self, address: Any = ("127.0.0.1", 0)) -> Server:
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(address)
        self.listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def settles_at(self, count: int) -> bool:
        """Whether the number of open connections becomes ``count``."""
        end = time.monotonic() + 2
        while self.open != count and time.monotonic() < end:
            time.sleep(0.01)
        return self.open == count

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.open += 1
        try:
            self._converse(connection)
        finally:
            self.open -= 1

    def _converse(self, connection: socket.socket) -> None:
        if self.tls is not None:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:  # which ssl has closed
                return
        with connection:
            try:
                while not self.stopped.is_set():
                    request = self._read(connection)
                    if not request:
                        return
                    self.requests.append(request)
                    self.behave(self, connection, request)
            except OSError:
                pass

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def stop(self) -> None:
        self.stopped.set()
        self.listener.close()


@contextmanager
def serving(
    behave: Callable[[Server, socket.socket, bytes], None], tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    server = Server(behave)
    server.tls = tls
    server.start()
    try:
        yield server
    finally:
        server.stop()


def response(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status,
        headers,
        len(body),
        body,
    )


def saying(data: bytes) -> Callable[[Server, socket.socket, bytes], None]:
    return lambda _, connection, __: connection.sendall(data)


def closing(data: bytes) -> Callable[[Server, socket.socket, bytes], None]:
    def behave(_: Server, connection: socket.socket, __: bytes) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


def stall(server: Server, _: socket.socket, __: bytes) -> None:
    server.stopped.wait(10)


def reset(_: Server, connection: socket.socket, __: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def drip(start: bytes, piece: bytes) -> Callable[[Server, socket.socket, bytes], None]:
    def behave(server: Server, connection: socket.socket, _: bytes) -> None:
        connection.sendall(start)
        while not server.stopped.wait(0.05):
            connection.sendall(piece)

    return behave


def endless(server: Server, connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while not server.stopped.is_set():
        connection.sendall(b"1," * 32_768)


def endless_chunks(server: Server, connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not server.stopped.is_set():
        connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")


OPA_ALLOW = b'{"result": {"allow": true}}'
AGENT_ALLOW = b'{"decision": "Allow", "diagnostics": {"reason": ["p1"], "errors": []}}'

WIRE_FAULTS: dict[str, Callable[[Server, socket.socket, bytes], None]] = {
    "500": saying(response(b"ALLOW", b"500 Internal Server Error")),
    "404": saying(response(b"ALLOW", b"404 Not Found")),
    "201": saying(response(b"ALLOW", b"201 Created")),
    "204": saying(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "redirect": saying(response(b"", b"307 Temporary Redirect", b"Location: /elsewhere\r\n")),
    "html": saying(response(b"<html>true</html>")),
    "no json": saying(response(b"")),
    "two documents": saying(response(b"ALLOW ALLOW")),
    "bad utf-8": saying(response(b'{"result": {"allow": true}, "x": "\xff"}')),
    "nesting": saying(response(b"[" * 200_000)),
    "truncated body": closing(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nALLOW"),
    "truncated head": closing(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "truncated chunk": closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nALLOW"),
    "closed": closing(b""),
    "reset": reset,
    "stall": stall,
    "stall in body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "stall in head": drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "endless": endless,
    "endless chunks": endless_chunks,
    "endless head": saying(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000),
    "announced too large": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
    "not http": saying(b"SSH-2.0-OpenSSH_9\r\n\r\n"),
    "old http": saying(b"HTTP/0.9 200 OK\r\n\r\nALLOW"),
    "two lengths": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 27\r\n\r\nALLOW"),
    "length and chunked": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\nTransfer-Encoding: chunked\r\n\r\nALLOW"),
    "negative length": saying(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nALLOW"),
    "longer than announced": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nALLOW!!!"),
    "gzip": saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nALLOW"),
    "bad chunk": saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "folded header": saying(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nALLOW"),
}

ENGINES: dict[str, tuple[Callable[..., PolicyEngine], bytes]] = {
    "opa": (OPAPolicyEngine, OPA_ALLOW),
    "agent": (CedarPolicyEngine, AGENT_ALLOW),
}


def with_allow(behave: Callable[[Server, socket.socket, bytes], None], allow: bytes) -> Any:
    """``behave``, with ALLOW in what it sends replaced by a body that would allow."""

    class Replacing:
        def __init__(self, connection: socket.socket) -> None:
            self.connection = connection

        def sendall(self, data: bytes) -> None:
            self.connection.sendall(data.replace(b"ALLOW", allow))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

    return lambda server, connection, request: behave(server, Replacing(connection), request)  # type: ignore[arg-type]


async def _decide_in_a_coroutine(*arguments: Any) -> Decision:
    return decide(*arguments)


@pytest.mark.parametrize("fault", WIRE_FAULTS)
@pytest.mark.parametrize("which", ENGINES)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_server_faults_deny_within_the_timeout(which: str, fault: str, mode: str) -> None:
    make, allow = ENGINES[which]
    stalls = "stall" in fault  # the rest is refused for what it is, however slow the machine
    timeout = 0.4 if stalls else 3
    with serving(with_allow(WIRE_FAULTS[fault], allow)) as server, make(server.url, timeout=timeout) as engine:
        start = time.monotonic()
        ask = decide_async if mode == "async" else _decide_in_a_coroutine
        with pytest.raises(PolicyEngineError) as caught:
            await ask(engine, "e", ["kest/allow"], CONTEXT)
        assert time.monotonic() - start < 4
        assert "s3cr3t" not in str(caught.value)
        assert len(server.requests) == 1 or (stalls and not server.requests)  # nothing is retried, no redirect followed


@pytest.mark.parametrize(
    "body",
    [
        b'{"result": {"allow": "true"}}',
        b'{"result": {"allow": "false"}}',
        b'{"result": {"allow": 1}}',
        b'{"result": {"allow": []}}',
        b'{"result": {"allow": {}}}',
        b'{"result": {"allow": null}}',
        b'{"result": {"allow": false}}',
        b'{"result": {}}',
        b'{"result": true}',
        b'{"result": [true]}',
        b'{"allow": true}',
        b"{}",
        b"[]",
        b"true",
        b"null",
        b'{"decision": "allow"}',
        b'{"decision": "ALLOW"}',
        b'{"decision": "Deny"}',
        b'{"decision": true}',
        b'{"decision": ["Allow"]}',
        b'{"decision": "Allow", "diagnostics": {"errors": ["x"]}}',
        b'{"decision": "Allow", "diagnostics": {"errors": null}}',
        b'{"decision": "Allow", "diagnostics": "x"}',
    ],
)
async def test_answers_that_are_not_yes_deny(body: bytes) -> None:
    with serving(saying(response(body))) as server:
        for make, _ in ENGINES.values():
            with make(server.url) as engine:
                assert decide(engine, "e", ["kest/allow"], CONTEXT).allowed is False
                decision = await decide_async(engine, "e", ["kest/allow"], CONTEXT)
                assert decision.allowed is False
                assert decision.reason
                assert decision.policy == "kest/allow"


@pytest.mark.parametrize(
    "body", [b'{"result": {"allow": false, "allow": true}}', b'{"result": {"allow": true}, "x": NaN}']
)
def test_ambiguous_json_is_refused(body: bytes) -> None:
    with (
        serving(saying(response(body))) as server,
        OPAPolicyEngine(server.url) as engine,
        pytest.raises(PolicyEngineError, match="not JSON"),
    ):
        decide(engine, "e", ["a"], CONTEXT)


async def test_opa_request_and_kept_connection() -> None:
    answer = b'{"decision_id": "d-1", "provenance": {"bundles": {"b": {"revision": "r7"}}}, "result": {"allow": true}}'
    with serving(saying(response(answer))) as server:
        with OPAPolicyEngine(host="127.0.0.1", port=server.port, headers={"Authorization": "Bearer t0k3n"}) as engine:
            decision = decide(engine, "e", ["kest/allow_trusted", "kest.other-one"], CONTEXT)
            assert decision.allowed is True
            assert decision.ids == ("decision_id=d-1", "revision=b@r7", "decision_id=d-1")
            assert server.connections == 1
            for _ in range(2):
                assert (await decide_async(engine, "e", ["kest.allow_trusted"], CONTEXT)).allowed is True
            assert server.connections == 2  # one of this event loop's
            assert "t0k3n" not in repr(engine) + str(vars(engine))
        first = server.requests[0]
        assert first.startswith(b"POST /v1/data/kest/allow_trusted HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer t0k3n\r\n" in first
        assert json.loads(first.partition(b"\r\n\r\n")[2]) == {"input": CONTEXT}
        assert server.requests[1].startswith(b"POST /v1/data/kest/other-one HTTP/1.1\r\n")


def test_opa_options() -> None:
    with serving(saying(response(b'{"result": true}'))) as server:
        with OPAPolicyEngine(server.url + "/opa/", decision_path="result", provenance=True) as engine:
            assert decide(engine, "e", ["kest/allow/allow"], CONTEXT).allowed is True
        assert server.requests[0].startswith(b"POST /opa/v1/data/kest/allow/allow?provenance=true HTTP/1.1\r\n")


def test_opa_over_a_unix_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "opa.sock")
    server = Server(saying(response(OPA_ALLOW)), socket.AF_UNIX).start(path)
    try:
        with OPAPolicyEngine(uds=path) as engine:
            assert decide(engine, "e", ["a"], CONTEXT).allowed is True
            assert asyncio.run(decide_async(engine, "e", ["a"], CONTEXT)).allowed is True
    finally:
        server.stop()
    with pytest.raises(PolicyEngineError, match="unix:"):
        decide(OPAPolicyEngine(uds=str(tmp_path / "none")), "e", ["a"], CONTEXT)


@pytest.mark.parametrize(
    "name", ["../admin", "a//b", "a/../b", "/a", "a/", "a?b", "a#b", "a%2e", "a b", "é", "a\r\nX: y", ".", "a..b"]
)
async def test_opa_policy_names_cannot_reach_elsewhere(name: str) -> None:
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        with pytest.raises(PolicyEngineError):
            decide(engine, "e", [name], CONTEXT)
        with pytest.raises(PolicyEngineError):
            await decide_async(engine, "e", ["fine", name], CONTEXT)
        assert server.requests == []


async def test_agent_request() -> None:
    with serving(saying(response(AGENT_ALLOW))) as server:
        with CedarPolicyEngine(host="127.0.0.1", port=server.port) as engine:
            decision = decide(engine, "e", ['we"ird\n'], {**CONTEXT, "args": {"f": 1.5}})
            assert decision == Decision(True, "", None, ("p1",))
        with CedarPolicyEngine(server.url, path="/is_authorized") as engine:
            assert (await decide_async(engine, "e", ["a"], CONTEXT)).allowed is True
        assert server.requests[0].startswith(b"POST /v1/is_authorized HTTP/1.1\r\n")
        assert server.requests[1].startswith(b"POST /is_authorized HTTP/1.1\r\n")
        body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
        assert body["principal"] == 'Workload::"spiffe://t/w"'
        assert body["action"] == 'Action::"we\\"ird\\n"'
        assert body["resource"] == 'Resource::"doc-1"'
        assert body["context"]["args"] == {"f": {"__extn": {"fn": "decimal", "arg": "1.5"}}}
        assert "agent" not in body["context"]


def test_chunked_and_interim_responses_are_read() -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += (
        b"".join(b"%x;e=1\r\n%s\r\n" % (len(part), part) for part in (OPA_ALLOW[:5], OPA_ALLOW[5:]))
        + b"0\r\nT: x\r\n\r\n"
    )

    def byte_by_byte(_: Server, connection: socket.socket, __: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            connection.sendall(data[index : index + 1])

    for behave in (saying(data), byte_by_byte, closing(b"HTTP/1.0 200 OK\r\n\r\n" + OPA_ALLOW)):
        with serving(behave) as server, OPAPolicyEngine(server.url) as engine:
            assert decide(engine, "e", ["a", "b"], CONTEXT).allowed is True


def test_connection_refused_and_unknown_hosts() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for engine in (
        OPAPolicyEngine(host="127.0.0.1", port=port),
        OPAPolicyEngine("http://no-such-host.invalid:1", timeout=0.5),
    ):
        start = time.monotonic()
        with pytest.raises(PolicyEngineError):
            decide(engine, "e", ["a"], CONTEXT)
        with pytest.raises(PolicyEngineError):
            asyncio.run(decide_async(engine, "e", ["a"], CONTEXT))
        assert time.monotonic() - start < 5


async def test_recovery_after_restart() -> None:
    server = Server(closing(response(OPA_ALLOW))).start()
    engine = OPAPolicyEngine(server.url)
    assert decide(engine, "e", ["a"], CONTEXT).allowed is True
    port = server.port
    server.stop()
    await asyncio.sleep(0.05)
    with pytest.raises(PolicyEngineError):
        decide(engine, "e", ["a"], CONTEXT)
    again = Server(saying(response(OPA_ALLOW))).start(("127.0.0.1", port))
    try:
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        assert (await decide_async(engine, "e", ["a"], CONTEXT)).allowed is True
    finally:
        again.stop()
        engine.close()


def test_one_engine_on_several_loops_and_threads() -> None:
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url, timeout=5) as engine:

        async def many() -> bool:
            asked = (decide_async(engine, "e", ["a"], CONTEXT) for _ in range(100))
            return all(decision.allowed for decision in await asyncio.gather(*asked))

        for _ in range(3):
            assert asyncio.run(many()) is True
        results: list[bool] = []
        threads = [threading.Thread(target=lambda: results.append(asyncio.run(many()))) for _ in range(4)]
        threads += [
            threading.Thread(target=lambda: results.append(decide(engine, "e", ["a"], CONTEXT).allowed))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True] * 24


async def test_a_stalled_server_does_not_stop_the_loop_and_can_be_cancelled() -> None:
    with serving(stall) as server, OPAPolicyEngine(server.url, timeout=5) as engine:
        asked = asyncio.ensure_future(decide_async(engine, "e", ["a"], CONTEXT))
        start = time.monotonic()
        await asyncio.sleep(0.1)
        assert time.monotonic() - start < 3
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_connections_are_not_shared_with_a_child() -> None:
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        code = 1
        pid = os.fork()
        if pid == 0:
            try:
                code = 0 if decide(engine, "e", ["a"], CONTEXT).allowed is True else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        assert server.connections == 2


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Any:
    """``decide`` and ``decide_async``, both to be awaited."""
    return decide_async if request.param == "async" else _decide_in_a_coroutine


async def test_a_connection_that_the_server_closed_is_replaced(ask: Any) -> None:
    with serving(closing(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        for _ in range(3):
            assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True
            assert server.settles_at(0)
        assert (server.connections, len(server.requests)) == (3, 3)


async def test_a_request_is_never_sent_twice(ask: Any) -> None:
    def once(server: Server, connection: socket.socket, _: bytes) -> None:
        if len(server.requests) == 1:
            connection.sendall(response(OPA_ALLOW))
        else:
            connection.shutdown(socket.SHUT_RDWR)

    with serving(once) as server, OPAPolicyEngine(server.url) as engine:
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True
        with pytest.raises(PolicyEngineError):
            await ask(engine, "e", ["a"], CONTEXT)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_response_sent_before_its_request_is_refused(ask: Any) -> None:
    denial = response(b'{"result": {"allow": false}}')

    def ahead(server: Server, connection: socket.socket, _: bytes) -> None:
        connection.sendall(denial + response(OPA_ALLOW) if len(server.requests) == 1 else denial)

    with serving(ahead) as server, OPAPolicyEngine(server.url) as engine:
        with pytest.raises(PolicyEngineError, match="more than it announced"):
            await ask(engine, "e", ["a"], CONTEXT)
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is False
        assert server.connections == 2


async def test_a_response_sent_between_two_requests_is_not_taken_for_an_answer(ask: Any) -> None:
    denial, said = response(b'{"result": {"allow": false}}'), threading.Event()

    def ahead(server: Server, connection: socket.socket, _: bytes) -> None:
        connection.sendall(denial)
        if len(server.requests) == 1:
            assert go_on.wait(5)
            connection.sendall(response(OPA_ALLOW))
            said.set()

    go_on = threading.Event()
    with serving(ahead) as server, OPAPolicyEngine(server.url) as engine:
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is False
        go_on.set()
        assert said.wait(5)
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is False
        assert server.connections == 2


async def test_a_server_that_reads_slowly_is_late(ask: Any) -> None:
    stopped = threading.Event()

    def sip(listener: socket.socket) -> None:
        with contextlib.suppress(TimeoutError):  # a request that is late before it connects
            connection, _ = listener.accept()
            with connection:
                while not stopped.wait(0.02) and connection.recv(32_768):
                    pass

    with socket.socket() as listener:
        listener.settimeout(10)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=sip, args=(listener,), daemon=True)
        thread.start()
        try:
            with OPAPolicyEngine(host="127.0.0.1", port=listener.getsockname()[1], timeout=0.4) as engine:
                start = time.monotonic()
                with pytest.raises(PolicyEngineError, match=r"0\.4 s"):
                    await ask(engine, "e", ["a"], {**CONTEXT, "args": {"large": "x" * 24_000_000}})
                assert time.monotonic() - start < 5
        finally:
            stopped.set()
            thread.join()


async def test_names_are_resolved_within_the_timeout(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, released = socket.getaddrinfo, threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        released.wait(20)
        return real("127.0.0.1", 1)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with OPAPolicyEngine("http://opa.example:1", timeout=0.3) as engine:
        start = time.monotonic()
        with pytest.raises(PolicyEngineError, match=r"0\.3 s"):
            await ask(engine, "e", ["a"], CONTEXT)
        assert time.monotonic() - start < 4
    released.set()


async def test_every_address_of_a_name_is_tried(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def several(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        hosts = ("127.0.0.2", "127.0.0.1") if host in ("opa.example", b"opa.example") else (host,)
        return [found for each in hosts for found in real(each, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    with (
        serving(saying(response(OPA_ALLOW))) as server,
        OPAPolicyEngine(host="opa.example", port=server.port) as engine,
    ):
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True


async def test_a_body_may_have_a_megabyte(ask: Any) -> None:
    for size, fits in ((1_048_576, True), (1_048_577, False)):
        with serving(saying(response(OPA_ALLOW.ljust(size)))) as server, OPAPolicyEngine(server.url) as engine:
            if fits:
                assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True
            else:
                with pytest.raises(PolicyEngineError, match="too large"):
                    await ask(engine, "e", ["a"], CONTEXT)


async def test_proxies_of_the_environment_are_ignored(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(saying(response(OPA_ALLOW))) as server, OPAPolicyEngine(server.url) as engine:
        assert (await ask(engine, "e", ["a"], CONTEXT)).allowed is True


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 s3cr3t-value OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ns3cr3t-value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: s3cr3t-value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cr3t-value\r\n",
        b"HTTP/1.1 302 s3cr3t-value\r\nLocation: /s3cr3t-value\r\nContent-Length: 0\r\n\r\n",
        response(b"s3cr3t-value"),
    ],
)
async def test_errors_quote_nothing(ask: Any, data: bytes) -> None:
    with serving(saying(data)) as server, OPAPolicyEngine(server.url, headers={"X": "s3cr3t-value"}) as engine:
        with pytest.raises(PolicyEngineError) as caught:
            await ask(engine, "e", ["a"], CONTEXT)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_connections_end_with_their_loop_and_with_close() -> None:
    with serving(saying(response(OPA_ALLOW))) as server:
        engine = OPAPolicyEngine(server.url)

        async def several(engine: OPAPolicyEngine) -> None:
            await asyncio.gather(*(engine.async_decide("e", ["a"], CONTEXT) for _ in range(4)))

        for _ in range(3):
            asyncio.run(several(engine))
            assert server.settles_at(0)
        assert server.connections == 12
        assert len(engine._server._loops) == 1  # that of the last loop, until there is another

        async def closed(engine: OPAPolicyEngine) -> None:
            await several(engine)
            assert decide(engine, "e", ["a"], CONTEXT).allowed is True
            assert await asyncio.to_thread(server.settles_at, 5)
            engine.close()
            assert await asyncio.to_thread(server.settles_at, 0)
            await several(engine)

        asyncio.run(closed(engine))
        assert decide(engine, "e", ["a"], CONTEXT).allowed is True
        assert server.settles_at(1)
        del engine
        gc.collect()
        assert server.settles_at(0)


def test_closing_does_not_disturb_a_request() -> None:
    asked, answer = threading.Event(), threading.Event()

    def wait(_: Server, connection: socket.socket, __: bytes) -> None:
        asked.set()
        answer.wait(2)
        connection.sendall(response(OPA_ALLOW))

    async def ask_and_close(engine: OPAPolicyEngine) -> bool:
        asking = asyncio.ensure_future(engine.async_decide("e", ["a"], CONTEXT))
        await asyncio.to_thread(asked.wait, 2)
        engine.close()
        answer.set()
        return (await asking).allowed

    with serving(wait) as server:
        engine = OPAPolicyEngine(server.url, timeout=5)
        results: list[bool] = []
        thread = threading.Thread(target=lambda: results.append(decide(engine, "e", ["a"], CONTEXT).allowed))
        thread.start()
        asked.wait(2)
        engine.close()
        answer.set()
        thread.join()
        assert results == [True]
        asked.clear()
        answer.clear()
        assert asyncio.run(ask_and_close(engine)) is True
        assert server.settles_at(0)


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Files of a certificate authority, and of a certificate and key that it issued to 127.0.0.1."""
    pytest.importorskip("cryptography")
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Test CA", "opa")]
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    usage["decipher_only"] = False
    files: list[str] = []
    for index, (name, key) in enumerate(zip(names, keys, strict=True)):
        is_authority = index == 0
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=is_authority, path_length=None), True),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False),
            (
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority, **usage),
                True,
            ),
        ]
        if not is_authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            extensions.append((x509.SubjectAlternativeName([address]), False))
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(names[0]).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        path = tmp_path_factory.mktemp("tls") / "certificate.pem"
        path.write_bytes(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        files.append(str(path))
    path = tmp_path_factory.mktemp("tls") / "key.pem"
    path.write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files[0], files[1], str(path)


@pytest.fixture
def server_tls(authority: tuple[str, str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority[1], authority[2])
    return context


@pytest.fixture
def client_tls(authority: tuple[str, str, str]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority[0])


async def test_tls(ask: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    for make, allow in ENGINES.values():
        with serving(saying(response(allow)), server_tls) as server, make(server.url, tls=client_tls) as engine:
            for _ in range(3):
                assert (await ask(engine, "e", ["a", "b"], CONTEXT)).allowed is True
            assert (server.connections, len(server.requests)) == (1, 6)


async def test_tls_is_verified(ask: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    with serving(saying(response(OPA_ALLOW)), server_tls) as server:
        for url, context in (
            (server.url, None),  # an unknown authority
            (server.url.replace("127.0.0.1", "localhost"), client_tls),  # another host's certificate
        ):
            with (
                OPAPolicyEngine(url, tls=context) as engine,
                pytest.raises(PolicyEngineError, match="SSLCertVerificationError"),
            ):
                await ask(engine, "e", ["a"], CONTEXT)
        assert server.requests == []
    with serving(saying(response(OPA_ALLOW))) as server:  # not TLS at all
        engine = OPAPolicyEngine(server.url.replace("http:", "https:"), timeout=0.5)
        with pytest.raises(PolicyEngineError):
            await ask(engine, "e", ["a"], CONTEXT)
        assert server.requests == []


@pytest.mark.parametrize(
    "fault", ["stall", "stall in body", "stall in head", "endless", "closed", "truncated body", "reset"]
)
async def test_tls_server_faults_deny_within_the_timeout(
    ask: Any, fault: str, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    behave = with_allow(WIRE_FAULTS[fault], OPA_ALLOW)
    with (
        serving(behave, server_tls) as server,
        OPAPolicyEngine(server.url, timeout=0.4, tls=client_tls) as engine,
    ):
        start = time.monotonic()
        with pytest.raises(PolicyEngineError):
            await ask(engine, "e", ["a"], CONTEXT)
        assert time.monotonic() - start < 4
        assert len(server.requests) == 1


async def test_a_stalled_handshake_is_late_and_leaves_nothing(ask: Any, client_tls: ssl.SSLContext) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with OPAPolicyEngine(url, timeout=0.3, tls=client_tls) as engine:
            start = time.monotonic()
            with pytest.raises(PolicyEngineError, match=r"0\.3 s"):
                await ask(engine, "e", ["a"], CONTEXT)
            assert time.monotonic() - start < 4
            asking = asyncio.ensure_future(decide_async(engine, "e", ["a"], CONTEXT))
            await asyncio.sleep(0.05)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
    gc.collect()  # a connection that nobody closed would warn here, and warnings are errors


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"url": "ftp://x"},
        {"url": "http://"},
        {"url": "localhost:8181"},
        {"url": "http://user:pw-s3cr3t@host"},
        {"url": "http://host/a?b=c"},
        {"url": "http://host/#f"},
        {"url": "http://host:99999"},
        {"url": "http://ho st"},
        {"url": "http://host\r\nX: y"},
        {"url": "http://a", "host": "b"},
        {"host": "h", "port": 0},
        {"host": "h", "port": "8181"},
        {"host": "h/../x"},
        {"url": "http://h", "timeout": 0},
        {"url": "http://h", "timeout": float("nan")},
        {"url": "http://h", "timeout": None},
        {"url": "http://h", "headers": {"X": "a\r\nY: b"}},
        {"url": "http://h", "headers": {"Host": "x"}},
    ],
)
def test_bad_server_arguments(arguments: dict[str, Any]) -> None:
    for make in (OPAPolicyEngine, CedarPolicyEngine):
        with pytest.raises(ConfigurationError) as caught:
            make(**arguments)
        assert "s3cr3t" not in str(caught.value)
    for path in ("", "result..allow", None):
        with pytest.raises(ConfigurationError):
            OPAPolicyEngine("http://h", decision_path=path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        CedarPolicyEngine("http://h", path="/v2")


def test_document_samples_servers() -> None:
    for engine in (
        OPAPolicyEngine(url="http://opa:8181"),
        OPAPolicyEngine(host="localhost", port=8181),
        OPAPolicyEngine(url="https://[::1]:8181"),
        OPAPolicyEngine(host="::1"),
        CedarPolicyEngine(url="http://cedar:8080"),
        CedarPolicyEngine(host="localhost", port=8180),
    ):
        engine.close()


# --- Amazon Verified Permissions


class FakeAVP:
    """Stands in for the client; shapes are checked against botocore's models in the test below."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    def is_authorized(self, **request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers[0]
        return answer() if callable(answer) else answer

    def batch_is_authorized(self, **request: Any) -> Any:
        self.asked.append(request)
        results = [{"request": part, **answer} for part, answer in zip(request["requests"], self.answers, strict=False)]
        self.answers = self.answers[len(results) :]
        return {"results": results}


YES = {"decision": "ALLOW", "determiningPolicies": [{"policyId": "p1"}], "errors": []}
NO = {"decision": "DENY", "determiningPolicies": [], "errors": []}


def test_avp_decisions() -> None:
    engine = AVPPolicyEngine("ps-1", client=FakeAVP([YES]))
    assert decide(engine, "e", ["a"], CONTEXT) == Decision(True, "", None, ("p1",))
    for answer in (
        NO,
        {},
        {"decision": "Allow"},
        {**YES, "errors": [{"errorDescription": "x"}]},
        {"decision": True},
        None,
    ):
        assert decide(AVPPolicyEngine("ps-1", client=FakeAVP([answer])), "e", ["a"], CONTEXT).allowed is False
    many = FakeAVP([YES] * 70)
    assert decide(AVPPolicyEngine("ps-1", client=many), "e", [f"p{n}" for n in range(70)], CONTEXT).allowed is True
    assert [len(request["requests"]) for request in many.asked] == [30, 30, 10]
    decision = decide(AVPPolicyEngine("ps-1", client=FakeAVP([YES, NO])), "e", ["a", "b"], CONTEXT)
    assert (decision.allowed, decision.policy) == (False, "b")


def test_avp_batches_must_answer_what_was_asked() -> None:
    short = FakeAVP([YES])
    with pytest.raises(PolicyEngineError, match="number of results"):
        decide(AVPPolicyEngine("ps-1", client=short), "e", ["a", "b"], CONTEXT)
    swapped = FakeAVP([YES, NO])
    real = swapped.batch_is_authorized
    swapped.batch_is_authorized = lambda **request: {"results": real(**request)["results"][::-1]}  # type: ignore[method-assign]
    with pytest.raises(PolicyEngineError, match="other requests"):
        decide(AVPPolicyEngine("ps-1", client=swapped), "e", ["a", "b"], CONTEXT)


async def test_avp_failures() -> None:
    def fail() -> None:
        raise RuntimeError("s3cr3t")

    with pytest.raises(PolicyEngineError) as caught:
        decide(AVPPolicyEngine("ps-1", client=FakeAVP([fail])), "e", ["a"], CONTEXT)
    assert "s3cr3t" not in str(caught.value)
    start = time.monotonic()
    slow = AVPPolicyEngine("ps-1", client=FakeAVP([lambda: time.sleep(2)]), timeout=0.2)
    with pytest.raises(PolicyEngineError, match=r"0\.2 s"):
        await decide_async(slow, "e", ["a"], CONTEXT)
    assert time.monotonic() - start < 1.9
    with pytest.raises(ConfigurationError):
        AVPPolicyEngine("")


def test_document_sample_avp(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    if importlib.util.find_spec("boto3") is None:
        with pytest.raises(MissingExtraError, match=r"kest\[aws\]"):
            AVPPolicyEngine(policy_store_id="ps-abc123", region="us-east-1")
        pytest.skip("boto3 is not installed")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    AVPPolicyEngine(policy_store_id="ps-abc123", region="us-east-1").close()


def test_avp_requests_fit_botocore_models() -> None:
    boto3 = pytest.importorskip("boto3")
    from botocore.stub import ANY, Stubber

    client = boto3.client(
        "verifiedpermissions", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    context = {**CONTEXT, "args": {"f": 1.5, "s": ["a", 1, [True]], "r": {"x": "y"}, "big": 2**70}}
    with Stubber(client) as stub:
        answer = {
            **YES,
            "determiningPolicies": [{"policyId": "p1"}],
        }
        stub.add_response(
            "is_authorized",
            answer,
            {"policyStoreId": "ps-1", "principal": ANY, "action": ANY, "resource": ANY, "context": ANY},
        )
        assert decide(AVPPolicyEngine("ps-1", client=client), "e", ["a"], context).allowed is True
        results = [{"request": {"action": {"actionType": "Action", "actionId": name}}, **answer} for name in ("a", "b")]
        stub.add_response("batch_is_authorized", {"results": results}, {"policyStoreId": "ps-1", "requests": ANY})
        assert decide(AVPPolicyEngine("ps-1", client=client), "e", ["a", "b"], context).allowed is True


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("cedarpy", lambda: CedarLocalEngine(["permit(principal, action, resource);"]), "cedar"),
        ("lakera_regorus", lambda: RegoLocalEngine({"a": "package a"}, backend="regorus"), "rego"),
        ("regopy", lambda: RegoLocalEngine({"a": "package a"}, backend="regopy"), "rego"),
    ],
)
def test_missing_libraries_say_which_extra(
    monkeypatch: pytest.MonkeyPatch, module: str, make: Callable[[], object], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"kest\[{extra}\]"):
        make()
