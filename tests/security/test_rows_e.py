"""ATTACKS.md, row E1: what is oversized is refused at once, and for almost nothing.

Each case runs in a process of its own, where peak memory can be read. The best of several runs counts as the time.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

PRELUDE = """
import base64, json, resource, sys, time, zlib
from kest._kestcore import unpack_dense, unpack_z
from kest.core import BaggageManager, Passport
from kest.errors import BaggageError, KestError

def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

def bomb(size, unit):
    # Blocks that end in a full flush do not refer to each other, so one of 1 MB can be repeated.
    pack = zlib.compressobj(9)
    head = pack.compress(b"") + pack.flush(zlib.Z_FULL_FLUSH)
    block = pack.compress(unit * ((1 << 20) // len(unit))) + pack.flush(zlib.Z_FULL_FLUSH)
    return b64(head + block * (size >> 20) + pack.flush())

def peak():
    # Not ru_maxrss: after a fork that starts from the parent's.
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

def refused(baggage, runs=5):
    for warm in ({"kest.passport": "["}, {"kest.passport_z": b64(zlib.compress(b"[]") + b"x")}):
        try: BaggageManager.unpack(warm)
        except BaggageError: pass
    before, best = peak(), 1e9
    for _ in range(runs):
        start = time.thread_time()
        try:
            BaggageManager.unpack(baggage)
        except BaggageError as error:
            best = min(best, time.thread_time() - start)
            assert len(str(error)) < 500, "the error quotes what it refuses"
        else:
            raise SystemExit("was not refused")
    print(best * 1000, peak() - before)
"""

CASES = {
    "10 kB to 10 MB": 'refused({"kest.passport_z": bomb(10 << 20, b" ")})',
    "1 MB to 1 GB": 'refused({"kest.passport_z": bomb(1 << 30, b" ")})',
    "1 MB to 1 GB of entries": 'refused({"kest.passport_z": bomb(1 << 30, b\'"a.b.c",\')})',
    "1 MB to 1 GB of brackets": 'refused({"kest.passport_z": bomb(1 << 30, b"[")})',
    "64 kB header": 'refused({"kest.passport": "[" + "x" * 65536})',
    "1 MB header": 'refused({"kest.passport": "[" + "x" * 1_000_000})',
    "100 MB header": 'refused({"kest.passport": "[" + "x" * 100_000_000})',
    "64 kB compressed header": 'refused({"kest.passport_z": "A" * 65536})',
    "1 MB compressed header": 'refused({"kest.passport_z": "A" * 1_000_000})',
    "100 MB compressed header": 'refused({"kest.passport_z": "A" * 100_000_000})',
    "1 MB dense header": 'refused({"kest.passport_d": "A" * 1_000_000})',
    "100 MB dense header": 'refused({"kest.passport_d": "A" * 100_000_000})',
    "100 MB claim": 'refused({"kest.claim_check": "A" * 100_000_000})',
    "100 MB tip": 'refused({"kest.passport": "[]", "kest.chain_tip": "a" * 100_000_000})',
    "100,000 tiny entries": 'refused({"kest.passport": json.dumps(["a"] * 100_000, separators=(",", ":"))})',
    "100,000 tiny entries compressed": (
        'refused({"kest.passport_z": b64(zlib.compress(json.dumps(["a"] * 100_000).encode(), 9))})'
    ),
    "100,000 empty entries compressed": (
        'refused({"kest.passport_z": b64(zlib.compress(json.dumps([""] * 100_000, separators=(",", ":")).encode(), 9))})'
    ),
}
MILLISECONDS, KIBIBYTES = 10.0, 2048


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
@pytest.mark.parametrize("case", CASES)
def test_e1_refused_within_10_ms_and_2_mib(case: str, run_python: Any) -> None:
    done = run_python(PRELUDE + CASES[case])
    milliseconds, kibibytes = map(float, done.stdout.split())
    assert milliseconds <= MILLISECONDS
    assert kibibytes <= KIBIBYTES


def test_e1_a_dense_bomb(run_python: Any) -> None:
    """Whatever inflates inside the dense form counts against the same cap."""
    done = run_python(
        PRELUDE
        + """
from kest.core import KestEntry, LocalEd25519Provider, sign_entry
packed = BaggageManager.pack(Passport([sign_entry(KestEntry("x" * 500_000), LocalEd25519Provider())]), dense=True)
assert "kest.passport_d" in packed, list(packed)
try:
    unpack_dense(packed["kest.passport_d"], 100_000, 2000)
except BaggageError:
    print("refused")
assert len(unpack_dense(packed["kest.passport_d"], 4_000_000, 2000)) == 1
"""
    )
    assert done.stdout == "refused\n"


def test_e1_the_record_behind_a_claim(run_python: Any) -> None:
    done = run_python(
        PRELUDE
        + """
import uuid
claim = str(uuid.uuid4())
for record in ("x\\n" + "[" * 10_000_000, b"x" * 10_000_000, "x" * 10_000_000):
    try:
        BaggageManager.unpack({"kest.claim_check": claim}, {claim: record})
    except BaggageError:
        print("refused")
"""
    )
    assert done.stdout == "refused\n" * 3


def test_e1_hostile_json_in_every_reader(run_python: Any) -> None:
    done = run_python(
        PRELUDE
        + """
from kest._kestcore import parse
from kest.core import PassportVerifier
for text in ("[" * 5_000_000, '{"a":' * 1_000_000, '"' + "\\\\u0041" * 100_000, "9" * 1_000_000, "-" * 100_000,
             '["' + "a" * 100_000):
    for reader in (parse, Passport.deserialize, lambda t: PassportVerifier.verify(t, {})):
        try:
            reader(text)
        except KestError:
            pass
        else:
            raise SystemExit("was read")
print("ok", peak() < 400_000)
"""
    )
    assert done.stdout == "ok True\n"
