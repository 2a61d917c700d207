"""SPIRE: a server and an agent for one trust domain, which hand SVIDs to processes of a user.

The server keeps its data in SQLite and its keys on disk, so that it survives a restart; the agent keeps its key in memory and
attests itself anew, with a join token, at every start. Workloads are told apart by their user id (``unix:uid:N``), and, where
several have the same, by their executable (``unix:path:…``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from kest_services import components
from kest_services.processes import ProcessError, Processes
from kest_services.service import Service, wait_until

__all__ = ["SpireAgent", "SpireServer"]

_SOCKET_PATH = 100  # bytes: the address of a Unix socket holds 107
_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{socket}"
  trust_domain = "{domain}"
  data_dir = "{folder}"
  log_level = "WARN"
  ca_ttl = "24h"
  default_x509_svid_ttl = "1h"
  experimental {{ cache_reload_interval = "1s" }}
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{folder}/datastore.sqlite3" }} }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{folder}/keys.json" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""
_AGENT = """
agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{socket}"
  trust_bundle_path = "{folder}/bundle.pem"
  trust_domain = "{domain}"
  data_dir = "{folder}"
  log_level = "WARN"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{ {workloads} }} }}
}}
"""


class _Spire(Service):
    """What server and agent share: a binary with subcommands, and a Unix socket with a short path."""

    def __init__(self, processes: Processes, folder: Path, binary: str) -> None:
        super().__init__(processes, folder)
        self._binary = str(components.folder("spire") / binary)
        self._sockets: Path | None = None

    @property
    def socket(self) -> Path:
        """Its Unix socket; the path stays the same while this object lives."""
        path = self.folder / "api.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH:
            return path
        if self._sockets is None:
            self._sockets = Path(tempfile.mkdtemp(prefix="spire-", dir="/tmp"))
            weakref.finalize(self, shutil.rmtree, self._sockets, ignore_errors=True)  # at the latest at exit
        return self._sockets / "api.sock"

    def healthy(self) -> bool:
        """What ``healthcheck`` says."""
        return self._run("healthcheck", "-socketPath", str(self.socket)).returncode == 0

    def ready(self) -> bool:
        return self.healthy()

    def _run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._binary, *arguments], input=text, capture_output=True, text=True, timeout=20)

    def _cli(self, *arguments: str, text: str = "") -> str:
        done = self._run(*arguments, "-socketPath", str(self.socket), text=text)
        if done.returncode:
            raise ProcessError(f"{self.name} {' '.join(arguments[:2])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


class SpireServer(_Spire):
    """spire-server for a trust domain. What is registered is still there after a restart."""

    name = "spire-server"

    def __init__(self, processes: Processes, folder: Path, *, trust_domain: str = "kest.test") -> None:
        super().__init__(processes, folder, "spire-server")
        self.trust_domain = trust_domain

    @property
    def id(self) -> str:
        """The trust domain as a SPIFFE ID."""
        return f"spiffe://{self.trust_domain}"

    @property
    def agent_id(self) -> str:
        """The SPIFFE ID that every agent of ours has, whatever its join token: the parent of workloads."""
        return f"{self.id}/agent"

    def command(self) -> Sequence[str]:
        config = self.folder / "server.conf"
        config.write_text(
            _SERVER.format(port=self.port, socket=self.socket, domain=self.trust_domain, folder=self.folder), "utf-8"
        )
        return [self._binary, "run", "-config", str(config)]

    def register(
        self,
        path: str,
        *,
        uid: int | None = None,
        executable: Path | None = None,
        ttl: int | None = None,
        federates_with: Sequence[SpireServer] = (),
    ) -> str:
        """Register a workload, best before the agent starts, or it waits for the agent's next look; its SPIFFE ID.

        Args:
            path: of its SPIFFE ID, with the leading slash.
            uid: the user that its process has (ours).
            executable: what its process runs, without symbolic links on the way; the agent needs ``executables=True``.
            ttl: seconds that its SVIDs are valid for (an hour); the agent renews them at half that time.
            federates_with: other trust domains whose bundles it gets; see `federate`.
        """
        options = ["-parentID", self.agent_id, "-spiffeID", f"{self.id}{path}"]
        options += ["-selector", f"unix:uid:{os.getuid() if uid is None else uid}"]
        if executable is not None:
            options += ["-selector", f"unix:path:{executable}"]
        if ttl is not None:
            options += ["-x509SVIDTTL", str(ttl)]
        for other in federates_with:
            options += ["-federatesWith", other.id]
        self._cli("entry", "create", *options)
        return f"{self.id}{path}"

    def bundle(self, form: str = "spiffe") -> str:
        """Its trust bundle: "spiffe" (JWKS) or "pem"."""
        return self._cli("bundle", "show", "-format", form)

    def federate(self, other: SpireServer) -> None:
        """Trust another trust domain, with the bundle that it has now."""
        self._cli("bundle", "set", "-format", "spiffe", "-id", other.id, text=other.bundle())

    def join_token(self) -> str:
        """A token that one agent can attest itself with once."""
        printed = self._cli("token", "generate", "-spiffeID", self.agent_id)
        return printed.removeprefix("Token:").split()[0]


class SpireAgent(_Spire):
    """spire-agent of a server that runs; it serves the Workload API.

    Args:
        executables: also look at what a workload's process runs; see `SpireServer.register`.
    """

    name = "spire-agent"
    ports = 0

    def __init__(self, processes: Processes, folder: Path, server: SpireServer, *, executables: bool = False) -> None:
        super().__init__(processes, folder, "spire-agent")
        self._server = server
        # By path only: a negative limit leaves out the hash of the executable.
        self._workloads = "discover_workload_path = true workload_size_limit = -1" if executables else ""

    @property
    def url(self) -> str:
        """``SPIFFE_ENDPOINT_SOCKET``."""
        return f"unix://{self.socket}"

    def command(self) -> Sequence[str]:
        config = self.folder / "agent.conf"
        server = self._server
        (self.folder / "bundle.pem").write_text(server.bundle("pem"), "utf-8")
        where = {"port": server.port, "socket": self.socket, "domain": server.trust_domain, "folder": self.folder}
        config.write_text(_AGENT.format(**where, workloads=self._workloads), "utf-8")
        return [self._binary, "run", "-config", str(config), "-joinToken", server.join_token()]

    def wait_for_svid(self, spiffe_id: str, seconds: float = 20.0) -> None:
        """Wait until a process of this user gets this SVID: an agent may be healthy before it has any."""

        def there() -> bool:
            done = self._run("api", "fetch", "x509", "-socketPath", str(self.socket), "-timeout", "2s")
            return done.returncode == 0 and spiffe_id in done.stdout.split()

        try:
            wait_until(there, seconds, self.running.alive)
        except TimeoutError:
            raise self.running.failed(f"gave no SVID for {spiffe_id} within {seconds:g} seconds") from None
