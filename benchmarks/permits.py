"""Signed permits, audit chains and channels: threads, sizes, batches, and how long the interpreter's lock is held."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.lock import operations_per_second
from benchmarks.measure import Budget, Row, Watch, nanoseconds, ratios, rounds_of, row

__all__ = ["measure"]

DATA = b"x" * 1000
ENTRIES, TOGETHER = 1_000, 256
RELEASING = {
    ("MLDSA65PrivateKey", "sign"), ("MLDSA65PublicKey", "verify"), ("_kestcore", "vault_open"), ("_kestcore", "vault_seal"),
    ("_kestcore", "aead_open"), ("_kestcore", "aead_seal"), ("_kestcore", "sha256"), ("SecretStream", "push"),
    ("SecretStream", "pull"),
}  # fmt: skip
"""Type or module, and function, of what lets go of the interpreter's lock while it works long. Ed25519 keeps it."""


class Case:
    """Keys, claims and messages like those of a payment service."""

    def __init__(self) -> None:
        from kest.gate import KeyPair, PermitClaims, PqTokenSigner, SecureChannel

        self.pair, self.peer = KeyPair.generate(), KeyPair.generate()
        self.signer = PqTokenSigner.from_keypair_hybrid(self.pair)
        now, digest = int(time.time()), hashlib.sha256(DATA).hexdigest()
        self.claims = PermitClaims(
            str(uuid.uuid4()), str(uuid.uuid4()), "issue_refund", now, now + 86_400, "agent-bot", "agent", "orders/ORD-42",
            digest, digest, "payments", digest,
        )  # fmt: skip
        self.require = {"audience": "payments", "principal": "agent-bot"}
        self.envelope = self.signer.sign_claims(self.claims)
        self.many = [replace(self.claims, token_id=str(uuid.uuid4())) for _ in range(TOGETHER)]
        self.batch = self.signer.sign_batch(self.many)
        self.channel = SecureChannel(self.pair, self.peer.public_keys())
        self.other_end = SecureChannel(self.peer, self.pair.public_keys())

    def sign(self) -> object:
        return self.signer.sign_claims(self.claims)

    def verify(self) -> object:
        return self.signer.verify(None, self.envelope, require=self.require)

    def sign_batch(self) -> object:
        return self.signer.sign_batch(self.many)

    def verify_of_batch(self) -> object:
        return self.signer.verify(None, self.batch.permits[77], require=self.require, proof=self.batch.proof)

    def entries(self, count: int) -> list[Any]:
        from kest.gate import AuditEntry

        return [AuditEntry("agent-alice", "issue_refund", "permit", "token=abc") for _ in range(count)]

    def chain(self, together: int) -> Any:
        from kest.gate import SignedAuditChain

        chain, entries = SignedAuditChain(self.pair), self.entries(ENTRIES)
        for first in range(0, ENTRIES, together):
            chain.append_batch(entries[first : first + together])
        return chain


def _cpu(work: Callable[[], object]) -> float:
    """Nanoseconds of CPU time: others on the machine do not count."""
    start = time.process_time_ns()
    work()
    return time.process_time_ns() - start


def _speed(case: Case, budget: Budget) -> list[Row]:
    from kest.gate import SignedAuditChain

    each, together = case.chain(1).export_jsonl(), case.chain(TOGETHER).export_jsonl()
    public = case.pair.public_keys()
    pq = case.pair.signing_keys("ml-dsa-65").ml_dsa
    keys = public.verifying_keys()
    assert pq is not None
    assert keys.ml_dsa is not None
    signature, theirs = pq.sign(DATA), keys.ml_dsa

    def chain(data: bytes) -> float:
        return nanoseconds(lambda: SignedAuditChain.verify_jsonl(data, public), 1) / ENTRIES

    measured = rounds_of(
        {
            "yardstick": lambda: nanoseconds(lambda: hashlib.sha256(DATA).digest(), 2000),
            "pq sign": lambda: nanoseconds(lambda: pq.sign(DATA), 60),
            "pq verify": lambda: nanoseconds(lambda: theirs.verify(DATA, signature), 40),
            "sign": lambda: nanoseconds(case.sign, 60),
            "verify": lambda: nanoseconds(case.verify, 40),
            "batch": lambda: nanoseconds(case.sign_batch, 2) / TOGETHER,
            "batch, CPU": lambda: _cpu(case.sign_batch) / TOGETHER,
            "of batch": lambda: nanoseconds(case.verify_of_batch, 40),
            "each": lambda: chain(each),
            "together": lambda: chain(together),
        },
        budget.rounds(15, 7),
    )
    micro = {name: [value / 1000 for value in values] for name, values in measured.items()}
    return [
        row("hybrid sign / its ML-DSA-65 signature alone", ratios(measured, "sign", "pq sign"), note="ML-DSA retries"),
        row("hybrid verify / its ML-DSA-65 verification alone", ratios(measured, "verify", "pq verify"), at_most=2.0),
        row(f"sign a permit in a batch of {TOGETHER}, CPU time", micro["batch, CPU"], at_most=60.0, unit="us"),
        row(f"sign a permit in a batch of {TOGETHER}, elapsed", micro["batch"], unit="us"),
        row(f"sign a hybrid permit alone / in a batch of {TOGETHER}", ratios(measured, "sign", "batch"), at_least=5.0),
        row("verify a hybrid permit / one of a known batch", ratios(measured, "verify", "of batch")),
        row(
            f"verify {ENTRIES:,} audit entries: signed each / {TOGETHER} together",
            ratios(measured, "each", "together"),
            at_least=3.0,
            note="per entry",
        ),
        row("yardstick: hashlib.sha256 of 1 kB", micro["yardstick"], unit="us"),
    ]  # fmt: skip


def _threads(case: Case, budget: Budget) -> list[Row]:
    watch = Watch(budget.patience)
    parts: dict[str, Callable[[], float]] = {}
    for name, work in (("sign", case.sign), ("verify", case.verify)):
        for threads in (1, 2):
            parts[f"{name} {threads}"] = lambda work=work, threads=threads: operations_per_second(work, threads, False)
    measured = rounds_of(parts, budget.rounds(9, 5), watch=watch)
    return [
        row(f"hybrid {name}: 2 threads / 1", ratios(measured, f"{name} 2", f"{name} 1"), at_least=1.6, note=watch.note)
        for name in ("sign", "verify")
    ]


def _sizes(case: Case) -> list[Row]:
    chain = case.chain(1).export_jsonl()
    rows = [
        row("hybrid permit with all claims", [len(case.envelope)], at_most=4_800, unit="bytes"),
        row(f"permit of a batch of {TOGETHER}", [max(map(len, case.batch))], at_most=700, unit="bytes"),
        row("hybrid audit entry", [len(chain) / ENTRIES], at_most=5_000, unit="bytes"),
        row(f"audit entry of {TOGETHER} together", [len(case.chain(TOGETHER).export_jsonl()) / ENTRIES], unit="bytes"),
    ]
    for size in (0, 1_000, 100_000):
        sealed = len(case.channel.send_signed(bytes(size), "issue_refund", "eval-1"))
        rows.append(
            row(
                f"sealed message of {size:,} bytes, of 12 % + 6 kB growth",
                [(sealed - size) / (0.12 * size + 6_000)],
                at_most=1.0,
            )
        )
    return rows


def _held(work: Callable[[], object], repeats: int) -> float:
    """The longest stretch of ``work`` that may hold the interpreter's lock, in microseconds of CPU time.

    A profiler looks at the clock whenever something is called or returns; between two such moments nobody else may get the
    lock. Left out are the functions that let go of it (`RELEASING`, which tests/threading proves of them). The best of many
    runs counts, since everything else that happens on a machine only adds.
    """
    clock, best = time.thread_time_ns, float("inf")
    for _ in range(repeats):
        longest, last, released = 0, 0, 0

        def look(frame: object, event: str, function: Any) -> None:
            nonlocal longest, last, released
            now = clock()
            if not released:
                longest = max(longest, now - last)
            lets_go = event.startswith("c_") and (_place(function), getattr(function, "__name__", "")) in RELEASING
            released += {"c_call": 1, "c_return": -1, "c_exception": -1}.get(event, 0) if lets_go else 0
            last = clock()

        last = clock()
        sys.setprofile(look)
        try:
            work()
        finally:
            sys.setprofile(None)
        best = min(best, longest / 1000)
    return best


def _place(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    return getattr(owner, "__name__", type(owner).__name__).rpartition(".")[2]


def _lock(case: Case, budget: Budget) -> list[Row]:
    from kest.gate import AuditEntry, KeyPair, SignedAuditChain
    from kest.gate.crypto import keyfile

    large, chain = os.urandom(100_000), SignedAuditChain(case.pair)
    blob, public = case.chain(TOGETHER).export_jsonl(), case.pair.public_keys()
    entries = case.entries(TOGETHER)
    there = case.channel.session("c")
    back = case.other_end.accept(there.opening, "c")
    sealed = keyfile.seal(case.pair, "a passphrase", passes=1, memory=1 << 20)
    cases: dict[str, tuple[Callable[[], object], float | None]] = {
        "sign a hybrid permit": (case.sign, 100.0),
        "verify a hybrid permit": (case.verify, 100.0),
        f"sign a batch of {TOGETHER}": (case.sign_batch, 100.0),
        "append an audit entry": (lambda: chain.append(AuditEntry("a", "b", "permit", "c")), 100.0),
        f"append {TOGETHER} audit entries": (lambda: chain.append_batch(entries), 100.0),
        f"verify {ENTRIES:,} audit entries": (lambda: SignedAuditChain.verify_jsonl(blob, public), 100.0),
        "send and receive 1 kB": (lambda: case.other_end.receive(case.channel.send_signed(DATA, "c"), "c"), 100.0),
        "send and receive 100 kB": (lambda: case.other_end.receive(case.channel.send_signed(large, "c"), "c"), 100.0),
        "100 kB through a session": (lambda: back.receive(there.send(large)), 100.0),
        "open a key file": (lambda: keyfile.open_sealed(sealed, "a passphrase"), None),
        "generate a key pair": (KeyPair.generate, None),
    }
    rows = []
    for name, (work, target) in cases.items():
        note = "ML-DSA and ML-KEM keys are expanded in cryptography under the lock" if target is None else ""
        value = _held(work, budget.rounds(40, 15))
        rows.append(row(f"{name}: longest stretch with the lock", [value], at_most=target, unit="us", note=note))
    return rows


def measure(budget: Budget) -> list[Row]:
    case = Case()
    return [*_sizes(case), *_speed(case, budget), *_threads(case, budget), *_lock(case, budget)]
