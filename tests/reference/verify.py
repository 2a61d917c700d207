"""When a passport is believed, and which entry is to blame when it is not (PRODUCT sections 4 and 5; ATTACKS A1..A7).

Entries are looked at in order and the first bad one wins; within an entry the checks run in the order written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from . import b64, schema, trust
from .canonical import canonicalize, strict_parse
from .entry import OVERRIDE_LABEL, ROOT, jws_hash

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey

ALGORITHMS = ("EdDSA", "ES256", "RS256")
MAX_JWS = 16 * 1024 * 1024


class BadEntry(ValueError):
    """``index`` of the first bad entry (None: the passport as a whole) and a ``code`` that says why."""

    def __init__(self, index: int | None, code: str) -> None:
        super().__init__(f"entry {index}: {code}")
        self.index = index
        self.code = code


@dataclass(frozen=True)
class KeyInfo:
    """A key that a principal may sign with, when, and what the principal may claim. Times in ms, both inclusive."""

    public_key: PublicKey
    alg: str = "EdDSA"
    max_trust: int = 100
    may_sanitise: bool = True
    not_before: int | None = None
    not_after: int | None = None

    def __post_init__(self) -> None:
        key = self.public_key
        fits = {
            "EdDSA": isinstance(key, ed25519.Ed25519PublicKey),
            "ES256": isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1),
            "RS256": isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048,
        }
        if not fits.get(self.alg, False):
            raise ValueError(f"this key cannot be used with {self.alg}")

    def valid_at(self, timestamp_ms: int) -> bool:
        return (self.not_before is None or self.not_before <= timestamp_ms) and (
            self.not_after is None or timestamp_ms <= self.not_after
        )


# A principal with several keys has one KeyInfo for each; max_trust and may_sanitise belong to the principal,
# so they must be the same in all of them.
Keys = Mapping[str, KeyInfo | Sequence[KeyInfo]]


@dataclass(frozen=True)
class Facts:
    """What a verified passport says. ``trust`` is the weakest tip's, None when there is no entry."""

    trust: int | None
    taints: list[str]
    tips: list[str]
    principals: list[str]


def verify(entries: Sequence[str], keys: Keys, chain_tip: str | None = None) -> Facts:
    seen: dict[str, dict[str, Any]] = {}  # hash -> payload
    for index, jws in enumerate(entries):
        try:
            digest, payload = check_entry(jws, keys, seen)
        except _Bad as bad:
            raise BadEntry(index, bad.code) from None
        seen[digest] = payload
    named = {parent for payload in seen.values() for parent in payload["parent_ids"]}
    tips = sorted(set(seen) - named)
    if chain_tip is not None and chain_tip != ",".join(tips):
        raise BadEntry(None, "tip")
    return Facts(
        trust=min((seen[tip]["trust_score"] for tip in tips), default=None),
        taints=trust.taints((seen[tip]["taints"] for tip in tips), (), ()),
        tips=tips,
        principals=sorted({payload["labels"]["principal"] for payload in seen.values()}),
    )


class _Bad(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _require(condition: bool, code: str) -> None:
    if not condition:
        raise _Bad(code)


def check_entry(jws: str, keys: Keys, seen: Mapping[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The hash and payload of an entry that may follow ``seen``."""
    head, payload, signature = read_jws(jws)
    _require(schema.is_payload(payload), "schema")
    score = payload["trust_score"]
    _require(schema.is_int(score) and 0 <= score <= trust.MAX_TRUST, "trust_range")
    principal = payload["labels"]["principal"]
    _require(head["kid"] == principal, "kid")
    digest = jws_hash(jws)
    _require(digest not in seen, "duplicate")
    parents = [] if payload["parent_ids"] == [ROOT] else payload["parent_ids"]
    _require(all(parent in seen for parent in parents), "parent_missing")
    raises, removes = check_claims(payload, [seen[parent] for parent in parents])

    infos = _key_infos(keys, principal)
    _require(bool(infos), "principal")
    infos_of_alg = [info for info in infos if info.alg == head["alg"]]
    _require(bool(infos_of_alg), "key")
    valid = [info for info in infos_of_alg if info.valid_at(payload["timestamp_ms"])]
    _require(bool(valid), "key_time")
    _require(infos[0].may_sanitise or not (raises or removes), "may_not_sanitise")
    if not parents or raises:  # everything else is capped by its parents
        _require(score <= infos[0].max_trust, "trust_max")
    message = jws.rpartition(".")[0].encode("ascii")
    _require(any(signature_holds(info.public_key, message, signature) for info in valid), "signature")
    return digest, payload


def read_jws(jws: str) -> tuple[dict[str, Any], Any, bytes]:
    """Header, payload (any JSON value) and signature of a JWS in the one form that Kest accepts."""
    _require(len(jws.encode("utf-8", "surrogatepass")) <= MAX_JWS, "limit")
    parts = jws.split(".")
    _require(len(parts) == 3, "jws_parts")
    try:
        head_text, payload_text, signature = (b64.decode(part) for part in parts)
    except b64.Base64Error:
        raise _Bad("b64") from None
    head = read_header(head_text)
    try:
        payload = strict_parse(payload_text)
    except ValueError:
        raise _Bad("json") from None
    _require(canonicalize(payload) == payload_text, "not_canonical")
    return head, payload, signature


def read_header(text: bytes) -> dict[str, Any]:
    try:
        head: dict[str, Any] = strict_parse(text)
    except ValueError:
        raise _Bad("jws_header") from None
    _require(isinstance(head, dict), "jws_header")
    _require("crit" not in head, "jws_crit")
    _require(set(head) - {"x5c"} == {"alg", "kid", "typ"}, "jws_header")
    _require(all(isinstance(head[name], str) for name in ("alg", "kid", "typ")), "jws_header")
    _require(head["alg"] in ALGORITHMS, "jws_alg")
    _require(head["typ"] == "JWS", "jws_header")
    if "x5c" in head:  # RFC 7515, 4.1.6: at least the signing certificate
        _require(head["alg"] != "EdDSA" and schema.is_strings(head["x5c"]) and head["x5c"] != [], "jws_header")
    _require(canonicalize(head) == text, "jws_header")
    return head


def check_claims(payload: Mapping[str, Any], parents: Sequence[Mapping[str, Any]]) -> tuple[bool, bool]:
    """Whether trust is overridden upwards, and whether a taint is really removed."""
    score = payload["trust_score"]
    label = payload["labels"].get(OVERRIDE_LABEL)
    _require(label is None or label == str(score), "trust_label")
    added, removed = payload["added_taints"], payload["removed_taints"]
    inherited = [parent["taints"] for parent in parents]
    _require(payload["taints"] == trust.taints(inherited, added, removed), "taints")
    rises = bool(parents) and score > min(parent["trust_score"] for parent in parents)
    _require(not rises or label is not None, "trust_rise")
    overrides = rises or (not parents and label is not None)
    removes = bool(set(trust.taints(inherited, added, ())) & set(removed))
    return overrides, removes


def _key_infos(keys: Keys, principal: str) -> list[KeyInfo]:
    found = keys.get(principal)
    infos = [] if found is None else [found] if isinstance(found, KeyInfo) else list(found)
    if len({(info.max_trust, info.may_sanitise) for info in infos}) > 1:
        raise ValueError("max_trust and may_sanitise belong to the principal: give all its keys the same")
    return infos


def signature_holds(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """RFC 8032 for Ed25519; RFC 7518, 3.3 (PKCS #1 v1.5) and 3.4 (raw r || s of 64 bytes) for the others."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        elif len(signature) != 64:
            return False
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
