"""examples/engines: those that need no server. tests/services runs the others."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/engines"
SERVERS = {"opa", "cedar_agent"}
# example -> what it needs, the lines that it prints
EXPECTED = {
    "cedar_local": ("cedarpy", ["refunded 120", "no Cedar policy permits it", "forbidden by nothing-tainted"]),
    "rego_local": ("regopy", ["refunded 120", "900 is more than 500"]),
    "verified_permissions": ("boto3", ["refunded 120", "Verified Permissions did not allow it"]),
    "own_engine": ("kest", ["refunded 120", "denied by policy", "failed with ValueError"]),
}


def test_each_engine_has_an_example_and_each_example_a_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(EXPECTED) | SERVERS


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, tmp_path: Path) -> None:
    needed, lines = EXPECTED[name]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KEST_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == len(lines)
    for got, expected in zip(printed, lines, strict=True):
        assert expected in got
