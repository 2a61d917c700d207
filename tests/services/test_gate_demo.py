"""The gate's demo: two agents and a payment service as processes, a real Redis, and every scenario as it is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_delegation import environment, left_over

ROOT = Path(__file__).resolve().parents[2]
needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


def run(examples: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(examples / "gate/demo/run.py"), "--out", str(tmp_path / "out")],
        cwd=tmp_path, env=environment(scratch), capture_output=True, text=True, encoding="utf-8", timeout=150,
    )  # fmt: skip
    assert left_over(scratch) == []
    assert list(scratch.iterdir()) == []
    return done


@needs_redis
def test_every_scenario_is_as_it_is_told(tmp_path: Path) -> None:
    done = run(ROOT / "examples", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "NOT AS EXPECTED" not in done.stdout
    assert re.search(r"^(\d+) of \1 checks hold", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80
    for word in (
        "NO_POLICY_MATCH", "INVARIANT_VIOLATION", "RATE_LIMIT_EXCEEDED", "SESSION_INVALID", "13368", "replay", "hybrid",
        "public key not found", "expired", "truncated", "policy_set=", "principal was invalidated", "identity_knd",
    ):  # fmt: skip
        assert word in done.stdout, word
    logs = "".join(file.read_text("utf-8", "replace") for file in (tmp_path / "out").iterdir())
    assert "Traceback" not in logs.replace("the session store failed\nTraceback", "")


@needs_redis
def test_a_scenario_that_differs_fails(tmp_path: Path) -> None:
    """With a policy that permits ten times as much."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=ignored)
    shutil.copytree(ROOT / "tools/services", tmp_path / "tools/services", ignore=ignored)
    policies = tmp_path / "examples/gate/demo/policies.toml"
    policies.write_text(policies.read_text("utf-8").replace("max = 1000", "max = 10000"), encoding="utf-8")
    done = run(tmp_path / "examples", tmp_path)
    assert done.returncode == 1
    assert "NOT AS EXPECTED: an agent refunds 5,000" in done.stdout
