"""OPA as a server: it decides, and is the same after a restart on the same port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from kest_services.opa import Opa
from kest_services.processes import Processes

from kest import OPAPolicyEngine
from kest.errors import PolicyEngineError

REGO = "package kest.spend\n\nimport rego.v1\n\nallow if input.trust_score >= data.limits.least\n"


def test_opa_decides(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> None:
    built("opa")
    with Opa(processes, tmp_path / "opa") as opa:
        opa.put_data("limits", {"least": 60})
        opa.put_policy("spend", REGO)
        asked = f"{opa.url}/v1/data/kest/spend"
        answers = [httpx.post(asked, json={"input": {"trust_score": score}}).json() for score in (60, 59)]
        assert answers == [{"result": {"allow": True}}, {"result": {}}]
        assert httpx.post(f"{opa.url}/v1/data/kest/unknown", json={"input": {}}).json() == {}


def test_an_engine_recovers_when_opa_comes_back(
    processes: Processes, tmp_path: Path, built: Callable[[str], Path]
) -> None:
    built("opa")
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "always.rego").write_text("package kest.always\n\nimport rego.v1\n\nallow := true\n", "utf-8")
    with Opa(processes, tmp_path / "opa", policies=[policies]) as opa:
        engine, address = OPAPolicyEngine(url=opa.url), opa.url
        assert engine.evaluate("1", ["kest/always"], {}) is True
        opa.kill()
        with pytest.raises(PolicyEngineError):
            engine.evaluate("2", ["kest/always"], {})
        opa.start()
        assert opa.url == address
        assert engine.evaluate("3", ["kest/always"], {}) is True
