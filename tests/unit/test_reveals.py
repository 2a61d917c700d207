"""docs/what-a-passport-reveals.md says something about every field that leaves a process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kest.core import BaggageManager, PolicyDeniedError, configure, kest_verified
from kest.core.baggage import KEYS
from kest.core.binding import argument_hash
from kest.core.context import get_current_passport, lineage
from kest.core.labels import RESERVED
from kest.http import outgoing

TEXT = (Path(__file__).resolve().parents[2] / "docs/what-a-passport-reveals.md").read_text("utf-8")
NAMED = set(re.findall(r"`([\w.]+)`", TEXT))


@pytest.fixture
def call(configured: Any, sink: Any) -> Any:
    configure(audit=sink)

    @kest_verified("p", secret=["pin"], context_map={"iban": "account"}, resource_attr={"band": "small"}, user="alice")
    def transfer(account: str, pin: str) -> str:
        return "the-result"

    return transfer


def test_every_member_of_an_entry_and_a_record(call: Any, configured: Any, sink: Any) -> None:
    call("the-account", "the-pin")
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        call("another-account", "the-pin")
    assert {kind for kind, _ in sink.records} == {"entry", "denial", "outcome"}
    for kind in ("entry", "denial", "outcome"):
        for payload in sink.payloads(kind):
            assert set(payload) - NAMED == set(), kind
    assert set(sink.payloads("entry")[0]["labels"]) - NAMED == set()


def test_every_label_and_every_baggage_member() -> None:
    assert set(RESERVED) - NAMED == set()
    assert {*KEYS, outgoing.USER, outgoing.AGENT, outgoing.TASK} - NAMED == set()


SPANS = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kest.core import LocalEd25519Provider, MockPolicyEngine, configure, kest_verified

kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider("spiffe://kest.test/unit"))
kest_verified("p", added_taints=["t"])(lambda: None)()
print(*kept.get_finished_spans()[0].attributes)
"""


def test_every_span_attribute(run_python: Any) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    attributes = set(run_python(SPANS).stdout.split())
    assert "kest.passport" in attributes
    assert attributes - NAMED == set()


def test_what_an_entry_never_holds(call: Any, sink: Any) -> None:
    """Arguments, mapped or secret, and results; attributes and users are there in clear, as the page says."""
    call("the-account", "the-pin")
    everything = str([sink.payloads(kind) for kind in ("entry", "outcome")])
    for hidden in ("the-account", "the-pin", "the-result", "account", "pin", "iban"):
        assert hidden not in everything.replace("00001234", ""), hidden
    for shown in ("small", "alice"):
        assert shown in everything


def test_a_secret_is_not_in_the_hash_and_a_guess_at_the_rest_is_right(call: Any, sink: Any) -> None:
    call("the-account", "the-pin")
    call("the-account", "another-pin")
    first, second = (payload["input_hash"] for payload in sink.payloads("entry"))
    assert first == second
    guesses = {argument_hash({"account": a, "pin": ""}, {"pin"})[0]: a for a in ("an-account", "the-account")}
    assert guesses[first] == "the-account"


def test_a_flow_of_its_own_shows_nothing_of_the_one_around_it(call: Any) -> None:
    call("a", "b")
    outer = get_current_passport().entries
    with lineage():
        call("c", "d")
        inner = get_current_passport()
    assert len(inner) == 1
    assert inner.decode()[0]["parent_ids"] == ["0"]
    assert not set(BaggageManager.unpack(BaggageManager.pack(inner)).entries) & set(outer)
