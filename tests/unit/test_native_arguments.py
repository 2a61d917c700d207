"""Nothing that is passed to the native module crashes it: an exception that says why, or a value."""

from __future__ import annotations

from typing import Any

import pytest

SCRIPT = r"""
import gc, inspect, random, sys, warnings
from kest import _kestcore as core
from kest.core import LocalEd25519Provider, TrustStore, kest_verified, configure, MockPolicyEngine
from kest.core.context import get_current_passport, lineage
from kest.gate import ActionContext, DeviceFingerprint, Gate, GeoLocation

warnings.simplefilter("ignore")
random.seed(int(sys.argv[1]))
identity = LocalEd25519Provider("p", bytes(32))
configure(engine=MockPolicyEngine(), identity=identity)
f = kest_verified("q", added_taints=["t"])(lambda n: n)
with lineage():
    for n in range(3):
        f(n)
    passport = get_current_passport()
conditions = [{"param_max": {"field": "n", "max": 1}}]
gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": conditions}]})
context = ActionContext(principal_id="a", principal_kind="user", action_name="b", params={"n": 1})

class Raises:
    def __len__(self): raise LookupError
    def __getitem__(self, key): raise LookupError
    def __iter__(self): raise LookupError
    def __hash__(self): raise LookupError
    def __eq__(self, other): raise LookupError
    def __str__(self): raise LookupError
    def __bool__(self): raise LookupError
    def __index__(self): raise LookupError
    def __float__(self): raise LookupError
    def __call__(self, *a, **k): raise LookupError

valid = [
    passport, passport.serialize(), passport.entries, passport.entries[0], identity, identity.signer, identity.public_jwk(),
    TrustStore({"p": identity}).ring(), core.KestEntry("op"), core.PublicKey.from_jwk(identity.public_jwk()),
    core.Passport(), core.LogTree(), gate._core, context, gate.evaluate(context), core.InMemoryRateLimitStore(),
    core.InMemorySessionStore(), core.pack_z(passport), core.pack_dense(passport), core.digest, GeoLocation("DE"),
    DeviceFingerprint("x"), passport.tips, list(passport.tips),
]
junk = [
    None, True, False, 0, 1, 2, 3, 7, 64, -1, 255, 256, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40, 0.0, -0.0,
    1.5, float("nan"), float("inf"), "", "a", "p", "spiffe://x/y", "\ud800", "\x00", "é", "x" * 300, "0" * 64, "[]", "{}",
    "null", '["a.b.c"]', "%41", b"", b"a", bytes(12), bytes(16), bytes(24), bytes(32), bytes(64), b"\xff" * 33, b"[]",
    b"\xff", bytearray(32), bytearray(b"{}"), memoryview(bytes(8)), memoryview(bytes(64))[::2], (), (1,), ("a", "b"),
    ((b"", b""),),
    [], [None], ["a", 1], [b"", bytes(32)], [[]], {}, {"a": 1}, {1: 2}, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, {"a"},
    frozenset({"a"}), range(3), object(), int, len, Raises(), [Raises()], {"a": Raises()}, lambda *a, **k: None, sys,
]
# What would only stop the test: a mode of the whole process, and allocations that fail on demand.
left_out = {"lock_mode", "fail_allocation", "gate_register"}
pool = valid * 2 + junk
keywords = ["principal", "operation", "labels", "taints", "trust_score", "context", "params", "x"]

def targets():
    for name in sorted(vars(core)):
        thing = getattr(core, name)
        if callable(thing) and name not in left_out and not name.startswith("__"):
            if not (isinstance(thing, type) and issubclass(thing, Exception)):
                yield name, thing
    for one in valid:
        if type(one).__module__.startswith("kest._kestcore") or type(one).__name__ in dir(core):
            for name in sorted(dir(one)):
                if name in ("__class__", "__subclasshook__", "__init_subclass__", "__reduce__", "__reduce_ex__", "__dir__"):
                    continue
                thing = getattr(one, name, None)
                if callable(thing):
                    yield f"{type(one).__name__}.{name}", thing

calls = outcomes = 0
for name, thing in list(targets()):
    for _ in range(int(sys.argv[2])):
        args = [random.choice(pool) for _ in range(random.choice((0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5)))]
        named = random.sample(keywords, random.choice((0, 0, 0, 1, 2)))
        calls += 1
        try:
            thing(*args, **{key: random.choice(pool) for key in named})
        except SystemError as error:
            sys.exit(f"{name}{tuple(map(type, args))}: {error}")
        except Exception:
            outcomes += 1
gc.collect()
print(calls, outcomes)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_any_arguments(seed: int, run_python: Any) -> None:
    done = run_python(SCRIPT, str(seed), "40", timeout=300)
    calls, refused = map(int, done.stdout.split())
    assert calls > 4000
    assert refused > calls // 2
