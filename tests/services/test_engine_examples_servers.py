"""examples/engines that ask a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kest_services.cedar_agent import CedarAgent
from kest_services.opa import Opa
from kest_services.processes import Processes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/engines"


def printed(name: str, url: str, folder: Path) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KEST_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, str(EXAMPLES / name), url]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class LoggingOpa(Opa):
    """As the example says to start it."""

    def command(self) -> Sequence[str]:
        return [*super().command(), "--set", "decision_logs.console=true"]


def test_opa(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> None:
    built("opa")
    with LoggingOpa(processes, tmp_path / "opa") as opa:
        first, second, third = printed("opa.py", opa.url, tmp_path)
        assert first == "refunded 120"
        assert second.startswith("OPA's record: decision_id=")
        assert third.endswith("900 is more than 500")


def test_cedar_agent(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> None:
    built("cedar-agent")
    with CedarAgent(processes, tmp_path / "agent") as agent:
        first, second = printed("cedar_agent.py", agent.url, tmp_path)
        assert first == "refunded 120"
        assert second.endswith("forbidden by not-too-much")
