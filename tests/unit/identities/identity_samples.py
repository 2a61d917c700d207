"""What the tests of identities share: a principal, a seed, and how to read and verify a JWS."""

from __future__ import annotations

import json
from typing import Any

from kest import _kestcore

PRINCIPAL = "spiffe://example.test/w"
PAYLOAD = b'{"a":1}'
SEED = bytes(range(32))
ROLE_SESSION = "arn:aws:sts::123456789012:assumed-role/app/i-0abc"
ROLE = "arn:aws:iam::123456789012:role/app"


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


def ours(payload: bytes = PAYLOAD, principal: str = PRINCIPAL, seed: bytes = SEED) -> str:
    return _kestcore.Signer(principal, seed).sign_jws(payload)
