"""How many hops fit into one baggage pair of 4,096 bytes, percent-encoded.

A hop with an input hash of its own costs 96 bytes that no form can compress (64 of signature, 32 of hash), so 31 is the
most that base64url can carry. In real flows some calls pass on what they were given and have their caller's hash: a quarter
of them here; the row with all inputs different stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.hops import Hops
from benchmarks.measure import Budget, Row, row
from kest._kestcore import pack_dense, pack_z, unpack_dense
from kest.core.baggage import MAX_INFLATED, MAX_PAIR, MAX_UNPACKED_ENTRIES, encoded_size
from kest.core.passport import Passport

__all__ = ["fitting", "measure"]

REPEATED = 0.25


def fitting(
    pack: Callable[[Passport], str | None], key: str, seed: int, services: int = 5, repeated_inputs: float = 0.0
) -> int:
    """The most hops of a flow that fit; 0 when the form does not exist."""
    hops = Hops(seed=seed, services=services, repeated_inputs=repeated_inputs)
    while True:
        packed = pack(hops.hop())
        if packed is None or encoded_size(key, packed) > MAX_PAIR:
            return len(hops.passport) - 1


def _same_bytes(seed: int) -> None:
    passport = Hops(seed=seed).walk(20)
    packed = pack_dense(passport)
    if packed is not None and unpack_dense(packed, MAX_INFLATED, MAX_UNPACKED_ENTRIES).entries != passport.entries:
        raise AssertionError("the dense form does not give the entries back byte for byte")


def measure(budget: Budget) -> list[Row]:
    rows = []
    _same_bytes(99)
    flows = [(seed, services) for seed in range(budget.rounds(11, 5)) for services in (4, 5, 6)]
    for key, pack, target in (("kest.passport_z", pack_z, 7), ("kest.passport_d", pack_dense, 28)):
        counts = sorted(fitting(pack, key, seed, services, REPEATED) for seed, services in flows)
        rows.append(
            row(
                f"hops in {MAX_PAIR:,} bytes, {key}",
                [float(n) for n in counts],
                at_least=target,
                unit="",
                note=f"{len(flows)} flows of 4 to 6 services: {counts[0]} to {counts[-1]}",
            )
        )
    counts = sorted(fitting(pack_dense, "kest.passport_d", seed, services) for seed, services in flows)
    rows.append(
        row(
            "the same with all inputs different",
            [float(n) for n in counts],
            unit="",
            note="the bound for any form is 31",
        )
    )
    return rows
