"""Key pairs, their files, public bundles, and directories."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest._kestcore import SecretStream, aead_open, aead_seal, vault_open, vault_seal
from kest.core import LocalEd25519Provider, PassportVerifier, TrustStore
from kest.errors import KeyFormatError, VerificationError
from kest.gate import (
    DirectoryError,
    DirectoryTokenVerifier,
    GateInputError,
    KeyFileError,
    KeyPair,
    PermitError,
    PermitToken,
    PqTokenSigner,
    PublicKeyBundle,
    PublicKeyDirectory,
    SigningError,
)
from kest.gate.crypto import clock, keyfile
from kest.gate.crypto.keys import SecretKeys


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate()


@pytest.fixture(scope="module")
def root() -> KeyPair:
    return KeyPair.generate(id="root-2026")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stops the clock of signed things."""
    return lambda seconds: monkeypatch.setattr(clock, "now", lambda: seconds)


# --- key pairs ---


def test_a_key_pair(pair: KeyPair) -> None:
    uuid.UUID(pair.id)
    bundle = pair.public_keys()
    assert bundle.id == pair.id
    lengths = [
        len(getattr(bundle, name))
        for name in ("ml_dsa_verifying_key", "ml_kem_encapsulation_key", "ed25519_verifying_key", "x25519_public_key")
    ]
    assert lengths == [1952, 1184, 32, 32]
    assert abs(pair.created_at - time.time()) < 60
    assert (pair.expires_at, pair.is_expired) == (None, False)
    assert repr(pair) == f"KeyPair(id={pair.id}, expired=false)"
    assert KeyPair.generate().public_keys() != bundle


def test_expiry(at: Callable[[float], None]) -> None:
    at(10_000)
    assert KeyPair.generate_with_expiry(3600).expires_at == 13_600
    assert KeyPair.generate_with_expiry(-1).is_expired
    short = KeyPair.generate_with_expiry(0)
    assert not short.is_expired
    at(10_001)
    assert short.is_expired
    for bad in (2**63, -(2**63), 10**20):
        with pytest.raises(GateInputError):
            KeyPair.generate_with_expiry(bad)
    for wrong in (1.5, True, "60", None):
        with pytest.raises(TypeError):
            KeyPair.generate_with_expiry(wrong)  # type: ignore[arg-type]
    with pytest.raises(SigningError, match="expired"):
        short.build_signed_manifest([])


def test_wrong_seeds_are_refused(pair: KeyPair) -> None:
    good = pair.secrets()
    for name in SecretKeys._fields:
        with pytest.raises(KeyFormatError):
            KeyPair("x", good._replace(**{name: b"x" * 31}), 0)
    with pytest.raises(KeyFormatError):
        KeyPair("x", good, 2**60)


def test_bundles_travel(pair: KeyPair) -> None:
    bundle = pair.public_keys()
    assert PublicKeyBundle.from_json(bundle.to_json()) == bundle
    assert PublicKeyBundle.from_bytes(bundle.to_bytes()) == bundle
    assert len(bundle.to_json()) < 5_000
    assert "bytes" in repr(bundle)
    assert json.loads(bundle.to_json())["id"] == pair.id
    for data, message in (
        (b"KP", "too short for header"),
        (b"XPUB\x01{}", "magic mismatch"),
        (b"KPUB\x09{}", "unsupported format version"),
        (b"KPUB\x01{}", "exactly"),
        (b"KPUB\x01\xff", "UTF-8"),
        (b"KPUB\x01" + b"x" * 20_000, "longer"),
    ):
        with pytest.raises(KeyFormatError, match=message):
            PublicKeyBundle.from_bytes(data)
    with pytest.raises(TypeError):
        PublicKeyBundle.from_json(b"{}")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"id": ""},
        {"id": 5},
        {"ml_dsa_verifying_key": "AAAA"},
        {"ed25519_verifying_key": "A" * 43},
        {"x25519_public_key": None},
        {"created_at": 1.5},
        {"created_at": True},
        {"expires_at": "soon"},
        {"expires_at": 10**15},
        {"ml_kem_encapsulation_key": "+" * 1579},
    ],
)
def test_bundles_are_checked(change: dict[str, Any], pair: KeyPair) -> None:
    members = {**pair.public_keys().to_dict(), **change}
    with pytest.raises(KeyFormatError):
        PublicKeyBundle.from_dict(members)
    for name in change.keys() & pair.public_keys().to_dict().keys():
        with pytest.raises(KeyFormatError, match="exactly"):
            PublicKeyBundle.from_dict({key: value for key, value in members.items() if key != name})


# --- files ---

CHEAP = {"passes": 1, "memory": 8192}


def test_a_key_file_is_private_and_whole(tmp_path: Path, pair: KeyPair) -> None:
    path = tmp_path / "gate.key"
    path.write_text("something older")
    path.chmod(0o644)
    pair.save(path, "correct horse battery")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["gate.key"]
    loaded = KeyPair.load(path, "correct horse battery")
    assert loaded.public_keys() == pair.public_keys()
    assert loaded.secrets() == pair.secrets()
    data = path.read_bytes()
    assert len(data) < 5_000
    assert not any(secret in data for secret in pair.secrets())
    token = PermitToken(str(uuid.uuid4()), str(uuid.uuid4()), int(time.time()), int(time.time()) + 30, "x")
    signed = PqTokenSigner.from_keypair_hybrid(loaded).sign(token)
    assert PqTokenSigner.from_keypair_hybrid(pair).verify(token, signed)


def test_a_key_file_that_is_not_right_is_refused(tmp_path: Path, pair: KeyPair) -> None:
    path = tmp_path / "gate.key"
    path.write_bytes(keyfile.seal(pair, "a passphrase", **CHEAP))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        KeyPair.load(path, "another passphrase")
    for mode in (0o604, 0o640, 0o620, 0o602, 0o601, 0o610):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match="open to other users"):
            KeyPair.load(path, "a passphrase")
    path.chmod(0o600)
    assert KeyPair.load(path, b"a passphrase").id == pair.id
    with pytest.raises(KeyFileError, match="cannot be read"):
        KeyPair.load(tmp_path / "none", "a passphrase")
    with pytest.raises(KeyFileError, match="cannot be read"):
        KeyPair.load(tmp_path, "a passphrase")
    with pytest.raises(KeyFileError, match="cannot be written"):
        pair.save(tmp_path / "no" / "such" / "folder", "a passphrase")
    with pytest.raises(KeyFileError, match="at least 8"):
        pair.save(path, "short")
    (tmp_path / "large").write_bytes(b"x" * 40_000)
    with pytest.raises(KeyFileError, match="larger"):
        KeyPair.load(tmp_path / "large", "a passphrase")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gate.key"
    path.write_bytes(b"old")

    def full(*unused: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KeyFileError, match="No space left"):
        pair.save(path, "a passphrase")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["gate.key"]


def test_public_halves_must_belong_to_the_secret_ones(pair: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    other = KeyPair.generate().public_keys()
    fields = {name: getattr(other, name) for name in keyfile._PUBLIC}
    wrong = PublicKeyBundle(pair.id, created_at=pair.created_at, **fields)
    monkeypatch.setattr(KeyPair, "public_keys", lambda self: wrong)
    data = keyfile.seal(pair, "a passphrase", **CHEAP)
    monkeypatch.undo()
    with pytest.raises(KeyFileError, match="do not belong"):
        keyfile.open_sealed(data, "a passphrase")


KEY_FILE: list[bytes] = []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flip_in_a_key_file_is_refused(data: st.DataObject) -> None:
    if not KEY_FILE:
        KEY_FILE.append(keyfile.seal(KeyPair.generate(), "a passphrase", **CHEAP))
    good = KEY_FILE[0]
    place, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    bad = good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :]
    if data.draw(st.booleans()):  # a forger mends the checksum, which is no secret
        bad = bad[:-32] + keyfile.sha256(bad[:-32])
        if bad == good:
            return
    with pytest.raises(KeyFileError):
        keyfile.open_sealed(bad, "a passphrase")


@settings(max_examples=50, deadline=None)
@given(junk=st.binary(max_size=300))
def test_junk_is_no_key_file(junk: bytes) -> None:
    for data in (junk, b"KVSK\x02" + junk, (whole := b"KVSK\x02" + junk) + keyfile.sha256(whole)):
        with pytest.raises(KeyFileError):
            keyfile.open_sealed(data, "a passphrase")


def test_a_key_file_cannot_ask_for_the_moon(pair: KeyPair) -> None:
    """The work that a file asks for is bounded before it is done."""
    from kest.gate.crypto import cbor

    data = keyfile.seal(pair, "a passphrase", **CHEAP)
    header_bytes, sealed = cbor.decode(b"\x82" + data[5:-32])
    for kdf in ([1, 1 << 40], [1 << 40, 8192], [0, 8192], [1, 0], [-1, 8192], ["1", 8192]):
        header = cbor.decode(header_bytes)
        header["kdf"][1:3] = kdf
        encoded = cbor.encode(header)
        whole = b"KVSK\x02" + cbor.encode(encoded) + cbor.encode(sealed)
        start = time.perf_counter()
        with pytest.raises(KeyFileError):
            keyfile.open_sealed(whole + keyfile.sha256(whole), "a passphrase")
        assert time.perf_counter() - start < 5


# --- the C functions beneath ---


def test_aead_and_vault() -> None:
    key, nonce, salt = b"k" * 32, b"n" * 24, b"s" * 16
    for size in (0, 1, 16, 1000, 20_000):
        message = os.urandom(size)
        sealed = aead_seal(key, nonce, message, b"ad")
        assert len(sealed) == size + 16
        assert aead_open(key, nonce, sealed, b"ad") == message
        assert aead_open(key, nonce, sealed, b"AD") is None
        assert aead_open(key, nonce, sealed[:-1], b"ad") is None
    assert aead_open(key, nonce, b"x" * 15, b"") is None
    sealed = vault_seal(b"pass", salt, 1, 8192, nonce, b"secret", b"ad")
    assert vault_open(b"pass", salt, 1, 8192, nonce, sealed, b"ad") == b"secret"
    for other in (
        (b"Pass", salt, 1, 8192, nonce, sealed, b"ad"),
        (b"pass", salt, 2, 8192, nonce, sealed, b"ad"),
        (b"pass", b"S" * 16, 1, 8192, nonce, sealed, b"ad"),
    ):
        assert vault_open(*other) is None
    for wrong in ((b"k", nonce, b"", b""), (key, b"n", b"", b"")):
        with pytest.raises(ValueError):
            aead_seal(*wrong)
        with pytest.raises(ValueError):
            aead_open(wrong[0], wrong[1], b"x" * 20, b"")
    for passes, memory in ((0, 8192), (65, 8192), (1, 100), (1, 1 << 31)):
        with pytest.raises(ValueError):
            vault_seal(b"p", salt, passes, memory, nonce, b"", b"")
    with pytest.raises(TypeError):
        aead_seal(bytearray(key), nonce, b"", b"")  # type: ignore[arg-type]


def test_xchacha_of_the_draft() -> None:
    """draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    message = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen "
        b"would be it."
    )
    key, nonce = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58))
    sealed = aead_seal(key, nonce, message, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"))
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


def test_streams_go_one_way_in_order_and_once() -> None:
    sender = SecretStream(b"k" * 32)
    receiver = SecretStream(b"k" * 32, sender.header)
    frames = [sender.push(b"m%d" % i, b"ad") for i in range(3)]
    assert receiver.pull(frames[1], b"ad") is None
    assert receiver.pull(frames[0], b"ad") == (b"m0", False)
    assert receiver.pull(frames[0], b"ad") is None
    assert receiver.pull(frames[1], b"other") is None
    assert receiver.pull(frames[1], b"ad") == (b"m1", False)
    large = os.urandom(100_000)
    assert receiver.pull(frames[2], b"ad") == (b"m2", False)
    assert receiver.pull(sender.push(large, b"", True), b"") == (large, True)
    assert receiver.pull(b"short", b"") is None
    with pytest.raises(RuntimeError, match="other way"):
        receiver.push(b"", b"")
    with pytest.raises(RuntimeError, match="other way"):
        sender.pull(b"x" * 20, b"")
    with pytest.raises(ValueError):
        SecretStream(b"k")
    with pytest.raises(ValueError):
        SecretStream(b"k" * 32, b"h")


# --- directories ---


def token() -> PermitToken:
    now = int(time.time())
    return PermitToken(str(uuid.uuid4()), str(uuid.uuid4()), now, now + 30, "x")


def test_in_memory(pair: KeyPair, root: KeyPair) -> None:
    directory = PublicKeyDirectory.in_memory([pair.public_keys()])
    verifier = DirectoryTokenVerifier(directory)
    signed = PqTokenSigner.from_keypair_hybrid(root).sign(token())
    with pytest.raises(PermitError, match="public key not found"):
        verifier.verify(None, signed)
    directory.insert(root.public_keys())
    assert verifier.verify(None, signed)
    assert (directory.length, len(directory), directory.is_empty) == (2, 2, False)
    assert directory.remove(root.id) is True
    assert directory.remove(root.id) is False
    with pytest.raises(PermitError, match="public key not found"):
        verifier.verify(None, signed)
    directory.reload()
    assert repr(directory) == "PublicKeyDirectory(kind=in_memory, length=1)"
    with pytest.raises(DirectoryError, match="public key not found"):
        directory.fetch("nobody")
    with pytest.raises(TypeError):
        directory.insert("bundle")  # type: ignore[arg-type]


def test_an_unsigned_file(tmp_path: Path, pair: KeyPair, root: KeyPair) -> None:
    path = tmp_path / "bundles.json"
    with pytest.raises(DirectoryError, match=r"directory load: unavailable: read"):
        PublicKeyDirectory.from_file(path)
    path.write_bytes(PublicKeyDirectory.build_unsigned_manifest([pair.public_keys()]))
    directory = PublicKeyDirectory.from_file(path)
    assert directory.fetch(pair.id) == pair.public_keys()
    for change in (lambda: directory.insert(root.public_keys()), lambda: directory.remove(pair.id)):
        with pytest.raises(DirectoryError, match="only supported on in-memory"):
            change()
    for bad in (b"", b"{}", b"[1]", b"[{}]", b"nonsense", b"\xff", path.read_bytes()[:-1]):
        path.write_bytes(bad)
        with pytest.raises(DirectoryError, match="directory reload: corrupt"):
            directory.reload()
        assert directory.length == 1
    row = json.loads(PublicKeyDirectory.build_unsigned_manifest([pair.public_keys()]))[0]
    path.write_text(json.dumps([row, row]))
    with pytest.raises(DirectoryError, match="a second time"):
        directory.reload()
    path.write_bytes(PublicKeyDirectory.build_unsigned_manifest([pair.public_keys(), root.public_keys()]))
    directory.reload()
    assert directory.length == 2


def test_a_signed_file(tmp_path: Path, pair: KeyPair, root: KeyPair) -> None:
    path = tmp_path / "directory.json"
    path.write_bytes(root.build_signed_manifest([pair.public_keys()]))
    keys = root.public_keys()
    for options in (
        {"root_ml_dsa_verifying_key": keys.ml_dsa_verifying_key},
        {"root": keys},
        {
            "root_ml_dsa_verifying_key": keys.ml_dsa_verifying_key,
            "root_ed25519_verifying_key": keys.ed25519_verifying_key,
        },
    ):
        directory = PublicKeyDirectory.from_signed_file(path, **options)
        assert directory.fetch(pair.id) == pair.public_keys()
        assert directory.version > 1_700_000_000_000
        assert directory.expires_at is not None
    stranger = pair.public_keys()
    for wrong in (
        {"root_ml_dsa_verifying_key": stranger.ml_dsa_verifying_key},
        {"root": stranger},
        {
            "root_ml_dsa_verifying_key": keys.ml_dsa_verifying_key,
            "root_ed25519_verifying_key": stranger.ed25519_verifying_key,
        },
        {
            "root_ml_dsa_verifying_key": stranger.ml_dsa_verifying_key,
            "root_ed25519_verifying_key": keys.ed25519_verifying_key,
        },
    ):
        with pytest.raises(DirectoryError, match="root signature invalid"):
            PublicKeyDirectory.from_signed_file(path, **wrong)
    with pytest.raises(DirectoryError, match="corrupt: root key"):
        PublicKeyDirectory.from_signed_file(path, b"short")
    with pytest.raises(GateInputError, match="root"):
        PublicKeyDirectory.from_signed_file(path)
    path.write_bytes(PublicKeyDirectory.build_unsigned_manifest([pair.public_keys()]))
    with pytest.raises(DirectoryError, match="not a signed directory"):
        PublicKeyDirectory.from_signed_file(path, root=keys)


def test_no_rollback(tmp_path: Path, pair: KeyPair, root: KeyPair) -> None:
    path = tmp_path / "directory.json"
    one, two = root.build_signed_manifest([pair.public_keys()], version=1), root.build_signed_manifest([], version=2)
    path.write_bytes(one)
    directory = PublicKeyDirectory.from_signed_file(path, root=root.public_keys())
    path.write_bytes(two)
    directory.reload()
    assert directory.is_empty
    path.write_bytes(one)
    with pytest.raises(DirectoryError, match="rollback: version 1 is older"):
        directory.reload()
    assert directory.is_empty, "the last good one stays"
    with pytest.raises(DirectoryError, match="rollback"):  # nor after a restart
        PublicKeyDirectory.from_signed_file(path, root=root.public_keys())
    path.write_bytes(root.build_signed_manifest([pair.public_keys()], version=2))
    with pytest.raises(DirectoryError, match="another directory of version 2"):
        PublicKeyDirectory.from_signed_file(path, root=root.public_keys())
    path.write_bytes(two)
    assert PublicKeyDirectory.from_signed_file(path, root=root.public_keys()).version == 2
    path.write_bytes(pair.build_signed_manifest([], version=1))  # another root's versions are its own
    assert PublicKeyDirectory.from_signed_file(path, root=pair.public_keys()).version == 1


def test_where_the_highest_version_is_remembered(tmp_path: Path, root: KeyPair) -> None:
    path, state = tmp_path / "directory.json", tmp_path / "elsewhere.json"
    path.write_bytes(root.build_signed_manifest([], version=2))
    PublicKeyDirectory.from_signed_file(path, root=root.public_keys(), state_file=state)
    assert state.exists()
    assert not Path(f"{path}.seen").exists()
    path.write_bytes(root.build_signed_manifest([], version=1))
    with pytest.raises(DirectoryError, match="rollback"):
        PublicKeyDirectory.from_signed_file(path, root=root.public_keys(), state_file=state)
    in_memory = PublicKeyDirectory.from_signed_file(path, root=root.public_keys(), state_file=False)
    path.write_bytes(root.build_signed_manifest([], version=3))
    in_memory.reload()
    path.write_bytes(root.build_signed_manifest([], version=2))
    with pytest.raises(DirectoryError, match="rollback"):
        in_memory.reload()
    with pytest.raises(DirectoryError, match="state_file"):
        PublicKeyDirectory.from_signed_file(path, root=root.public_keys(), state_file=tmp_path / "none" / "x")
    for junk in (b"", b"[]", b'{"a":1}', b'{"a":["1",2]}', b"\xff"):
        state.write_bytes(junk)
        with pytest.raises(DirectoryError, match="version seen last"):
            PublicKeyDirectory.from_signed_file(path, root=root.public_keys(), state_file=state)


def test_a_signed_directory_expires(tmp_path: Path, pair: KeyPair, root: KeyPair, at: Callable[[float], None]) -> None:
    path = tmp_path / "directory.json"
    at(1_000_000)
    path.write_bytes(root.build_signed_manifest([pair.public_keys()], version=1, expires_in=60))
    directory = PublicKeyDirectory.from_signed_file(path, root=root.public_keys())
    source = directory.key_source()
    assert len(source.snapshot().grants) == 1
    at(1_000_061)
    with pytest.raises(DirectoryError, match="expired at 1000060"):
        directory.fetch(pair.id)
    assert source.snapshot().grants == ()
    assert "expired" in (source.snapshot().problem or "")
    with pytest.raises(DirectoryError, match=r"directory load: .*expired"):
        PublicKeyDirectory.from_signed_file(path, root=root.public_keys())
    path.write_bytes(root.build_signed_manifest([pair.public_keys()], version=2, expires_in=None))
    directory.reload()
    assert directory.fetch(pair.id)
    for bad in (0, -1, 1.5, "x", 10**12):
        with pytest.raises(GateInputError):
            root.build_signed_manifest([], expires_in=bad)  # type: ignore[arg-type]
    for bad_version in (0, -1, 1.5, 2**53, True):
        with pytest.raises(GateInputError):
            root.build_signed_manifest([], version=bad_version)  # type: ignore[arg-type]


def test_two_keys_under_one_id_are_not_signed(pair: KeyPair, root: KeyPair) -> None:
    impostor = KeyPair.generate(id=pair.id)
    with pytest.raises(GateInputError, match="two bundles with the id"):
        root.build_signed_manifest([pair.public_keys(), impostor.public_keys()])
    with pytest.raises(TypeError):
        root.build_signed_manifest([pair])  # type: ignore[list-item]


MANIFEST: list[Any] = []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flip_in_a_signed_manifest_is_refused(data: st.DataObject) -> None:
    from kest.gate.crypto.manifest import Root, read_signed

    if not MANIFEST:
        signer, one = KeyPair.generate(), KeyPair.generate().public_keys()
        public = signer.public_keys()
        MANIFEST.extend(
            (signer.build_signed_manifest([one]), Root(public.ml_dsa_verifying_key, public.ed25519_verifying_key))
        )
    good, believed = MANIFEST
    assert read_signed(good, believed)
    place, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    with pytest.raises(DirectoryError):
        read_signed(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :], believed)


def test_a_directory_feeds_a_trust_store(tmp_path: Path, root: KeyPair) -> None:
    """Passports are verified with the Ed25519 keys of the same directory that permits are verified with."""
    from kest.core import KestEntry, Passport, sign_entry

    member = KeyPair.generate(id="spiffe://example.org/agent")
    identity = LocalEd25519Provider("spiffe://example.org/agent", seed=member.secrets().ed25519)
    passport = Passport([sign_entry(KestEntry("read"), identity)])
    path = tmp_path / "directory.json"
    path.write_bytes(root.build_signed_manifest([], version=1))
    directory = PublicKeyDirectory.from_signed_file(path, root=root.public_keys())
    store = TrustStore()
    source = directory.key_source(max_trust=100)
    store.add_source(source)
    with pytest.raises(VerificationError, match="no key is known"):
        PassportVerifier.verify(passport, store)
    assert source.snapshot() is source.snapshot()
    path.write_bytes(root.build_signed_manifest([member.public_keys()], version=2))
    directory.reload()
    assert PassportVerifier.verify(passport, store)
    path.write_bytes(root.build_signed_manifest([], version=3))
    source._looked = 0.0
    source.refresh_soon()
    with pytest.raises(VerificationError, match="no key is known"):
        PassportVerifier.verify(passport, store)


def test_the_extra_is_asked_for(run_python: Any) -> None:
    run_python(
        "import sys; sys.modules['cryptography'] = None\n"
        "import kest.gate\n"
        "from kest.gate import KeyPair, PqTokenSigner\n"
        "from kest.errors import MissingExtraError\n"
        "for make in (KeyPair.generate, PqTokenSigner.generate_hybrid, PqTokenSigner.generate_pq_only):\n"
        "    try: make()\n"
        "    except MissingExtraError as error: assert 'kest[pq]' in str(error), error\n"
        "    else: raise SystemExit('no error')\n"
        "import time, uuid\n"
        "signer = PqTokenSigner.generate_ed25519_only()\n"
        "now = int(time.time())\n"
        "token = kest.gate.PermitToken(str(uuid.uuid4()), str(uuid.uuid4()), now, now + 30, 'x')\n"
        "assert signer.verify(token, signer.sign(token))\n"
    )


def test_the_gate_loads_nothing_of_it_until_it_is_used(run_python: Any) -> None:
    done = run_python(
        "import sys, kest.gate\n"
        "print([name for name in sys.modules if name.startswith(('kest.gate.crypto', 'cryptography', 'sqlite3'))])"
    )
    assert done.stdout == "[]\n"
