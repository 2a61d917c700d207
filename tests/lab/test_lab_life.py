"""Up twice, repaired, killed, half-started: a lab of this test's own, of which nothing is left in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kest_services.service import wait_until
from state import State

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/lab/lab.py"


class Other:
    """A lab in a folder of its own, with the Keycloak of the one that is up: another would take a minute."""

    def __init__(self, folder: Path, issuer: str) -> None:
        self.folder, self.issuer = folder, issuer
        self.state = State(folder)

    def command(self, *given: str) -> list[str]:
        issuer = ["--issuer", self.issuer] if given[0] == "up" else []
        return [sys.executable, str(EXAMPLE), "--folder", str(self.folder), *given, *issuer]

    def run(self, *given: str, expect: int = 0) -> str:
        done = subprocess.run(self.command(*given), capture_output=True, text=True, timeout=300)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def number(self, part: str) -> int:
        found: int = self.state.read()["sessions"][part][0]
        return found


@pytest.fixture
def other(lab: Any, tmp_path: Path) -> Any:
    """Not up yet. A folder deep enough that no Unix socket's address could hold its path."""
    one = Other(tmp_path / ("deep" * 20) / "lab", lab.at["issuer"])
    yield one
    one.run("down")
    assert one.state.processes() == {}
    assert not one.folder.exists()


def test_a_lab_is_up_once_is_repaired_and_leaves_nothing_when_it_is_killed(other: Other) -> None:
    assert "no lab is up: make lab-up" in other.run("status", expect=1)
    assert "the lab is up (" in other.run("up")
    first = other.number("opa")
    assert "the lab is up already" in other.run("up")
    assert other.number("opa") == first

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: "the lab is up, without opa" in other.run("status"), 20)
    again = other.run("up")
    assert "starting opa again" in again
    assert other.number("opa") != first
    assert "without" not in other.run("status")
    assert "report: " in other.run("ask", "--out", str(other.folder.parent))
    assert "no part is called 'opal'" in other.run("stop", "opal", expect=1)

    supervisor = other.state.supervisor()
    assert supervisor is not None
    assert len(other.state.processes()) > 10
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not other.state.processes(), 20)  # by the kernel
    assert "no lab is up" in other.run("ask", expect=1)


def test_a_lab_whose_folder_is_gone_is_stopped_by_plain_python(other: Other) -> None:
    with subprocess.Popen(other.command("up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
        wait_until(lambda: "redis" in other.state.read().get("ready", ()), 60)
        other.folder.rename(other.folder.with_name("away"))
        command = [sys.executable, "-E", "-S", *other.command("down")[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert other.state.processes() == {}
        starting.wait(60)


def test_a_lab_that_is_still_starting_is_stopped_too(other: Other) -> None:
    with subprocess.Popen(other.command("up"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as starting:
        wait_until(lambda: "redis" in other.state.read().get("ready", ()), 60)
        other.run("down")
        assert starting.stdout is not None
        said = starting.stdout.read()
    assert starting.returncode == 1
    assert "the lab did not start" in said


def test_what_is_not_a_labs_folder_is_left_alone(lab: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious", "utf-8")
    one = Other(tmp_path, lab.at["issuer"])
    assert "is not empty, and not the folder of a lab" in one.run("up", expect=1)
    one.run("down")
    assert mine.read_text("utf-8") == "precious"
