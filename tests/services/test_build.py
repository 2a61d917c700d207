"""tools/services/build, with a component of the test's own: once, all or nothing, and errors that say what to do."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kest_services import build, components, toolchains

COUNT = 'echo built >>"$COUNT"\n'


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe of a component called "thing", to be written."""
    folder = tmp_path / "tools/thing"
    folder.mkdir(parents=True)
    path = folder / "recipe"
    path.touch(0o755)
    monkeypatch.setattr(components, "_ROOT", folder.parent)
    monkeypatch.setenv("KEST_SERVICES", str(tmp_path / "cache"))
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return path


def write(recipe: Path, body: str, needs: str = "") -> None:
    recipe.write_text(f"#!/bin/sh\n{needs}\nset -eu\n{body}\n", "utf-8")


def test_it_is_built_once_and_again_when_its_folder_changes(recipe: Path, tmp_path: Path) -> None:
    write(recipe, COUNT + 'cp lock "$WORK" && mv "$WORK/lock" "$OUT"')
    (recipe.parent / "lock").write_text("1", "utf-8")
    with pytest.raises(components.NotBuiltError, match="run tools/services/build thing"):
        components.folder("thing")
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(build.build, ["thing"] * 4))
    assert folders == {components.folder("thing")}
    (recipe.parent / "lock").write_text("2", "utf-8")
    again = build.build("thing")
    assert again not in folders
    assert (again / "lock").read_text("utf-8") == "2"
    assert (tmp_path / "count").read_text("utf-8") == "built\n" * 2
    assert sorted(path.name for path in recipe.parent.iterdir()) == ["lock", "recipe"]


def test_a_failed_build_leaves_nothing_but_its_log(recipe: Path, tmp_path: Path) -> None:
    write(recipe, 'touch "$OUT/half"; echo "checksum mismatch" >&2; exit 3')
    with pytest.raises(build.BuildError, match=r"thing exited with 3(.|\n)*thing\.log(.|\n)*checksum mismatch"):
        build.build("thing")
    with pytest.raises(components.NotBuiltError):
        components.folder("thing")
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {"logs", "thing.lock", "toolchains.lock"}


def test_a_missing_tool_is_named(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(toolchains.os, "geteuid", lambda: 1000)
    write(recipe, "exit 1", "# needs: node>=999.9")
    with pytest.raises(toolchains.MissingToolError, match=r"thing needs node 999\.9 or newer"):
        build.build("thing")
    monkeypatch.setattr(sys, "argv", ["build", "--possible"])
    assert build.main() == 0
    monkeypatch.setattr(sys, "argv", ["build", "-j2"])
    assert build.main() == 1
    assert "cannot be built here: thing needs node 999.9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("installed", "toolchain", "possible"),
    [("1.26.8", "local", True), ("1.24.4", "local", False), ("1.24.4", "auto", True), ("1.19.8", "auto", False)],
)
def test_which_go_will_do(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, installed: str, toolchain: str, possible: bool
) -> None:
    said = {
        ("go", "version"): f"go version go{installed} linux/amd64\n",
        ("go", "env", "GOTOOLCHAIN"): f"{toolchain}\n",
    }
    monkeypatch.setattr(toolchains, "_output", lambda *command: said[command])
    write(recipe, "", "# needs: go")
    (recipe.parent / "go.mod").write_text("module thing\n\ngo 1.26.0\n", "utf-8")
    assert (toolchains.wanting("thing") == []) is possible


def test_an_unknown_component_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve().parents[2] / "tools/services/build"), "nothing"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "unknown: nothing" in done.stderr


def test_the_documentation_names_the_versions_that_are_pinned() -> None:
    tools = Path(__file__).resolve().parents[2] / "tools/services"
    table = (tools.parents[1] / "docs/services.md").read_text("utf-8")
    pins = {
        "Open Policy Agent": ("opa/go.mod", r"open-policy-agent/opa v(\S+)"),
        "SPIRE server and agent": ("spire/go.mod", r"spiffe/spire v(\S+)"),
        "cedar-agent": ("cedar-agent/version", r"([\d.]+)-"),
        "moto server": ("moto/requirements.txt", r"(?m)^moto==(\S+)"),
        "OpenTelemetry Collector": ("collector/go.mod", r"collector/receiver/otlpreceiver v(\S+)"),
        "tessera": ("tlog/go.mod", r"transparency-dev/tessera v(\S+)"),
        "Keycloak": ("keycloak/keycloak.sha256", r"dist-([\d.]+)\.zip"),
    }
    for component, (file, pattern) in pins.items():
        pinned = re.search(pattern, (tools / file).read_text("utf-8"))
        assert pinned is not None, file
        assert f"| {component} | {pinned[1]}" in table
    assert set(components.known()) == {"opa", "spire", "cedar-agent", "moto", "collector", "oidc-issuer", "tlog"}
    builder = (tools / "collector/builder.yaml").read_text("utf-8")
    modules = (tools / "collector/go.mod").read_text("utf-8")
    assert all(line in modules for line in re.findall(r"gomod: (.*)", builder))
