"""Identities of this process: real signatures, their principals, and asynchronous signing (F-ID-01 to 03, D4, C6)."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import time
from typing import Any

import pytest
from identity_samples import PAYLOAD, PRINCIPAL, SEED, Returns, ours, parts, verifies

from kest import _kestcore
from kest.core.identity import (
    IdentityProvider,
    LocalEd25519Provider,
    MockIdentityProvider,
    SPIREProvider,
    StaticIdentity,
    async_principal_of,
    async_sign_payload,
    sign_payload,
)
from kest.core.identity.aws import AWSWorkloadIdentity
from kest.core.identity.base import checked_principal
from kest.errors import IdentityError


@pytest.mark.parametrize(
    "make",
    [
        LocalEd25519Provider,
        lambda: LocalEd25519Provider(PRINCIPAL, SEED),
        lambda: StaticIdentity(PRINCIPAL),
        lambda: StaticIdentity(PRINCIPAL, key=SEED),
        MockIdentityProvider,
    ],
)
def test_f_id_01_and_03_sign_returns_a_compact_eddsa_jws(make: Any) -> None:
    identity = make()
    assert isinstance(identity, IdentityProvider)
    jws = identity.sign(PAYLOAD)
    header, payload, signature = parts(jws)
    assert header == {"alg": "EdDSA", "kid": identity.get_identity(), "typ": "JWS"}
    assert payload == PAYLOAD
    assert len(signature) == 64
    assert identity.get_workload_id() == identity.get_identity() != ""
    assert verifies(jws, identity.public_jwk())
    assert sign_payload(identity, PAYLOAD) == jws
    assert identity.signer is not None
    assert identity.signer.sign_jws(PAYLOAD) == jws
    assert identity.labels() == {}
    assert identity.blocking is False


def test_signatures_agree_with_an_independent_implementation() -> None:
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    identity = StaticIdentity(PRINCIPAL, key=SEED)
    jws = identity.sign(PAYLOAD)
    message, _, signature = jws.rpartition(".")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
    assert key.sign(message.encode()) == _kestcore.b64url_decode(signature)


def test_local_keys_are_ephemeral_and_documented_defaults_hold() -> None:
    one, two = LocalEd25519Provider(), LocalEd25519Provider()
    assert one.get_identity() == "spiffe://kest.internal/local-workload"
    assert one.public_jwk() != two.public_jwk()
    assert LocalEd25519Provider(seed=SEED).public_jwk() == LocalEd25519Provider(seed=SEED).public_jwk()


def test_d4_keys_are_in_no_repr_pickle_or_copy() -> None:
    for identity in (LocalEd25519Provider(PRINCIPAL, SEED), StaticIdentity(PRINCIPAL, key=SEED)):
        assert repr(identity) == f"{type(identity).__name__}({PRINCIPAL!r})"
        assert not hasattr(identity, "__dict__")
        with pytest.raises(IdentityError, match="each process"):
            pickle.dumps(identity)
        assert copy.deepcopy({"identity": identity})["identity"] is identity
        assert copy.copy(identity) is identity
    for refuse in (LocalEd25519Provider(), MockIdentityProvider(), SPIREProvider("/x"), AWSWorkloadIdentity("k")):
        with pytest.raises(IdentityError):
            pickle.dumps(refuse)


def test_the_fast_path_never_bypasses_a_subclass_or_a_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(LocalEd25519Provider):
        calls = 0

        def sign(self, payload: bytes) -> str:
            type(self).calls += 1
            return super().sign(payload)

    class Harmless(StaticIdentity):
        pass

    assert Counting().signer is None
    assert Harmless(PRINCIPAL).signer is None
    assert Harmless(PRINCIPAL).sign(PAYLOAD)
    identity = LocalEd25519Provider()
    with pytest.raises(AttributeError):
        identity.sign = lambda payload: "x"  # type: ignore[method-assign]
    monkeypatch.setattr(LocalEd25519Provider, "sign", lambda self, payload: "x")
    assert identity.signer is None


def test_mock_is_deterministic_and_trusted_only_where_its_key_is_listed() -> None:
    one, two = MockIdentityProvider(), MockIdentityProvider()
    assert one.get_identity() == "spiffe://kest.test/mock"
    assert one.sign(PAYLOAD) == two.sign(PAYLOAD)
    assert MockIdentityProvider("spiffe://kest.test/b").public_jwk()["x"] != one.public_jwk()["x"]
    assert not verifies(one.sign(PAYLOAD), LocalEd25519Provider(one.get_identity()).public_jwk())
    script = "from kest.core.identity import MockIdentityProvider as M; import sys; sys.stdout.write(M().sign(b'x'))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout == one.sign(b"x")


@pytest.mark.parametrize("bad", ["", " a", "a\n", "a\x00", "a\ud800", "x" * 2049, None, 7, b"a"])
def test_f_id_02_principals_are_checked(bad: Any) -> None:
    with pytest.raises(IdentityError):
        checked_principal(bad)
    with pytest.raises(IdentityError):
        LocalEd25519Provider(bad)
    with pytest.raises(IdentityError):
        sign_payload(Returns("x", principal=bad), PAYLOAD)


async def ticks(stop: asyncio.Event) -> int:
    count = 0
    while not stop.is_set():
        await asyncio.sleep(0.005)
        count += 1
    return count


async def test_c6_blocking_providers_do_not_hold_up_the_loop() -> None:
    def slow(payload: bytes) -> str:
        time.sleep(0.2)
        return ours(payload)

    provider = Returns(slow, blocking=True, public_jwk=StaticIdentity(PRINCIPAL, key=SEED).public_jwk)
    stop = asyncio.Event()
    ticking = asyncio.create_task(ticks(stop))
    assert await async_sign_payload(provider, PAYLOAD) == ours()
    assert await async_principal_of(provider) == PRINCIPAL
    stop.set()
    assert await ticking > 10


async def test_async_sign_is_awaited_and_its_answer_checked() -> None:
    async def good(payload: bytes) -> str:
        await asyncio.sleep(0)
        return ours(payload)

    async def stub(payload: bytes) -> str:
        return "pending"

    async def fails(payload: bytes) -> str:
        raise OSError("token=hunter2")

    jwk = StaticIdentity(PRINCIPAL, key=SEED).public_jwk
    for blocking in (False, True):
        extra = {"public_jwk": jwk, "blocking": blocking}
        assert await async_sign_payload(Returns(None, async_sign=good, **extra), PAYLOAD) == ours()
        with pytest.raises(IdentityError):
            await async_sign_payload(Returns(ours(), async_sign=stub, **extra), PAYLOAD)
        with pytest.raises(IdentityError, match="OSError") as caught:
            await async_sign_payload(Returns(ours(), async_sign=fails, **extra), PAYLOAD)
        assert "hunter2" not in str(caught.value)
    assert await async_sign_payload(Returns(ours()), PAYLOAD) == ours()
    identity = LocalEd25519Provider()
    assert await async_sign_payload(identity, PAYLOAD) == identity.sign(PAYLOAD)
