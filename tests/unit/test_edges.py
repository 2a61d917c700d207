"""Less usual forms of what the core takes: frames, contexts, engines and baggage of other people's making."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kest.core import Passport, hashing, metering
from kest.core.context import continue_from
from kest.core.engine.base import PolicyEngine, decide, decide_async
from kest.core.identity import LocalEd25519Provider
from kest.core.identity.base import BaseIdentity, async_sign_payload, sign_payload
from kest.errors import IdentityError, PolicyEngineError
from kest.http.egress import HostPatterns, _warned, warn_once
from kest.http.live_baggage import LiveBaggage, live_context
from kest.http.outgoing import Packer, foreign_var, merge_foreign

PRINCIPAL = "spiffe://example.org/edges"


# --- arrays and frames ---


def test_arrow_types_of_other_layouts() -> None:
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.compute")

    ends = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    run, opaque = hashing.encode(ends)
    assert isinstance(run, dict)
    plain, _ = hashing.encode(pa.array(["a", "a", "b"]))
    assert isinstance(plain, dict)
    assert not opaque
    assert run["values"] == plain["values"]
    assert run["type"] != plain["type"]

    class Celsius(pa.ExtensionType):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__(pa.float64(), "kest.test.celsius")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

    own = pa.ExtensionArray.from_storage(Celsius(), pa.array([1.5]))
    assert hashing.encode(own)[1] is True  # opaque: nobody knows what its type means
    known = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))
    content, opaque = hashing.encode(known)
    assert not opaque
    assert isinstance(content, dict)
    assert content["len"] == 2


def test_pandas_arrays() -> None:
    pd = pytest.importorskip("pandas")
    content, opaque = hashing.encode(pd.array([1, 2], dtype="Int64"))
    assert isinstance(content, dict)
    assert (opaque, content["dtype"]) == (False, "Int64")

    class Mine(pd.arrays.NumpyExtensionArray):  # type: ignore[name-defined,misc]
        pass

    import numpy as np

    assert hashing.encode(Mine(np.array([1, 2])))[1] is True
    assert hashing.encode(pd.arrays.NumpyExtensionArray(np.array([1, 2])))[1] is False


def test_numpy_values_that_are_opaque() -> None:
    np = pytest.importorskip("numpy")

    class Mine(np.float32):  # type: ignore[name-defined,misc]
        pass

    for value in (Mine(1.5), np.ma.masked_array(np.zeros(2, [("a", "i4")]))):
        assert hashing.encode(value)[1] is True
    assert hashing.encode(np.ma.masked_array([1, 2], mask=[True, False]))[1] is False


# --- engines ---


class Slotted(PolicyEngine):
    __slots__ = ()

    def evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> bool:
        return policy_names == ["yes"]


def test_an_engine_of_another_class_of_things() -> None:
    assert decide(Slotted(), "e", ["yes"], {}).allowed
    assert not decide(Slotted(), "e", ["no"], {}).allowed


def test_async_engines_that_answer_at_once_or_raise() -> None:
    class AtOnce:
        def async_evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> bool:
            if policy_names == ["raise"]:
                raise ValueError("no")
            return True

    assert asyncio.run(decide_async(AtOnce(), "e", ["a"], {})).allowed
    with pytest.raises(PolicyEngineError) as caught:
        asyncio.run(decide_async(AtOnce(), "e", ["raise"], {}))
    assert isinstance(caught.value.__cause__, ValueError)


# --- identities ---


class Signing(BaseIdentity):
    """The base class's own ways, over a real key."""

    __slots__ = ("key",)  # without __weakref__: cannot be remembered

    def __init__(self) -> None:
        self.key = LocalEd25519Provider(PRINCIPAL)

    def get_identity(self) -> str:
        return PRINCIPAL

    def sign_message(self, message: bytes) -> bytes:
        return self.key.sign_message(message)

    def public_jwk(self) -> dict[str, Any]:
        return self.key.public_jwk()


def test_an_identity_that_blocks_and_one_that_does_not() -> None:
    class Quick(Signing):
        blocking = False

    for one in (Signing(), Quick()):
        assert asyncio.run(one.async_sign(b"{}")) == one.sign(b"{}") == one.key.sign(b"{}")


def test_identities_that_cannot_be_remembered() -> None:
    class Bare:
        __slots__ = ("key",)

        def __init__(self, key: LocalEd25519Provider) -> None:
            self.key = key

        def get_workload_id(self) -> str:
            return PRINCIPAL

        def sign(self, payload: bytes) -> str:
            return self.key.sign(payload)

        def public_jwk(self) -> dict[str, Any]:
            return self.key.public_jwk()

    bare = Bare(LocalEd25519Provider(PRINCIPAL))
    for _ in range(2):
        assert sign_payload(bare, b"{}") == bare.key.sign(b"{}")


def test_an_identity_whose_key_is_not_there() -> None:
    class Keyless:
        def __init__(self) -> None:
            self.key = LocalEd25519Provider(PRINCIPAL)

        def get_workload_id(self) -> str:
            return PRINCIPAL

        def sign(self, payload: bytes) -> str:
            return self.key.sign(payload)

        def async_sign(self, payload: bytes) -> str:
            return self.key.sign(payload)

        def public_jwk(self) -> dict[str, Any]:
            raise IdentityError("the key is not there yet")

    with pytest.raises(IdentityError, match="the key is not there yet"):
        sign_payload(Keyless(), b"{}")
    with pytest.raises(IdentityError, match="the key is not there yet"):
        asyncio.run(async_sign_payload(Keyless(), b"{}"))


# --- metrics ---


def test_a_meter_provider_that_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Refusing:
        def get_meter(self, *given: object, **named: object) -> object:
            raise RuntimeError("no meters")

    class Api:
        provider: Any = Refusing()

        def get_meter_provider(self) -> object:
            return self.provider

    class NoOpMeterProvider:
        pass

    monkeypatch.setattr(metering, "active", None)
    monkeypatch.setattr(metering, "_refused", None)
    api = Api()
    for _ in range(2):
        assert metering._start(api) is None
    assert [record.getMessage() for record in caplog.records if "no metrics" in record.getMessage()] == [
        "no metrics: the meter provider raised RuntimeError"
    ]
    api.provider = NoOpMeterProvider()
    assert metering._start(api) is None
    there: Any = object()
    monkeypatch.setattr(metering, "active", there)
    assert metering.find() is there
    assert metering._start(api) is there


# --- flows ---


def test_a_generator_continues_from_its_own_flow() -> None:
    own = Passport()
    assert continue_from(own, None) is own
    assert continue_from(own, own) is own
    assert continue_from(own, Passport()) is own


# --- baggage ---


def test_live_baggage_as_a_dict() -> None:
    pytest.importorskip("opentelemetry.context")
    made = live_context()
    (live,) = (value for value in made.values() if isinstance(value, LiveBaggage))
    assert bool(live) is True
    assert len(live) == 0
    assert live == live.copy() == {}
    assert live != {"a": "b"}
    assert live != []
    assert live_context(made) is made  # nothing to change
    other = live_context(made, Packer(max_header=4096))
    assert other is not made
    assert any(isinstance(value, LiveBaggage) for value in other.values())


def test_members_in_another_spelling_go_on_as_they_came() -> None:
    token = foreign_var.set((b"a=x%20y", b"b=1"))
    try:
        assert merge_foreign([b"a=x+y"]) == [b"a=x%20y", b"b=1"]
        assert merge_foreign([b"a=z"]) == [b"a=z", b"b=1"]
        assert merge_foreign([b"c=3"]) == [b"c=3", b"a=x%20y", b"b=1"]
    finally:
        foreign_var.reset(token)
    assert merge_foreign([b"c=3"]) == [b"c=3"]


def test_a_warning_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kest.http"):
        for _ in range(2):
            warn_once("test-edges", "said %s", "once")
    _warned.discard("test-edges")
    assert [record.getMessage() for record in caplog.records] == ["said once"]


def test_a_host_that_has_no_idna_form() -> None:
    long = "ü" * 70 + ".example.org"  # a label of more than 63 characters
    assert (long, None) in HostPatterns([long], "allowed_hosts")
    assert ("bücher.example.org", 443) in HostPatterns(["xn--bcher-kva.example.org"], "allowed_hosts")
