"""A token of an OpenID Connect issuer, and a key of our own that the issuer binds to it (DPoP, RFC 9449).

    OIDC_ISSUER=… OIDC_CLIENT=… OIDC_SECRET=… python oidc.py token.jwt client.key

Needs kest[oidc]. On Kubernetes the kubelet writes the token file and renews it; it binds no key, so publish the public one.
"""

import json
import os
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

import httpx
from shipping import prove, ship

from kest import OIDCIdentity, StaticIdentity, TrustStore, configure

issuer, client, secret = (os.environ[f"OIDC_{name}"] for name in ("ISSUER", "CLIENT", "SECRET"))
token_file, key_file = Path(sys.argv[1]), sys.argv[2]
found = httpx.get(f"{issuer}/.well-known/openid-configuration").raise_for_status().json()


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def proof(key: StaticIdentity, url: str) -> str:
    """That whoever asks ``url`` for a token has this key (RFC 9449, section 4.2)."""
    public = {name: key.public_jwk()[name] for name in ("crv", "kty", "x")}
    header = {"alg": "EdDSA", "jwk": public, "typ": "dpop+jwt"}
    claims = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": str(uuid.uuid4())}
    message = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return f"{message}.{encoded(key.sign_message(message.encode()))}"


endpoint = found["token_endpoint"]
answer = httpx.post(
    endpoint,
    data={"grant_type": "client_credentials"},
    auth=(client, secret),
    headers={"DPoP": proof(StaticIdentity("client", key_file=key_file), endpoint)},
).raise_for_status()
token_file.write_text(answer.json()["access_token"])

identity = OIDCIdentity(token_file, key_file=key_file, issuer=issuer, jwks_url=found["jwks_uri"])
configure(identity=identity)
ship("order 7")
print("the key is bound by", identity.labels()["kest.oidc.binding"])
prove(TrustStore({identity.get_identity(): identity.public_jwk()}))
