"""Identities: real signatures by every provider, and nothing but real signatures from any provider (F-ID-*, D4, D5)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import hashlib
import json
import logging
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from kest import _kestcore
from kest.core.identity import (
    BaseIdentity,
    BedrockAgentIdentity,
    IdentityProvider,
    LocalEd25519Provider,
    MockIdentityProvider,
    OIDCIdentity,
    SPIREProvider,
    StaticIdentity,
    async_principal_of,
    async_sign_payload,
    checked_jws,
    detect,
    ecdsa_der_to_raw,
    explain_default_identity,
    get_default_identity,
    principal_of,
    public_jwk,
    read_private_key,
    sign_payload,
    signing_input,
    write_private_key,
)
from kest.core.identity.aws import AWSWorkloadIdentity, normalise_arn
from kest.core.identity.base import checked_principal
from kest.core.identity.jws import compact
from kest.core.identity.keys import KeyFileExistsError, KeyFileMissingError, parse_private_key, private_key_pem
from kest.errors import ConfigurationError, IdentityError, KestError, KeyFormatError

PRINCIPAL = "spiffe://example.test/w"
PAYLOAD = b'{"a":1}'
SEED = bytes(range(32))


def parts(jws: str) -> tuple[dict[str, Any], bytes, bytes]:
    header, payload, signature = (_kestcore.b64url_decode(part) for part in jws.split("."))
    return json.loads(header), payload, signature


def verifies(jws: str, jwk: dict[str, Any]) -> bool:
    message, _, signature = jws.rpartition(".")
    return _kestcore.PublicKey.from_jwk(jwk).verify(message.encode(), _kestcore.b64url_decode(signature))


class Returns:
    """A provider that returns whatever it is told to."""

    def __init__(self, value: Any, principal: Any = PRINCIPAL, **attributes: Any) -> None:
        self.value, self.principal = value, principal
        for name, attribute in attributes.items():
            setattr(self, name, attribute)

    def get_identity(self) -> str:
        return self.principal

    def sign(self, payload: bytes) -> Any:
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value(payload) if callable(self.value) else self.value


# -- local, static, mock ----------------------------------------------------------------------------------------------


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


# -- keys -------------------------------------------------------------------------------------------------------------


def jwk_text(**changes: Any) -> dict[str, Any]:
    jwk = {"kty": "OKP", "crv": "Ed25519", "d": _kestcore.b64url_encode(SEED)}
    jwk["x"] = public_jwk(_kestcore.Signer("x", SEED).public_key, "x")["x"]
    return {name: value for name, value in {**jwk, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "key",
    [
        SEED,
        bytearray(SEED),
        SEED.hex(),
        SEED.hex().upper() + "\n",
        private_key_pem(SEED),
        private_key_pem(SEED).decode(),
        private_key_pem(SEED).replace(b"\n", b"\r\n"),
        jwk_text(),
        jwk_text(x=None),
        jwk_text(alg="EdDSA", use="sig", kid="k"),
        json.dumps(jwk_text()),
    ],
)
def test_every_form_of_a_key_is_the_same_key(key: Any, tmp_path: Path) -> None:
    assert parse_private_key(key) == SEED
    assert StaticIdentity(PRINCIPAL, key=key).public_jwk() == StaticIdentity(PRINCIPAL, key=SEED).public_jwk()
    file = tmp_path / "key"
    data = json.dumps(key) if isinstance(key, dict) else key
    file.write_bytes(data.encode() if isinstance(data, str) else bytes(data))
    file.chmod(0o600)
    assert read_private_key(file) == SEED


def test_pem_is_what_cryptography_and_openssl_write() -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    assert private_key_pem(SEED) == pem
    assert parse_private_key(pem) == SEED


SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"short",
        SEED + b"x",
        SEED * 2,
        SEED.hex()[:-1],
        SEED.hex() + "00",
        "z" * 64,
        SECRET,
        f'{{"kty":"OKP","d":"{SECRET}"',
        '{"a":1}',
        jwk_text(kty="EC"),
        jwk_text(crv="X25519"),
        jwk_text(d=None),
        jwk_text(d=SECRET + "="),
        jwk_text(d=SECRET[:-2]),
        jwk_text(d=7),
        jwk_text(x=SECRET),
        jwk_text(use="enc"),
        jwk_text(alg="ES256"),
        private_key_pem(SEED).replace(b"MC4C", b"MC4D"),
        private_key_pem(SEED) * 2,
        private_key_pem(SEED).replace(b"PRIVATE", b"EC PRIVATE"),
        b"-----BEGIN PRIVATE KEY-----\n" + SECRET.encode() + b"\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n" + SECRET.encode(),
        7,
        None,
    ],
)
def test_d4_bad_keys_are_refused_without_being_quoted(key: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyFormatError) as caught:
        parse_private_key(key)
    errors: list[BaseException | None] = [caught.value]
    if isinstance(key, (bytes, str)) and key:
        file = tmp_path / "key"
        file.write_bytes(key if isinstance(key, bytes) else key.encode())
        file.chmod(0o600)
        with pytest.raises(KeyFormatError) as from_file:
            StaticIdentity(PRINCIPAL, key_file=file)
        errors.append(from_file.value)
    for error in errors:
        while error is not None:
            text = f"{error!r} {error} {vars(error)}"
            assert SECRET[:12] not in text
            assert SEED.hex()[:12] not in text
            error = error.__context__


def test_lengths_of_seeds_are_checked() -> None:
    for bad in (b"", SEED[:-1], SEED + b"x"):
        with pytest.raises(KestError):
            LocalEd25519Provider(PRINCIPAL, bad)
        with pytest.raises(KeyFormatError):
            private_key_pem(bad)
    with pytest.raises(KeyFormatError):
        public_jwk(b"x", PRINCIPAL)


def test_a_missing_key_file_is_created_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "workload.pem"
    old = os.umask(0)
    try:
        identity = StaticIdentity(PRINCIPAL, key_file=path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert StaticIdentity(PRINCIPAL, key_file=str(path)).public_jwk() == identity.public_jwk()
    assert [entry.name for entry in tmp_path.iterdir()] == ["workload.pem"]


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private_key(path, SEED)
    before = path.read_bytes()
    with pytest.raises(KeyFileExistsError):
        write_private_key(path, SEED[::-1])
    assert path.read_bytes() == before
    link = tmp_path / "dangling"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileExistsError):
        write_private_key(link, SEED)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ConfigurationError):
        write_private_key(tmp_path / "no" / "folder" / "key", SEED)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dangling", "key"]


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*args: object) -> None:
        raise PermissionError(1, "not supported")

    monkeypatch.setattr(os, "link", no_link)
    write_private_key(tmp_path / "key", SEED)
    assert read_private_key(tmp_path / "key") == SEED
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    start = threading.Barrier(8)

    def make(_: int) -> str:
        start.wait()
        return str(StaticIdentity(PRINCIPAL, key_file=path).public_jwk()["x"])

    with futures.ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o660, 0o666, 0o777])
def test_key_files_that_others_can_reach_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_private_key(path, SEED)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        StaticIdentity(PRINCIPAL, key_file=path)


def test_key_files_that_are_not_ours_or_not_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private_key(path, SEED)
    path.chmod(0o400)
    assert read_private_key(path) == SEED
    link = tmp_path / "link"  # as Kubernetes mounts secrets
    link.symlink_to(path)
    assert read_private_key(link) == SEED
    path.chmod(0o644)
    with pytest.raises(ConfigurationError):
        read_private_key(link)
    with pytest.raises(KeyFileMissingError):
        read_private_key(tmp_path / "none")
    with pytest.raises(ConfigurationError):
        read_private_key(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(ConfigurationError, match="regular"):
        read_private_key(fifo)
    large = tmp_path / "large"
    large.touch(0o600)
    large.write_bytes(b"x" * 20_000)
    with pytest.raises(KeyFormatError):
        read_private_key(large)
    if os.geteuid() == 0:
        path.chmod(0o600)
        os.chown(path, 12345, 12345)
        with pytest.raises(ConfigurationError, match="belongs to user 12345"):
            read_private_key(path)


def test_static_takes_one_source_of_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        StaticIdentity(PRINCIPAL, key=SEED, key_file=tmp_path / "key")


# -- providers that users write (D5) ----------------------------------------------------------------------------------


def ours(payload: bytes = PAYLOAD, principal: str = PRINCIPAL, seed: bytes = SEED) -> str:
    return _kestcore.Signer(principal, seed).sign_jws(payload)


def with_header(**changes: Any) -> str:
    header = {"alg": "EdDSA", "kid": PRINCIPAL, "typ": "JWS", **changes}
    kept = {name: value for name, value in header.items() if value is not None}
    message = (_kestcore.b64url_encode(_kestcore.canonicalize(kept)) + "." + _kestcore.b64url_encode(PAYLOAD)).encode()
    return compact(message, _kestcore.Signer(PRINCIPAL, SEED).sign(message))


async def coroutine() -> str:
    return ours()


STUBS = {
    "none": None,
    "pending": "pending",
    "empty": "",
    "stub": "stub-signature",
    "three parts of nonsense": "a.b.c",
    "empty parts": "..",
    "two parts": ours().rpartition(".")[0],
    "four parts": ours() + ".x",
    "unsigned": ours().rpartition(".")[0] + ".",
    "padded": ours() + "==",
    "white space": " " + ours(),
    "newline": ours() + "\n",
    "other payload": ours(b'{"a":2}'),
    "other principal": ours(principal="spiffe://example.test/other"),
    "alg none": with_header(alg="none"),
    "HS256": with_header(alg="HS256"),
    "alg missing": with_header(alg=None),
    "kid missing": with_header(kid=None),
    "typ missing": with_header(typ=None),
    "typ other": with_header(typ="JWT"),
    "crit": with_header(crit=["b64"]),
    "jwk in header": with_header(jwk={}),
    "x5c with EdDSA": with_header(x5c=["AAAA"]),
    "non-ascii": ours()[:-1] + "é",
    "number": 7,
    "true": True,
    "bytes of a jws": ours().encode(),
    "list": [ours()],
    "json": '{"payload":"","signatures":[]}',
}


@pytest.mark.parametrize("name", STUBS)
def test_d5_nothing_but_a_jws_over_this_payload_passes(name: str) -> None:
    for attributes in ({}, {"algorithm": "EdDSA", "public_jwk": StaticIdentity(PRINCIPAL, key=SEED).public_jwk}):
        with pytest.raises(IdentityError) as caught:
            sign_payload(Returns(STUBS[name], **attributes), PAYLOAD)
        assert "Returns" in str(caught.value)


def test_d5_the_error_does_not_quote_what_came_back() -> None:
    with pytest.raises(IdentityError) as caught:
        sign_payload(Returns("hunter2-is-no-signature"), PAYLOAD)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(IdentityError) as caught:
        sign_payload(Returns(RuntimeError("password=hunter2")), PAYLOAD)
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_d5_a_coroutine_from_sign_is_named_and_closed() -> None:
    with pytest.raises(IdentityError, match="async_sign"):
        sign_payload(Returns(lambda payload: coroutine()), PAYLOAD)


def test_a_header_that_is_not_canonical_is_refused() -> None:
    header = json.dumps({"typ": "JWS", "alg": "EdDSA", "kid": PRINCIPAL}).encode()
    duplicate = f'{{"alg":"EdDSA","alg":"EdDSA","kid":"{PRINCIPAL}","typ":"JWS"}}'.encode()
    for text in (header, duplicate, b"\xff", b"[]", b"nonsense"):
        message = f"{_kestcore.b64url_encode(text)}.{_kestcore.b64url_encode(PAYLOAD)}".encode()
        with pytest.raises(IdentityError):
            sign_payload(Returns(compact(message, _kestcore.Signer(PRINCIPAL, SEED).sign(message))), PAYLOAD)


def test_the_first_signature_is_verified_under_the_providers_own_key() -> None:
    right = StaticIdentity(PRINCIPAL, key=SEED).public_jwk()
    wrong = StaticIdentity(PRINCIPAL).public_jwk()
    asked: list[int] = []

    def key() -> dict[str, Any]:
        asked.append(1)
        return right

    provider = Returns(ours(), public_jwk=key)
    assert sign_payload(provider, PAYLOAD) == sign_payload(provider, PAYLOAD) == ours()
    assert len(asked) == 1
    impostor = Returns(ours(), public_jwk=lambda: wrong)
    for _ in range(2):  # a failure is not remembered as success
        with pytest.raises(IdentityError, match="does not verify"):
            sign_payload(impostor, PAYLOAD)
    for nonsense in (None, "x", {}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "oct", "k": "AAAA"}, [], [7]):
        with pytest.raises(KestError):
            sign_payload(Returns(ours(), public_jwk=lambda value=nonsense: value), PAYLOAD)
    with pytest.raises(IdentityError, match="public_jwk"):
        sign_payload(Returns(ours(), public_jwk=lambda: 1 / 0), PAYLOAD)
    assert checked_jws(impostor, PRINCIPAL, PAYLOAD, ours(), right) == ours()
    with pytest.raises(IdentityError):
        checked_jws(provider, PRINCIPAL, PAYLOAD, ours(), wrong)


def test_objects_that_compare_equal_do_not_share_the_check() -> None:
    class Alike(Returns):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Alike)

        def __hash__(self) -> int:
            return 1

    assert sign_payload(Alike(ours(), public_jwk=StaticIdentity(PRINCIPAL, key=SEED).public_jwk), PAYLOAD)
    with pytest.raises(IdentityError):
        sign_payload(Alike(ours(), public_jwk=StaticIdentity(PRINCIPAL).public_jwk), PAYLOAD)


def test_a_provider_without_a_public_key_is_checked_for_everything_else() -> None:
    assert sign_payload(Returns(ours()), PAYLOAD) == ours()


def test_raw_signatures_become_a_jws() -> None:
    signer = _kestcore.Signer(PRINCIPAL, SEED)
    jwk = StaticIdentity(PRINCIPAL, key=SEED).public_jwk

    class Raw:
        algorithm = "EdDSA"
        public_jwk = staticmethod(jwk)

        def get_workload_id(self) -> str:  # the older name alone does
            return PRINCIPAL

        def sign(self, payload: bytes) -> bytes:
            return signer.sign(signing_input(PRINCIPAL, payload, "EdDSA")[1])

    class Signs:
        algorithm = "EdDSA"
        public_jwk = staticmethod(jwk)

        def get_identity(self) -> str:
            return PRINCIPAL

        def sign(self, payload: bytes) -> bytes:
            raise AssertionError("sign_message is there")

        def sign_message(self, message: bytes) -> bytes:
            return signer.sign(message)

    assert sign_payload(Raw(), PAYLOAD) == ours()
    assert sign_payload(Signs(), PAYLOAD) == ours()
    with pytest.raises(IdentityError, match="signing_input"):
        sign_payload(Returns(signer.sign, algorithm="EdDSA", public_jwk=jwk), PAYLOAD)
    raw = signer.sign(signing_input(PRINCIPAL, PAYLOAD, "EdDSA")[1])
    with pytest.raises(IdentityError, match="public_jwk"):
        sign_payload(Returns(raw, algorithm="EdDSA"), PAYLOAD)
    for algorithm in (None, "none", "HS256", "ES384", 7):
        with pytest.raises(IdentityError, match="algorithm"):
            sign_payload(Returns(raw, algorithm=algorithm, public_jwk=jwk), PAYLOAD)
    for length in (0, 63, 65, 70, 72):
        with pytest.raises(IdentityError, match="ecdsa_der_to_raw"):
            sign_payload(Returns(b"0" * length, algorithm="ES256", public_jwk=jwk), PAYLOAD)
    with pytest.raises(IdentityError, match="not what its public key is for"):
        sign_payload(Returns(raw, algorithm="ES256", public_jwk=jwk), PAYLOAD)


def test_a_subclass_of_the_protocol_may_use_either_getter() -> None:
    class Older(IdentityProvider):
        def get_workload_id(self) -> str:
            return PRINCIPAL

        def sign(self, payload: bytes) -> str:
            return ours(payload)

    class Neither(IdentityProvider):
        def sign(self, payload: bytes) -> str:
            return ours(payload)

    assert sign_payload(Older(), PAYLOAD) == ours()
    with pytest.raises(IdentityError, match="define one"):
        principal_of(Neither())
    with pytest.raises(IdentityError, match="not an identity provider"):
        principal_of(object())
    with pytest.raises(IdentityError, match="ZeroDivisionError"):
        principal_of(type("Broken", (), {"get_identity": lambda self: 1 / 0})())


def test_base_identity_needs_four_members_only() -> None:
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    class Hardware(BaseIdentity):
        algorithm = "ES256"

        def get_identity(self) -> str:
            return PRINCIPAL

        def sign_message(self, message: bytes) -> bytes:
            return ecdsa_der_to_raw(key.sign(message, ec.ECDSA(hashes.SHA256())))

        def public_jwk(self) -> dict[str, Any]:
            return dict(_kestcore.PublicKey.from_spki(spki).public_jwk())

    jws = sign_payload(Hardware(), PAYLOAD)
    assert parts(jws)[0] == {"alg": "ES256", "kid": PRINCIPAL, "typ": "JWS"}
    assert verifies(jws, Hardware().public_jwk())
    assert Hardware().signer is None


def test_signing_input() -> None:
    header, message = signing_input(PRINCIPAL, PAYLOAD, "ES256", ["AAAA"])
    expected = f'{{"alg":"ES256","kid":"{PRINCIPAL}","typ":"JWS","x5c":["AAAA"]}}'
    assert _kestcore.b64url_decode(header) == expected.encode()
    assert message == f"{header}.{_kestcore.b64url_encode(PAYLOAD)}".encode()
    with pytest.raises(IdentityError):
        signing_input(PRINCIPAL, PAYLOAD, "none")
    with pytest.raises(IdentityError):
        signing_input(PRINCIPAL, PAYLOAD, "EdDSA", ["AAAA"])


def test_ecdsa_der_to_raw_agrees_with_cryptography() -> None:
    utils = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.utils")
    top = 2**256 - 1
    for r, s in [(1, 1), (top, top), (2**255, 2**247), (2**248 - 1, 127), (128, 255)]:
        der = utils.encode_dss_signature(r, s)
        assert ecdsa_der_to_raw(der) == r.to_bytes(32, "big") + s.to_bytes(32, "big")
    good = utils.encode_dss_signature(2**255, 5)
    bad = [good + b"\0", good[:-1], b"", b"\x30\x00", b"\x30\x06\x02\x01\x00\x02\x01\x01", os.urandom(64)]
    bad += [utils.encode_dss_signature(top + 1, 1), b"\x30\x06\x02\x01\xff\x02\x01\x01"]
    bad += [b"\x30\x07\x02\x02\x00\x01\x02\x01\x01", b"\x31" + good[1:], good[:2] + b"\x03" + good[3:]]
    for der in bad:
        with pytest.raises(IdentityError):
            ecdsa_der_to_raw(der)
    for at in range(len(good)):  # no byte string raises anything else
        with contextlib.suppress(IdentityError):
            assert len(ecdsa_der_to_raw(good[:at] + bytes([good[at] ^ 0x81]) + good[at + 1 :])) == 64


# -- async ------------------------------------------------------------------------------------------------------------


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


# -- OIDC -------------------------------------------------------------------------------------------------------------

ISSUER = "https://issuer.example.test"


def token(signature: bytes = b"x" * 64, header: dict[str, Any] | None = None, **claims: Any) -> str:
    body = {"iss": ISSUER, "sub": "system:serviceaccount:ns:app", "exp": int(time.time()) + 86_400, **claims}
    kept = {name: value for name, value in body.items() if value is not None}
    texts = [json.dumps(header or {"alg": "EdDSA", "typ": "JWT"}).encode(), json.dumps(kept).encode(), signature]
    return ".".join(_kestcore.b64url_encode(text) for text in texts)


def test_oidc_principal_labels_and_signature(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token(aud=["kest", "other"]) + "\n")
    identity = OIDCIdentity(file, issuer=ISSUER, subject="system:serviceaccount:ns:app", audience="kest")
    assert identity.get_identity() == f"oidc:{ISSUER}#system:serviceaccount:ns:app"
    jws = sign_payload(identity, PAYLOAD)
    assert parts(jws)[0]["kid"] == identity.get_identity()
    assert verifies(jws, identity.public_jwk())
    assert identity.signer is None  # the token's validity decides as well
    assert identity.labels() == {
        "kest.oidc.issuer": ISSUER,
        "kest.oidc.subject": "system:serviceaccount:ns:app",
        "kest.oidc.binding": "published",
        "kest.oidc.verified": "false",
    }
    assert token().partition(".")[2][:20] not in repr(identity)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not a signed JWT"),
        ("a.b", "not a signed JWT"),
        ("a.b.c", "not a signed JWT"),
        ("x" * 70_000, "not a signed JWT"),
        (token(header={"alg": "none"}), "not a signed JWT"),
        (token(b""), "not a signed JWT"),
        (token(iss=None), "no iss"),
        (token(sub=""), "no sub"),
        (token(sub=7), "no sub"),
        (token(iss=ISSUER + "#x"), "fragment"),
        (token(exp=None), "no exp"),
        (token(exp="tomorrow"), "not a number"),
        (token(exp=True), "not a number"),
        (token(exp=int(time.time()) - 60), "expired"),
        (token(nbf=int(time.time()) + 43_200), "not valid yet"),
        (token(iss="https://other.test"), "not issued by"),
        (token(sub="other"), "not about"),
        (token(aud="other"), "not meant for"),
        (token(aud=None), "not meant for"),
        (token(aud="kest", sub="app\n"), "control characters|white space|not about"),
        (token(aud="kest", cnf={"jkt": "AAAA"}), "another key"),
        (token(aud="kest", cnf={}), "another key"),
    ],
)
def test_oidc_refuses(text: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    demands = {"issuer": ISSUER, "subject": "system:serviceaccount:ns:app", "audience": "kest"}
    for identity in (OIDCIdentity(file, **demands), OIDCIdentity(token=text, **demands)):
        with pytest.raises(IdentityError) as caught:
            sign_payload(identity, PAYLOAD)
        if text.count(".") == 2 and len(text) > 30:
            assert text.split(".")[1][:20] not in str(caught.value)
    relaxed = OIDCIdentity(token=text)
    if any(word in match for word in ("JWT", "no ", "number", "expired", "fragment", "yet")):
        with pytest.raises(IdentityError, match=match):
            relaxed.get_identity()


def test_oidc_confirmation_claim_binds_the_key(tmp_path: Path) -> None:
    jwk = StaticIdentity("oidc", key=SEED).public_jwk()
    required = {name: jwk[name] for name in ("crv", "kty", "x")}
    thumbprint = _kestcore.b64url_encode(
        hashlib.sha256(json.dumps(required, separators=(",", ":"), sort_keys=True).encode()).digest()
    )
    for cnf in ({"jkt": thumbprint}, {"jwk": {**required, "alg": "EdDSA"}}):
        identity = OIDCIdentity(token=token(cnf=cnf), key=SEED)
        assert identity.labels()["kest.oidc.binding"] == "cnf"
        with pytest.raises(IdentityError, match="another key"):
            OIDCIdentity(token=token(cnf=cnf)).sign(PAYLOAD)


def test_oidc_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token(exp=int(time.time()) - 100))
    identity = OIDCIdentity(file)
    with pytest.raises(IdentityError, match="expired"):
        identity.get_identity()
    replacement = tmp_path / "new"
    replacement.write_text(token(exp=int(time.time()) + 300))
    replacement.replace(file)
    principal = identity.get_identity()
    assert identity.sign(PAYLOAD)
    file.write_text(token(sub="somebody else"))
    with pytest.raises(IdentityError, match="does not change"):
        identity.sign(PAYLOAD)
    file.unlink()
    with pytest.raises(IdentityError, match="cannot be read"):
        identity.sign(PAYLOAD)
    file.write_text(token(exp=int(time.time()) + 900))
    assert identity.get_identity() == principal


def test_oidc_arguments() -> None:
    for arguments in ({}, {"token": "x", "token_file": "y"}, {"token": "x", "jwks_url": "http://issuer.test/jwks"}):
        with pytest.raises(ConfigurationError):
            OIDCIdentity(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        OIDCIdentity(token="x", jwks_url="http://127.0.0.1.evil.test/jwks")


def test_oidc_verifies_under_the_issuers_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    jwt = pytest.importorskip("jwt")
    pytest.importorskip("cryptography")
    issuer = StaticIdentity("issuer", key=SEED)
    header = {"alg": "EdDSA", "typ": "JWT", "kid": "issuer"}
    unsigned = token(header=header).rpartition(".")[0]
    good = f"{unsigned}.{_kestcore.b64url_encode(issuer.sign_message(unsigned.encode()))}"
    document: Any = {"keys": [issuer.public_jwk()]}

    def fetch(client: Any) -> Any:
        if document is None:
            raise jwt.PyJWKClientConnectionError("no route")
        return document

    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", fetch)
    url = "https://issuer.example.test/jwks"
    identity = OIDCIdentity(token=good, jwks_url=url)
    assert identity.blocking
    assert identity.labels()["kest.oidc.verified"] == "true"
    assert sign_payload(identity, PAYLOAD)
    with pytest.raises(IdentityError, match="does not verify"):
        OIDCIdentity(token=token(header=header), jwks_url=url).sign(PAYLOAD)
    document = None
    with pytest.raises(IdentityError, match="did not answer"):
        OIDCIdentity(token=good, jwks_url=url).sign(PAYLOAD)


# -- AWS --------------------------------------------------------------------------------------------------------------

ROLE_SESSION = "arn:aws:sts::123456789012:assumed-role/app/i-0abc"
ROLE = "arn:aws:iam::123456789012:role/app"


def test_arns_are_normalised() -> None:
    assert normalise_arn(ROLE_SESSION) == ROLE
    assert normalise_arn("arn:aws-cn:sts::123456789012:assumed-role/a.b/s@x") == "arn:aws-cn:iam::123456789012:role/a.b"
    for same in ("arn:aws:iam::123456789012:user/p/u", "arn:aws:iam::123456789012:root", "x"):
        assert normalise_arn(same) == same
    assert normalise_arn("arn:aws:sts::123456789012:federated-user/u").endswith("federated-user/u")


class FakeAWS:
    """A session whose KMS does real cryptography, and checks its requests as KMS does."""

    def __init__(self, spec: str) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        self.key: Any = {
            "ECC_NIST_P256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ECC_NIST_P384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "RSA_2048": lambda: rsa.generate_private_key(65537, 2048),
            "ECC_NIST_EDWARDS25519": ed25519.Ed25519PrivateKey.generate,
        }[spec]()
        self.spec, self.usage, self.requests = spec, "SIGN_VERIFY", []
        self.failure: Exception | None = None
        self.signature: Any = None

    def client(self, service: str, **options: Any) -> FakeAWS:
        return self

    def get_caller_identity(self) -> dict[str, Any]:
        return {"Arn": ROLE_SESSION, "Account": "123456789012"}

    def get_public_key(self, KeyId: str) -> dict[str, Any]:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        algorithms = {"E": ["ECDSA_SHA_256"], "R": ["RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_256"]}[self.spec[0]]
        if "EDWARDS" in self.spec:
            algorithms = ["ED25519_SHA_512"]
        der = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "KeyId": "arn:key", "KeySpec": self.spec, "KeyUsage": self.usage,
            "PublicKey": der, "SigningAlgorithms": algorithms,
        }  # fmt: skip

    def sign(self, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> dict[str, Any]:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

        assert KeyId == "arn:key"
        assert len(Message) <= 4096
        self.requests.append(MessageType)
        if self.failure:
            raise self.failure
        digest: Any = utils.Prehashed(hashes.SHA256()) if MessageType == "DIGEST" else hashes.SHA256()
        if SigningAlgorithm == "ECDSA_SHA_256":
            signature = self.key.sign(Message, ec.ECDSA(digest))
        elif SigningAlgorithm == "RSASSA_PKCS1_V1_5_SHA_256":
            signature = self.key.sign(Message, padding.PKCS1v15(), digest)
        else:
            signature = self.key.sign(Message)
        return {"Signature": self.signature or signature, "SigningAlgorithm": SigningAlgorithm, "KeyId": KeyId}


@pytest.fixture
def _aws() -> None:
    pytest.importorskip("boto3")
    pytest.importorskip("cryptography")


@pytest.mark.usefixtures("_aws")
@pytest.mark.parametrize(
    ("spec", "alg"), [("ECC_NIST_P256", "ES256"), ("RSA_2048", "RS256"), ("ECC_NIST_EDWARDS25519", "EdDSA")]
)
async def test_aws_signs_with_kms(spec: str, alg: str) -> None:
    session = FakeAWS(spec)
    identity = AWSWorkloadIdentity("alias/kest", session=session)
    assert identity.get_identity() == ROLE
    assert identity.labels() == {"kest.aws.arn": ROLE_SESSION}
    for _ in range(20):  # r and s of every length
        jws = sign_payload(identity, PAYLOAD)
        assert parts(jws)[0] == {"alg": alg, "kid": ROLE, "typ": "JWS"}
        assert verifies(jws, identity.public_jwk())
    assert await async_sign_payload(identity, PAYLOAD)
    large = b"x" * 5000
    if alg == "EdDSA":
        with pytest.raises(IdentityError, match="4096"):
            identity.sign(large)
    else:
        assert verifies(identity.sign(large), identity.public_jwk())
        assert session.requests[-1] == "DIGEST"


@pytest.mark.usefixtures("_aws")
def test_aws_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    monkeypatch.delenv("KEST_KMS_KEY_ID", raising=False)
    session = FakeAWS("ECC_NIST_P256")
    keyless = AWSWorkloadIdentity(session=session)
    assert keyless.get_identity() == ROLE
    with pytest.raises(ConfigurationError, match="KEST_KMS_KEY_ID"):
        keyless.sign(PAYLOAD)
    monkeypatch.setenv("KEST_KMS_KEY_ID", "key")
    assert keyless.sign(PAYLOAD)
    with pytest.raises(ConfigurationError, match="ECC_NIST_P256"):
        AWSWorkloadIdentity("k", session=FakeAWS("ECC_NIST_P384")).sign(PAYLOAD)
    session.usage = "ENCRYPT_DECRYPT"
    with pytest.raises(ConfigurationError, match="SIGN_VERIFY"):
        AWSWorkloadIdentity("k", session=session).sign(PAYLOAD)
    session.usage = "SIGN_VERIFY"
    identity = AWSWorkloadIdentity("k", session=session)
    session.failure = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "secret text"}}, "Sign")
    with pytest.raises(IdentityError, match="kms:Sign") as caught:
        sign_payload(identity, PAYLOAD)
    assert "secret text" not in str(caught.value)
    session.failure = TimeoutError("secret text")
    with pytest.raises(IdentityError, match="TimeoutError"):
        sign_payload(identity, PAYLOAD)
    session.failure = None
    for stub in (b"pending", "pending", 7, b"x" * 71):
        session.signature = stub
        with pytest.raises(IdentityError):
            sign_payload(identity, PAYLOAD)


def test_aws_against_moto(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not "moto" alone: the folder tools/services/moto would pass for it.
    pytest.importorskip("moto.core", reason="moto (the AWS simulator) is not installed")
    import moto

    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with moto.mock_aws():
        kms = boto3.client("kms")
        for spec, alg in (("ECC_NIST_P256", "ES256"), ("RSA_2048", "RS256")):
            key = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
            identity = AWSWorkloadIdentity(key)
            jws = sign_payload(identity, PAYLOAD)
            assert parts(jws)[0]["alg"] == alg
            assert verifies(jws, identity.public_jwk())
            assert identity.get_identity().startswith("arn:aws:")
            identity.close()
            assert sign_payload(identity, PAYLOAD)
        monkeypatch.setenv("KEST_KMS_KEY_ID", key)
        monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
        assert isinstance(get_default_identity(), AWSWorkloadIdentity)
        bedrock = BedrockAgentIdentity("ABCDEFGHIJ", "TSTALIASID")
        assert bedrock.get_identity() == "arn:aws:bedrock:eu-central-1:123456789012:agent-alias/ABCDEFGHIJ/TSTALIASID"
        assert verifies(sign_payload(bedrock, PAYLOAD), bedrock.public_jwk())
        monkeypatch.setenv("KEST_KMS_KEY_ID", "no-such-key")
        with pytest.raises(KestError):
            get_default_identity()


def test_bedrock_composes_a_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEDROCK_AGENT_ID", "ABCDEFGHIJ")
    monkeypatch.setenv("BEDROCK_AGENT_ALIAS_ID", "0123456789")
    key = StaticIdentity(PRINCIPAL, key=SEED)
    identity = BedrockAgentIdentity(signer=key, account="123456789012", region="us-east-1")
    principal = "arn:aws:bedrock:us-east-1:123456789012:agent-alias/ABCDEFGHIJ/0123456789"
    jws = sign_payload(identity, PAYLOAD)
    assert parts(jws)[0] == {"alg": "EdDSA", "kid": principal, "typ": "JWS"}
    assert verifies(jws, identity.public_jwk())
    assert identity.labels()["kest.bedrock.signer"] == PRINCIPAL
    with pytest.raises(ConfigurationError, match="account"):
        BedrockAgentIdentity(signer=key).get_identity()
    for bad in ("short", "ABCDEFGHI/", ""):
        with pytest.raises(ConfigurationError):
            BedrockAgentIdentity(bad, "ABCDEFGHIJ")
    monkeypatch.delenv("BEDROCK_AGENT_ID")
    with pytest.raises(ConfigurationError, match="BEDROCK_AGENT_ID"):
        BedrockAgentIdentity()


# -- SPIRE ------------------------------------------------------------------------------------------------------------


class WorkloadAPI:
    """A Workload API on a real socket, with a certificate authority behind it."""

    def __init__(self, path: Path) -> None:
        import grpc
        from spiffe._proto import workload_pb2, workload_pb2_grpc

        self.messages = workload_pb2
        self.changed = threading.Condition()
        self.response: Any = None
        self.generation = 0
        self.ca_key, self.ca = self._authority()
        api = self

        class Servicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):  # type: ignore[misc]
            def FetchX509SVID(self, request: Any, context: Any) -> Iterator[Any]:
                sent = 0
                while context.is_active():
                    with api.changed:
                        api.changed.wait_for(lambda: api.generation > sent, timeout=0.2)
                        if api.generation == sent:
                            continue
                        sent, response = api.generation, api.response
                    yield response

        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(Servicer(), self.server)
        assert self.server.add_insecure_port(f"unix:{path}")
        self.server.start()

    @staticmethod
    def _name(text: str) -> Any:
        from cryptography import x509

        return x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, text)])

    def _authority(self) -> tuple[Any, Any]:
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        return key, self._certificate(key.public_key(), key, "CA", "spiffe://example.test", True, 3600)

    def _certificate(self, public: Any, signer: Any, name: str, uri: str, ca: bool, seconds: float) -> Any:
        import datetime

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.timezone.utc)
        usage = dict.fromkeys(
            (
                "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
            ),
            False,
        )  # fmt: skip
        usage["key_cert_sign" if ca else "digital_signature"] = True
        return (
            x509.CertificateBuilder()
            .subject_name(self._name(name))
            .issuer_name(self._name("CA"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.KeyUsage(**usage), True)
            .sign(signer, hashes.SHA256())
        )

    def publish(self, *ids: str, seconds: float = 600, key: Any = None) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        svids = []
        for spiffe_id in ids:
            own = key or ec.generate_private_key(ec.SECP256R1())
            leaf = self._certificate(own.public_key(), self.ca_key, "workload", spiffe_id, False, seconds)
            svids.append(
                self.messages.X509SVID(
                    spiffe_id=spiffe_id,
                    x509_svid=leaf.public_bytes(Encoding.DER),
                    x509_svid_key=own.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                    bundle=self.ca.public_bytes(Encoding.DER),
                )
            )
        with self.changed:
            self.response = self.messages.X509SVIDResponse(svids=svids)
            self.generation += 1
            self.changed.notify_all()

    def stop(self) -> None:
        self.server.stop(0).wait()


@pytest.fixture
def workload_api(tmp_path: Path) -> Iterator[tuple[WorkloadAPI, Path]]:
    pytest.importorskip("spiffe", reason="the SPIFFE client (kest[spiffe]) is not installed")
    socket = tmp_path / "agent.sock"
    api = WorkloadAPI(socket)
    yield api, socket
    api.stop()


def leaf_key(jws: str) -> Any:
    from cryptography import x509

    return x509.load_der_x509_certificate(base64.b64decode(parts(jws)[0]["x5c"][0])).public_key()


def test_spire_signs_with_the_svid(workload_api: tuple[WorkloadAPI, Path]) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    api, socket = workload_api
    api.publish("spiffe://example.test/app")
    identity = SPIREProvider(str(socket))  # a bare path, as the documents write it
    assert identity.blocking
    assert repr(identity) == "SPIREProvider('not connected')"
    jws = sign_payload(identity, PAYLOAD)
    assert not identity.blocking
    header, _, signature = parts(jws)
    assert (header["alg"], header["kid"], header["typ"]) == ("ES256", "spiffe://example.test/app", "JWS")
    assert header["x5c"] == identity.x5c
    assert len(signature) == 64
    der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    leaf_key(jws).verify(der, jws.rpartition(".")[0].encode(), ec.ECDSA(hashes.SHA256()))
    assert verifies(jws, identity.public_jwk())
    assert repr(identity) == "SPIREProvider('spiffe://example.test/app')"
    identity.close()
    assert identity.blocking
    assert sign_payload(identity, PAYLOAD)  # opens again
    identity.close()


async def test_spire_rotation_loses_no_signature(workload_api: tuple[WorkloadAPI, Path]) -> None:
    api, socket = workload_api
    api.publish("spiffe://example.test/app")
    identity = SPIREProvider(f"unix://{socket}")
    assert await async_sign_payload(identity, PAYLOAD)
    done = threading.Event()

    def rotate() -> None:
        while not done.is_set():
            api.publish("spiffe://example.test/app")
            time.sleep(0.005)

    rotating = threading.Thread(target=rotate)
    rotating.start()
    keys = set()
    try:
        for _ in range(1000):
            jws = checked_jws(object(), "spiffe://example.test/app", PAYLOAD, identity.sign(PAYLOAD))
            # The chain that an entry carries always belongs to the key that signed it.
            numbers = leaf_key(jws).public_numbers()
            jwk = {"kty": "EC", "crv": "P-256"}
            jwk["x"] = _kestcore.b64url_encode(numbers.x.to_bytes(32, "big"))
            jwk["y"] = _kestcore.b64url_encode(numbers.y.to_bytes(32, "big"))
            assert verifies(jws, jwk)
            keys.add(jwk["x"])
    finally:
        done.set()
        rotating.join()
        identity.close()
    assert len(keys) > 3


def test_spire_first_check_survives_a_rotation(workload_api: tuple[WorkloadAPI, Path]) -> None:
    api, socket = workload_api
    api.publish("spiffe://example.test/app")
    identity = SPIREProvider(socket)
    jws = identity.sign(PAYLOAD)
    before = identity.public_jwk()
    api.publish("spiffe://example.test/app")
    deadline = time.monotonic() + 5
    while identity.public_jwk() == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert checked_jws(identity, "spiffe://example.test/app", PAYLOAD, jws) == jws
    identity.close()


def test_spire_chooses_and_refuses_svids(workload_api: tuple[WorkloadAPI, Path]) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    api, socket = workload_api
    api.publish("spiffe://example.test/a", "spiffe://example.test/b")
    for wanted, got in ((None, "a"), ("spiffe://example.test/b", "b")):
        identity = SPIREProvider(socket, spiffe_id=wanted)
        assert identity.get_identity() == f"spiffe://example.test/{got}"
        identity.close()
    with pytest.raises(IdentityError, match="no SVID for spiffe://"):
        SPIREProvider(socket, spiffe_id="spiffe://example.test/c").get_identity()
    api.publish("spiffe://example.test/a", key=rsa.generate_private_key(65537, 2048))
    identity = SPIREProvider(socket)
    jws = sign_payload(identity, PAYLOAD)
    assert parts(jws)[0]["alg"] == "RS256"
    identity.close()
    api.publish("spiffe://example.test/a", key=ec.generate_private_key(ec.SECP384R1()))
    identity = SPIREProvider(socket)
    with pytest.raises(IdentityError, match="ec-p256"):
        identity.sign(PAYLOAD)
    identity.close()
    api.publish("spiffe://example.test/a", seconds=-5)
    identity = SPIREProvider(socket)
    with pytest.raises(IdentityError, match="expired"):
        identity.sign(PAYLOAD)
    identity.close()


def test_spire_unreachable_is_an_error_that_says_what_to_do(
    workload_api: tuple[WorkloadAPI, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, socket = workload_api
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    with pytest.raises(ConfigurationError, match="SPIFFE_ENDPOINT_SOCKET"):
        SPIREProvider().get_identity()
    identity = SPIREProvider(tmp_path / "none.sock")
    with pytest.raises(IdentityError, match="does not exist"):
        identity.get_identity()
    silent = SPIREProvider(socket, timeout=1.0)  # the agent is up, and has no SVID for us
    with pytest.raises(IdentityError, match=r"within 1 s"):
        silent.get_identity()
    started = time.monotonic()
    with pytest.raises(IdentityError):  # at once: callers do not queue up behind a dead agent
        silent.get_identity()
    assert time.monotonic() - started < 0.8
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", str(tmp_path / "none.sock"))
    with pytest.raises(IdentityError):  # never a silent fallback
        get_default_identity()
    api.publish("spiffe://example.test/app")
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{socket}")
    found = get_default_identity()
    assert isinstance(found, SPIREProvider)
    assert found.get_identity() == "spiffe://example.test/app"
    found.close()


# -- detection --------------------------------------------------------------------------------------------------------

VARIABLES = ("SPIFFE_ENDPOINT_SOCKET", "KEST_KMS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(detect, "_local", None)
    return monkeypatch


def test_default_is_local_with_one_warning(
    bare_environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "kest"):
        first, second = get_default_identity(), get_default_identity()
    assert first is second
    assert isinstance(first, LocalEd25519Provider)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "SPIFFE_ENDPOINT_SOCKET" in warnings[0].getMessage()
    assert warnings[0].name.startswith("kest")


def test_the_first_ephemeral_key_of_a_process_says_so(run_python: Any) -> None:
    script = (
        "import logging, sys; logging.basicConfig(format='%(name)s %(message)s', stream=sys.stdout)\n"
        "from kest.core import LocalEd25519Provider, MockIdentityProvider, StaticIdentity, get_default_identity\n"
        "MockIdentityProvider(); StaticIdentity('a'); LocalEd25519Provider('chosen', b's' * 32); print('--')\n"
        "LocalEd25519Provider('first'); LocalEd25519Provider('second'); print('--')\n"
        "get_default_identity(); get_default_identity()"
    )
    chosen, ephemeral, default = run_python(script).stdout.split("--\n")
    assert chosen == ""
    assert ephemeral.startswith("kest.identity LocalEd25519Provider: an ephemeral Ed25519 key signs as first.")
    assert default.startswith("kest.identity no workload identity is configured: an ephemeral Ed25519 key")
    assert [text.count("\n") for text in (ephemeral, default)] == [1, 1]


def test_explanation_follows_the_documented_order(bare_environment: pytest.MonkeyPatch) -> None:
    def chosen() -> str:
        sources = explain_default_identity()
        assert [source.source for source in sources] == ["spire", "aws", "local"]
        assert all(source.reason for source in sources)
        (only,) = [source.source for source in sources if source.chosen]
        return only

    assert chosen() == "local"
    bare_environment.setenv("AWS_ROLE_ARN", ROLE)
    assert chosen() == "local"
    bare_environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/x")
    assert chosen() == "aws"
    with pytest.raises(ConfigurationError, match="KEST_KMS_KEY_ID"):
        get_default_identity()
    bare_environment.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///x")
    assert chosen() == "spire"
    with pytest.raises(KestError):
        get_default_identity()
    bare_environment.delenv("SPIFFE_ENDPOINT_SOCKET")
    bare_environment.setenv("KEST_KMS_KEY_ID", "k")
    assert chosen() == "aws"


def test_importing_identities_loads_no_optional_stack() -> None:
    script = (
        "import sys, kest.core.identity as i; [getattr(i, name) for name in i.__all__]; "
        "bad = {'boto3', 'botocore', 'spiffe', 'grpc', 'jwt', 'cryptography', 'httpx'} & set(sys.modules); "
        "sys.exit(str(bad) if bad - {'httpx'} else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_threads_share_an_identity() -> None:
    identity = LocalEd25519Provider()
    with futures.ThreadPoolExecutor(8) as pool:
        signed = list(pool.map(lambda n: sign_payload(identity, b"%d" % n), range(400)))
    assert all(verifies(jws, identity.public_jwk()) for jws in signed)
