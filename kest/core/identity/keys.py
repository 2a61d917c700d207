"""Ed25519 private keys at rest: reading, writing, and refusing what others could have read.

Forms: 32 raw bytes (the seed of RFC 8032), 64 hexadecimal digits, PEM (PKCS #8, RFC 8410), JWK (RFC 8037). Nothing
here puts key text into a message, nor keeps an exception that holds it.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kest import _kestcore
from kest.errors import ConfigurationError, KestError, KeyFormatError

__all__ = [
    "KeyFileExistsError",
    "KeyFileMissingError",
    "parse_private_key",
    "private_key_pem",
    "public_jwk",
    "read_private_key",
    "write_private_key",
]

# PrivateKeyInfo {version 0, id-Ed25519, OCTET STRING {OCTET STRING (32)}}: RFC 8410, section 7, always 48 bytes.
_PKCS8_PREFIX = bytes.fromhex("302e020100300506032b657004220420")
_MAX_KEY_FILE = 16 * 1024
_PEM = re.compile(rb"\s*-----BEGIN ([A-Z0-9 ]+)-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END \1-----\s*")
_HEX = re.compile(rb"\s*[0-9A-Fa-f]{64}\s*")
_FORMS = "32 raw bytes, 64 hexadecimal digits, PKCS #8 PEM of an Ed25519 key, or an OKP/Ed25519 JWK with d"


class KeyFileMissingError(ConfigurationError, FileNotFoundError):
    """There is no key file at the path given."""


class KeyFileExistsError(ConfigurationError, FileExistsError):
    """There is already something at the path where a key was to be written."""


def public_jwk(public_key: bytes, principal: str) -> dict[str, Any]:
    """The JWK (RFC 8037) of a 32-byte Ed25519 public key; ``kid`` is the principal."""
    if len(public_key) != 32:
        raise KeyFormatError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
    return {
        "alg": "EdDSA",
        "crv": "Ed25519",
        "kid": principal,
        "kty": "OKP",
        "use": "sig",
        "x": _kestcore.b64url_encode(bytes(public_key)),
    }


def parse_private_key(key: bytes | bytearray | str | Mapping[str, Any]) -> bytes:
    """The 32-byte seed in any of the accepted forms. Raises KeyFormatError, which never quotes the key."""
    try:
        return _parse(key)
    except KeyFormatError as error:
        message = str(error)
    finally:
        key = b""  # tools that report exceptions with local variables must not find it here, nor in a frame below
    raise KeyFormatError(message)


def _parse(key: bytes | bytearray | str | Mapping[str, Any]) -> bytes:
    if isinstance(key, Mapping):
        return _seed_from_jwk(key)
    if isinstance(key, str):
        data = key.encode("utf-8", "replace")
    elif isinstance(key, (bytes, bytearray)):
        data = bytes(key)
        if len(data) == 32:
            return data
    else:
        raise KeyFormatError(f"a private key is given as {_FORMS}, not as {type(key).__qualname__}")
    if _HEX.fullmatch(data):
        return bytes.fromhex(data.decode("ascii").strip())
    if b"-----BEGIN" in data:
        return _seed_from_pem(data)
    if data.lstrip().startswith(b"{"):
        jwk = _json_object(data)
        if jwk is not None:
            return _seed_from_jwk(jwk)
    raise KeyFormatError(f"{len(data)} bytes that are not a private key in a form that Kest reads ({_FORMS})")


def private_key_pem(seed: bytes) -> bytes:
    """PKCS #8 PEM of an Ed25519 seed, as OpenSSL reads and writes it."""
    _check_seed(seed)
    body = base64.b64encode(_PKCS8_PREFIX + seed)
    return b"-----BEGIN PRIVATE KEY-----\n" + body + b"\n-----END PRIVATE KEY-----\n"


def read_private_key(path: str | os.PathLike[str]) -> bytes:
    """The seed in a key file (PEM, JWK, hexadecimal or raw).

    The file must be a regular one that belongs to this user or to root and that only its owner can read. Symbolic links
    are followed, because mounted secrets are links (Kubernetes); what counts is the file that was really opened.

    Raises:
        KeyFileMissingError: there is no such file.
        ConfigurationError: the file cannot be read, or others could read or replace it; says how to mend that.
        KeyFormatError: it holds no Ed25519 private key.
    """
    name = os.fspath(path)
    try:
        # O_NONBLOCK: opening a FIFO must not hang.
        fd = os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise KeyFileMissingError(f"there is no key file {name!r}; kest keygen makes one") from error
    except OSError as error:
        raise ConfigurationError(f"key file {name!r} cannot be opened: {error.strerror}") from error
    try:
        _check_private(name, os.fstat(fd))
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"key file {name!r} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(data) > _MAX_KEY_FILE:
        raise KeyFormatError(f"key file {name!r} is larger than {_MAX_KEY_FILE} bytes, so it is not a key file")
    problem = ""
    try:
        return parse_private_key(data)
    except KeyFormatError as error:
        problem = str(error)
    raise KeyFormatError(f"key file {name!r}: {problem}")


def write_private_key(path: str | os.PathLike[str], seed: bytes) -> None:
    """Write a new key file (PKCS #8 PEM, mode 0600). It appears whole or not at all, and is on disk on return.

    Raises:
        KeyFileExistsError: there is something at `path` (also a dangling link); keys are never overwritten.
        ConfigurationError: the folder does not exist or cannot be written to.
    """
    pem = private_key_pem(seed)
    target = Path(os.fspath(path))
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        if os.path.lexists(target):
            raise FileExistsError
        try:
            _write_new(scratch, pem)
            try:
                os.link(scratch, target)  # unlike a rename, refuses to replace a file made meanwhile
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links: still exclusive, only not in one step
                _write_new(target, pem)
        finally:
            scratch.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except FileExistsError as error:
        raise KeyFileExistsError(f"key file {str(target)!r} exists already, and keys are never overwritten") from error
    except OSError as error:
        raise ConfigurationError(f"key file {str(target)!r} cannot be written: {error.strerror}") from error


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    complete = False
    try:
        with os.fdopen(fd, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), 0o600)  # whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        complete = True
    finally:
        if not complete:
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        pass  # some file systems cannot sync a folder; the file itself is on disk
    finally:
        os.close(fd)


def _check_private(name: str, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise ConfigurationError(f"key file {name!r} is not a regular file")
    if not hasattr(os, "geteuid"):
        return  # no POSIX permissions here; access lists are the administrator's business
    if info.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(
            f"key file {name!r} belongs to user {info.st_uid}; it must belong to the user that runs this process "
            f"({os.geteuid()}) or to root"
        )
    if info.st_mode & 0o077:
        raise ConfigurationError(
            f"key file {name!r} is open to others (mode {stat.S_IMODE(info.st_mode):04o}): run chmod 600 on it, "
            "and replace the key if others may have read it"
        )


def _check_seed(seed: bytes) -> None:
    if not isinstance(seed, (bytes, bytearray)) or len(seed) != 32:
        raise KeyFormatError("an Ed25519 private key (seed) is exactly 32 bytes")


def _seed_from_pem(data: bytes) -> bytes:
    match = _PEM.fullmatch(data)
    if match is None:
        raise KeyFormatError("PEM text must be exactly one block, without headers or other text around it")
    label = match[1].decode("ascii")
    if label != "PRIVATE KEY":
        raise KeyFormatError(
            f"PEM block {label!r}: Kest reads unencrypted PKCS #8 ('PRIVATE KEY'); convert with "
            "openssl pkcs8 -topk8 -nocrypt"
        )
    der = _base64(b"".join(match[2].split()))
    if der is None:
        raise KeyFormatError("PEM block 'PRIVATE KEY' is not valid base64")
    if len(der) != len(_PKCS8_PREFIX) + 32 or not der.startswith(_PKCS8_PREFIX):
        raise KeyFormatError(
            "PEM block 'PRIVATE KEY' does not hold an Ed25519 key; make one with openssl genpkey -algorithm ed25519"
        )
    return der[len(_PKCS8_PREFIX) :]


def _seed_from_jwk(jwk: Mapping[str, Any]) -> bytes:
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
        raise KeyFormatError("the JWK is not an Ed25519 key: kty must be 'OKP' and crv 'Ed25519'")
    if jwk.get("alg", "EdDSA") not in ("EdDSA", "Ed25519") or jwk.get("use", "sig") != "sig":
        raise KeyFormatError("the JWK is meant for another use: alg must be 'EdDSA' and use 'sig' where present")
    seed = _b64url(jwk.get("d"))
    if seed is None or len(seed) != 32:
        raise KeyFormatError("the JWK's d (private key) is missing, or not the base64url form of 32 bytes")
    if "x" in jwk and _b64url(jwk["x"]) != _kestcore.Signer("jwk", seed).public_key:
        raise KeyFormatError("the JWK's x is not the public key of its d")
    return seed


# The helpers below answer None instead of raising from inside an except block: an exception's context would keep the
# text of the key alive, for example in an error reporter.


def _b64url(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return _kestcore.b64url_decode(value)
    except (KestError, ValueError):
        return None


def _base64(data: bytes) -> bytes | None:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None


def _json_object(data: bytes) -> Mapping[str, Any] | None:
    try:
        value = _kestcore.parse(data)
    except (KestError, ValueError):
        return None
    return value if isinstance(value, dict) else None
