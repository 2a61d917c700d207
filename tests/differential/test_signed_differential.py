"""What the gate signs and seals against its statement in plain Python, and both against the vectors in tests/vectors/gate."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import signed as reference
from reference.b64 import decode as b64

from kest.gate import (
    AuditChainError,
    AuditEntry,
    ChannelError,
    DirectoryError,
    DirectoryTokenVerifier,
    GateError,
    InMemoryReplayStore,
    KeyPair,
    PermitClaims,
    PermitError,
    PqTokenSigner,
    PublicKeyBundle,
    PublicKeyDirectory,
    SecureChannel,
    SignedAuditChain,
)
from kest.gate.crypto import cbor, clock, keyfile
from kest.gate.crypto.keys import SecretKeys
from kest.gate.crypto.manifest import Root, read_signed

FOLDER = Path(__file__).resolve().parent.parent / "vectors" / "gate"
EXAMPLES = settings(max_examples=int(os.environ.get("KEST_DIFFERENTIAL_EXAMPLES", "100")), deadline=None)


def vectors(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return document


KEYS = vectors("keys")
THEIRS = {name: reference.Keys(one["bundle"]) for name, one in KEYS.items()}
SECRET = {name: reference.SecretHalf(one["seeds"]) for name, one in KEYS.items()}


def ours(name: str) -> KeyPair:
    seeds = KEYS[name]["seeds"]
    raw = [bytes.fromhex(seeds[kind]) for kind in ("ed25519", "x25519", "ml_dsa_65", "ml_kem_768")]
    return KeyPair(name, SecretKeys(*raw), KEYS[name]["bundle"]["created_at"])


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda seconds: monkeypatch.setattr(clock, "now", lambda: float(seconds))


def cases(name: str, *path: str) -> list[Any]:
    found: Any = vectors(name)
    for step in path:
        found = found[step]
    return [pytest.param(case, id=case["name"]) for case in found]


# --- vectors ---


@pytest.mark.parametrize("name", sorted(KEYS))
def test_keys_of_the_vectors(name: str) -> None:
    bundle = ours(name).public_keys()
    assert bundle.to_dict() == KEYS[name]["bundle"]
    assert PublicKeyBundle.from_dict(KEYS[name]["bundle"]) == bundle
    assert SECRET[name].public() == {field: getattr(bundle, field) for field in keyfile._PUBLIC}


@pytest.mark.parametrize("case", cases("permits", "cases"))
def test_permits_of_the_vectors(case: dict[str, Any], at: Callable[[float], None]) -> None:
    document = vectors("permits")
    now, envelope, proof = case.get("now", document["now"]), b64(case["envelope"]), case.get("proof")
    at(now)
    algorithm = case.get("algorithm", "ml-dsa-65+ed25519")
    algs = {"ml-dsa-65": [-49], "ml-dsa-65+ed25519": [-19, -49]}[algorithm]
    directory = PublicKeyDirectory.in_memory([ours("alice").public_keys()])
    require = {"audience": "payments"} if case.get("claims", {}).get("audience") or "refused" in case else None
    verifier = DirectoryTokenVerifier(directory, algorithm=algorithm)
    raw_proof = None if proof is None else b64(proof)
    if "refused" in case:
        with pytest.raises(PermitError, match=case["refused"]):
            verifier.verify(None, envelope, require=require, proof=raw_proof)
        with pytest.raises(ValueError):
            reference.permit(envelope, THEIRS["alice"], now, algs, raw_proof)
        return
    found = verifier.verify(None, case["envelope"], require=require, proof=proof)
    assert {name: getattr(found, name) for name in case["claims"]} == case["claims"]
    assert reference.permit(envelope, THEIRS["alice"], now, algs, raw_proof) == case["claims"]
    payload = PermitClaims(**case["claims"]).to_payload()
    assert payload in envelope
    assert payload.hex() == case.get("payload", payload.hex())
    assert len(envelope) <= 4_800 if proof is None else len(envelope) <= 700


@pytest.mark.parametrize("case", cases("audit", "cases"))
def test_chains_of_the_vectors(case: dict[str, Any]) -> None:
    data, mode = case["jsonl"].encode(), case.get("mode", "hybrid")
    checkpoint = b64(case["checkpoint"]) if "checkpoint" in case else None
    bundle = ours("alice").public_keys()
    if "kind" in case:
        with pytest.raises(AuditChainError) as caught:
            SignedAuditChain.verify_jsonl(data, bundle, mode == "hybrid", checkpoint)
        assert caught.value.kind == case["kind"]
        with pytest.raises(ValueError):
            reference.audit(data, THEIRS["alice"], mode, checkpoint)
        return
    assert SignedAuditChain.verify_jsonl(data, bundle, mode == "hybrid", checkpoint) == case["length"]
    assert reference.audit(data, THEIRS["alice"], mode, checkpoint) == case["length"]
    assert (
        SignedAuditChain.resume(ours("alice"), data, mode == "hybrid").head_hash == case.get("head")
        or "head" not in case
    )


@pytest.mark.parametrize("case", cases("channel", "messages"))
def test_messages_of_the_vectors(case: dict[str, Any], at: Callable[[float], None]) -> None:
    document = vectors("channel")
    at(case.get("now", document["now"]))
    end = SecureChannel(ours("bob"), ours("alice").public_keys(), replay_store=InMemoryReplayStore())
    sealed = b64(case["sealed"])

    def receive() -> tuple[bytes, str]:
        if case["kind"] == 0:
            return end.receive_data(sealed), ""
        message = end.receive(sealed, case["context"])
        return message.data, message.correlation_id

    if "refused" in case:
        with pytest.raises(ChannelError, match=case["refused"]):
            receive()
        return
    assert receive() == (b64(case["data"]), case["correlation"])
    opened = reference.channel(sealed, case["kind"], SECRET["bob"], THEIRS["bob"], THEIRS["alice"])
    assert opened["data"] == b64(case["data"])
    assert (opened["header"]["ctx"], opened["header"]["cor"]) == (case["context"], case["correlation"])


def test_the_session_of_the_vectors(at: Callable[[float], None]) -> None:
    document = vectors("channel")
    at(document["now"])
    session = document["session"]
    end = SecureChannel(ours("bob"), ours("alice").public_keys(), replay_store=InMemoryReplayStore())
    mine = end.accept(b64(session["opening"]), session["context"])
    opened = reference.channel(b64(session["opening"]), 2, SECRET["bob"], THEIRS["bob"], THEIRS["alice"])
    theirs = reference.Session(opened)
    for number, (frame, text) in enumerate(zip(session["frames"], session["data"], strict=True)):
        assert mine.receive(b64(frame)) == text.encode()
        assert theirs.receive(b64(frame)) == (text.encode(), number == 3)
    assert mine.is_finished


@pytest.mark.parametrize("case", cases("directory", "cases"))
def test_directories_of_the_vectors(case: dict[str, Any], at: Callable[[float], None]) -> None:
    at(vectors("directory")["now"])
    public = ours("root").public_keys()
    root, data = Root(public.ml_dsa_verifying_key, public.ed25519_verifying_key), case["manifest"].encode()
    if "refused" in case:
        with pytest.raises(DirectoryError, match=case["refused"]):
            read_signed(data, root)
        with pytest.raises(ValueError):
            reference.directory(data, THEIRS["root"])
        return
    found = read_signed(data, root)
    assert (found.version, sorted(found.bundles)) == (case["version"], case["ids"])
    assert reference.directory(data, THEIRS["root"])["version"] == case["version"]


def test_the_key_file_of_the_vectors() -> None:
    case = vectors("key_file")
    data = b64(case["file"])
    assert keyfile.open_sealed(data, case["passphrase"]).secrets() == ours("alice").secrets()
    header, secret = reference.key_file(data, case["passphrase"].encode())
    assert header["id"] == case["id"]
    assert secret.public() == SECRET["alice"].public()
    with pytest.raises(ValueError):
        reference.key_file(data, b"another")


def test_vectors_are_all_there() -> None:
    counted = {name: len(vectors(name)["cases"]) for name in ("permits", "audit", "directory")}
    assert counted == {"permits": 20, "audit": 11, "directory": 3}
    assert len(vectors("channel")["messages"]) == 8


# --- CBOR ---

VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.binary(max_size=300), st.text(max_size=30)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=30),
        st.dictionaries(st.one_of(st.integers(-(2**64), 2**64 - 1), st.text(max_size=30)), inner, max_size=5),
    ),
    max_leaves=40,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@EXAMPLES
@given(value=VALUES)
def test_cbor_is_written_alike(value: Any) -> None:
    data = cbor.encode(value)
    assert data == reference.write(value)
    if depth(value) <= cbor.MAX_DEPTH:
        assert cbor.decode(data) == reference.read(data) == value
    else:
        with pytest.raises(cbor.CBORError):
            cbor.decode(data)


@EXAMPLES
@given(data=st.one_of(st.binary(max_size=30), VALUES.map(cbor.encode).flatmap(lambda good: flipped(good))))
def test_cbor_is_read_alike(data: bytes) -> None:
    try:
        found = reference.read(data)
    except ValueError:
        with pytest.raises(cbor.CBORError):
            cbor.decode(data)
        return
    if depth(found) <= cbor.MAX_DEPTH:
        assert cbor.decode(data) == found


def flipped(data: bytes) -> st.SearchStrategy[bytes]:
    return st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)).map(
        lambda at: data[: at[0]] + bytes([at[1]]) + data[at[0] + 1 :]
    )


def test_cbor_of_rfc_8949() -> None:
    """Appendix A, as far as these formats go."""
    for text, value in (
        ("00", 0),
        ("17", 23),
        ("1818", 24),
        ("190100", 256),
        ("1a000f4240", 1_000_000),
        ("1bffffffffffffffff", 2**64 - 1),
        ("3bffffffffffffffff", -(2**64)),
        ("3863", -100),
        ("f4", False),
        ("f6", None),
        ("4401020304", b"\x01\x02\x03\x04"),
        ("64f0908591", "\U00010151"),
        ("8201820203", [1, [2, 3]]),
        ("a201020304", {1: 2, 3: 4}),
        ("80", []),
        ("a0", {}),
    ):
        assert cbor.encode(value).hex() == text
        assert cbor.decode(bytes.fromhex(text)) == value
    for bad in (
        "1817",
        "190017",
        "5f4100ff",
        "9f01ff",
        "f7",
        "f97e00",
        "fb3ff199999999999a",
        "c0",
        "a203040102",
        "ff",
        "1c",
    ):
        with pytest.raises(cbor.CBORError):
            cbor.decode(bytes.fromhex(bad))


# --- what either side makes, the other reads ---


TEXTS = st.one_of(st.none(), st.text(max_size=60))
HEX = st.one_of(st.none(), st.binary(min_size=32, max_size=32).map(bytes.hex))


@settings(EXAMPLES, max_examples=40)
@given(
    action=st.text(max_size=40),
    principal=TEXTS,
    kind=TEXTS,
    resource=TEXTS,
    params=HEX,
    policies=HEX,
    tips=st.one_of(st.none(), st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=3)),
    life=st.integers(0, 10**6),
)
def test_permits_of_the_library_are_read_by_the_reference(
    action: str, principal: Any, kind: Any, resource: Any, params: Any, policies: Any, tips: Any, life: int
) -> None:
    signer, now = PqTokenSigner.from_keypair_hybrid(ours("alice")), int(clock.now())
    tip = None if tips is None else ",".join(map(bytes.hex, tips))
    claims = PermitClaims(
        "00000000-0000-7000-8000-000000000001",
        "00000000-0000-7000-8000-000000000002",
        action,
        now,
        now + life,
        principal,
        kind,
        resource,
        params,
        policies,
        None,
        tip,
        "alice",
    )
    envelope = signer.sign_claims(claims)
    found = reference.permit(envelope, THEIRS["alice"], now)
    assert all(getattr(claims, name) == value for name, value in found.items())
    assert signer.verify(None, envelope) == claims


def test_permits_of_the_reference_are_read_by_the_library() -> None:
    now = int(clock.now())
    payload = reference.write({7: b"t" * 16, "evl": b"e" * 16, "act": "x", 6: now, 4: now + 30, 2: "who"})
    envelope = SECRET["alice"].sign("alice", *reference.PERMIT, payload)
    found = PqTokenSigner.from_keypair_hybrid(ours("alice")).verify(None, envelope, require={"principal": "who"})
    assert found.action_name == "x"
    assert reference.permit(envelope, THEIRS["alice"], now)["action_name"] == "x"
    for bad in (
        {7: b"t" * 16, "evl": b"e" * 16, "act": "x", 6: now},
        {7: b"t" * 15, "evl": b"e" * 16, "act": "x", 6: now, 4: now + 30},
        {7: b"t" * 16, "evl": b"e" * 16, "act": "x", 6: now, 4: now + 30, "new": 1},
        {7: b"t" * 16, "evl": b"e" * 16, "act": b"x", 6: now, 4: now + 30},
        {7: b"t" * 16, "evl": b"e" * 16, "act": "x", 6: now, 4: True},
        {7: b"t" * 16, "evl": b"e" * 16, "act": "x", 6: now, 4: now + 30, "tip": []},
        [1],
        "x",
    ):
        with pytest.raises(PermitError, match="claims parse"):
            PqTokenSigner.from_keypair_hybrid(ours("alice")).verify(
                None, SECRET["alice"].sign("alice", *reference.PERMIT, reference.write(bad))
            )


@settings(EXAMPLES, max_examples=15)
@given(batches=st.lists(st.integers(1, 9), min_size=1, max_size=4), hybrid=st.booleans())
def test_chains_of_the_library_are_read_by_the_reference(batches: list[int], hybrid: bool) -> None:
    chain = SignedAuditChain(ours("alice"), hybrid)
    for size in batches:
        chain.append_batch([AuditEntry("é", "a", "permit", "x") for _ in range(size)])
    mode = "hybrid" if hybrid else "pq"
    blob, mark = chain.export_jsonl(), chain.checkpoint()
    assert reference.audit(blob, THEIRS["alice"], mode, mark) == sum(batches)
    lines = blob.splitlines(keepends=True)
    for bad in (lines[1:], lines[:-1], lines[::-1], lines * 2):
        if bad != lines:
            for check in (
                lambda: reference.audit(b"".join(bad), THEIRS["alice"], mode, mark),
                lambda: SignedAuditChain.verify_jsonl(b"".join(bad), ours("alice").public_keys(), hybrid, mark),
            ):
                with pytest.raises(ValueError):
                    check()


@settings(EXAMPLES, max_examples=15)
@given(data=st.binary(max_size=2000), context=st.text(max_size=30), correlation=st.text(max_size=30))
def test_messages_of_the_library_are_read_by_the_reference(data: bytes, context: str, correlation: str) -> None:
    there = SecureChannel(ours("alice"), ours("bob").public_keys())
    opened = reference.channel(
        there.send_signed(data, context, correlation), 1, SECRET["bob"], THEIRS["bob"], THEIRS["alice"]
    )
    assert (opened["data"], opened["header"]["ctx"], opened["header"]["cor"]) == (data, context, correlation)
    session = there.session(context)
    theirs = reference.Session(reference.channel(session.opening, 2, SECRET["bob"], THEIRS["bob"], THEIRS["alice"]))
    for size in (0, 1, 15, 16, 17, 63, 64, 65, len(data)):
        assert theirs.receive(session.send(data[:size])) == (data[:size], False)
    assert theirs.receive(session.close()) == (b"", True)


def test_a_merkle_tree_is_one() -> None:
    from kest.gate.crypto.merkle import leaf_hash, paths_of, root_from_path, root_of

    for size in (*range(1, 40), 255, 256, 257):
        leaves = [leaf_hash(b"%d" % number) for number in range(size)]
        assert leaves == [reference.leaf(b"%d" % number) for number in range(size)]
        root, paths = paths_of(leaves)
        assert root == root_of(leaves) == reference.tree(leaves)
        for index, path in enumerate(paths):
            assert root_from_path(leaves[index], index, size, path) == root
            assert reference.climb(leaves[index], {"i": index, "n": size, "path": b"".join(path)}) == root
            assert root_from_path(leaves[index], index, size, [*path, path[0] if path else leaves[0]]) is None
            if path:
                assert root_from_path(leaves[index], index, size, path[:-1]) is None


def test_every_refusal_is_of_the_gate() -> None:
    assert all(issubclass(kind, GateError) for kind in (PermitError, AuditChainError, DirectoryError, ChannelError))
