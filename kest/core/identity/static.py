"""An identity whose name and key the operator decides."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

from kest.core.identity.ed25519 import Ed25519Identity
from kest.core.identity.keys import (
    KeyFileExistsError,
    KeyFileMissingError,
    parse_private_key,
    private_key_pem,
    public_jwk,
    read_private_key,
    write_private_key,
)
from kest.errors import ConfigurationError

__all__ = ["StaticIdentity", "private_key_pem", "public_jwk", "read_private_key", "write_private_key"]


class StaticIdentity(Ed25519Identity):
    """A named workload with an Ed25519 key that outlives the process.

    Args:
        principal: the workload's name.
        key: 32 raw bytes, 64 hexadecimal digits, PKCS #8 PEM, or an OKP/Ed25519 JWK (RFC 8037) with ``d``.
        key_file: a file with one of these, readable by its owner only. If it does not exist, a new key is made and
            written there (PEM, mode 0600). Processes that start at the same moment end up with the same key.

    Without `key` and `key_file` the key is random and lives in memory only.

    Raises:
        ConfigurationError: both `key` and `key_file` are given, or the file is missing its protection.
        KeyFormatError: the key is malformed or of another kind. No message quotes it.
    """

    __slots__ = ()
    _direct: ClassVar[bool] = True

    def __init__(
        self,
        principal: str,
        key: bytes | str | Mapping[str, Any] | None = None,
        key_file: str | os.PathLike[str] | None = None,
    ) -> None:
        if key is not None and key_file is not None:
            raise ConfigurationError("StaticIdentity: give either key or key_file, not both")
        seed: bytes | None = None
        try:
            if key is not None:
                seed = parse_private_key(key)
            elif key_file is not None:
                seed = _read_or_create(key_file)
            super().__init__(principal, seed)
        finally:
            key = seed = None  # see parse_private_key


def _read_or_create(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_private_key(path)
    except KeyFileMissingError:
        pass
    seed = secrets.token_bytes(32)
    try:
        write_private_key(path, seed)
    except KeyFileExistsError:
        return read_private_key(path)  # another process was faster: its key counts
    return seed
