"""OIDC identities: principal and labels of a token, and tokens that are refused."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from identity_samples import PAYLOAD, SEED, parts, verifies

from kest import _kestcore
from kest.core.identity import OIDCIdentity, StaticIdentity, sign_payload
from kest.errors import ConfigurationError, IdentityError

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
