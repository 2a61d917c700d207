"""The OpenTelemetry propagator and live baggage, with the real API."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from opentelemetry import baggage as api
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from wire import BOB_KEY, grown, inline, keys, signed

from kest.core import BaggageManager, SimpleCache, configure
from kest.core.context import get_current_passport, get_current_user, lineage, passport_var
from kest.errors import BaggageError, ConfigurationError, PassportTooLargeError, VerificationError
from kest.http import KestPropagator
from kest.http.edge import Edge
from kest.http.egress import EgressGuard
from kest.http.live_baggage import LiveBaggage, attach, detach, live_context
from kest.http.propagator import arrival_of, continued


def test_inject_and_extract() -> None:
    passport = grown(3, user="alice")
    carrier: dict[str, str] = {}
    with lineage(passport):
        KestPropagator().inject(carrier)
    assert list(carrier) == ["baggage"]
    assert KestPropagator().fields == {"baggage"}
    found = KestPropagator(Edge(keys())).extract(carrier)
    assert get_current_passport().entries == []
    with continued(found) as arrival:
        assert arrival.verified
        assert get_current_passport().entries == passport.entries
        again: dict[str, str] = {}
        KestPropagator().inject(again)
        assert Edge(keys()).read([again["baggage"].encode()]).passport.entries == passport.entries
    assert passport_var.get() is None or not passport_var.get()


def test_what_is_wrong_is_kept_and_raised_on_entering() -> None:
    for header, error in ((inline([signed(key=BOB_KEY)]), VerificationError), ("kest.passport=%zz", BaggageError)):
        found = KestPropagator(Edge(keys())).extract({"baggage": header})
        with pytest.raises(error):
            arrival_of(found)
        with pytest.raises(error), continued(found):
            raise AssertionError("ran")
    assert not arrival_of(KestPropagator().extract({})).passport
    assert not arrival_of(Context()).passport


@pytest.mark.parametrize("kest_last", [True, False])
def test_in_a_composite_with_the_standard_ones(kest_last: bool) -> None:
    parts: list[Any] = [TraceContextTextMapPropagator(), W3CBaggagePropagator(), KestPropagator(Edge(keys()))]
    composite = CompositePropagator(parts if kest_last else parts[::-1])
    passport = grown(2, user="alice")
    context = api.set_baggage("vendor", "x,y;z", api.set_baggage("kest.user", "mallory"))
    carrier: dict[str, str] = {}
    with lineage(passport):
        context = live_context(context)
        composite.inject(carrier, context)
    members = [member.partition("=")[0] for member in carrier["baggage"].split(",")]
    assert sorted(members) == ["kest.chain_tip", "kest.passport", "vendor"]
    found = composite.extract(carrier)
    with continued(found):
        assert get_current_passport().entries == passport.entries
        assert api.get_baggage("vendor") == "x,y;z"
        assert get_current_user() is None


def test_a_carrier_that_cannot_be_read_keeps_the_context_baggage() -> None:
    class Setter:
        def set(self, carrier: Any, key: str, value: str) -> None:
            carrier.append((key.encode(), value.encode("latin-1")))

    carrier: list[tuple[bytes, bytes]] = []
    with lineage(grown(1)):
        KestPropagator().inject(carrier, api.set_baggage("vendor", "x y"), Setter())
    assert len(carrier) == 1
    assert b"kest.passport=" in carrier[0][1]
    assert carrier[0][1].endswith(b",vendor=x%20y")


def test_other_spellings_of_the_header_are_one() -> None:
    carrier = {"Baggage": "v=1,kest.user=old", "Host": "a.example"}
    with lineage(grown(1)):
        KestPropagator().inject(carrier)
    assert sorted(carrier) == ["Host", "baggage"]
    assert carrier["baggage"].endswith(",v=1")
    assert "old" not in carrier["baggage"]


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("a.example", True),
        ("a.example:8000", True),
        ("b.example", False),
        (None, False),
        ("a.example:x", False),
        ("[::1", False),
    ],
)
def test_allowed_hosts(host: str | None, sent: bool, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEST_ALLOWED_HOSTS", "a.example, *.c.example")
    carrier = {"baggage": "v=1,kest.user=old"} | ({} if host is None else {"Host": host})
    with lineage(grown(1)):
        KestPropagator().inject(carrier)
        assert ("kest.passport" in carrier["baggage"]) is sent
        live = live_context(Context())
        assert "kest.passport" not in api.get_all(live)  # who reads baggage does not say where it goes
    assert carrier["baggage"].endswith("v=1")
    assert "old" not in carrier["baggage"]


def test_allowed_hosts_that_are_none(monkeypatch: Any) -> None:
    monkeypatch.setenv("KEST_ALLOWED_HOSTS", "http://a.example")
    with pytest.raises(ConfigurationError, match="KEST_ALLOWED_HOSTS"):
        EgressGuard()


def test_live_baggage_is_never_stale() -> None:
    token = attach()
    try:
        assert dict(api.get_all()) == {}
        with lineage():
            for n in range(1, 5):
                with lineage(grown(n)) as passport:
                    values = dict(api.get_all())
                    assert BaggageManager.unpack(values).entries == passport.entries
                    assert api.get_baggage("kest.chain_tip") == passport.chain_tip
            assert dict(api.get_all()) == {}
    finally:
        detach(token)
    assert api.get_baggage("kest.chain_tip") is None


def test_live_baggage_is_a_mapping_like_any_other() -> None:
    context = live_context(api.set_baggage("a", 1))
    with lineage(grown(1)):
        context = api.set_baggage("b", "2", api.set_baggage("kest.user", "x", context))
        assert list(api.get_all(context)) == ["kest.passport", "kest.chain_tip", "a", "b"]
        assert len(api.get_all(context)) == 4
        assert "a" in api.get_all(context)
        assert "kest.passport" in api.get_all(context)
        assert "kest.user" not in api.get_all(context)
        assert api.get_all(context)["b"] == "2"
        assert len(list(api.get_all(context).values())) == 4
        assert dict(api.get_all(context)) == dict(api.get_all(context).items())
        assert "a" not in api.get_all(api.remove_baggage("a", context))
        assert "kest.passport" in api.get_all(api.remove_baggage("a", context))
        assert not api.get_all(api.clear(context))
    assert list(api.get_all(context)) == ["a", "b"]


def test_nothing_is_serialised_until_somebody_reads(monkeypatch: Any) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(BaggageManager, "pack", staticmethod(lambda *a, **k: calls.append(a) or {}))
    with lineage(grown(1)):
        token = otel.attach(live_context())
        api.get_baggage("vendor")
        otel.attach(api.set_baggage("vendor", "x"))
        assert not calls
        dict(api.get_all())
        assert len(calls) == 1
        detach(token)


def test_a_thread_that_carries_only_opentelemetrys_context() -> None:
    seen: list[Any] = []
    with lineage(grown(2)) as passport:
        context = live_context()
        thread = threading.Thread(target=lambda: seen.append(dict(api.get_all(context))))
        thread.start()
        thread.join()
    assert BaggageManager.unpack(seen[0]).entries == passport.entries


def test_what_does_not_fit_is_an_error_and_what_fits_is_whole() -> None:
    context = live_context(api.set_baggage("big", "x" * 3900))
    carrier: dict[str, str] = {}
    with lineage(grown(60)):
        with pytest.raises(PassportTooLargeError):
            W3CBaggagePropagator().inject(carrier, context)
        configure(cache=SimpleCache())
        W3CBaggagePropagator().inject(carrier, context)
        assert "kest.claim_check=" in carrier["baggage"]
    # OpenTelemetry cuts what exceeds its limits from the end: Kest stands before it.
    crowded = Context()
    for n in range(200):
        crowded = api.set_baggage(f"k{n}", "v", crowded)
    with lineage(grown(1)) as passport:
        try:
            W3CBaggagePropagator().inject(carrier, live_context(crowded))
        except PassportTooLargeError:
            return
        assert Edge(keys()).read([carrier["baggage"].encode()]).passport.entries == passport.entries


def test_repr_shows_no_passport() -> None:
    with lineage(grown(1)):
        assert "eyJ" not in repr(LiveBaggage({}, get_current_passport(), None, None))  # type: ignore[arg-type]
