"""The examples run as printed, and the demo holds what it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from kest import Passport, PassportVerifier, TrustStore, VerificationError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(*command: str, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEST_")}
    environment.update(extra, PYTHONPATH=os.pathsep.join(filter(None, sys.path)), PYTHONIOENCODING="utf-8")
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def needs_data() -> None:
    try:
        version("palmerpenguins")
    except PackageNotFoundError:
        pytest.skip("the demo's data set is missing: pip install --no-deps -r examples/requirements.txt")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    needs_data()
    folder = tmp_path_factory.mktemp("demo")
    out = folder / "out"
    return run(str(EXAMPLES / "demo.py"), "--out", str(out), cwd=folder, COLUMNS="80"), out


def test_demo_succeeds_and_says_what_happened(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "NOT AS EXPECTED" not in done.stdout
    assert "\x1b" not in done.stdout  # piped: no colours
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r"[ \d]\d  \w", line)]
    assert [(row[1], row[3], row[-1]) for row in rows] == [
        ("load_penguins", "60", "allowed"),
        ("read_request", "40", "allowed"),
        ("select_records", "40", "allowed"),
        ("suggest_sex", "0", "allowed"),
        ("fill_in_sex", "0", "DENIED"),
        ("export_report", "40", "DENIED"),
        ("sanitise", "90", "allowed"),
        ("summarise", "90", "allowed"),
        ("export_report", "90", "allowed"),
    ]
    for text in (
        "deviation: platform/ticket not asked",
        "Rego, penguins/change (function tier)",
        "Cedar, penguins/export (function tier)",
        "verified: 6 entries",
        "not verified: entry 1: the signature does not match",
        "9: 7 allowed, 2 denied",
    ):
        assert text in done.stdout


def test_the_demos_proof_convinces_another_process(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, out = demo
    keys = TrustStore.from_jwks(out / "keys.jwks.json")
    passport = Passport.deserialize((out / "passport.json").read_text("utf-8"))
    verified = PassportVerifier.verify(passport, keys)
    assert (verified.trust_score, verified.taints, len(verified)) == (90, (), 6)
    contexts = [entry["policy_context"] for entry in verified.decode()]
    assert all(context["enterprise_policies"] == ["org/own_workloads"] for context in contexts)
    assert [context["platform_policies"] for context in contexts] == [[]] + [["platform/ticket"]] * 5
    assert [len(context["deviations"]) for context in contexts] == [1, 0, 0, 0, 0, 0]
    assert len(verified.decode()[2]["parent_ids"]) == 2

    original, tampered = ((out / name).read_bytes() for name in ("passport.json", "tampered.json"))
    assert sum(a != b for a, b in zip(original, tampered, strict=True)) == 1
    with pytest.raises(VerificationError) as refused:
        PassportVerifier.verify(tampered.decode(), keys)
    assert refused.value.index == 1

    kinds = [json.loads(line)["kind"] for line in (out / "records.jsonl").read_text("utf-8").splitlines()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"entry": 7, "denial": 2, "outcome": 7}
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert [group["penguins"] for group in report] == [73, 73, 34, 34, 58, 61]
    assert "PRIVATE" not in "".join(file.read_text("utf-8") for file in out.iterdir())


def test_the_demo_fails_when_a_policy_is_not_what_it_was(tmp_path: Path) -> None:
    needs_data()
    copy = tmp_path / "examples"
    for file in EXAMPLES.rglob("*"):
        if file.suffix in (".py", ".rego", ".cedar"):
            target = copy / file.relative_to(EXAMPLES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.read_text("utf-8"), "utf-8")
    (copy / "policies/penguins/change.rego").write_text("package penguins.change\n\nallow := true\n", "utf-8")
    done = run(str(copy / "demo.py"), "--out", str(tmp_path / "out"), cwd=tmp_path)
    assert done.returncode == 1
    assert "fill_in_sex ran, although penguins/change should have denied it" in done.stdout
    assert "checks FAILED" in done.stdout


def test_quickstart_is_twenty_lines_and_runs(tmp_path: Path) -> None:
    source = (EXAMPLES / "quickstart.py").read_text("utf-8")
    assert len([line for line in source.splitlines() if line.strip()]) <= 20
    done = run(str(EXAMPLES / "quickstart.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    denied, paid, trust = done.stdout.splitlines()
    assert denied.startswith("policy 'pay' (function) denied operation 'pay'")
    assert (paid, trust) == ("paid 42", "90")
