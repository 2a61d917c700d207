"""``kest policy check`` and ``kest policy test`` as people and scripts meet them: output and exit status."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kest.core.policies import LANGUAGES, NAMES, load
from kest.core.policies.testing import run_tests

needs_regorus = pytest.mark.skipif(
    importlib.util.find_spec("lakera_regorus") is None,
    reason="lakera_regorus is not installed",
)
pytest.importorskip("cedarpy")
if not any(importlib.util.find_spec(name) for name in ("lakera_regorus", "regopy")):
    pytest.skip("no Rego engine is installed", allow_module_level=True)

SPEND = "package shop.spend\n\ndefault allow := false\n\nallow if input.args.amount <= data.shop.limits.most\n"
LIMITS = "package shop.limits\n\nmost := 100\n"
TESTS = """package shop.spend_test

test_small if data.shop.spend.allow with input as {"args": {"amount": 100}}

test_large if not data.shop.spend.allow with input as {"args": {"amount": 101}}

# test_comment if false
todo_test_later if false
"""
CEDAR = "permit (principal, action, resource) when { context.args.amount <= 100 };\n"
SCHEMA = 'entity W, R; action "a" appliesTo {principal: [W], resource: [R], context: {args: {amount: Long}}};'


def kest(*arguments: str, cwd: Path, status: int) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "KEST_CONFIG")}
    done = subprocess.run(
        [sys.executable, "-m", "kest", "policy", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"spend.rego": SPEND, "limits.rego": LIMITS, "spend_test.rego": TESTS, "spend.cedar": CEDAR}
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    cases = [
        {"name": "small", "policy": ["spend.rego", "limits.rego"], "input": {"args": {"amount": 100}}, "allow": True},
        {"name": "large", "policy": "spend.cedar", "input": {"args": {"amount": 101}}, "allow": False},
    ]
    (tmp_path / "spend_test.json").write_text(json.dumps(cases, indent=1), "utf-8")
    return tmp_path


@needs_regorus
def test_check_accepts_the_pack_and_modules_that_refer_to_each_other(folder: Path) -> None:
    for name in NAMES:
        for language in LANGUAGES:
            (folder / f"{name}.{language}").write_text(load(name, language), "utf-8")
    assert kest("check", ".", cwd=folder, status=0).stdout == "ok: 18 policies\n"


def test_check_says_where(folder: Path) -> None:
    (folder / "bad.rego").write_text("package x\n\nallow if {\n  input.a ==\n}\n", "utf-8")
    (folder / "bad.cedar").write_text("permit(principal, action, resource)\nwhen { context.x = };", "utf-8")
    (folder / "unsafe.rego").write_text("package y\nallow if not denyed.x\n", "utf-8")
    done = kest("check", "bad.rego", "bad.cedar", "unsafe.rego", "spend.cedar", cwd=folder, status=1)
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[1:-1]] == ["bad.cedar:2:20", "unsafe.rego:2:14"]
    assert lines[0].startswith("bad.rego:")
    assert lines[-1] == "3 of 4 policies with problems"
    found = json.loads(kest("check", "--json", "bad.cedar", "spend.cedar", cwd=folder, status=1).stdout)
    assert found["ok"] is False
    assert [(f["file"], [(p["line"], p["column"]) for p in f["problems"]]) for f in found["files"]] == [
        ("bad.cedar", [(2, 20)]),
        ("spend.cedar", []),
    ]


def test_check_with_a_schema(folder: Path) -> None:
    (folder / "shop.cedarschema").write_text(SCHEMA, "utf-8")
    kest("check", "--schema", "shop.cedarschema", "spend.cedar", cwd=folder, status=0)
    (folder / "typo.cedar").write_text(CEDAR.replace("amount", "amonut"), "utf-8")
    done = kest("check", "--schema", "shop.cedarschema", "typo.cedar", cwd=folder, status=1)
    assert done.stdout.startswith("typo.cedar:1:45: ")
    assert "amonut" in done.stdout
    (folder / "shop.cedarschema").write_text("entity ;;", "utf-8")
    assert "schema" in kest("check", "--schema", "shop.cedarschema", "spend.cedar", cwd=folder, status=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "missing.rego"], ["check", "notes.txt"], ["check", "empty"], ["check"], ["check", "latin.rego"],
        ["test", "missing_test.json"], ["test", "empty"], ["test", "limits.rego"], ["test", "no/where_test.json"], [],
    ],
)  # fmt: skip
def test_wrong_usage(folder: Path, arguments: list[str]) -> None:
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("x", "utf-8")
    (folder / "latin.rego").write_bytes(b"package x\n# \xe9\n")
    done = kest(*arguments, cwd=folder, status=2)
    assert done.stdout == ""
    assert done.stderr.startswith("kest")


@needs_regorus
def test_tests_pass(folder: Path) -> None:
    done = kest("test", ".", cwd=folder, status=0)
    assert done.stdout.splitlines() == [
        "RESULT   POLICY           TEST",
        "passed   shop.spend_test  test_small",
        "passed   shop.spend_test  test_large",
        "skipped  shop.spend_test  todo_test_later",
        "    spend_test.rego:8: to do",
        "passed   spend.rego       small",
        "passed   spend.cedar      large",
        "4 passed, 1 skipped",
    ]
    assert kest("test", "spend_test.rego", cwd=folder, status=0).stdout.endswith("2 passed, 1 skipped\n")
    assert kest("test", "spend_test.json", cwd=folder, status=0).stdout.endswith("2 passed\n")


@needs_regorus
def test_tests_notice_a_changed_policy(folder: Path) -> None:
    (folder / "limits.rego").write_text(LIMITS.replace("100", "99"), "utf-8")
    (folder / "spend.cedar").write_text(CEDAR.replace("<=", ">="), "utf-8")
    found = json.loads(kest("test", "--json", ".", cwd=folder, status=1).stdout)
    assert (found["ok"], found["passed"], found["failed"], found["error"]) == (False, 1, 3, 0)
    failed = {test["name"]: (test["line"], test["detail"]) for test in found["tests"] if test["status"] == "failed"}
    assert failed["test_small"][0] == 3
    assert failed["small"] == (2, "denied: shop.spend.allow is false")
    assert failed["large"][1] == "allowed"


CASE: dict[str, Any] = {"name": "n", "policy": "spend.cedar", "input": {"args": {"amount": 1}}, "allow": True}


@pytest.mark.parametrize(
    ("cases", "detail"),
    [
        ("{", "not JSON"),
        ({}, "array"),
        ([1], "object"),
        ([{**CASE, "alow": True}], "alow"),
        ([{key: value for key, value in CASE.items() if key != "allow"}], "'allow'"),
        ([{**CASE, "allow": 1}], "'allow'"),
        ([{**CASE, "policy": "other"}], "there is no policy"),
        ([{**CASE, "policy": []}], "file names"),
        ([{**CASE, "policy": ["spend.cedar", "limits.rego"]}], "limits.rego"),
        ([{**CASE, "policy": "broken.cedar"}], "does not load"),
        ([{**CASE, "input": {"args": {"__extn": 1}}}], "__extn"),
    ],
)
def test_a_case_that_cannot_be_run_is_an_error(cases: Any, detail: str) -> None:
    text = cases if isinstance(cases, str) else json.dumps(cases)
    files = {"p/spend.cedar": CEDAR, "p/limits.rego": LIMITS, "p/broken.cedar": "permit(", "p/x_test.json": text}
    (outcome,) = run_tests(files, ["p/x_test.json"])
    assert outcome.status == "error"
    assert detail in outcome.detail


def test_a_case_without_extension_runs_in_each_language_that_is_there() -> None:
    files = {"spend.cedar": CEDAR, "spend.rego": "package s\nallow if input.args.amount <= 100\n"}
    files["spend_test.json"] = json.dumps([{**CASE, "policy": "spend"}])
    assert [(o.policy, o.status) for o in run_tests(files)] == [("spend.rego", "passed"), ("spend.cedar", "passed")]


@needs_regorus
def test_a_policy_that_does_not_load_fails_the_run(folder: Path) -> None:
    (folder / "bad.rego").write_text("package x\nallow if nope\n", "utf-8")
    done = kest("test", ".", cwd=folder, status=1)
    assert "bad.rego:2: column 10" in done.stdout
    assert done.stdout.endswith("4 passed, 1 error, 1 skipped\n")
