"""docs/policies as a reader meets it: every block of code runs, and every attribute that a policy reads is described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kest.core import LocalEd25519Provider, configure
from kest.core.policies import NAMES, load

pytest.importorskip("cedarpy")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "policies"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    found = BLOCK.findall((DOCS / page).read_text("utf-8"))
    assert len(found) * 2 == (DOCS / page).read_text("utf-8").count("```")
    return found


@pytest.mark.parametrize("model", NAMES)
def test_the_example_runs_in_both_languages(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(identity=LocalEd25519Provider("spiffe://kest.test/docs"))
    ((language, code),) = blocks(f"{model}.md")
    assert language == "python"
    exec(compile(code, f"{model}.md", "exec"), {})
    rego, cedar = capsys.readouterr().out.splitlines()  # what the page prints of each denial
    assert [reason for reason in rego.split("; ") if f'"{reason}"' not in load(model)] == []  # the policy's own words
    assert cedar.startswith(f"forbidden by {model}/")


@pytest.mark.parametrize("model", NAMES)
def test_every_attribute_is_described(model: str) -> None:
    text = (DOCS / f"{model}.md").read_text("utf-8")
    read = set(re.findall(r"context\.object\.attributes has (\w+)", load(model, "cedar")))
    assert read == set(re.findall(r"attributes\.(\w+)", load(model)))
    assert {name for name in read if f"`{name}`" not in text} == set()


def test_the_overview_runs_as_printed(tmp_path: Path) -> None:
    pytest.importorskip("lakera_regorus")  # regopy cannot read `not … with`
    scope: dict[str, Any] = {}
    expected = ""
    for language, code in blocks("README.md"):
        if language == "python":
            exec(compile(code, "README.md", "exec"), scope)
        elif language == "text":
            expected = code.partition("\n")[2]
        else:
            named = re.match(r"(?:#|//) (\S+)\n", code)
            (tmp_path / (named[1] if named else "spend_test.json")).write_text(code, "utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {
        "spend.rego",
        "spend.cedar",
        "spend_test.rego",
        "spend_test.json",
    }
    for command, output in (("test", expected), ("check", "ok: 3 policies\n")):
        done = subprocess.run(
            [sys.executable, "-m", "kest", "policy", command, "."],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, output, "")
