"""Hot paths leave memory and reference counts flat over many iterations. Each runs in a process of its own."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

PRELUDE = """
import dataclasses, gc, json, resource, sys
from urllib.parse import quote
from kest import _kestcore as core
from kest.core import *
from kest.core.context import get_current_passport, join, lineage
from kest.core.hashing import hash_arguments, hash_value
from kest.errors import KestError
identity = LocalEd25519Provider("spiffe://kest.test/leaks")
configure(engine=MockPolicyEngine(), identity=identity)
signer = identity.signer
f = kest_verified("p", user="u", resource_attr={"a": 1}, added_taints=["x"])(lambda a: a)
with lineage():
    for _ in range(3): f(1)
    view = get_current_passport()
entries, text = view.entries, view.serialize()
store = TrustStore({identity.get_identity(): identity})
bad = [*entries[:2], entries[2][:-8] + "AAAAAAAA"]
header = ",".join(f"{k}={quote(v)}" for k, v in BaggageManager.pack(view, limit=4096).items()).encode()
raised = 0
Row = dataclasses.make_dataclass("Row", ["name", "value"])

def fails(fn, *args):
    global raised
    try: fn(*args)
    except (KestError, TypeError, ValueError): raised += 1
    else: raise SystemExit("no error")

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

def measure(work, iterations):
    for _ in range(iterations // 5): work()
    gc.collect()
    before, blocks = resident(), sys.getallocatedblocks()
    for _ in range(iterations): work()
    gc.collect()
    print(sys.getallocatedblocks() - blocks, resident() - before)
"""

CASES: dict[str, tuple[str, int]] = {
    "sign": ("signer.sign(b'message'); signer.sign_jws(b'{}'); signer.principal; signer.public_key", 10_000),
    "signers": ("core.Signer('p').sign(b''); core.Signer('p', bytes(32))", 2_000),
    "decorated call": ("with lineage(): f(1)", 100_000),
    "flow with roll-over": ("f(1)", 20_000),
    "canonicalize": ("core.canonicalize({'a': [1, 2.5, None, 'é', {'b': True}]}); core.digest(('a', 1))", 100_000),
    "canonicalize refuses": (
        "fails(core.canonicalize, {'a': [float('nan')]}); fails(core.canonicalize, {1: 2})",
        50_000,
    ),
    "parse": ('core.parse(b\'{"a":[1,2.5,null,"\\\\u00e9",{"b":true}]}\')', 100_000),
    "parse refuses": (
        "fails(core.parse, b'{\"a\":1,\"a\":2}'); fails(core.parse, '[' * 100); fails(core.parse, '[1,')",
        50_000,
    ),
    "hash": ("hash_arguments({'a': [1, b'x', {3}], 'b': object}); hash_value(2**70)", 30_000),
    "hash records": (
        "c = dataclasses.make_dataclass('C', ['x', 'y']); v = [c(1, [2]), c(3, object())]; hash_value(v); "
        "hash_value(v); hash_value(Row('a', 1.5))",
        2_000,
    ),
    "passports": ("p = Passport(entries); p.tips; p.trust_score; p.taints; p.entries; p.chain_tip; p.decode()", 5_000),
    "text": ("Passport.deserialize(text).serialize()", 5_000),
    "text refuses": (
        "fails(Passport.deserialize, '[1]'); fails(Passport.deserialize, text[:-9]); fails(Passport, [5])",
        20_000,
    ),
    "broken passports": ("p = Passport(['x', *entries]); fails(p.decode); fails(lambda: p.tips); p.entries", 5_000),
    "verify": ("PassportVerifier.verify(entries, store)", 2_000),
    "verify refuses": (
        "fails(PassportVerifier.verify, bad, store); fails(PassportVerifier.verify, entries, {})",
        2_000,
    ),
    "stores": ("TrustStore({'a': identity, 'b': identity}).ring(); fails(TrustStore, {'a': b'x'})", 10_000),
    "keys": (
        "core.PublicKey.from_raw(signer.public_key).verify(b'a', b'b'); fails(core.PublicKey.from_jwk, {})",
        5_000,
    ),
    "entries": ("KestEntry('op', labels={'a': 'b'}, taints=['x']).payload('p'); fails(KestEntry, 5)", 20_000),
    "entries refuse": (
        "fails(KestEntry('op', classification='x').payload, 'p'); fails(KestEntry('o', labels={'a': 1}).payload, 'p')",
        20_000,
    ),
    "pack": ("BaggageManager.unpack(BaggageManager.pack(Passport(entries), limit=3000))", 3_000),
    "pack dense": ("q = Passport(entries); d = core.pack_dense(q); d and core.unpack_dense(d, 1 << 20, 100)", 3_000),
    "unpack refuses": (
        "fails(BaggageManager.unpack, {'kest.passport_z': 'eJwAAA'}); fails(core.unpack_z, 'A', 10, 10); "
        "fails(core.unpack_dense, 'AAAA', 10, 10)",
        20_000,
    ),
    "headers": (
        "k = core.KnownEntries(store.ring()); caps = 1 << 20, 100; "
        "k.verify(k.arrive(b'x=y,' + header + b',kest.user=u', *caps)[0]); "
        "k.arrive(header, *caps); [k.arrive(bad, *caps) for bad in (header[:-9], header * 2, b'kest.passport=x')]",
        2_000,
    ),
    "merge": ("Passport.merge(view, Passport(entries), view.restrict(10, ['a'])).roll_over()", 5_000),
    "adopt": ("p = Passport(); fails(p.adopt, 'x'); p.adopt(entries[0])", 5_000),
    "vault": (
        "k, n = b'k' * 32, b'n' * 24; core.aead_open(k, n, core.aead_seal(k, n, b'x' * 100, b''), b''); "
        "core.aead_open(k, n, b'x' * 20, b''); core.aead_open(k, n, b'', b''); fails(core.aead_seal, b'', n, b'', b'')",
        20_000,
    ),
    "streams": (
        "s = core.SecretStream(b'k' * 32); t = core.SecretStream(b'k' * 32, s.header); t.pull(s.push(b'x', b''), b''); "
        "t.pull(b'x' * 20, b''); t.pull(b'', b''); fails(core.SecretStream, b''); fails(t.pull, 5, b'')",
        5_000,
    ),
    "log frames": (
        "g, h, t, c = core.tlog_frame(['a.b.c', (signer, 'typ', b'{}')] * 150, 7, bytes(32)); core.tlog_frames(g); "
        "core.tlog_leaves(g[84:], 7); core.tlog_records(g[84:]); fails(core.tlog_frame, [5], 0, bytes(32)); "
        "fails(core.tlog_leaves, g[:99], 0)",
        100,
    ),
    "log trees": (
        "t = core.LogTree(); t.append(bytes(32 * 600)); t.partials(); t.root(); fails(t.append, b'x'); "
        "fails(core.LogTree, 5); core.tlog_inclusion_path(5, 9); "
        "core.tlog_consistency_path(5, 9); fails(core.tlog_inclusion_path, 9, 9)",
        1_000,
    ),
    "log records": (
        "k = core.RecordKeys([('p', core.PublicKey.from_raw(signer.public_key))] * 3); "
        "core.record_check(entries[0].encode(), k); core.tlog_check([b'\\0\\5a.b.c'], k); fails(core.RecordKeys, [5]); "
        "fails(core.tlog_check, [5], k); "
        "signer.renamed('q')",
        1_000,
    ),
    "uuid": ("core.uuid7(); core.stamp()", 100_000),
    "base64": ("core.b64url_decode(core.b64url_encode(b'abc')); fails(core.b64url_decode, '=')", 100_000),
}


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
@pytest.mark.parametrize("case", CASES)
def test_e2_memory_stays_flat(case: str, run_python: Any) -> None:
    statement, iterations = CASES[case]
    done = run_python(f"{PRELUDE}\ndef work():\n    {statement}\nmeasure(work, {iterations})\n")
    blocks, kibibytes = map(int, done.stdout.split())
    assert abs(blocks) < 300 + (1100 if case == "flow with roll-over" else 0), "Python objects pile up"
    assert kibibytes < 2048, "memory of the C core piles up"


def test_reference_counts_of_arguments(run_python: Any) -> None:
    """Not one reference too many or too few to anything that goes into the core a thousand times."""
    done = run_python(
        PRELUDE
        + """
value, seed, principal, labels = {"a": ["b"]}, bytes(range(32)), "p" * 40, {"k": "v" * 9}
taints, message = ["t" * 9], b"m" * 99
watched = [value, value["a"], seed, principal, labels, taints, message, entries, text, view, signer, identity]
def work():
    core.canonicalize(value); core.digest(value); core.parse(text); core.sha256(message)
    s = core.Signer(principal, seed); s.sign(message); s.sign_jws(message, "typ")
    KestEntry(principal, labels=labels, taints=taints, added_taints=taints).payload(principal)
    Passport(entries).entries; Passport.deserialize(text); Passport.merge(view, view)
    PassportVerifier.verify(view, store)
    with lineage(view): f(value)
    fails(core.canonicalize, {principal: object()}); fails(core.Signer, principal, message)
work()
gc.collect()
before = [sys.getrefcount(each) for each in watched]
for _ in range(300): work()
gc.collect()
after = [sys.getrefcount(each) for each in watched]
assert before == after, list(zip(before, after))
print("ok")
"""
    )
    assert done.stdout == "ok\n"


def test_types_and_module_state_are_collectable(run_python: Any) -> None:
    run_python(
        PRELUDE
        + """
before = {t: sys.getrefcount(t) for t in (core.Signer, core.PublicKey, core.KeyRing, core.KestEntry, core.Passport)}
for _ in range(1000):
    core.Signer("p"); core.PublicKey.from_raw(signer.public_key); core.KeyRing([]); KestEntry("op"); Passport(entries)
    fails(core.Signer, ""); fails(core.KeyRing, [5]); fails(KestEntry, "op", 5); fails(Passport, 5)
gc.collect()
for t, count in before.items():
    assert abs(sys.getrefcount(t) - count) < 5, (t, count, sys.getrefcount(t))
"""
    )
