"""Key pairs in files: encrypted, checked, private.

The file is ``KVSK``, a version byte, the CBOR of its header, and the sealed secrets. The key comes from the passphrase by
Argon2id (64 MiB, 3 passes: RFC 9106's second recommendation but for the lanes, of which libsodium has one);
XChaCha20-Poly1305 authenticates the header with the public keys as well as the secrets, and a SHA-256 over everything
tells damage from a wrong passphrase.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from kest._kestcore import sha256, vault_open, vault_seal
from kest.errors import KestError, KeyFileError, KeyFormatError
from kest.gate.crypto import cbor
from kest.gate.crypto.keys import KeyPair, SecretKeys
from kest.gate.crypto.private_file import read_bounded, write_atomic

__all__ = ["MEMORY", "MIN_PASSPHRASE", "PASSES", "load", "open_sealed", "save", "seal"]

MAGIC = b"KVSK\x02"
PASSES, MEMORY = 3, 64 * 1024 * 1024
MAX_MEMORY, MAX_PASSES = 1 << 30, 64
MIN_PASSPHRASE = 8
MAX_FILE = 32_768

_PUBLIC = ("ed25519_verifying_key", "x25519_public_key", "ml_dsa_verifying_key", "ml_kem_encapsulation_key")
_LENGTHS = (32, 32, 32, 64)


def _passphrase(given: str | bytes) -> bytes:
    if not isinstance(given, (str, bytes)):
        raise TypeError(f"a passphrase is str or bytes, not {type(given).__name__}")
    return given.encode() if isinstance(given, str) else given


def seal(keypair: KeyPair, passphrase: str | bytes, *, passes: int = PASSES, memory: int = MEMORY) -> bytes:
    """The content of a key file.

    Raises:
        KeyFileError: the passphrase is shorter than 8 bytes.
    """
    secret = _passphrase(passphrase)
    if len(secret) < MIN_PASSPHRASE:
        raise KeyFileError(f"a passphrase has at least {MIN_PASSPHRASE} bytes")
    public, salt, nonce = keypair.public_keys(), os.urandom(16), os.urandom(24)
    header = cbor.encode(
        {
            "id": keypair.id,
            "created_at": keypair.created_at,
            "expires_at": keypair.expires_at,
            "public": {name: getattr(public, name) for name in _PUBLIC},
            "kdf": ["argon2id", passes, memory, salt],
            "nonce": nonce,
        }
    )
    ahead = MAGIC + cbor.head(0x40, len(header)) + header
    sealed = vault_seal(secret, salt, passes, memory, nonce, b"".join(keypair.secrets()), ahead)
    whole = ahead + cbor.head(0x40, len(sealed)) + sealed
    return whole + sha256(whole)


def _header(data: bytes) -> tuple[dict[Any, Any], bytes, bytes]:
    """Header, what is authenticated with the secrets, and the sealed secrets."""
    if data[:4] != MAGIC[:4]:
        raise KeyFileError("not a key file of Kest")
    if data[4:5] != MAGIC[4:]:
        raise KeyFileError("a key file of a format that this version does not know")
    whole, checksum = data[:-32], data[-32:]
    if len(data) < 64 or sha256(whole) != checksum:
        raise KeyFileError("the key file is damaged: its checksum does not match")
    try:
        header_bytes, sealed = cbor.decode(b"\x82" + whole[5:])
        header = cbor.decode(header_bytes)
    except (ValueError, TypeError):
        raise KeyFileError("the key file is malformed") from None
    names = {"id", "created_at", "expires_at", "public", "kdf", "nonce"}
    if type(header) is not dict or set(header) != names or type(sealed) is not bytes:
        raise KeyFileError("the key file is malformed")
    return header, whole[: len(whole) - len(sealed) - len(cbor.head(0x40, len(sealed)))], sealed


def open_sealed(data: bytes, passphrase: str | bytes) -> KeyPair:
    """The key pair in the content of a key file.

    Raises:
        KeyFileError: it is damaged, or of another passphrase.
    """
    header, ahead, sealed = _header(data)
    kdf, nonce, public = header["kdf"], header["nonce"], header["public"]
    if type(kdf) is not list or len(kdf) != 4 or kdf[0] != "argon2id" or type(nonce) is not bytes or len(nonce) != 24:
        raise KeyFileError("the key file is malformed")
    _, passes, memory, salt = kdf
    if type(passes) is not int or type(memory) is not int or type(salt) is not bytes or len(salt) != 16:
        raise KeyFileError("the key file is malformed")
    if not (0 < passes <= MAX_PASSES and 8192 <= memory <= MAX_MEMORY):
        raise KeyFileError("the key file asks for more work than a key file may")
    opened = vault_open(_passphrase(passphrase), salt, passes, memory, nonce, sealed, ahead)
    if opened is None or len(opened) != sum(_LENGTHS):
        raise KeyFileError("the passphrase is wrong, or the key file was altered")
    parts, at = [], 0
    for length in _LENGTHS:
        parts.append(opened[at : at + length])
        at += length
    try:
        pair = KeyPair(header["id"], SecretKeys(*parts), header["created_at"], header["expires_at"])
    except (KeyFormatError, KestError, TypeError) as error:
        raise KeyFileError(f"the key file is malformed: {error}") from None
    found = pair.public_keys()
    if type(public) is not dict or public != {name: getattr(found, name) for name in _PUBLIC}:
        raise KeyFileError("the public keys in the file do not belong to its secret ones")
    return pair


def save(keypair: KeyPair, path: str | Path, passphrase: str | bytes) -> None:
    """See `KeyPair.save`."""
    data = seal(keypair, passphrase)
    try:
        write_atomic(Path(path), data, 0o600)
    except OSError as error:
        raise KeyFileError(f"key file {str(path)!r} cannot be written: {error.strerror or error}") from None


def load(path: str | Path, passphrase: str | bytes) -> KeyPair:
    """See `KeyPair.load`."""
    place = repr(str(path))
    try:
        data, facts = read_bounded(Path(path), MAX_FILE)
    except OSError as error:
        raise KeyFileError(f"key file {place} cannot be read: {error.strerror or error}") from None
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(
            f"key file {place} is open to other users (mode {stat.S_IMODE(facts.st_mode):04o}): chmod 600 it"
        )
    if facts.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"key file {place} belongs to another user")
    try:
        return open_sealed(data, passphrase)
    except KeyFileError as error:
        raise KeyFileError(f"key file {place}: {error}") from None
