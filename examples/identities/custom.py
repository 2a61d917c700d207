"""A signer of your own: here a P-256 key that only the command `openssl` touches. python custom.py signer.pem

`BaseIdentity` makes the JWS out of four members. It may wait for another process, so Kest calls it in a thread, gives it up
after ``call_timeout`` seconds, and verifies its first signature under its own public key.
"""

import subprocess
import sys
from base64 import urlsafe_b64encode
from functools import cache
from pathlib import Path
from typing import Any

from shipping import prove, ship

from kest import TrustStore, configure
from kest.core.identity import BaseIdentity, ecdsa_der_to_raw


def openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, check=True).stdout


class OpenSSLIdentity(BaseIdentity):
    algorithm = "ES256"
    call_timeout = 5.0

    def __init__(self, principal: str, key_file: str) -> None:
        self._principal, self._key_file = principal, key_file

    def get_identity(self) -> str:
        return self._principal

    def sign_message(self, message: bytes) -> bytes:
        return ecdsa_der_to_raw(openssl("dgst", "-sha256", "-sign", self._key_file, stdin=message))

    @cache  # noqa: B019 (one object for the whole process)
    def public_jwk(self) -> dict[str, Any]:
        point = openssl("pkey", "-in", self._key_file, "-pubout", "-outform", "DER")[-64:]
        x, y = (urlsafe_b64encode(half).rstrip(b"=").decode() for half in (point[:32], point[32:]))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self._principal}


key_file = sys.argv[1]
if not Path(key_file).exists():
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key_file)
identity = OpenSSLIdentity("spiffe://example.org/vault", key_file)
configure(identity=identity)
ship("order 7")
prove(TrustStore.from_jwks({"keys": [identity.public_jwk()]}))
