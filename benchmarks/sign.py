"""One entry signed: against the reference stack, and against the bare primitive over the same bytes."""

from __future__ import annotations

from benchmarks import raw
from benchmarks.hops import context_of
from benchmarks.measure import Budget, Row, nanoseconds, ratios, rounds_of, row
from benchmarks.reference_stack import ReferenceSigner, Tip
from kest._kestcore import KestEntry, Passport, Signer, canonicalize, stamp
from kest.core import LocalEd25519Provider, sign_entry

__all__ = ["measure"]

PRINCIPAL = "spiffe://prod.example.com/ns/agents/sa/planner"
SEED = bytes(range(32))
LABELS = {
    "kest.identity": '{"agent":"assistant-7","task":"ticket-42","user":"user-1@example.com"}',
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}


class Case:
    """The same entry, a child of a root with a taint, made in three ways."""

    def __init__(self) -> None:
        self.signer, self.provider = Signer(PRINCIPAL, SEED), LocalEd25519Provider(PRINCIPAL, SEED)
        self.reference = ReferenceSigner(PRINCIPAL, SEED)
        self.context = context_of(["allow_plan"])
        self.context_bytes = canonicalize(self.context)
        self.entry_id, self.timestamp_ms = stamp()
        self.input_hash = "5e" * 32
        root_id, root_ms = stamp()
        self.root = Passport().seal(
            self.signer,
            "handle_request",
            "system",
            90,
            False,
            LABELS,
            ("external",),
            (),
            self.context_bytes,
            "",
            root_id,
            root_ms,
        )
        self.parents = [Tip(self.root.tips[0], 90, ("external",))]

    def seal(self) -> Passport:
        return self.root.seal(
            self.signer,
            "plan_steps",
            "system",
            81,
            False,
            LABELS,
            (),
            (),
            self.context_bytes,
            self.input_hash,
            self.entry_id,
            self.timestamp_ms,
        )

    def by_hand(self) -> str:
        entry = KestEntry(
            "plan_steps",
            trust_score=81,
            parent_ids=(self.parents[0].hash,),
            labels=LABELS,
            taints=("external",),
            policy_context=self.context,
            input_hash=self.input_hash,
            entry_id=self.entry_id,
            timestamp_ms=self.timestamp_ms,
        )
        return sign_entry(entry, self.provider)

    def by_reference(self) -> tuple[str, Tip]:
        return self.reference.sign_entry(
            "plan_steps",
            81,
            self.parents,
            labels=LABELS,
            context=self.context,
            input_hash=self.input_hash,
            entry_id=self.entry_id,
            timestamp_ms=self.timestamp_ms,
        )

    def same_output(self) -> bytes:
        """The signing input, after all three have produced the same entry."""
        sealed, (jws, tip) = self.seal(), self.by_reference()
        if not sealed.entries[-1] == self.by_hand() == jws or sealed.tips[0] != tip.hash:
            raise AssertionError("Kest and the reference stack make different entries of the same content")
        return jws.rpartition(".")[0].encode("ascii")


def measure(budget: Budget) -> list[Row]:
    case = Case()
    message = case.same_output()
    measured = rounds_of(
        {
            "seal": lambda: nanoseconds(case.seal, 100),
            "raw": lambda: raw.sign_ns(SEED, message, 100),
            "hand": lambda: nanoseconds(case.by_hand, 100),
            "reference": lambda: nanoseconds(case.by_reference, 25),
        },
        budget.rounds(150, 30),
    )
    note = f"{len(message)} bytes signed"
    return [
        row(
            "Passport.seal: reference / ours",
            ratios(measured, "reference", "seal"),
            at_least=3.3,
            note="same JWS, checked",
        ),
        row("sign_entry(KestEntry): reference / ours", ratios(measured, "reference", "hand"), at_least=3.3),
        row("Passport.seal / crypto_sign_detached", ratios(measured, "seal", "raw"), at_most=1.25, note=note),
        row("sign_entry(KestEntry) / crypto_sign_detached", ratios(measured, "hand", "raw"), note=note),
    ]
