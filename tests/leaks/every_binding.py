"""One good call of everything that the native module offers, for tests that call all of it wrongly or without memory.

``CALLS``: name to (what is called, its arguments). What is called is made anew each time, where calling changes it.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.util
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import quote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kest import _kestcore as core
from kest.core import BaggageManager, LocalEd25519Provider, MockPolicyEngine, TrustStore, configure, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.gate import ActionContext, DeviceFingerprint, Gate, GeoLocation, InMemoryRateLimitStore, InMemorySessionStore
from kest.gate import _reason as gate_reason
from kest.gate import compile as gate_compile
from kest.gate.permit import PermitToken

__all__ = ["CALLS", "FORGED", "GROUPS", "INSTANCES", "Call", "attributes", "fresh_module"]


class Call(NamedTuple):
    target: Callable[[], Callable[..., Any]]
    args: tuple[Any, ...]
    named: dict[str, Any]

    def __call__(self) -> Any:
        return self.target()(*self.args, **self.named)


def fresh_module() -> ModuleType:
    """The extension, executed once more as a module of its own."""
    spec = importlib.util.find_spec("kest._kestcore")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _always(what: Any) -> Callable[[], Any]:
    return lambda: what


# --- what the calls are about ---


@dataclasses.dataclass
class Row:
    name: str
    value: float


identity = LocalEd25519Provider("spiffe://kest.test/bindings", bytes(range(32)))
signer, jwk = identity.signer, identity.public_jwk()
configure(engine=MockPolicyEngine(), identity=identity)
_called = kest_verified("p", user="u", agent="a", added_taints=["t"], resource_attr={"a": 1})(lambda a: a)
with lineage():
    for _n in range(3):
        _called(_n)
    passport = get_current_passport()
entries, text, tip = passport.entries, passport.serialize(), passport.chain_tip
ring = TrustStore({identity.get_identity(): identity}).ring()
public = core.PublicKey.from_raw(signer.public_key)
packed, dense = core.pack_z(passport), core.pack_dense(passport)
claim = "3c6a7a50-62b8-4d1a-9d0e-6a1f7c1d2e3f"
headers = [
    ",".join(f"{key}={quote(value)}" for key, value in {**values, "kest.user": "ü", "x": "y"}.items()).encode()
    for values in (
        BaggageManager.pack(passport, limit=4096),
        BaggageManager.pack(passport, limit=4096, dense=True),
        {"kest.claim_check": claim, "kest.chain_tip": tip},
    )
]
record = {claim: f"{tip}\n{text}"}
policy_context = core.canonicalize(
    {f"{tier}_policies": ["p"] for tier in ("enterprise", "platform", "app", "function")} | {"deviations": []}
)
branches = [
    core.Passport(entries).seal(
        signer, f"op{n}", "system", 10, False, {}, [], [], policy_context, "0" * 64, core.uuid7(), 1_700_000_000_000 + n
    )
    for n in range(40)
]
wide = core.Passport.merge(*branches)
value = {"b": [1, 2.5, None, True, "é\n", {"z": (1, 2)}], "a": {"x": "y" * 300}, "n": 2**40}
json = core.canonicalize(value)
labels = {"kest.identity": '{"user":"u"}', "x": "y"}
taints = [f"t{n:02}" for n in range(20)]
sealed = (
    signer, "op", "system", 50, False, labels, taints, ["t30"], policy_context, "ab" * 32,
    "01890a5d-ac96-774b-bcce-b302099a8057", 1_700_000_000_000,
)  # fmt: skip
drafted = (identity.get_identity(), *sealed[1:])
settled = core.Passport(entries).seal(*sealed)
entry_named: dict[str, Any] = {
    "trust_score": 3, "classification": "critic", "parent_ids": ["ab" * 32], "labels": {"a": "b"}, "added_taints": ["y", "x"],
    "removed_taints": ["z"], "taints": ["x", "y"], "policy_context": core.parse(policy_context), "input_hash": "cd" * 32,
    "entry_id": "01890a5d-ac96-774b-bcce-b302099a8057", "timestamp_ms": 5,
}  # fmt: skip
entry = core.KestEntry("op", **entry_named)
spki = bytes.fromhex("302a300506032b6570032100") + signer.public_key
pem = "-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(spki).decode() + "\n-----END PUBLIC KEY-----\n"
_ec, _rsa = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)


def _number(value: int, length: int) -> str:
    return core.b64url_encode(value.to_bytes(length, "big"))


_at, _modulus = _ec.public_key().public_numbers(), _rsa.public_key().public_numbers()
ec_jwk = {
    "kty": "EC",
    "crv": "P-256",
    "x": _number(_at.x, 32),
    "y": _number(_at.y, 32),
    "alg": "ES256",
    "key_ops": ["verify"],
}
rsa_jwk = {"kty": "RSA", "n": _number(_modulus.n, 256), "e": "AQAB", "alg": "RS256", "use": "sig"}
ec_signature = b"".join(
    part.to_bytes(32, "big") for part in decode_dss_signature(_ec.sign(b"m", ec.ECDSA(hashes.SHA256())))
)
rsa_signature = _rsa.sign(b"m", padding.PKCS1v15(), hashes.SHA256())
ec_spki, rsa_spki = (
    key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for key in (_ec, _rsa)
)
grants = [(f"p{n}", public, 100, True, 0, 2**40) for n in range(20)]
key, nonce, salt = b"k" * 32, b"n" * 24, b"s" * 16
boxed = core.aead_seal(key, nonce, b"m", b"ad")
vaulted = core.vault_seal(b"pass", salt, 1, 8192, nonce, b"m", b"ad")
stream = core.SecretStream(key)
chunk = stream.push(b"m", b"ad")

leaves = [hashlib.sha256(bytes([n])).digest() for n in range(7)]
items = [entries[0], entries[1].encode(), (signer, "typ", b"{}")] * 6
FIRST = 250  # a tile of 256 ends among them
frame, _hashes, tags, _cuts = core.tlog_frame(items, FIRST, bytes(32))
BUNDLE = 84
checked = core.RecordKeys([(identity.get_identity(), public)])


def tree(count: int = 7) -> core.LogTree:
    made = core.LogTree()
    made.append(b"".join(leaves[:count]))
    return made


def node(level: int, index: int) -> bytes:
    """A node of the tree of leaves."""
    if level == 0:
        return leaves[index]
    return hashlib.sha256(b"\x01" + node(level - 1, 2 * index) + node(level - 1, 2 * index + 1)).digest()


def proof(path: list[list[tuple[int, int]]]) -> bytes:
    """Each hash of a path, from the nodes that it is folded from."""
    return b"".join(core.tlog_fold(b"".join(node(*at) for at in part)) for part in path)


here, there = GeoLocation("NL", "N", "Delft", 52.0, 4.0), GeoLocation("FR", None, None, 51.0, 2.0)
device = DeviceFingerprint("d1")
asked: dict[str, Any] = {
    "principal_id": "a", "principal_kind": "user", "action_name": "b", "roles": ["r", "s"], "resource": "/x/../y",
    "params": {"n": 1, "t": "x", "l": [1.5, "a", True, None]}, "ip": "1.2.3.4", "session_id": "s", "current_geo": here,
    "origin_geo": there, "origin_ip": "1.2.3.4", "device": device, "origin_device": device,
    "session_started_at": int(time.time()), "action_count": 2, "trust": 5, "taints": ["t"],
}  # fmt: skip
context = ActionContext(**asked)
drifted = ActionContext(**{**asked, "session_id": "drifted", "origin_ip": "::1", "current_geo": there})
conditions: list[dict[str, Any]] = [
    {"param_max": {"field": "n", "max": 1}},
    {"param_in": {"field": "t", "values": ["x", "y", 1, 2.5, True]}},
    {"any": [{"identity_role": "r"}, {"not": {"identity_kind": "agent"}}]},
    {"time_window": "00:00-23:59 Europe/Amsterdam"},
    {"rate_limit": {"max": 10**6, "window": "1h"}},
    {"geo_country": ["NL", "FR"]},
]
document = {
    "policies": [
        *({"name": f"n{n}", "effect": "refuse", "conditions": [{"action": f"no{n}"}]} for n in range(12)),
        {"name": "p", "effect": "permit", "conditions": conditions},
        {"name": "q", "effect": "permit", "conditions": [{"rate_limit": {"max": 10**6, "window": "1m"}}]},
    ],
}


def _compiled() -> tuple[list[Any], list[Any]]:
    """What `Gate.from_dict` gives to the core."""
    zones: list[Any] = []
    policies: list[Any] = []

    class Recorder:
        def __init__(self) -> None:
            self.made = core.GatePolicySet()

        def add_zone(self, *args: Any) -> None:
            zones.append(args)
            self.made.add_zone(*args)

        def add(self, *args: Any) -> None:
            policies.append(args)
            self.made.add(*args)

        def seal(self, digest: str) -> core.GatePolicySet:
            return self.made.seal(digest)

    with patch.object(gate_compile, "GatePolicySet", Recorder):
        Gate.from_dict({"policies": document["policies"]})
    return zones, policies


zones, policies = _compiled()


def policy_set(sealed: bool = True) -> core.GatePolicySet:
    made = core.GatePolicySet()
    for zone in zones:
        made.add_zone(*zone)
    for policy in policies:
        made.add(*policy)
    return made.seal("digest") if sealed else made


rates, sessions = InMemoryRateLimitStore(), InMemorySessionStore()
settings = Gate.from_dict({"policies": document["policies"]}).evaluate(context)._settings
ready = policy_set()


def gate() -> core.GateCore:
    limits = (("n", -1.0, 5.0, 0, "b"), ("n", 0.0, 9.0, 1, "other"))
    return core.GateCore(ready, rates, sessions, limits, True, 500.0, 10**9, False, 60, settings)


decider = gate()
verdict = decider.evaluate(context)
permitted = core.GateCore(ready, rates, sessions, (), False, 500.0, None, False, 60, settings).evaluate(context)
known_session = (1, 0, 4.5, 3, "1.2.3.4", here, "d1")

INSTANCES: dict[str, Callable[[], Any]] = {
    "SecretStream": lambda: core.SecretStream(key),
    "LogTree": tree,
    "RecordKeys": lambda: core.RecordKeys([("p", public)]),
    "Signer": lambda: core.Signer("p", bytes(32)),
    "PublicKey": lambda: core.PublicKey.from_jwk(jwk),
    "KeyRing": lambda: core.KeyRing(grants),
    "KnownEntries": lambda: core.KnownEntries(ring, 64, 1 << 20),
    "KestEntry": lambda: core.KestEntry("op", **entry_named),
    "Passport": lambda: core.Passport(entries),
    "ActionContext": lambda: ActionContext(**asked),
    "GatePolicySet": policy_set,
    "InMemoryRateLimitStore": InMemoryRateLimitStore,
    "InMemorySessionStore": InMemorySessionStore,
    "Verdict": lambda: decider.evaluate(context),
    "GateCore": gate,
}


def _calls() -> dict[str, Call]:
    calls: dict[str, Call] = {}

    def of(name: str, *args: Any, target: Callable[[], Any] | None = None, case: str = "", **named: Any) -> None:
        owner, _, method = name.rpartition(".")
        if target is None:
            made = INSTANCES[owner] if owner else _always(core)
            target = lambda: getattr(made(), method)  # noqa: E731
        calls[name + (f" {case}" if case else "")] = Call(target, args, named)

    of("canonicalize", value)
    of("digest", value)
    of("parse", json)
    of("hash_arguments", {"a": value, "b": [1, b"x"], "c": Row("r", 1.5)}, lambda given: (repr(given), True))
    of("hash_value", [object, 2**70], lambda given: ("other", True))
    of("know_record", Row, False, "Row", ("name", "value"))
    of("sha256", json)
    of("b64url_encode", json)
    of("b64url_decode", "abcd")
    of("baggage_value", b"a%20b")
    of("uuid7")
    of("stamp")
    of("lock_mode", "adaptive")
    of("lock_mode", None, case="read")
    of("lock_stats")
    of("verify_passport", passport, ring, 1)
    of("pack_z", passport)
    of("pack_dense", passport)
    of("unpack_z", packed, 1 << 20, 100)
    of("unpack_dense", dense, 1 << 20, 100)
    of("aead_seal", key, nonce, b"m", b"ad")
    of("aead_open", key, nonce, boxed, b"ad")
    of("vault_seal", b"pass", salt, 1, 8192, nonce, b"m", b"ad")
    of("vault_open", b"pass", salt, 1, 8192, nonce, vaulted, b"ad")
    of("tlog_root", b"".join(leaves[:4]))
    of("tlog_fold", b"".join(leaves[:3]))
    of("tlog_leaf", json)
    of("tlog_inclusion_path", 5, 7)
    of("tlog_consistency_path", 3, 7)
    of("tlog_verify_inclusion", 5, 7, leaves[5], proof(core.tlog_inclusion_path(5, 7)), tree().root())
    of("tlog_verify_consistency", 3, 7, tree(3).root(), proof(core.tlog_consistency_path(3, 7)), tree().root())
    of("tlog_records", frame[BUNDLE:])
    of("tlog_find", tags, tags[:8], False)
    of("tlog_frame", items, FIRST, bytes(32), 1)
    of("tlog_frame", items, FIRST, bytes(32), 2, case="in two threads")
    of("tlog_frames", frame)
    of("tlog_leaves", frame[BUNDLE:], FIRST)
    of("tlog_check", [frame[BUNDLE:]] * 2, checked, 2)
    of("record_check", entries[0].encode(), checked)
    of("status_text", core.STATUS_SIGNATURE)

    of("SecretStream", key)
    of("SecretStream", key, stream.header, case="to read")
    of("SecretStream.push", b"m", b"ad", True)
    of("SecretStream.pull", chunk, b"ad", target=lambda: core.SecretStream(key, stream.header).pull)
    of("LogTree", 4, [b"".join(leaves[:4])])
    of("LogTree.append", b"".join(leaves))
    of("LogTree.partials")
    of("LogTree.root")
    of("RecordKeys", [("p", public), ("p", public), ("q", public)])
    of("Signer", "p", bytes(32))
    of("Signer", "p", case="of its own")
    of("Signer.sign", b"m")
    of("Signer.sign_jws", b"{}", "typ")
    of("Signer.export_seed")
    of("Signer.renamed", "q")
    of("PublicKey.from_raw", signer.public_key, target=lambda: core.PublicKey.from_raw)
    of("PublicKey.from_jwk", jwk, target=lambda: core.PublicKey.from_jwk)
    of("PublicKey.from_pem", pem, target=lambda: core.PublicKey.from_pem)
    of("PublicKey.from_spki", spki, target=lambda: core.PublicKey.from_spki)
    for case, key_of in (("EC", ec_jwk), ("RSA", rsa_jwk)):
        of("PublicKey.from_jwk", key_of, target=lambda: core.PublicKey.from_jwk, case=case)
    for case, der in (("EC", ec_spki), ("RSA", rsa_spki)):
        of("PublicKey.from_spki", der, target=lambda: core.PublicKey.from_spki, case=case)
    of("PublicKey.public_jwk")
    of("PublicKey.public_jwk", target=lambda: core.PublicKey.from_jwk(ec_jwk).public_jwk, case="EC")
    of("PublicKey.public_jwk", target=lambda: core.PublicKey.from_jwk(rsa_jwk).public_jwk, case="RSA")
    of("PublicKey.verify", b"m", signer.sign(b"m"))
    of("PublicKey.verify", b"m", ec_signature, target=lambda: core.PublicKey.from_jwk(ec_jwk).verify, case="EC")
    of("PublicKey.verify", b"m", rsa_signature, target=lambda: core.PublicKey.from_jwk(rsa_jwk).verify, case="RSA")
    of("KeyRing", grants)
    of("KnownEntries", ring, 64, 1 << 20)
    of("KnownEntries.unpack", "kest.passport", text, 1 << 20, 100, 0)
    of("KnownEntries.unpack", "kest.passport_d", dense, 1 << 20, 100, case="dense")
    of("KnownEntries.unpack", "kest.passport_z", packed, 1 << 20, 100, case="compressed")
    for case, header in zip(("", "dense", "claim check"), headers, strict=True):
        of("KnownEntries.arrive", header, 1 << 20, 100, record.get, 1 << 20, case=case)
    of("KnownEntries.verify", passport, 1)
    of("KnownEntries.missing", passport)
    of("KestEntry", "op", **entry_named)
    of("KestEntry", "op", case="of nothing else")
    of("KestEntry.payload", "p")
    of("Passport", entries)
    of("Passport", settled.entries, case="settled")
    of("Passport.decode")
    of("Passport.serialize")
    of("Passport.deserialize", text, 100, target=lambda: core.Passport.deserialize)
    of("Passport.add_signature", settled.entries[-1])
    of("Passport.merge", *branches[:9], target=lambda: core.Passport.merge)
    restored = (text, 5, ("a",), "ab" * 32)
    of("Passport._restore", *restored, target=lambda: getattr(core.Passport, "_restore"))
    of("Passport.__reduce__", target=lambda: core.Passport(entries).restrict(5, ["a"]).__reduce__)
    of("Passport.restrict", 10, ["a", "b"])
    of("Passport.snapshot")
    of("Passport.roll_over")
    of("Passport.seal", *sealed)
    of("Passport.seal", *sealed, target=lambda: wide.snapshot().seal, case="of forty tips")
    of("Passport.seal", *sealed, target=lambda: core.Passport(entries).roll_over().seal, case="rolled over")
    of("Passport.seal", *sealed, target=lambda: core.Passport(entries).restrict(5, ["r"]).seal, case="restricted")
    of("Passport.seal", *sealed[:3], 100, True, *sealed[5:], case="raised")
    of("Passport.draft", *drafted)
    of("Passport.adopt", settled.entries[-1], True)
    of("Passport.taints_after", taints, ["t", "t30"])

    of("gate_register", GeoLocation, DeviceFingerprint, PermitToken, gate_reason)
    of("gate_path", "/x/../y")
    of("ActionContext", **asked)
    of("ActionContext.with_param", "k", [1, "a"])
    of("GatePolicySet")
    of("GatePolicySet.add_zone", *zones[0], target=lambda: core.GatePolicySet().add_zone)
    for at in (0, len(policies) - 2, len(policies) - 1):
        of("GatePolicySet.add", *policies[at], target=lambda: policy_set(False).add, case=str(at) if at else "")
    of("GatePolicySet.seal", "digest", target=lambda: policy_set(False).seal)
    of("InMemoryRateLimitStore", 100)
    of("InMemoryRateLimitStore.sweep")
    of("InMemorySessionStore", 20_000.0, 100)
    for method in ("is_invalidated", "invalidate", "reinstate"):
        of(f"InMemorySessionStore.{method}", "s", "session")
    of("InMemorySessionStore.sweep")
    of("Verdict._sign", verdict.permit_token, target=lambda: decider.evaluate(context)._sign)
    of("Verdict._refused", "gate", "IDENTITY_FAILED", "why")
    of("GateCore", ready, rates, sessions, (("n", -1.0, 5.0, 0, "b"),), True, 500.0, 10**9, False, 60, settings)
    of("GateCore.evaluate", context)
    of("GateCore.evaluate", drifted, case="drifted")
    of("GateCore.evaluate", ActionContext("a", "agent", "other", params={"n": -5}), case="refused")
    of("GateCore.evaluate_with", context, ..., ...)
    of("GateCore.evaluate_with", context, known_session, {0: True, 1: False}, case="elsewhere")
    of("GateCore.evaluate_with", context, None, {}, case="not asked yet")
    of("GateCore.take_back", permitted)
    for at in (0, len(policies) - 2, len(policies) - 1):
        of("GateCore.explain", context, at, case=str(at) if at else "")
    of("GateCore.replace", ready)
    of("GateCore.set_clock", 10**18, 10**9)
    of("GateCore.clock")
    return calls


CALLS = _calls()


def _bundle(jws: str) -> bytes:
    return len(jws).to_bytes(2, "big") + jws.encode()


_bad = entries[2][:-8] + "AAAAAAAA"
_other = core.PublicKey.from_raw(core.Signer("x", b"x" * 32).public_key)
FORGED: dict[str, Callable[[], object]] = {
    "Ed25519": lambda: public.verify(b"m", bytes(64)),
    "another key": lambda: _other.verify(b"m", signer.sign(b"m")),
    "EC": lambda: core.PublicKey.from_jwk(ec_jwk).verify(b"n", ec_signature),
    "RSA": lambda: core.PublicKey.from_jwk(rsa_jwk).verify(b"n", rsa_signature),
    "passport": lambda: core.verify_passport(core.Passport([*entries[:2], _bad]), ring, 1),
    "known entries": lambda: core.KnownEntries(ring).verify(core.Passport([*entries[:2], _bad])) is None,
    "passport, in threads": lambda: core.verify_passport(core.Passport([*entries[:2], _bad]), ring, 2),
    "records": lambda: core.tlog_check([_bundle(_bad)], checked, 2)[0][:1] == b"\0",
    "box": lambda: core.aead_open(key, nonce, boxed[:-1] + b"x", b"ad"),
    "vault": lambda: core.vault_open(b"other", salt, 1, 8192, nonce, vaulted, b"ad"),
    "stream": lambda: core.SecretStream(key, stream.header).pull(chunk, b"other"),
    "inclusion": lambda: core.tlog_verify_inclusion(
        4, 7, leaves[5], proof(core.tlog_inclusion_path(5, 7)), tree().root()
    ),
    "consistency": lambda: core.tlog_verify_consistency(
        3, 7, bytes(32), proof(core.tlog_consistency_path(3, 7)), tree().root()
    ),
    "record": lambda: core.record_check(_bad.encode(), checked)[:1] == b"\0",
}
"""What is never true, whatever fails."""


def attributes(thing: Any) -> list[str]:
    """What can be read of it, that is no method."""
    return [name for name in dir(thing) if not name.startswith("__") and not callable(getattr(type(thing), name))]


def _group(name: str) -> str:
    owner = name.partition(" ")[0].partition(".")[0]
    if owner in INSTANCES:
        return owner
    return "log" if owner.startswith(("tlog", "record")) else "functions"


GROUPS = {group: [name for name in CALLS if _group(name) == group] for group in map(_group, CALLS)}
"""Calls by type; those of functions in two parts."""
