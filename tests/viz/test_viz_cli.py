"""``kest viz`` and ``kest-viz``."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kest.cli.main import main


@pytest.fixture
def files(records: SimpleNamespace, passport_file: Any) -> SimpleNamespace:
    one = records.entry("one")
    jwk = {**records.alice.public_jwk(), "kid": records.alice.get_identity()}
    return SimpleNamespace(
        passport=passport_file([one, records.entry("two", one)]), keys=passport_file({"keys": [jwk]}, "keys.json")
    )


def test_mermaid_to_standard_output(files: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["viz", files.passport]) == 0
    out = capsys.readouterr()
    assert out.out.startswith('flowchart TD\n    n0["one<br/>trust 100"]:::high\n')
    assert "not verified" in out.err
    assert main(["viz", files.passport, "--trust", files.keys]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "start"), [("a.html", "<!doctype html>"), ("a.SVG", "<svg "), ("a.mmd", "flowchart")])
def test_the_ending_says_the_form(files: SimpleNamespace, tmp_path: Path, name: str, start: str) -> None:
    path = tmp_path / name
    assert main(["viz", files.passport, "-o", str(path), "--trust", files.keys]) == 0
    assert path.read_text("utf-8").startswith(start)
    assert main(["viz", files.passport, "--format", "svg", "-o", str(path)]) == 0
    assert path.read_text("utf-8").startswith("<svg ")


def test_several_files_are_one_picture(files: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["viz", files.passport, files.passport]) == 0
    assert capsys.readouterr().out.count("2 copies") == 2


def test_open_shows_the_page(files: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: shown.append(url) or True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["viz", files.passport, "--open"]) == 0
    assert len(shown) == 1
    path = Path(shown[0].removeprefix("file://"))
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.json"],
        [".", "-f", "svg"],
        ["FILE", "-o", "x.pdf"],
        ["FILE", "-o", "no/such/folder.svg"],
        ["FILE", "--limit", "0"],
        [],
        ["FILE", "--principal", "x"],
        ["bad\x1b[2J\0name"],
    ],
)
def test_wrong_usage(files: SimpleNamespace, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["viz", *(files.passport if one == "FILE" else one for one in arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(("kest: ", "kest viz: "))
    assert "\x1b[2J" not in said.err


def test_nothing_to_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    assert main(["viz", str(empty)]) == 2
    assert "nothing to draw" in capsys.readouterr().err


def test_a_picture_that_mermaid_would_refuse(
    records: SimpleNamespace, passport_file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = records.entry("root")
    path = passport_file([root, *[records.entry(f"c{i}", root) for i in range(501)]])
    assert main(["viz", path]) == 0
    assert "maxEdges" in capsys.readouterr().err


def test_standard_input(records: SimpleNamespace, run_python: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "from kest.cli.viz import main; raise SystemExit(main())", "-"],
        input=json.dumps([records.entry("from a pipe")]),
        capture_output=True,
        text=True,
        timeout=60,
        env={**__import__("os").environ, "PYTHONPATH": str(Path(__import__("kest").__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert "from a pipe" in done.stdout


def test_the_sample_of_the_documentation(
    files: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/viz.md").read_text("utf-8")
    sample = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(Path(files.passport).parent)
    names: dict[str, Any] = {}
    exec(sample, names)
    assert capsys.readouterr().out == "0 0 0\n"
    assert Path("lineage.html").read_text("utf-8").startswith("<!doctype html>")


def test_what_is_left_out_is_said(files: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["viz", files.passport, "--limit", "1", "--trust", files.keys]) == 0
    assert "the oldest 1 records are left out; --limit draws more" in capsys.readouterr().err
    assert main(["viz", files.passport, "--limit", "many"]) == 2
    assert "a number from 1 to 1000000" in capsys.readouterr().err


def test_without_a_browser(
    files: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["viz", files.passport, "--open", "--trust", files.keys]) == 0
    (made,) = tmp_path.rglob("*.html")
    assert f"there is no browser here; the picture is {made}" in capsys.readouterr().err


def test_without_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["viz", "-"]) == 2
    assert "there is no standard input to read" in capsys.readouterr().err
