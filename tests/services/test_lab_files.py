"""The configuration of examples/lab/compose.yaml, by the servers that it is for. There are no containers here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kest_services.processes import Processes
from kest_services.service import wait_until
from kest_services.spire import SpireServer

CONFIG = Path(__file__).resolve().parents[2] / "examples/lab/config"
POLICIES = [CONFIG / "policies", *(CONFIG.parents[1] / "delegation/policies").glob("*.rego")]


@pytest.mark.parametrize(
    ("component", "command"),
    [
        ("spire", ["spire-server", "validate", "-config", str(CONFIG / "spire-server.conf")]),
        ("collector", ["collector", "validate", f"--config=file:{CONFIG / 'collector.yaml'}"]),
        ("opa", ["opa", "check", "--strict", *map(str, POLICIES)]),
    ],
    ids=["spire-server", "collector", "opa"],
)
def test_it_is_valid(component: str, command: list[str], built: Callable[[str], Path]) -> None:
    done = subprocess.run(
        [str(built(component) / command[0]), *command[1:]], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_agent_joins_with_what_the_registration_leaves(
    processes: Processes, tmp_path: Path, built: Callable[[str], Path]
) -> None:
    spire = built("spire")
    agent_socket = tmp_path / "agent.sock"
    with SpireServer(processes, tmp_path / "s", trust_domain="delegation.example") as server:
        variables = {
            "SPIRE_SERVER": str(spire / "spire-server"),
            "SPIRE_SOCKET": str(server.socket),
            "TRUST_DOMAIN": server.trust_domain,
            "OUT": str(tmp_path),
        }
        uid = os.getuid()
        for _ in range(2):  # as after a restart of everything but the server's data
            subprocess.run(
                ["sh", str(CONFIG / "spire-entries.sh"), f"hop1={uid}=3600", f"hop3={uid + 1}=20"],
                env={**os.environ, **variables}, capture_output=True, timeout=60, check=True,
            )  # fmt: skip
        shown = subprocess.run(
            [str(spire / "spire-server"), "entry", "show", "-socketPath", str(server.socket)],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert shown.count("unix:uid:") == 2
        assert "X509-SVID TTL    : 20" in shown
        text = (CONFIG / "spire-agent.conf").read_text("utf-8")
        for inside, here in (
            ("8081", str(server.port)),
            ("/run/spire/join", str(tmp_path)),
            ("/run/spire/agent/api.sock", str(agent_socket)),
            ("/run/spire/agent", str(tmp_path)),
        ):
            assert inside in text
            text = text.replace(inside, here)
        (tmp_path / "agent.conf").write_text(text, "utf-8")
        processes.start("agent", [str(spire / "spire-agent"), "run", "-config", str(tmp_path / "agent.conf")])

        def has_its_svid() -> bool:
            command = [str(spire / "spire-agent"), "api", "fetch", "x509", "-socketPath", str(agent_socket)]
            done = subprocess.run([*command, "-timeout", "2s"], capture_output=True, text=True, timeout=60)
            return done.returncode == 0 and done.stdout.split().count("spiffe://delegation.example/hop1") == 1

        wait_until(has_its_svid, 30)
