"""One OpenTelemetry span per call (PRODUCT.md, section 8), and nothing of it where an application does not use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kest.core import Passport, PolicyDeniedError, configure, kest_verified
from kest.core.context import get_current_passport
from kest.errors import IdentityError

pytest.importorskip("opentelemetry.sdk.trace")

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

_exporter = InMemorySpanExporter()


@pytest.fixture
def spans(configured: SimpleNamespace) -> Iterator[Any]:
    """Finished spans since the start of the test, as a callable. The provider can be set once per process only."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    if not getattr(provider, "_kest_test", False):
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        provider._kest_test = True  # type: ignore[attr-defined]
    _exporter.clear()
    yield _exporter.get_finished_spans
    _exporter.clear()


def test_one_span_per_call_with_all_attributes(spans: Any, configured: Any) -> None:
    configure(enterprise_policies=["e"])

    @kest_verified(["p", "q"], operation_name="op", source_type="user_input", added_taints=["b", "a"])
    def f() -> int:
        return 1

    f()
    (span,) = spans()
    passport = get_current_passport()
    entry = passport.decode()[0]
    assert span.name == "kest.verified.op"
    assert span.instrumentation_scope.name == "kest.core"
    assert dict(span.attributes) == {
        "kest.signature": passport.entries[0],
        "kest.parent_hash": "0",
        "kest.chain_tip": passport.chain_tip,
        "kest.passport": passport.serialize(),
        "kest.entry_id": entry["entry_id"],
        "kest.workload_id": "spiffe://kest.test/unit",
        "kest.trust_score": 40,
        "kest.taints": ("a", "b"),
        "kest.operation": "op",
        "kest.policy_ids": ("e", "p", "q"),
        "kest.allowed": True,
    }
    assert span.status.status_code is not StatusCode.ERROR
    assert entry["labels"]["trace_id"] == f"{span.context.trace_id:032x}"
    assert Passport.deserialize(span.attributes["kest.passport"]).entries == passport.entries


def test_the_second_span_names_its_parent_entry(spans: Any) -> None:
    f = kest_verified("p")(lambda: 1)
    f()
    first = get_current_passport().chain_tip
    f()
    assert spans()[1].attributes["kest.parent_hash"] == first
    assert spans()[1].attributes["kest.chain_tip"] == get_current_passport().chain_tip


def test_nested_calls_are_child_spans(spans: Any) -> None:
    @kest_verified("p", operation_name="inner")
    def inner() -> None:
        with trace.get_tracer("app").start_as_current_span("app-span"):
            pass

    @kest_verified("p", operation_name="outer")
    def outer() -> None:
        inner()
        inner()

    outer()
    by_name: dict[str, list[Any]] = {}
    for span in spans():
        by_name.setdefault(span.name, []).append(span)
    (outermost,) = by_name["kest.verified.outer"]
    assert outermost.parent is None
    assert {span.parent.span_id for span in by_name["kest.verified.inner"]} == {outermost.context.span_id}
    assert {span.parent.span_id for span in by_name["app-span"]} == {
        span.context.span_id for span in by_name["kest.verified.inner"]
    }
    assert len({span.context.trace_id for span in spans()}) == 1
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_span_of_the_application_is_the_parent(spans: Any) -> None:
    with trace.get_tracer("app").start_as_current_span("request") as request:
        kest_verified("p")(lambda: 1)()
    (span, _) = spans()
    assert span.parent.span_id == request.get_span_context().span_id


async def test_async_and_concurrent_calls_nest_in_their_own_task(spans: Any) -> None:
    @kest_verified("p", operation_name="inner")
    async def inner() -> None:
        await asyncio.sleep(0)

    @kest_verified("p", operation_name="outer")
    async def outer() -> None:
        await asyncio.sleep(0)
        await inner()

    await asyncio.gather(*(outer() for _ in range(5)))
    outers = {span.context.span_id for span in spans() if span.name.endswith("outer")}
    inners = [span.parent.span_id for span in spans() if span.name.endswith("inner")]
    assert len(outers) == len(inners) == 5
    assert set(inners) == outers


def test_generators_have_one_span_over_their_steps(spans: Any) -> None:
    @kest_verified("p", operation_name="gen")
    def gen() -> Iterator[bool]:
        for _ in range(3):
            yield trace.get_current_span().get_span_context().is_valid

    steps = gen()
    assert next(steps) is True
    assert not trace.get_current_span().get_span_context().is_valid  # between steps it is not current
    assert not spans()
    assert list(steps) == [True, True]
    assert [span.name for span in spans()] == ["kest.verified.gen"]


async def test_async_generators_have_one_span(spans: Any) -> None:
    @kest_verified("p", operation_name="agen")
    async def agen() -> AsyncIterator[int]:
        yield 1
        yield 2

    steps: Any = agen()
    await steps.__anext__()
    await steps.aclose()
    (span,) = spans()
    assert span.name == "kest.verified.agen"
    assert span.status.status_code is not StatusCode.ERROR  # closing early is no failure


def test_a_denial_is_an_error_span(spans: Any, configured: Any) -> None:
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError) as denied:
        kest_verified("p", operation_name="op")(lambda: 1)()
    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["kest.allowed"] is False
    assert span.attributes["kest.entry_id"] == denied.value.entry_id
    assert span.attributes["kest.policy_ids"] == ("p",)
    assert "kest.signature" not in span.attributes


def test_a_failing_function_is_an_error_span_without_its_message(spans: Any) -> None:
    def fails() -> None:
        raise LookupError("the card of a customer")

    with pytest.raises(LookupError):
        kest_verified("p")(fails)()
    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR
    assert "customer" not in span.to_json()
    assert span.attributes["kest.allowed"] is True


def test_a_failing_identity_ends_its_span(spans: Any) -> None:
    class Broken:
        def get_identity(self) -> str:
            return "spiffe://kest.test/broken"

        def sign(self, payload: bytes) -> str:
            raise OSError("down")

    with pytest.raises(IdentityError):
        kest_verified("p", identity=Broken())(lambda: 1)()
    (span,) = spans()
    assert span.status.status_code is StatusCode.ERROR


def test_the_passport_attribute_is_capped(spans: Any) -> None:
    f = kest_verified("p")(lambda: 1)
    for _ in range(40):
        f()
    sizes = [len(span.attributes.get("kest.passport", "")) for span in spans()]
    assert sizes[0] > 0
    assert sizes[-1] == 0
    assert max(sizes) <= 8192
    assert all("kest.signature" in span.attributes for span in spans())


def test_arguments_do_not_enter_spans(spans: Any) -> None:
    @kest_verified("p", context_map={"card": "card"}, resource_attr=lambda card: {"card": card})
    def f(card: str) -> None: ...

    f("4111-secret")
    (span,) = spans()
    attributes = {
        key: value for key, value in json.loads(span.to_json())["attributes"].items() if key != "kest.passport"
    }
    assert "4111-secret" not in json.dumps(attributes)


def test_nothing_is_imported_when_the_application_does_not_use_it(run_python: Any) -> None:
    run_python(
        "import sys\n"
        "from kest.core import *\n"
        "configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())\n"
        "assert kest_verified('p')(lambda: 1)() == 1\n"
        "loaded = [name for name in sys.modules if name.startswith('opentelemetry')]\n"
        "assert not loaded, loaded\n"
    )


def test_the_api_without_an_sdk_costs_no_trace_id(run_python: Any) -> None:
    run_python(
        "from opentelemetry import trace\n"
        "from kest.core import *\n"
        "from kest.core.context import get_current_passport\n"
        "configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())\n"
        "assert kest_verified('p')(lambda: 1)() == 1\n"
        "assert 'trace_id' not in get_current_passport().decode()[0]['labels']\n"
    )


PROVIDERS = (
    "from opentelemetry import trace\n"
    "from opentelemetry.sdk.trace import TracerProvider\n"
    "from kest.core import *\n"
    "from kest.core.context import get_current_passport, lineage\n"
    "configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider())\n"
    "f = kest_verified('p')(lambda: 1)\n"
    "def trace_id():\n"
    "    with lineage():\n"
    "        f()\n"
    "        return get_current_passport().decode()[0]['labels'].get('trace_id')\n"
)


def test_a_provider_that_is_not_the_global_one_keeps_its_span(run_python: Any) -> None:
    run_python(
        PROVIDERS + "tracer = TracerProvider().get_tracer('app')\n"
        "with tracer.start_as_current_span('request') as span:\n"
        "    found = trace_id()\n"
        "    assert found == f'{span.get_span_context().trace_id:032x}', found\n"
        "    assert span.is_recording() and not span.attributes, span.attributes\n"
        "assert trace_id() is None\n"
    )


def test_a_provider_set_after_the_first_call_is_used(run_python: Any) -> None:
    run_python(
        PROVIDERS + "assert trace_id() is None\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "assert len(trace_id()) == 32\n"
    )
