"""What is mutated, how much of it, and the tests that are to notice: fast ones, the likeliest first."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """Files of one subject. ``programs`` are of csrc/tests, or replay a corpus of csrc/fuzz.

    ``size`` is how many mutants are tried (0: all).
    """

    name: str
    files: tuple[str, ...]
    programs: tuple[str, ...]
    tests: tuple[str, ...]
    size: int


_CHAIN = (
    "tests/unit/test_entry_shapes.py",
    "tests/unit/test_passport.py",
    "tests/unit/test_known_entries.py",
    "tests/http/test_http_arrive.py::test_flows_that_part_and_meet_again",
    "tests/differential/test_verify_differential.py",
    "tests/differential/test_entry_differential.py",
    "tests/unit/test_vectors.py",
    "tests/unit/test_truststore.py",
    "tests/security/test_rows_a.py",
    "tests/http/test_http_authenticity.py",
    "tests/security/test_rows_a6.py",
)
_STORE = (
    "tests/unit/test_truststore.py",
    "tests/unit/test_trust.py",
    "tests/unit/test_passport.py",
    "tests/security/test_rows_a.py",
    "tests/security/test_rows_a6.py",
    "tests/http/test_http_verified.py",
    "tests/audit/test_audit_chains.py",
    "tests/http/test_trust_sources.py",
    # A promise of time.
    "--deselect=tests/http/test_trust_sources.py::test_a_fetch_under_way_does_not_keep_the_interpreter",
)
_GATE = (
    "tests/gate/test_gate_boundaries.py",
    "tests/leaks/test_every_binding.py",
    "tests/gate/test_gate_evaluate.py",
    "tests/gate/test_gate_values.py",
    "tests/gate/test_gate_policies.py",
    "tests/gate/test_gate_sessions.py",
    "tests/differential/test_gate_differential.py",
)

TARGETS = (
    Target(
        "verifier, C",
        tuple(f"csrc/core/{name}.c" for name in ("verify", "chain", "builder", "node", "entry_read", "jws", "known")),
        ("test_trust", "test_chain", "test_json", "test_text", "test_threads", "replay_passport"),
        _CHAIN,
        140,
    ),
    Target("taints, C", ("csrc/core/trust.c",), ("test_trust", "test_chain", "replay_passport"), _CHAIN, 0),
    Target(
        "gate evaluator, C",
        tuple(f"csrc/core/gate_{name}.c" for name in ("decide", "conditions", "drift", "text", "index", "set")),
        ("test_gate", "replay_gate"),
        _GATE,
        140,
    ),
    Target(
        "verifier and trust, Python",
        tuple(f"kest/core/{name}.py" for name in ("passport", "trust", "grants", "truststore")),
        (),
        _STORE,
        0,
    ),
)
