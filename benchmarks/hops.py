"""Passports as they look between real services: what the packing, memory and verification subjects are measured on.

Five services of one cluster, each with its own key and its own process (so its own node in its entries' UUIDs), handle one
request together: one trace, one user, agent and task, eight operations, milliseconds apart. Half of the calls are the last
operation once more, on the next item, as agents and pipelines do; the others are any of the eight. Reproducible from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kest._kestcore import Passport, Signer, canonicalize

__all__ = ["Hops", "Service", "context_of"]

SERVICES = ("gateway", "planner", "retriever", "model", "exporter", "billing")
NAMESPACES = ("edge", "agents", "data", "agents", "data", "finance")

# operation, policies of the function, score of its origin, taints that it adds and removes, classification
OPERATIONS: tuple[tuple[str, tuple[str, ...], int, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("handle_request", ("allow_internal",), 100, (), (), "system"),
    ("plan_steps", ("allow_internal",), 100, (), (), "system"),
    ("search_documents", ("tenant_isolation",), 90, ("external",), (), "system"),
    ("fetch_orders", ("tenant_isolation",), 100, ("pii",), (), "system"),
    ("call_supplier", ("allow_egress",), 60, ("external",), (), "system"),
    ("review_answer", ("allow_internal",), 100, (), (), "critic"),
    ("redact", ("allow_internal",), 100, (), ("pii",), "sanitizer"),
    ("write_report", ("no_tainted_export",), 100, (), (), "system"),
)
# Which service does which: an operation belongs to one or two of them.
BELONGS = (0, 1, 2, 2, 3, 3, 4, 5)
REPEATS = 0.5


def context_of(policies: Sequence[str]) -> dict[str, Any]:
    """The policy context of a function that was asked only its own policies."""
    return {
        "enterprise_policies": [],
        "platform_policies": [],
        "app_policies": [],
        "function_policies": list(policies),
        "deviations": [],
    }


@dataclass
class Service:
    """A workload: a key, and a process with its own part of a UUID (52 bits of node, 22 bits of counter)."""

    principal: str
    signer: Signer
    node: int
    counter: int = 0
    last_ms: int = 0

    def entry_id(self, unix_ms: int) -> str:
        """A UUIDv7 (RFC 9562) in the layout of the core: milliseconds, counter, node of the process."""
        self.counter = self.counter + 1 if unix_ms == self.last_ms else 0
        self.last_ms = unix_ms
        value = (
            unix_ms << 80
            | 7 << 76
            | (self.counter >> 10 & 0xFFF) << 64
            | 2 << 62
            | (self.counter & 0x3FF) << 52
            | self.node
        )
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass
class Hops:
    """One request under way. `hop` adds an entry; ``passport`` is where it stands."""

    seed: int = 0
    services: int = 5
    repeated_inputs: float = 0.0  # share of calls with arguments that this flow has seen before
    rng: random.Random = field(init=False)
    workloads: list[Service] = field(init=False)
    passport: Passport = field(init=False)
    at: int = field(default=0, init=False)
    inputs: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        self.workloads = []
        for name, namespace in list(zip(SERVICES, NAMESPACES, strict=True))[: self.services]:
            principal = f"spiffe://prod.example.com/ns/{namespace}/sa/{name}"
            self.workloads.append(Service(principal, Signer(principal, rng.randbytes(32)), rng.getrandbits(52) | 1))
        who = {
            "agent": "checkout-agent",
            "task": f"order-{rng.randrange(10**6)}",
            "user": f"user-{rng.randrange(10**5)}",
        }
        self.labels = {"kest.identity": canonicalize(who).decode(), "trace_id": f"{rng.getrandbits(128):032x}"}
        self.contexts = [canonicalize(context_of(operation[1])) for operation in OPERATIONS]
        self.passport = Passport()
        self.now = 1_760_000_000_000 + rng.randrange(10**9)

    @property
    def keys(self) -> dict[str, bytes]:
        """Raw public keys by principal: what a trust store takes."""
        return {service.principal: bytes(service.signer.public_key) for service in self.workloads}

    def hop(self, signer: Signer | None = None) -> Passport:
        """One more call; ``signer`` signs in place of the service's own key (a forgery, if it is another key)."""
        rng, before = self.rng, self.passport
        if before and rng.random() >= REPEATS:
            self.at = rng.randrange(len(OPERATIONS))
        operation, _, score, added, removed, classification = OPERATIONS[self.at]
        service = self.workloads[BELONGS[self.at] % self.services]
        self.now += rng.randrange(1, 40)
        parents = before.trust_score
        # Now and then a reviewer restores some trust, as far as a real flow would; otherwise it would soon be 0.
        lifted = classification in ("critic", "sanitizer") and parents < 40
        trust = 80 if lifted else (min(score, 100) if not before else parents * score // 100)
        self.passport = before.seal(
            signer or service.signer,
            operation,
            classification,
            trust,
            False,
            self.labels,
            added,
            removed,
            self.contexts[self.at],
            self._input_hash(),
            service.entry_id(self.now),
            self.now,
        )
        return self.passport

    def _input_hash(self) -> str:
        if self.inputs and self.repeated_inputs and self.rng.random() < self.repeated_inputs:
            return self.rng.choice(self.inputs)
        self.inputs.append(self.rng.randbytes(32).hex())
        return self.inputs[-1]

    def walk(self, count: int) -> Passport:
        """``count`` more calls."""
        for _ in range(count):
            self.hop()
        return self.passport
