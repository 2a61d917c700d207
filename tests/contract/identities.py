"""The identities under contract that need no server. tests/services has SPIRE and KMS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kest import _kestcore
from kest.core.identity import (
    BaseIdentity,
    BedrockAgentIdentity,
    IdentityProvider,
    LocalEd25519Provider,
    MockIdentityProvider,
    OIDCIdentity,
    StaticIdentity,
)

SEED = bytes(range(32))  # where an identity takes a key, so that tests can look for it where it must not be


def _oidc(folder: Path) -> OIDCIdentity:
    issuer = "https://issuer.example.test"
    claims = {"iss": issuer, "sub": "app", "aud": "kest", "exp": int(time.time()) + 86_400}
    pieces = [json.dumps({"alg": "EdDSA", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"x" * 64]
    (folder / "token").write_text(".".join(_kestcore.b64url_encode(piece) for piece in pieces))
    return OIDCIdentity(folder / "token", issuer=issuer, subject="app", audience="kest")


class OwnSigner(BaseIdentity):
    """Somebody's own, made of four members; it may wait, so Kest asks it in a thread."""

    def __init__(self) -> None:
        self._key = StaticIdentity("spiffe://kest.test/own", key=SEED)

    def get_identity(self) -> str:
        return self._key.get_identity()

    def sign_message(self, message: bytes) -> bytes:
        return self._key.sign_message(message)

    def public_jwk(self) -> dict[str, Any]:
        return self._key.public_jwk()


class OwnProtocol:
    """Somebody's own that derives from nothing, and answers with raw bytes."""

    algorithm = "EdDSA"

    def __init__(self) -> None:
        self._key = StaticIdentity("spiffe://kest.test/protocol", key=SEED)

    def get_identity(self) -> str:
        return self._key.get_identity()

    def sign(self, payload: bytes) -> bytes:
        raise AssertionError("with `algorithm` and sign_message, this is not asked")

    def sign_message(self, message: bytes) -> bytes:
        return self._key.sign_message(message)

    def public_jwk(self) -> dict[str, Any]:
        return self._key.public_jwk()


# name -> what makes one; it is given an empty folder.
FACTORIES: dict[str, Callable[[Path], IdentityProvider]] = {
    "local": lambda folder: LocalEd25519Provider("spiffe://kest.test/local", SEED),
    "static": lambda folder: StaticIdentity("spiffe://kest.test/static", key=SEED),
    "static-file": lambda folder: StaticIdentity("spiffe://kest.test/file", key_file=folder / "key.pem"),
    "mock": lambda folder: MockIdentityProvider(),
    "oidc": _oidc,
    "bedrock": lambda folder: BedrockAgentIdentity(
        "ABCDEFGHIJ", "TSTALIASID", account="123456789012", region="eu-central-1",
        signer=StaticIdentity("spiffe://kest.test/bedrock", key=SEED),
    ),
    "own": lambda folder: OwnSigner(),
    "own-protocol": lambda folder: OwnProtocol(),
}  # fmt: skip
