"""The policy pack's truth tables, decided by a real OPA and a real cedar-agent: see ``test_policy_differential.py``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from kest_services.cedar_agent import CedarAgent
from kest_services.opa import Opa
from kest_services.processes import Processes
from reference import models
from reference.policy_tables import ROWS, malformed_rows, mixed_list

from kest import OPAPolicyEngine
from kest.core.engine import CedarPolicyEngine
from kest.core.policies import NAMES, load
from kest.errors import PolicyEngineError


@pytest.fixture
def opa(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> Opa:
    built("opa")
    server = Opa(processes, tmp_path / "opa")
    server.start()
    for model in NAMES:
        server.put_policy(model, load(model))
    return server


def test_opa_decides_the_truth_tables(opa: Opa) -> None:
    with OPAPolicyEngine(url=opa.url) as engine:
        for model in NAMES:
            for row in ROWS[model]():
                assert engine.evaluate("", [f"kest/policies/{model}"], row) is models.allows(model, row), (model, row)


def test_opa_denies_what_is_missing_or_mistyped(opa: Opa) -> None:
    shapes = [None, [], "x", 1, {}, {"object": None}, {"object": [1]}, {"object": {"attributes": 3}}]
    with httpx.Client(base_url=opa.url) as client:
        for model in NAMES:
            for row in [*malformed_rows(model), *shapes]:
                result = client.post(f"/v1/data/kest/policies/{model}", json={"input": row}).json()["result"]
                assert result["allow"] is models.allows(model, row), (model, row)
                assert bool(result["deny"]) is not result["allow"]
                assert result["reasons"] == result["deny"]


def test_opa_checks_the_pack_strictly(built: Callable[[str], Path], tmp_path: Path) -> None:
    for model in NAMES:
        (tmp_path / f"{model}.rego").write_text(load(model), "utf-8")
    for command in (["check", "--strict"], ["fmt", "--list", "--fail"]):
        done = subprocess.run([str(built("opa") / "opa"), *command, str(tmp_path)], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_cedar_agent_decides_the_truth_tables(
    processes: Processes, tmp_path: Path, built: Callable[[str], Path]
) -> None:
    """Its engine is Cedar 2.4 with one policy set for everything: a fresh one for each model."""
    built("cedar-agent")
    for model in NAMES:
        with CedarAgent(processes, tmp_path / model) as agent:
            # One policy under each id.
            parts = [part for part in load(model, "cedar").split("};\n") if part.strip()]
            agent.put_policies({f"{model}-{number}": part + "};" for number, part in enumerate(parts)})
            with CedarPolicyEngine(url=agent.url) as engine:
                for row in ROWS[model]():
                    assert engine.evaluate("", [model], row) is models.allows(model, row), (model, row)
                for row in malformed_rows(model):
                    if isinstance(row.get("object"), dict) and not mixed_list(row):
                        try:
                            answer = engine.evaluate("", [model], row)
                        except PolicyEngineError:
                            answer = False
                        assert answer is models.allows(model, row), (model, row)
