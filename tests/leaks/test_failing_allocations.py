"""Each allocation of the C core fails once while each binding runs: a MemoryError or nothing, unchanged state, never a crash.

The sanitized build has the hook (KEST_FAULTS), which is also where anything read or freed wrongly shows, and that of
`make coverage`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from every_binding import GROUPS

PRELUDE = """
import gc, json
from kest import _kestcore as core
from kest.core import *
from kest.core.context import get_current_passport, lineage
from kest.core.hashing import hash_arguments, hash_value
from kest.errors import KestError
from kest.gate import ActionContext, Gate
identity = LocalEd25519Provider("spiffe://kest.test/faults")
configure(engine=MockPolicyEngine(), identity=identity)
signer = identity.signer
f = kest_verified("p", user="u", resource_attr={"a": 1}, added_taints=["x"])(lambda a: a)
with lineage():
    for _ in range(3): f(1)
    view = get_current_passport()
entries, text = view.entries, view.serialize()
passport = Passport(entries)
store = TrustStore({identity.get_identity(): identity})
dense, z = core.pack_dense(passport), core.pack_z(passport)
bad = [*entries[:2], entries[2][:-8] + "AAAAAAAA"]
known = core.KnownEntries(store.ring(), 64, 1 << 20)
deep = {"a": [1, 2.5, None, "é\\\\n", {str(i): [i] for i in range(40)}]}
deep_text = core.canonicalize(deep)
conditions = [{"action": "pay"}, {"param_max": {"field": "n", "max": 9}}, {"rate_limit": {"max": 1000, "window": "1h"}}]
no = lambda i: {"name": f"p{i}", "effect": "permit" if i % 2 else "refuse", "conditions": [{"action": f"no{i}"}]}
others = [no(i) for i in range(19)]
document = {"policies": [*others, {"name": "pay", "effect": "permit", "conditions": conditions}]}
gate = Gate.from_dict(document)
def context():
    params = {"n": 5, "l": ["a", "b"]}
    return ActionContext("alice", "user", "pay", params=params, session_id="s", roles=["r"], taints=["t"])

def twice(form, text):
    known = core.KnownEntries(store.ring(), 64, 1 << 20)
    for _ in "ab":
        p = known.unpack(form, text, 1 << 20, 100)
        known.verify(p)
    return p.entries

def refused(fn, *args):
    try: fn(*args)
    except (KestError, TypeError, ValueError): return
    raise SystemExit("no error")

def rounds(work, state):
    work()
    n, raised = 0, 0
    while True:
        n += 1
        before = state()
        core.fail_allocation(n)
        try: work()
        except MemoryError: failed = True
        else: failed = False
        finally: made = core.fail_allocation(0)
        if made < n: break  # it was not reached any more
        raised += failed
        if failed: assert state() == before, n
        assert n < 5000
    assert not failed
    work()
    gc.collect()
    print(n - 1, raised)
"""

# What runs; what must be the same after a failure.
CASES: dict[str, tuple[str, str]] = {
    "sign": ("s = core.Signer('p', bytes(32)); s.sign(b'm'); s.sign_jws(b'{}')", "None"),
    "canonicalize": ("assert core.canonicalize(deep) == deep_text; core.digest(deep)", "None"),
    "parse": ("assert core.canonicalize(core.parse(deep_text)) == deep_text", "None"),
    "parse refuses": ('refused(core.parse, deep_text[:-1]); refused(core.parse, b\'{"a":1,"a":2}\')', "None"),
    "hash": ("hash_arguments(deep, ); hash_value(deep)", "None"),
    "baggage value": ("assert core.baggage_value(b'a%20b') == 'a b'", "None"),
    "passport": (
        "p = Passport(entries); assert p.entries == entries; p.tips; p.taints; p.decode(); p.serialize()",
        "None",
    ),
    "append": (
        "assert len(Passport(entries[:2]).add_signature(entries[2]).entries) == 3",
        "(passport.entries, passport.tips)",
    ),
    "text": ("assert Passport.deserialize(text).serialize() == text", "None"),
    "tips": ("passport.tip_labels; passport.tip_scores; view.restrict(10, ['a']).roll_over()", "view.entries"),
    "merge": ("assert Passport.merge(passport, Passport(entries)).entries == entries", "passport.entries"),
    "adopt": ("assert Passport(entries[:1]).adopt(entries[1]).entries == entries[:2]", "None"),
    "verify": ("PassportVerifier.verify(entries, store)", "len(store.ring())"),
    "verify refuses": ("refused(PassportVerifier.verify, bad, store)", "len(store.ring())"),
    "keys": (
        "k = core.PublicKey.from_raw(signer.public_key); core.KeyRing([(str(i), k, 100, True, 0, 9) for i in range(20)])",
        "None",
    ),
    "pack": (
        "assert core.pack_z(passport) == z and core.unpack_z(z, 1 << 20, 100).entries == entries",
        "passport.entries",
    ),
    "pack dense": (
        "assert core.pack_dense(passport) == dense; assert core.unpack_dense(dense, 1 << 20, 100).entries == entries",
        "passport.entries",
    ),
    "known, text": (
        "assert twice('kest.passport', text) == entries",
        "len(known)",
    ),
    "known, dense": (
        "assert twice('kest.passport_d', dense) == entries",
        "len(known)",
    ),
    "known, kept": (
        "p = known.unpack('kest.passport', text, 1 << 20, 100); known.verify(p); assert p.entries == entries",
        "None",
    ),
    "entry": ("KestEntry('op', labels={'a': 'b'}, taints=['x'], parent_ids=['ab' * 32]).payload('p')", "None"),
    "decorated call": ("with lineage(): assert f(1) == 1", "None"),
    "gate, context": ("context()", "None"),
    "gate, policies": ("Gate.from_dict(document)", "None"),
    "gate, evaluation": ("gate.evaluate(context()).is_permit", "None"),
    "gate, first evaluation": ("g = Gate.from_dict(document); v = g.evaluate(context())", "None"),
    "gate, invalidation": (
        "g = Gate.from_dict(document); g.invalidate('s'); assert not g.evaluate(context()).is_permit",
        "None",
    ),
}


EVERY = """
import sys
sys.path.insert(0, sys.argv[1])
from every_binding import CALLS, GROUPS
from kest import _kestcore as core

def rounds(name, work):
    work()
    for n in range(1, 5000):
        core.fail_allocation(n)
        try: work()
        except MemoryError: pass
        except Exception as error: raise SystemExit(f"{name}, allocation {n}: {error!r}")
        finally: made = core.fail_allocation(0)
        if made < n: break  # it was not reached any more
    work()
    return n - 1

total = 0
for name in GROUPS[sys.argv[2]]:
    print(name, file=sys.stderr, flush=True)
    total += rounds(name, CALLS[name])
print(total)
"""
on_demand = pytest.mark.skipif(
    os.environ.keys().isdisjoint({"KEST_SANITIZED", "KEST_COVERAGE"}),
    reason="allocations fail on demand only in the sanitized build",  # and in that of make coverage
)


@on_demand
@pytest.mark.parametrize("case", CASES)
def test_e5_every_allocation_fails_once(case: str, run_python: Any) -> None:
    statement, state = CASES[case]
    done = run_python(f"{PRELUDE}\ndef work():\n    {statement}\nrounds(work, lambda: {state})\n", timeout=500)
    allocations, _ = map(int, done.stdout.split())
    assert allocations > 0 or case in ("sign", "hash", "gate, evaluation", "canonicalize")


@on_demand
@pytest.mark.parametrize("group", GROUPS)
def test_e5_every_allocation_below_each_binding(group: str, run_python: Any) -> None:
    """Without a state to compare: see `CASES` for that."""
    done = run_python(EVERY, str(Path(__file__).parent), group, timeout=500)
    assert int(done.stdout) > 0 or group == "SecretStream"  # which is one block of the interpreter's
