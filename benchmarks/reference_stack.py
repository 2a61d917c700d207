"""What Kest is compared with: the same work in plain Python with rfc8785 and cryptography.

Written as somebody would who cares for speed but writes no C: keys are loaded once, nothing is parsed or hashed twice,
standard library functions do what they can. It produces the same bytes and refuses the same passports; `same_output`
in `sign` and `verify` checks that before anything is timed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Facts", "ReferenceSigner", "Refused", "Tip", "verify"]

RUNTIME = {"name": "kest-c", "version": "0.3.0"}
OVERRIDE = "kest.trust_override"
CLASSIFICATIONS = frozenset({"system", "data", "critic", "snapshot", "sanitizer"})
MEMBERS = frozenset(
    {
        "schema_version",
        "runtime",
        "entry_id",
        "operation",
        "classification",
        "trust_score",
        "parent_ids",
        "added_taints",
        "removed_taints",
        "taints",
        "labels",
        "policy_context",
        "environment",
        "otel_context",
        "metadata",
        "content_hash",
        "input_hash",
        "timestamp_ms",
    }
)
CONTEXT = frozenset({"enterprise_policies", "platform_policies", "app_policies", "function_policies", "deviations"})
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
HASH = re.compile(r"[0-9a-f]{64}\Z")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64(data) != text:
        raise ValueError("not the base64url of anything")
    return data


# --- signing ---


@dataclass(frozen=True)
class Tip:
    """What the next entry needs to know of its parent."""

    hash: str
    trust: int
    taints: tuple[str, ...]


class ReferenceSigner:
    """A key under a name."""

    def __init__(self, principal: str, seed: bytes) -> None:
        self.principal = principal
        self.key = Ed25519PrivateKey.from_private_bytes(seed)
        self.header = b64(rfc8785.dumps({"alg": "EdDSA", "kid": principal, "typ": "JWS"}))

    def sign_entry(
        self,
        operation: str,
        trust: int,
        parents: Sequence[Tip],
        *,
        classification: str = "system",
        labels: Mapping[str, str],
        added: Sequence[str] = (),
        removed: Sequence[str] = (),
        context: Mapping[str, Any],
        input_hash: str,
        entry_id: str,
        timestamp_ms: int,
    ) -> tuple[str, Tip]:
        """The JWS of one entry and the tip that the next one continues from."""
        taints = sorted({taint for parent in parents for taint in parent.taints}.union(added).difference(removed))
        text = {**labels, "principal": self.principal}
        if parents and trust > min(parent.trust for parent in parents):
            text[OVERRIDE] = str(trust)
        payload: Any = {
            "schema_version": "0.3.0",
            "runtime": RUNTIME,
            "entry_id": entry_id,
            "operation": operation,
            "classification": classification,
            "trust_score": trust,
            "parent_ids": [parent.hash for parent in parents] or ["0"],
            "added_taints": sorted(added),
            "removed_taints": sorted(removed),
            "taints": taints,
            "labels": text,
            "policy_context": context,
            "environment": {},
            "otel_context": {},
            "metadata": None,
            "content_hash": "",
            "input_hash": input_hash,
            "timestamp_ms": timestamp_ms,
        }
        message = f"{self.header}.{b64(rfc8785.dumps(payload))}"
        jws = f"{message}.{b64(self.key.sign(message.encode('ascii')))}"
        return jws, Tip(hashlib.sha256(jws.encode("ascii")).hexdigest(), trust, tuple(taints))


# --- verifying ---


class Refused(ValueError):
    """``index`` of the first bad entry."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"entry {index}: {reason}")
        self.index = index


@dataclass(frozen=True)
class Facts:
    """What a verified passport says."""

    trust: int
    taints: tuple[str, ...]
    tips: tuple[str, ...]
    principals: frozenset[str]


def verify(text: str, keys: Mapping[str, Ed25519PublicKey]) -> Facts:
    """Everything that PassportVerifier checks, from the text on the wire."""
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError("a passport is a JSON array")
    seen: dict[str, dict[str, Any]] = {}
    tips: set[str] = set()
    principals: set[str] = set()
    for index, jws in enumerate(entries):
        try:
            digest, payload = _entry(jws, keys, seen)
        except (ValueError, KeyError, TypeError, AttributeError, InvalidSignature) as error:
            raise Refused(index, str(error)) from error
        seen[digest] = payload
        tips.difference_update(payload["parent_ids"])
        tips.add(digest)
        principals.add(payload["labels"]["principal"])
    return Facts(
        min((seen[tip]["trust_score"] for tip in tips), default=100),
        tuple(sorted({taint for tip in tips for taint in seen[tip]["taints"]})),
        tuple(sorted(tips)),
        frozenset(principals),
    )


def _entry(
    jws: str, keys: Mapping[str, Ed25519PublicKey], seen: Mapping[str, dict[str, Any]]
) -> tuple[str, dict[str, Any]]:
    message, dot, signature = jws.rpartition(".")
    head, _, body = message.partition(".")
    if not dot or "." in body:
        _refuse("three parts")
    header_text, payload_text = unb64(head), unb64(body)
    header, payload = json.loads(header_text), json.loads(payload_text)
    # A text that is its value's canonical form has no duplicate members either.
    if rfc8785.dumps(header) != header_text or rfc8785.dumps(payload) != payload_text:
        _refuse("not canonical")
    if header.keys() != {"alg", "kid", "typ"} or header["alg"] != "EdDSA" or header["typ"] != "JWS":
        _refuse("header")
    _schema(payload)
    principal = payload["labels"]["principal"]
    if header["kid"] != principal:
        _refuse("kid")
    raw = jws.encode("ascii")
    digest = hashlib.sha256(raw).hexdigest()
    if digest in seen:
        _refuse("duplicate")
    _links(payload, seen)
    keys[principal].verify(unb64(signature), raw[: len(message)])
    return digest, payload


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _schema(payload: Any) -> None:
    labels, context = payload["labels"], payload["policy_context"]
    trust, when, runtime = payload["trust_score"], payload["timestamp_ms"], payload["runtime"]
    if not (
        payload.keys() == MEMBERS
        and payload["schema_version"] == "0.3.0"
        and runtime.keys() == RUNTIME.keys()
        and isinstance(runtime["name"], str)
        and isinstance(runtime["version"], str)
        and UUID7.match(payload["entry_id"])
        and isinstance(payload["operation"], str)
        and payload["operation"]
        and payload["classification"] in CLASSIFICATIONS
        and type(trust) is int
        and 0 <= trust <= 100
        and type(when) is int
        and when >= 0
        and _texts(payload["parent_ids"])
        and payload["parent_ids"]
        and isinstance(labels, dict)
        and all(isinstance(value, str) for value in labels.values())
        and context.keys() == CONTEXT
        and all(_texts(context[name]) for name in CONTEXT if name != "deviations")
        and isinstance(context["deviations"], list)
        and payload["environment"] == {}
        and payload["otel_context"] == {}
        and payload["metadata"] is None
        and payload["content_hash"] == ""
        and (payload["input_hash"] == "" or HASH.match(payload["input_hash"]))
    ):
        _refuse("schema")
    for name in ("added_taints", "removed_taints", "taints"):
        taints = payload[name]
        if not _texts(taints) or taints != sorted(set(taints)) or "" in taints:
            _refuse("taints")


def _links(payload: dict[str, Any], seen: Mapping[str, dict[str, Any]]) -> None:
    parents = payload["parent_ids"]
    trust, label = payload["trust_score"], payload["labels"].get(OVERRIDE)
    known: list[dict[str, Any]] = []
    if parents != ["0"]:
        if len(set(parents)) != len(parents):
            _refuse("a parent twice")
        known = [seen[parent] for parent in parents]
        if trust > min(parent["trust_score"] for parent in known) and label is None:
            _refuse("trust rises")
    if label is not None and label != str(trust):
        _refuse("the label says another trust")
    inherited = {taint for parent in known for taint in parent["taints"]}
    if payload["taints"] != sorted(inherited.union(payload["added_taints"]).difference(payload["removed_taints"])):
        _refuse("taints do not follow")
