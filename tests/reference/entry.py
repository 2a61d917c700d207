"""One entry: payload, header, JWS and its hash.

PRODUCT section 4; RFC 7515; RFC 7518, sections 3.3 and 3.4; RFC 8037.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from . import b64
from .canonical import canonicalize

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SCHEMA_VERSION = "0.3.0"
RUNTIME = {"name": "kest-c", "version": "0.3.0"}
ROOT = "0"
CLASSIFICATIONS = ("system", "data", "critic", "snapshot", "sanitizer")
TIERS = ("enterprise_policies", "platform_policies", "app_policies", "function_policies")
OVERRIDE_LABEL = "kest.trust_override"


def empty_policy_context() -> dict[str, Any]:
    return {**{tier: [] for tier in TIERS}, "deviations": []}


def build_payload(
    *,
    operation: str,
    principal: str,
    entry_id: str,
    timestamp_ms: int,
    trust_score: int = 100,
    classification: str = "system",
    parent_ids: Sequence[str] = (ROOT,),
    labels: Mapping[str, str] | None = None,
    added_taints: Iterable[str] = (),
    removed_taints: Iterable[str] = (),
    taints: Iterable[str] = (),
    policy_context: Mapping[str, Any] | None = None,
    input_hash: str = "",
    runtime: Mapping[str, str] = RUNTIME,
) -> dict[str, Any]:
    """Exactly the members of PRODUCT section 4. Taints are sorted sets; everything else is taken as given."""
    return {
        "schema_version": SCHEMA_VERSION,
        "runtime": dict(runtime),
        "entry_id": entry_id,
        "operation": operation,
        "classification": classification,
        "trust_score": trust_score,
        "parent_ids": list(parent_ids),
        "added_taints": sorted(set(added_taints)),
        "removed_taints": sorted(set(removed_taints)),
        "taints": sorted(set(taints)),
        "labels": {**(labels or {}), "principal": principal},
        "policy_context": dict(policy_context) if policy_context is not None else empty_policy_context(),
        "environment": {},
        "otel_context": {},
        "metadata": None,
        "content_hash": "",
        "input_hash": input_hash,
        "timestamp_ms": timestamp_ms,
    }


def header(principal: str, alg: str = "EdDSA", x5c: Sequence[str] | None = None) -> dict[str, Any]:
    members: dict[str, Any] = {"alg": alg, "kid": principal, "typ": "JWS"}
    if x5c is not None:
        members["x5c"] = list(x5c)
    return members


def algorithm(private_key: PrivateKey) -> str:
    """The one algorithm that a key may be used with."""
    if isinstance(private_key, ed25519.Ed25519PrivateKey):
        return "EdDSA"
    return "RS256" if isinstance(private_key, rsa.RSAPrivateKey) else "ES256"


def sign(message: bytes, private_key: PrivateKey) -> bytes:
    if isinstance(private_key, ed25519.Ed25519PrivateKey):
        return private_key.sign(message)
    if isinstance(private_key, rsa.RSAPrivateKey):
        return private_key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(private_key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")  # RFC 7518, 3.4: r || s, never DER


def sign_raw(header_text: bytes, payload_text: bytes, private_key: PrivateKey) -> str:
    """A compact JWS over these very bytes, sensible or not."""
    signing_input = b64.encode(header_text) + "." + b64.encode(payload_text)
    return signing_input + "." + b64.encode(sign(signing_input.encode("ascii"), private_key))


def sign_entry(payload: Mapping[str, Any], private_key: PrivateKey, principal: str) -> str:
    head = canonicalize(header(principal, algorithm(private_key)))
    return sign_raw(head, canonicalize(dict(payload)), private_key)


def jws_hash(jws: str) -> str:
    """What a child names as its parent: lower-case hex SHA-256 of the whole JWS text."""
    return hashlib.sha256(jws.encode("utf-8")).hexdigest()
