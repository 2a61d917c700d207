"""What counts as an answer of an engine: nothing but True, whoever is asked and however."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from engine_samples import Answers

from kest.core.engine import (
    CedarLocalEngine,
    Decision,
    MockPolicyEngine,
    PolicyEngine,
    RegoLocalEngine,
    decide,
    decide_async,
)
from kest.errors import ConfigurationError, MissingExtraError, PolicyDeniedError, PolicyEngineError


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
