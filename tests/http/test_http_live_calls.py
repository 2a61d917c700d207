"""OpenTelemetry's baggage inside decorated calls, and inside `lineage`: live, lazy, and gone afterwards."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry import baggage as api
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from wire import ALICE, keys

from kest.core import BaggageManager, PassportVerifier, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.http import outgoing
from kest.http.edge import Edge


def seen() -> list[str]:
    """The entries that somebody who reads the standard baggage finds."""
    members = {key: str(value) for key, value in api.get_all().items()}
    return BaggageManager.unpack(members).entries if "kest.chain_tip" in members else []


def now() -> list[str]:
    return get_current_passport().entries


@kest_verified("p", operation_name="leaf")
def leaf() -> None:
    assert seen() == now()


@pytest.fixture(autouse=True)
def around() -> Iterator[None]:
    """Whatever a test does, the context outside stays the very same object."""
    before = otel.get_current()
    yield
    assert otel.get_current() is before


def test_a_call_finds_its_passport_in_the_standard_baggage() -> None:
    @kest_verified("p")
    def call() -> None:
        assert len(now()) == 1
        assert seen() == now()
        carrier: dict[str, str] = {}
        W3CBaggagePropagator().inject(carrier)
        arrival = Edge(keys()).read([carrier["baggage"].encode()])
        assert (arrival.verified, arrival.passport.entries) == (True, now())
        leaf()
        assert len(now()) == 2  # one generation replaces the other
        assert seen() == now()

    call()
    assert seen() == []


def test_coroutines_generators_and_async_generators() -> None:
    @kest_verified("p")
    async def coroutine() -> None:
        assert seen() == now()
        await asyncio.sleep(0)
        leaf()
        await asyncio.gather(*(asyncio.to_thread(leaf) for _ in range(2)))
        assert seen() == now()

    @kest_verified("p")
    def returns_a_coroutine() -> Any:
        return coroutine()

    @kest_verified("p")
    def steps() -> Iterator[int]:
        for number in range(3):
            assert seen() == now()
            yield number

    @kest_verified("p")
    async def async_steps() -> AsyncIterator[int]:
        for number in range(3):
            assert seen() == now()
            yield number
            leaf()

    async def main() -> None:
        before = otel.get_current()
        await coroutine()
        assert otel.get_current() is before
        await returns_a_coroutine()
        async for _ in async_steps():
            assert otel.get_current() is before
        for _ in steps():
            assert otel.get_current() is before
        assert seen() == []

    asyncio.run(main())


def test_after_a_call_within_a_lineage() -> None:
    with lineage():
        assert seen() == []
        leaf()
        assert len(seen()) == 1
        leaf()
        assert seen() == now()
        with lineage():
            assert seen() == []
            leaf()
            assert len(seen()) == 1
        assert len(seen()) == 2
    assert seen() == []


def test_other_members_stay_and_none_is_lost() -> None:
    @kest_verified("p")
    def call() -> None:
        assert api.get_baggage("vendor") == "x"
        token = otel.attach(api.set_baggage("mine", "y"))
        leaf_with_vendor()
        assert (api.get_baggage("vendor"), api.get_baggage("mine"), seen()) == ("x", "y", now())
        otel.detach(token)
        assert (api.get_baggage("mine"), seen()) == (None, now())
        otel.attach(api.set_baggage("left", "behind"))  # and never detached

    @kest_verified("p")
    def leaf_with_vendor() -> None:
        assert (api.get_baggage("vendor"), api.get_baggage("mine"), seen()) == ("x", "y", now())

    outside = otel.attach(api.set_baggage("vendor", "x", api.set_baggage("kest.passport", "stale")))
    before = otel.get_current()
    call()
    assert otel.get_current() is before
    assert dict(api.get_all()) == {"vendor": "x", "kest.passport": "stale"}
    otel.detach(outside)


def test_what_a_generator_sets_is_there_in_its_next_step_and_nowhere_else() -> None:
    @kest_verified("p")
    def steps() -> Iterator[Any]:
        yield api.get_baggage("consumer")
        otel.attach(api.set_baggage("mine", "y"))
        yield None
        yield api.get_baggage("mine")
        assert seen() == now()

    running = steps()
    token = otel.attach(api.set_baggage("consumer", "c"))
    assert next(running) == "c"
    next(running)
    assert api.get_baggage("mine") is None
    assert next(running) == "y"
    assert list(running) == []
    otel.detach(token)


def test_nothing_is_serialised_until_somebody_reads(monkeypatch: Any) -> None:
    packed: list[Any] = []
    real = outgoing.Packer.values
    monkeypatch.setattr(outgoing.Packer, "values", lambda *args, **kw: packed.append(1) or real(*args, **kw))

    @kest_verified("p")
    def call(read: bool) -> None:
        api.get_baggage("vendor")
        otel.attach(api.set_baggage("mine", "y"))
        if read:
            list(api.get_all().items())

    with lineage():
        call(False)
        assert not packed
        call(True)
        assert len(packed) == 1


def test_flows_side_by_side_see_their_own() -> None:
    def flow(number: int) -> list[str]:
        with lineage():
            for _ in range(number):
                leaf()
            return seen()

    found = [contextvars.Context().run(flow, number) for number in (1, 3, 2)]
    assert [len(entries) for entries in found] == [1, 3, 2]
    for entries in found:
        PassportVerifier.verify(entries, {ALICE.get_identity(): ALICE})


def test_closed_from_a_context_that_it_never_entered() -> None:
    class Pause:
        def __await__(self) -> Any:
            yield

    @kest_verified("p")
    async def waits() -> None:
        await Pause()

    running: Any = waits()
    contextvars.Context().run(running.send, None)
    before = otel.get_current()
    running.close()
    assert otel.get_current() is before


def test_an_exception_leaves_everything_as_it_was() -> None:
    @kest_verified("p")
    def fails() -> None:
        otel.attach(Context())
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert seen() == []
