"""What OPA says about a decision beside yes and no, and how far that gets: reasons, decision ids, bundle revisions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from kest_services.opa import Opa
from kest_services.processes import Processes

from kest.core import (
    OPAPolicyEngine,
    PassportVerifier,
    PolicyDeniedError,
    RegoLocalEngine,
    configure,
    invalidate_policy_cache,
    kest_verified,
)
from kest.core.context import get_current_passport, lineage
from kest.core.engine import decide

REGO = """package kest.spend

import rego.v1

default allow := false

allow if count(reasons) == 0

reasons contains "the flow is tainted: contains_pii" if "contains_pii" in input.taints

reasons contains sprintf("trust is %d, and 70 is needed", [input.trust_score]) if input.trust_score < 70
"""
INPUT = {"identity": "w", "trust_score": 10, "taints": ["contains_pii"]}


class LoggingOpa(Opa):
    """With decision logs, and a bundle that has a revision."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "--set", "decision_logs.console=true"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "spend.rego").write_text(REGO, "utf-8")
    return folder


def test_opa_and_the_local_engines_give_the_same_reasons(
    processes: Processes, tmp_path: Path, bundle: Path, built: Callable[[str], Path]
) -> None:
    built("opa")
    with Opa(processes, tmp_path / "opa", policies=[bundle]) as opa, OPAPolicyEngine(opa.url) as engine:
        expected = decide(engine, "e", ["kest/spend"], INPUT)
        assert expected.reason == "the flow is tainted: contains_pii; trust is 10, and 70 is needed"
        assert expected.ids == expected.evidence == ()  # this OPA keeps no records
        assert asyncio.run(engine.async_decide("e", ["kest/spend"], INPUT)) == expected
    with RegoLocalEngine({"kest/spend": REGO}) as local:
        assert decide(local, "e", ["kest/spend"], INPUT) == expected


def test_decision_ids_and_revisions_are_in_the_signed_entry_and_the_denial(
    processes: Processes, tmp_path: Path, bundle: Path, built: Callable[[str], Path], identity: Any, sink: Any
) -> None:
    binary = built("opa") / "opa"
    archive = tmp_path / "bundle.tar.gz"
    processes.start("opa-build", [str(binary), "build", "-b", str(bundle), "-o", str(archive), "-r", "r-42"]).ended(20)
    opa = LoggingOpa(processes, tmp_path / "opa", policies=[Path("-b"), archive])
    with opa, OPAPolicyEngine(opa.url, provenance=True) as engine:
        configure(engine=engine, identity=identity, audit=sink)
        call = kest_verified("kest/spend", operation_name="op")(lambda: "ran")
        labels: list[str] = []
        for _ in range(2):
            with lineage():
                assert call() == "ran"
                PassportVerifier.verify(get_current_passport(), {identity.get_identity(): identity})
                labels.append(get_current_passport().decode()[0]["labels"]["kest.decision"])
        assert labels[0] == labels[1]  # the second call rests on the first one's decision
        invalidate_policy_cache()
        with lineage(), pytest.raises(PolicyDeniedError, match="the flow is tainted"):
            kest_verified("kest/spend", operation_name="op", added_taints=["contains_pii"])(lambda: "ran")()
        (denial,) = sink.payloads("denial")
        log = opa.running.log
    logged = [json.loads(line) for line in log.read_text("utf-8").splitlines() if '"Decision Log"' in line]
    assert len(logged) == 2
    for record, text in zip(logged, (labels[0], denial["labels"]["kest.decision"]), strict=True):
        decision, revision = text.split(" ")
        assert decision == f"decision_id={record['decision_id']}"
        assert revision.endswith("bundle.tar.gz@r-42")
        assert record["bundles"][revision[len("revision=") :].rpartition("@")[0]]["revision"] == "r-42"
    assert denial["decided_by"] == denial["labels"]["kest.decision"].split(" ")
    assert denial["reason"] == "the flow is tainted: contains_pii"
