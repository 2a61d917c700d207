"""What every identity must do: `identities.FACTORIES` says which are asked."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from identities import FACTORIES, SEED

from kest import MockPolicyEngine, PassportVerifier, TrustStore, VerificationError, configure, kest_verified
from kest._kestcore import b64url_encode
from kest.core.context import get_current_passport, lineage
from kest.core.identity import (
    BaseIdentity,
    IdentityProvider,
    StaticIdentity,
    async_principal_of,
    async_sign_payload,
    checked_jws,
    principal_of,
    sign_payload,
)

PAYLOAD = b'{"n":1}'


@pytest.fixture(params=FACTORIES)
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = FACTORIES[request.param](tmp_path)
    yield made
    if isinstance(made, BaseIdentity):
        made.close()


def test_the_principal_stays_the_same(signer: Any) -> None:
    assert principal_of(signer) == signer.get_identity() == principal_of(signer)
    if isinstance(signer, BaseIdentity):
        assert isinstance(signer, IdentityProvider)
        assert signer.public_jwk()["kid"] == signer.get_workload_id() == principal_of(signer)


def test_a_signature_is_of_this_payload_under_the_public_key(signer: Any) -> None:
    jws = sign_payload(signer, PAYLOAD)
    who = principal_of(signer)
    assert checked_jws(signer, who, PAYLOAD, jws, signer.public_jwk()) == jws
    other = StaticIdentity(who, key=b"\1" * 32).public_jwk()
    for payload, key in ((b'{"n":2}', signer.public_jwk()), (PAYLOAD, other)):
        with pytest.raises(Exception, match=r"payload|verify|public key"):
            checked_jws(signer, who, payload, jws, key)


async def test_async_callers_get_the_same_and_the_loop_goes_on(signer: Any) -> None:
    jws, principal = await asyncio.gather(async_sign_payload(signer, PAYLOAD), async_principal_of(signer))
    assert principal == principal_of(signer)
    assert checked_jws(signer, principal, PAYLOAD, jws, signer.public_jwk()) == jws


def test_a_call_that_it_signs_verifies_and_under_no_other_key(signer: Any) -> None:
    configure(engine=MockPolicyEngine(), identity=signer)
    with lineage():
        assert kest_verified("work")(lambda: "ran")() == "ran"
        passport = get_current_passport()
    who = principal_of(signer)
    verified = PassportVerifier.verify(passport, TrustStore({who: signer.public_jwk()}))
    assert verified.trust_score == 100
    with pytest.raises(VerificationError):
        PassportVerifier.verify(passport, {who: StaticIdentity(who, key=b"\1" * 32).public_jwk()})


def test_eight_threads(signer: Any) -> None:
    payloads = [b'{"n":%d}' % n for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(lambda payload: sign_payload(signer, payload), payloads))
    for payload, jws in zip(payloads, signed, strict=True):
        assert checked_jws(signer, principal_of(signer), payload, jws, signer.public_jwk()) == jws


def test_the_key_shows_nowhere(signer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    sign_payload(signer, PAYLOAD)
    shown = f"{signer!r} {signer!s} {signer.public_jwk()}"
    for form in (SEED.hex(), b64url_encode(SEED), repr(SEED)):
        assert form not in shown
    assert "d" not in signer.public_jwk()  # the private member of a JWK (RFC 8037, section 2)
    assert capfd.readouterr().out == ""
    if isinstance(signer, BaseIdentity):
        with pytest.raises(Exception, match="process"):
            pickle.dumps(signer)


def test_it_can_be_closed_and_used_again(signer: Any) -> None:
    if isinstance(signer, BaseIdentity):  # one that derives from nothing need not have close()
        signer.close()
        signer.close()
    assert sign_payload(signer, PAYLOAD)
