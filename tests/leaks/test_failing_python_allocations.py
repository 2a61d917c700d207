"""Each allocation of the interpreter fails once while the native module works: a MemoryError or a value, and never a crash.

CPython's own test module makes them fail; where it is not installed, the C core's allocations are still covered
(test_failing_allocations.py).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("_testcapi")

SCRIPT = r"""
import sys
import _testcapi
from kest import _kestcore as core
from kest.core import LocalEd25519Provider, MockPolicyEngine, TrustStore, configure, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.gate import ActionContext, DeviceFingerprint, Gate, GeoLocation

identity = LocalEd25519Provider("p", bytes(32))
signer, jwk = identity.signer, identity.public_jwk()
configure(engine=MockPolicyEngine(), identity=identity)
f = kest_verified("q", added_taints=["t"])(lambda n: n)
with lineage():
    for n in range(3):
        f(n)
    passport = get_current_passport()
ring = TrustStore({"p": identity}).ring()
text, entries, tips = passport.serialize(), passport.entries, passport.tips
packed, dense = core.pack_z(passport), core.pack_dense(passport)
conditions = [{"param_max": {"field": "n", "max": 1}}, {"identity_role": "r"}, {"time_window": "00:00-23:59"}]
gate = Gate.from_dict({"policies": [{"name": "p", "effect": "permit", "conditions": conditions}]})
given = dict(
    principal_id="a", principal_kind="user", action_name="b", params={"n": 1, "t": "x", "l": [1, "a", True]}, roles=["r"],
    resource="/x/../y", ip="1.2.3.4", origin_ip="::1", session_id="s", taints=["t"], trust=5,
)
context, refused = ActionContext(**given), ActionContext(**{**given, "roles": []})
verdict = gate.evaluate(context)
value = {"b": [1, 2.5, None, True, "é", {"z": (1, 2)}], "a": {"x": b"".decode()}, "n": 2**40}
json = core.canonicalize(value)
entry = core.KestEntry("op", labels={"a": "b"}, added_taints=["x", "y"], taints=["x", "y"], trust_score=3)
leaves = [core.sha256(bytes([n])) for n in range(5)]

def grow():
    tree = core.LogTree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()

CASES = {
    "canonicalize": lambda: core.canonicalize(value),
    "parse": lambda: core.parse(json),
    "hash": lambda: core.hash_value(value, repr),
    "digest": lambda: core.digest(value),
    "entry": lambda: core.KestEntry("op", labels={"a": "b"}, added_taints=["x", "y"], taints=["x", "y"]),
    "payload": lambda: entry.payload("p"),
    "sign": lambda: signer.sign_jws(json),
    "key": lambda: core.PublicKey.from_jwk(jwk),
    "passport": lambda: core.Passport(entries),
    "deserialize": lambda: core.Passport.deserialize(text),
    "merge": lambda: core.Passport.merge(passport, passport),
    "serialize": lambda: core.Passport(entries).snapshot().serialize(),
    "read": lambda: (passport.entries, passport.tips, passport.taints, passport.trust_score, passport.chain_tip),
    "tips": lambda: (passport.tip_labels, passport.tip_principals, passport.tip_scores, passport.tip_entry),
    "decode": lambda: passport.decode(),
    "pack": lambda: [pack(core.Passport(entries)) for pack in (core.pack_z, core.pack_dense)],
    "unpack": lambda: (core.unpack_z(packed, 100000, 100), core.unpack_dense(dense, 100000, 100)),
    "verify": lambda: core.verify_passport(passport, ring),
    "base64": lambda: core.b64url_decode(core.b64url_encode(json)),
    "baggage": lambda: core.baggage_value(b"a%20b"),
    "ids": lambda: (core.uuid7(), core.stamp(), core.lock_stats()),
    "tree": grow,
    "leaf": lambda: core.tlog_leaf(json),
    "context": lambda: ActionContext(**given),
    "read context": lambda: (context.params, context.roles, context.taints, context.resource, context.ip, repr(context)),
    "evaluate": lambda: gate._core.evaluate(context),
    "refuse": lambda: gate._core.evaluate(refused).reason,
    "explain": lambda: gate._core.explain(context, 0),
    "verdict": lambda: (verdict.policy, verdict.token_id, verdict.evaluation_id, repr(verdict), verdict.permit_token),
    "stores": lambda: (core.InMemorySessionStore(), core.InMemoryRateLimitStore()),
}
case = CASES[sys.argv[1]]
try:
    case()  # what it keeps for later is made now
except TypeError as error:
    sys.exit(f"the case is wrong: {error}")
failed = 0
for n in range(3000):
    try:
        _testcapi.set_nomemory(n, n + 1)
        try:
            case()
        finally:
            _testcapi.remove_mem_hooks()
    except MemoryError:
        failed += 1
        continue
    except SystemError as error:
        sys.exit(f"allocation {n}: {error}")
    except Exception:  # an error of ours whose message could not be had
        failed += 1
        continue
    if n > failed + 40:
        break
print(failed)
"""
CASES = (
    "canonicalize", "parse", "hash", "digest", "entry", "payload", "sign", "key", "passport", "deserialize", "merge",
    "serialize",
    "read", "tips", "decode", "pack", "unpack", "verify", "base64", "baggage", "ids", "tree", "leaf", "context",
    "read context", "evaluate", "refuse", "explain", "verdict", "stores",
)  # fmt: skip


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
@pytest.mark.parametrize("case", CASES)
def test_every_allocation_of_the_interpreter_fails_once(case: str, run_python: Any) -> None:
    done = run_python(SCRIPT, case, timeout=300)
    assert int(done.stdout) > 0
