"""How long importing takes, beyond what the dependencies take for themselves."""

from __future__ import annotations

from benchmarks import child
from benchmarks.measure import Budget, Row, rounds_of, row

__all__ = ["measure"]

DEPENDENCIES = ("httpx", "opentelemetry", "cryptography")
PLAIN = "import kest, kest.core"
NAMES = "from kest.core import configure, kest_verified, MockPolicyEngine, LocalEd25519Provider, PassportVerifier"


def measure(budget: Budget) -> list[Row]:
    rows = []
    for statement, target in ((PLAIN, 60.0), (NAMES, None)):
        loaded = child.run("imports", statement)["loaded"]
        own = [name for name in DEPENDENCIES if name in loaded]
        environment = {"KEST_BENCH_DEPENDENCIES": ",".join(own)}
        measured = rounds_of(
            {"ms": lambda: float(child.run("imports", statement, **environment)["ms"])}, budget.rounds(20, 7)
        )["ms"]
        note = f"without {', '.join(own)}" if own else "loads no dependency"
        name = statement if target else "import of five names that are used"
        rows.append(row(name, measured, at_most=target, unit="ms", note=note))
    return rows
