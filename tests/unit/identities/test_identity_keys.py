"""Keys of identities: every form, files, and what is refused without being quoted (D4)."""

from __future__ import annotations

import json
import os
import stat
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from identity_samples import PRINCIPAL, SEED

from kest import _kestcore
from kest.core.identity import LocalEd25519Provider, StaticIdentity, public_jwk, read_private_key, write_private_key
from kest.core.identity.keys import KeyFileExistsError, KeyFileMissingError, parse_private_key, private_key_pem
from kest.errors import ConfigurationError, KestError, KeyFormatError

SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"


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
