"""A passport verified from its text, signatures included."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benchmarks import raw, reference_stack
from benchmarks.hops import Hops
from benchmarks.measure import Budget, Row, Watch, nanoseconds, ratios, rounds_of, row
from kest._kestcore import Signer, b64url_decode
from kest.core import Passport, PassportVerifier, TrustStore, VerificationError
from kest.core.passport import VerifiedPassport

__all__ = ["measure"]

BAD = 617


class Case:
    """A passport of ``count`` entries by five services, and the keys for it."""

    def __init__(self, count: int) -> None:
        hops = Hops(seed=count)
        self.text = hops.walk(count).serialize()
        self.last: str = hops.passport.entries[-1]
        self.raw_key = hops.keys[hops.passport.decode()[-1]["labels"]["principal"]]
        self.store = TrustStore(hops.keys)
        self.keys = {name: Ed25519PublicKey.from_public_bytes(key) for name, key in hops.keys.items()}

    def ours(self) -> VerifiedPassport:
        return PassportVerifier.verify(Passport.deserialize(self.text), self.store)

    def reference(self) -> reference_stack.Facts:
        return reference_stack.verify(self.text, self.keys)

    def same_output(self) -> None:
        ours, facts = self.ours(), self.reference()
        if (ours.trust_score, ours.taints, ours.tips, ours.principals) != (
            facts.trust,
            facts.taints,
            facts.tips,
            facts.principals,
        ):
            raise AssertionError("Kest and the reference stack read different facts from the same passport")


def refusals() -> tuple[int, str]:
    """How many of three damaged passports of 1,000 entries both stacks refuse, at the right entry."""
    count, right = 1000, 0
    hops = Hops(seed=3)
    impostor = Signer(hops.workloads[0].principal, bytes(32))
    hops.walk(BAD)
    # 1: an entry by the wrong key, which everything after it rightly links to: nothing but its signature is wrong
    genuine = hops.passport
    while (hops.hop(impostor)).decode()[-1]["labels"]["principal"] != impostor.principal:
        hops.passport = genuine
    forged = hops.walk(count - BAD - 1).entries
    # 2: one byte of a signature flipped in transit; 3: in the last entry, where no link shows it
    honest = Hops(seed=4).walk(count).entries
    flipped, last = list(honest), list(honest)
    flipped[BAD], last[-1] = _flip(flipped[BAD]), _flip(last[-1])
    honest_keys = Hops(seed=4).keys
    for entries, keys, index in ((forged, hops.keys, BAD), (flipped, honest_keys, BAD), (last, honest_keys, count - 1)):
        text = Passport(entries).serialize()
        loaded = {name: Ed25519PublicKey.from_public_bytes(key) for name, key in keys.items()}
        ours = theirs = None
        try:
            PassportVerifier.verify(text, keys)
        except VerificationError as error:
            ours = error.index
        try:
            reference_stack.verify(text, loaded)
        except reference_stack.Refused as error:
            theirs = error.index
        right += ours == theirs == index
    return right, f"entries {BAD}, {BAD} and {count - 1}: wrong key, flipped bit, flipped bit at the tip"


def _flip(jws: str) -> str:
    message, _, signature = jws.rpartition(".")
    return f"{message}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def measure(budget: Budget) -> list[Row]:
    rows: list[Row] = []
    for count, repeats, full, target in ((5, 20, 60, 1.8), (50, 4, 40, 1.8), (1000, 1, 15, 3.3)):
        case = Case(count)
        case.same_output()
        message, _, signature = case.last.rpartition(".")
        sig, cores = b64url_decode(signature), os.cpu_count() or 1
        watch = Watch(budget.patience) if count >= 64 else None
        measured = rounds_of(
            {
                "ours": lambda: nanoseconds(case.ours, repeats) / count,
                "reference": lambda: nanoseconds(case.reference, max(1, repeats // 4)) / count,
                "raw": lambda: raw.verify_ns(case.raw_key, message.encode("ascii"), sig, 20),
            },
            budget.rounds(full, 7),
            watch=watch,
        )
        note = watch.note if watch is not None else ""
        on = f" on {cores} cores" if count >= 64 else ""
        rows += [
            row(
                f"{count:,} entries{on}: reference / ours, per entry",
                ratios(measured, "reference", "ours"),
                at_least=target,
                note=note,
            ),
            row(
                f"{count:,} entries{on}: ours / crypto_sign_verify_detached, per entry",
                ratios(measured, "ours", "raw"),
                note=note,
            ),
        ]
    right, note = refusals()
    rows.append(
        row("1,000 entries with a bad signature refused by index, of 3", [float(right)], at_least=3, unit="", note=note)
    )
    return rows
