"""Writes tests/vectors/gate/*.json: ``python -m differential.make_signed_vectors`` in the folder tests.

Keys come from fixed seeds and times stand still. Signatures are hedged (FIPS 204), encapsulations and salts are random, so a
new run writes other bytes that mean the same; the tests read what is written there.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kest.gate import AuditEntry, KeyPair, PermitClaims, PqTokenSigner, SecureChannel, SignedAuditChain
from kest.gate.crypto import cbor, clock, keyfile
from kest.gate.crypto.keys import SecretKeys

FOLDER = Path(__file__).resolve().parent.parent / "vectors" / "gate"
NOW = 1_800_000_000
PASSPHRASE = "correct horse battery staple"


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def seeds(name: str) -> dict[str, str]:
    lengths = {"ed25519": 32, "x25519": 32, "ml_dsa_65": 32, "ml_kem_768": 64}
    return {
        kind: hashlib.shake_256(f"kest vector {name} {kind}".encode()).hexdigest(size) for kind, size in lengths.items()
    }


def pair(name: str) -> KeyPair:
    raw = [bytes.fromhex(seed) for seed in seeds(name).values()]
    return KeyPair(name, SecretKeys(*raw), NOW - 1000)


def claims(number: int = 0, **given: Any) -> PermitClaims:
    ids = [f"0{number:07x}-0000-7000-8000-00000000000{end}" for end in "12"]
    base = PermitClaims(ids[0], ids[1], "issue_refund", NOW, NOW + 30)
    return replace(base, **given)


FULL: dict[str, Any] = {
    "principal_id": "agent-bot",
    "principal_kind": "agent",
    "resource": "orders/ORD-42",
    "audience": "payments",
    "params_hash": hashlib.sha256(b'{"amount":500}').hexdigest(),
    "policy_digest": hashlib.sha256(b"policy").hexdigest(),
    "passport_tip": ",".join(sorted(hashlib.sha256(tip).hexdigest() for tip in (b"a", b"b"))),
}


def permits(issuer: KeyPair) -> list[dict[str, Any]]:
    hybrid, pq = PqTokenSigner.from_keypair_hybrid(issuer), PqTokenSigner.from_keypair_pq_only(issuer)
    full = claims(1, **FULL, key_id=issuer.id)
    envelope, batch = hybrid.sign_claims(full), hybrid.sign_batch([claims(n, **FULL) for n in range(5)])
    parts = cbor.decode(envelope[2:])
    header = cbor.decode(parts[0])
    header["algs"] = [-49]
    relabelled = envelope[:2] + cbor.encode([cbor.encode(header), parts[1], parts[2], parts[3][1:]])
    payload = cbor.decode(parts[2])
    payload["act"] = "issue_refunds"
    return [
        {
            "name": "hybrid, all claims",
            "envelope": envelope,
            "payload": full.to_payload().hex(),
            "claims": _plain(full),
        },
        {"name": "hybrid, five claims", "envelope": hybrid.sign_claims(claims(2)), "claims": _plain(claims(2))},
        {
            "name": "ML-DSA-65 alone",
            "envelope": pq.sign_claims(claims(3)),
            "algorithm": "ml-dsa-65",
            "claims": _plain(claims(3)),
        },
        *(
            {
                "name": f"batch, {n} of 5",
                "envelope": batch.permits[n],
                "proof": text(batch.proof),
                "claims": _plain(claims(n, **FULL)),
            }
            for n in range(5)
        ),
        {"name": "expired", "envelope": envelope, "now": NOW + 36, "refused": "expired"},
        {"name": "before its time", "envelope": envelope, "now": NOW - 6, "refused": "not valid before"},
        {
            "name": "relabelled as ML-DSA-65",
            "envelope": relabelled,
            "algorithm": "ml-dsa-65",
            "refused": "signature verification failed",
        },
        {
            "name": "hybrid asked as ML-DSA-65",
            "envelope": envelope,
            "algorithm": "ml-dsa-65",
            "refused": "algorithm mismatch",
        },
        {"name": "ML-DSA-65 asked as hybrid", "envelope": pq.sign_claims(claims(3)), "refused": "algorithm mismatch"},
        {
            "name": "Ed25519 signature missing",
            "envelope": envelope[:2] + cbor.encode([*parts[:3], parts[3][1:]]),
            "refused": "missing Ed25519",
        },
        {
            "name": "another action",
            "envelope": envelope[:2] + cbor.encode([*parts[:2], cbor.encode(payload), parts[3]]),
            "refused": "signature verification failed",
        },
        {
            "name": "unprotected member",
            "envelope": envelope[:2] + cbor.encode([parts[0], {"x": 1}, *parts[2:]]),
            "refused": "unprotected",
        },
        {
            "name": "a length not in its shortest form",
            "envelope": envelope[:3] + b"\x58" + envelope[3:],
            "refused": "envelope parse",
        },
        {"name": "data after the end", "envelope": envelope + b"\x00", "refused": "after the end"},
        {
            "name": "last byte",
            "envelope": flip(envelope, len(envelope) - 1),
            "refused": "signature verification failed",
        },
        {
            "name": "a permit of a batch without its proof",
            "envelope": batch.permits[0],
            "refused": "proof of this permit's batch",
        },
    ]


def _plain(one: PermitClaims) -> dict[str, Any]:
    names = ("token_id", "evaluation_id", "action_name", "issued_at", "expires_at", *FULL)
    return {name: getattr(one, name) for name in names if getattr(one, name) is not None}


def chains(signer: KeyPair) -> list[dict[str, Any]]:
    def chain(hybrid: bool, *batches: int) -> SignedAuditChain:
        made = SignedAuditChain(signer, hybrid)
        for size in batches:
            made.append_batch([AuditEntry("agent-alice", "issue_refund", "permit", "token=abc") for _ in range(size)])
        return made

    good, pq = chain(True, 1, 3, 1), chain(False, 2)
    blob, mark = good.export_jsonl(), text(good.checkpoint())
    lines = blob.splitlines(keepends=True)

    def case(name: str, rows: list[bytes], kind: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "jsonl": b"".join(rows).decode(), "kind": kind, **more}

    return [
        {
            "name": "hybrid: one, three together, one",
            "jsonl": blob.decode(),
            "length": 5,
            "checkpoint": mark,
            "head": good.head_hash,
        },
        {"name": "ML-DSA-65 alone", "jsonl": pq.export_jsonl().decode(), "mode": "pq", "length": 2},
        case("deleted", lines[:2] + lines[3:], "deleted"),
        case("reordered", [lines[0], lines[2], lines[1], *lines[3:]], "reordered"),
        case("duplicated", [*lines[:2], *lines[1:]], "duplicated"),
        case("spliced", [lines[0], *chain(True, 1, 3, 1).export_jsonl().splitlines(keepends=True)[1:]], "spliced"),
        case("truncated within a batch", lines[:3], "truncated"),
        case("truncated after one", lines[:1], "truncated", checkpoint=mark),
        case("rewritten", chain(True, 5).export_jsonl().splitlines(keepends=True), "rewritten", checkpoint=mark),
        case("downgraded", pq.export_jsonl().splitlines(keepends=True), "downgraded"),
        case("altered", [lines[0].replace(b'"permit"', b'"refuse"')], "altered"),
    ]


def channels(alice: KeyPair, bob: KeyPair) -> dict[str, Any]:
    there = SecureChannel(alice, bob.public_keys())
    signed, data = there.send_signed(b"hello bob", "greet", "c-1"), there.send_data(b"opaque")
    session = there.session("greet")
    frames = [session.send(b"frame %d" % number) for number in range(3)] + [session.send(b"last", last=True)]
    redirected = cbor.decode(signed)
    redirected[2] = "alice"
    return {
        "messages": [
            {
                "name": "signed",
                "kind": 1,
                "sealed": text(signed),
                "context": "greet",
                "data": text(b"hello bob"),
                "correlation": "c-1",
            },
            {
                "name": "data",
                "kind": 0,
                "sealed": text(data),
                "context": "",
                "data": text(b"opaque"),
                "correlation": "",
            },
            {
                "name": "another context",
                "kind": 1,
                "sealed": text(signed),
                "context": "greeting",
                "refused": "context mismatch",
            },
            {
                "name": "altered",
                "kind": 1,
                "sealed": text(flip(signed, len(signed) - 1)),
                "context": "greet",
                "refused": "decryption failed",
            },
            {
                "name": "another ciphertext",
                "kind": 1,
                "sealed": text(flip(signed, 100)),
                "context": "greet",
                "refused": "decryption failed",
            },
            {
                "name": "to another",
                "kind": 1,
                "sealed": text(cbor.encode(redirected)),
                "context": "greet",
                "refused": "recipient key id",
            },
            {"name": "data as signed", "kind": 1, "sealed": text(data), "context": "", "refused": "expected"},
            {
                "name": "too old",
                "kind": 1,
                "sealed": text(signed),
                "context": "greet",
                "now": NOW + 301,
                "refused": "expired",
            },
        ],
        "session": {
            "opening": text(session.opening),
            "context": "greet",
            "frames": [text(frame) for frame in frames],
            "data": ["frame 0", "frame 1", "frame 2", "last"],
        },
    }


def main() -> None:
    clock.now = lambda: float(NOW)  # type: ignore[assignment]
    people = {name: pair(name) for name in ("alice", "bob", "root")}
    alice, bob, root = people.values()
    keys = {name: {"seeds": seeds(name), "bundle": one.public_keys().to_dict()} for name, one in people.items()}
    rows = permits(alice)
    for row in rows:
        row["envelope"] = text(row["envelope"])
    manifest = root.build_signed_manifest([alice.public_keys(), bob.public_keys()], version=7, expires_in=86_400)
    altered = copy.copy(manifest).replace(b'"version":7', b'"version":8')
    sealed = keyfile.seal(alice, PASSPHRASE, passes=1, memory=1 << 20)
    documents: dict[str, Any] = {
        "keys": keys,
        "permits": {"now": NOW, "signer": "alice", "cases": rows},
        "audit": {"signer": "alice", "cases": chains(alice)},
        "channel": {"now": NOW, "from": "alice", "to": "bob", **channels(alice, bob)},
        "directory": {
            "now": NOW,
            "root": "root",
            "cases": [
                {"name": "signed", "manifest": manifest.decode(), "version": 7, "ids": ["alice", "bob"]},
                {"name": "another version", "manifest": altered.decode(), "refused": "root signature invalid"},
                {"name": "not canonical", "manifest": manifest.decode() + "\n", "refused": "not canonical"},
            ],
        },
        "key_file": {"passphrase": PASSPHRASE, "id": "alice", "file": text(sealed)},
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, document in documents.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
