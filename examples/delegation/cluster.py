"""Starts Redis, the issuer and the five services; knows their addresses, their public keys and every client's secret."""

from __future__ import annotations

import json
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from kest_services.build import BuildError, build
from kest_services.oidc_issuer import OidcIssuer
from kest_services.processes import Process, ProcessError, Processes
from kest_services.redis import Redis
from kest_services.toolchains import MissingToolError
from workload import DOMAIN, PROCESS_DATA, SERVICES, principal_of

from kest import StaticIdentity, TrustStore

__all__ = ["Cluster"]

HERE = Path(__file__).resolve().parent
REPORTS = "task:read-reports"
BOTH = f"{PROCESS_DATA} {REPORTS}"

# What a token for each audience can be good for, and the algorithm that it is signed with.
AUDIENCES = {
    "kest-agent": {"scope": f"delegate {BOTH}", "alg": "ES256"},
    "kest-gateway": {"scope": BOTH, "alg": "EdDSA"},
    **{hop: {"scope": PROCESS_DATA, "alg": "RS256"} for hop in ("hop1", "hop2", "hop3")},
}
# Who may get tokens for whom. batch-report is a workload like any other, which turns out not to be honest.
TARGETS = {
    "portal": ["kest-agent"],
    "kest-agent": ["kest-gateway"],
    "kest-gateway": ["kest-gateway", "hop1"],
    "hop1": ["hop2"],
    "hop2": ["hop3"],
    "hop3": [],
    "batch-report": ["kest-gateway"],
}
# Whom each service calls: nobody else gets its lineage.
PEERS = {"kest-agent": ["kest-gateway"], "kest-gateway": ["hop1"], "hop1": ["hop2"], "hop2": ["hop3"], "hop3": []}
# What an operator believes of whom: only the gateway may raise trust and remove taints, and what enters at the agent is
# worth 10 at most.
RIGHTS: dict[str, dict[str, Any]] = {
    "kest-gateway": {"kest_max_trust": 100, "kest_may_sanitise": True},
}
NO_RIGHTS = {"kest_max_trust": 10, "kest_may_sanitise": False}


class Cluster:
    """What is running.

    Args:
        processes: starts and stops.
        out: folder for keys and records.
        scratch: folder for what nobody needs afterwards.
    """

    def __init__(self, processes: Processes, out: Path, scratch: Path) -> None:
        self._processes, self._out, self._scratch = processes, out, scratch
        self.secrets = {name: secrets.token_urlsafe(32) for name in TARGETS}
        self.urls: dict[str, str] = {}
        self.issuer = self.redis = ""
        self.keys_file = out / "keys.jwks.json"
        self.records = {name: out / "records" / f"{name}.jsonl" for name in SERVICES}
        self.rogue = StaticIdentity(f"{DOMAIN}/batch-report")
        self._started: list[Process] = []

    @property
    def token_endpoint(self) -> str:
        """The issuer's."""
        return f"{self.issuer}/token"

    @property
    def store(self) -> TrustStore:
        """The published keys."""
        return TrustStore.from_jwks(self.keys_file)

    def start(self) -> None:
        """Start everything; ProcessError says what did not start, and why."""
        _install_issuer()
        clients = [{"id": name, "secret": self.secrets[name], "targets": to} for name, to in TARGETS.items()]
        clients[0]["logins"] = ["alice"]
        issuer = OidcIssuer(self._processes, self._scratch / "issuer", audiences=AUDIENCES, clients=clients)
        issuer.launch()
        sockets = {name: _listening() for name in SERVICES}
        self.urls = {name: "http://{}:{}".format(*sock.getsockname()) for name, sock in sockets.items()}
        services = {name: self._serve(name, sock) for name, sock in sockets.items()}
        self.secrets["redis"] = secrets.token_urlsafe(24)
        redis = Redis(self._processes, self._scratch / "redis", password=self.secrets["redis"])
        redis.start()
        self.redis = redis.url
        issuer.wait()
        self.issuer = issuer.url
        self._started += [issuer.running, redis.running]
        for name, service in services.items():
            service.send(json.dumps(self._settings(name)) + "\n")
        self._publish([json.loads(service.line()) for service in services.values()])
        for service in services.values():
            service.send("the keys are there\n", last=True)
        for service in services.values():
            if service.line() != "ready":
                raise ProcessError(f"{service.name} is not ready; see {service.log}")

    def check(self) -> None:
        """ProcessError if anything has ended."""
        for process in self._started:
            process.alive()

    def __len__(self) -> int:
        return len(self._started)

    def _launch(self, name: str, command: list[str], **options: Any) -> Process:
        process = self._processes.start(name, command, **options)
        self._started.append(process)
        return process

    def _serve(self, name: str, sock: socket.socket) -> Process:
        # The socket is bound here and inherited: no other process can take the port in between.
        with sock:
            command = [sys.executable, str(HERE / "serve.py"), name, str(sock.fileno())]
            return self._launch(name, command, pass_fds=[sock.fileno()])

    def _settings(self, name: str) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "redis": self.redis,
            "secret": self.secrets[name],
            "peers": {peer: self.urls[peer] for peer in PEERS[name]},
            "keys": str(self.keys_file),
            "records": str(self.records[name]),
        }

    def _publish(self, keys: list[dict[str, Any]]) -> None:
        keys.append(dict(self.rogue.public_jwk()))
        for key in keys:
            key.update(RIGHTS.get(key["kid"].removeprefix(f"{DOMAIN}/"), NO_RIGHTS))
        known = {key["kid"] for key in keys}
        if known != {principal_of(name) for name in (*SERVICES, "batch-report")}:
            raise ProcessError("the services did not publish the keys that they should have")
        self.keys_file.write_text(json.dumps({"keys": keys}, indent=2) + "\n", encoding="utf-8")


def _install_issuer() -> None:
    try:
        build("oidc-issuer")
    except (BuildError, MissingToolError) as error:
        raise ProcessError(str(error)) from None


def _listening() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    return sock
