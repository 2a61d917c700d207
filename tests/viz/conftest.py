"""Signed records to draw."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HASH = "0123456789abcdef" * 4


@pytest.fixture
def records() -> SimpleNamespace:
    """Makers of entries, outcomes and denials, by a signer whose key is in ``keys``."""
    from kest._kestcore import canonicalize, sha256
    from kest.core import KestEntry, LocalEd25519Provider, TrustStore, sign_entry

    alice = LocalEd25519Provider("spiffe://kest.test/alice", seed=b"a" * 32)

    def hash_of(jws: str) -> str:
        return sha256(jws.encode()).hex()

    def entry(operation: str = "work", *parents: str, by: Any = alice, **changes: Any) -> str:
        named = [hash_of(parent) for parent in parents] or ["0"]
        return sign_entry(KestEntry(operation, parent_ids=named, **changes), by)

    def outcome(jws: str, result: str = "returned", by: Any = alice) -> str:
        payload = {
            "duration_us": 1500, "entry_hash": hash_of(jws), "error": None if result == "returned" else "builtins.ValueError",
            "output_hash": HASH, "principal": by.get_identity(), "record": "outcome", "result": result, "timestamp_ms": 1,
        }  # fmt: skip
        return by.signer.sign_jws(canonicalize(payload), "kest-outcome+jws")

    def denial(operation: str, *parents: str, by: Any = alice, reason: str = "trust 10 is below 40") -> str:
        payload = {
            "operation": operation, "parent_ids": [hash_of(parent) for parent in parents] or ["0"], "policy": "kest/strict",
            "principal": by.get_identity(), "reason": reason, "record": "denial", "taints": [], "tier": "app",
            "timestamp_ms": 1, "trust_score": 10,
        }  # fmt: skip
        return by.signer.sign_jws(canonicalize(payload), "kest-denial+jws")

    store = TrustStore({alice.get_identity(): alice})
    return SimpleNamespace(alice=alice, store=store, entry=entry, outcome=outcome, denial=denial, hash_of=hash_of)


@pytest.fixture
def graph(records: SimpleNamespace) -> Any:
    """The graph of records in memory; keyword ``keys`` is a trust store or None."""
    from kest.viz import Source, SourceRecord, graph_of

    def make(*jws: str, keys: Any = records.store, **settings: Any) -> Any:
        return graph_of(Source([SourceRecord(one) for one in jws]), keys, **settings)

    return make


@pytest.fixture
def passport_file(tmp_path: Path) -> Any:
    def write(entries: Any, name: str = "passport.json") -> str:
        path = tmp_path / name
        path.write_text(json.dumps(entries), encoding="utf-8")
        return str(path)

    return write
