"""What the lab consists of, each with an address of its own: servers, SPIFFE identities, and the five services."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kest_services.collector import Collector
from kest_services.keycloak import Keycloak
from kest_services.opa import Opa
from kest_services.processes import Process, Processes
from kest_services.redis import Redis
from kest_services.service import Service, free_port
from kest_services.spire import SpireAgent, SpireServer

__all__ = ["CHAIN", "POLICIES", "REALM", "WORKLOADS", "Parts", "Workload"]

HERE = Path(__file__).resolve().parent
DOMAIN = "delegation.example"
REALM = "lab"
CHAIN = ("kest-agent", "kest-gateway", "hop1", "hop2", "hop3")
"""The five services; each calls the next."""
WORKLOADS = {**dict.fromkeys((*CHAIN, "batch-report", "auditor"), 3600), "hop3": 20}
"""Whoever gets an SVID, and for how many seconds. hop3's shows in little time what happens when no new one comes."""
POLICIES = (HERE / "config/policies", *sorted((HERE.parent / "delegation/policies").glob("*.rego")))
"""What OPA loads. Two of the policies are those of ``make demo-delegation``."""


class Workload(Service):
    """One of the five services, which runs an executable of its own and so has an identity of its own."""

    patience = 60.0
    talks = True

    def __init__(self, processes: Processes, folder: Path, name: str, python: Path) -> None:
        super().__init__(processes, folder)
        self.name = name
        self._python = python
        self.port = free_port()  # now, because others are told where it will be
        self.port_numbers = [self.port]
        self.variables: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        return [str(self._python), str(HERE / "service.py"), self.name]

    def environment(self) -> Mapping[str, str | None]:
        return {**loader(), **self.variables, "LISTEN": f"127.0.0.1:{self.port}"}

    def started(self, process: Process) -> None:
        assert process.child.stdin is not None
        process.child.stdin.close()

    def ready(self) -> bool:
        return self.running.line(self.patience) == "ready"


class Parts:
    """Everything, in the order in which it is started.

    Args:
        processes: starts and stops.
        folder: for data, configuration and records of all of them.
        issuer: a realm like ours, whose tokens count; "" for a Keycloak of the lab's own.
    """

    def __init__(self, processes: Processes, folder: Path, issuer: str = "") -> None:
        self._folder, self._issuer = folder, issuer
        (folder / "records").mkdir()
        self.keycloak = None if issuer else Keycloak(processes, folder / "keycloak", realms=HERE / "config/realms")
        self.redis = Redis(processes, folder / "redis", password=secrets.token_urlsafe(24))
        self.opa = Opa(processes, folder / "opa", policies=POLICIES)
        self.collector = Collector(processes, folder / "collector")
        self.spire_server = SpireServer(processes, folder / "spire-server", trust_domain=DOMAIN)
        self.spire_agent = SpireAgent(processes, folder / "spire-agent", self.spire_server, executables=True)
        self.pythons = {name: interpreter(folder / "workloads" / name, name) for name in WORKLOADS}
        self.services = [Workload(processes, folder / name, name, self.pythons[name]) for name in CHAIN]
        self._servers: tuple[Service, ...] = (self.redis, self.opa, self.collector, self.spire_server)
        slow = [self.keycloak] if self.keycloak else []
        self.all: dict[str, Service] = {
            part.name: part for part in (*slow, *self._servers, self.spire_agent, *self.services)
        }

    def start(self, say: Callable[[Service], None]) -> None:
        """Start all of it, what takes longest first; `ProcessError` says what did not start, and why.

        Args:
            say: called with each part that is ready.
        """
        if self.keycloak:
            self.keycloak.launch()
        for part in self._servers:
            part.launch()
        for part in self._servers:
            _ready(part, say)
        for name, ttl in WORKLOADS.items():
            self.spire_server.register(f"/{name}", executable=self.pythons[name], ttl=ttl)
        self.spire_agent.start()
        say(self.spire_agent)
        for service, following in zip(self.services, (*self.services[1:], None), strict=True):
            service.variables = self._variables(service, following)
            service.launch()
        for service in self.services:
            _ready(service, say)
        if self.keycloak:
            _ready(self.keycloak, say)

    @property
    def running(self) -> dict[str, int]:
        """What runs, and the number of its process."""
        started = {name: part.process.child for name, part in self.all.items() if part.process is not None}
        return {name: child.pid for name, child in started.items() if child.poll() is None}

    @property
    def addresses(self) -> dict[str, str]:
        """Where each is reachable."""
        keycloak = {"keycloak": self.keycloak.url} if self.keycloak else {}
        return {
            **keycloak,
            "issuer": f"{self.keycloak.url}/realms/{REALM}" if self.keycloak else self._issuer,
            "redis": self.redis.url,
            "opa": self.opa.url,
            "collector": self.collector.http_url,
            "spire-server": str(self.spire_server.socket),
            "spire-agent": self.spire_agent.url,
            **{service.name: service.url for service in self.services},
        }

    def _variables(self, service: Workload, following: Workload | None) -> dict[str, str]:
        return {
            "SPIFFE_ENDPOINT_SOCKET": self.spire_agent.url,
            "OPA_URL": self.opa.url,
            "REDIS_URL": self.redis.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.http_url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_PROPAGATORS": "tracecontext",  # baggage is Kest's to read and to send
            "OIDC_ISSUER": self.addresses["issuer"],
            "OIDC_CLIENT_SECRET": f"{service.name}-secret",  # as the realm's file says, for everybody to read
            "PEERS": f"{following.name}={following.url}" if following else "",
            "RECORDS": str(self._folder / "records"),
            "KEST_POLICY_CACHE_TTL": "0",  # so that a change of policy counts at once
        }


def interpreter(folder: Path, name: str) -> Path:
    """A Python of its own for a workload: a copy of the executable in a virtual environment that uses the packages of ours.

    SPIRE then tells workloads of one user apart by what /proc says they run.
    """
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    copy = folder.resolve() / "bin" / name
    copy.parent.mkdir(parents=True)
    shutil.copy(executable, copy)
    (folder / "pyvenv.cfg").write_text(f"home = {executable.parent}\n", "utf-8")
    version = "python{}.{}".format(*sys.version_info)
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    ours = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    lines = [f"import site; site.addsitedir({path!r})\n" for path in ours]
    (packages / "lab.pth").write_text("".join(lines), "utf-8")
    return copy


def loader() -> dict[str, str]:
    """Where a copied executable finds the library of an interpreter that was built with one."""
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return {}
    folders = [f"{sys.base_prefix}/lib", str(sysconfig.get_config_var("LIBDIR")), os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}


def _ready(part: Service, say: Callable[[Service], None]) -> None:
    part.wait()
    say(part)
