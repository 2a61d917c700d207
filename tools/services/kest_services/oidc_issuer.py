"""The OpenID Connect issuer of tools/services/oidc-issuer: keys and state are new at every start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kest_services import components
from kest_services.processes import Process, Processes
from kest_services.service import Service

__all__ = ["OidcIssuer"]


class OidcIssuer(Service):
    """The issuer.

    Args:
        audiences: what tokens for each audience can be good for: {"scope": …, "alg": …}.
        clients: {"id": …, "secret": …, "targets": […], "logins": […]} each.
    """

    name = "oidc-issuer"
    talks = True
    ports = 0  # it takes a free one itself at its first start, and says which

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        *,
        audiences: Mapping[str, Mapping[str, str]],
        clients: Sequence[Mapping[str, Any]],
    ) -> None:
        super().__init__(processes, folder)
        self._settings = {"audiences": audiences, "clients": clients}
        self._server = components.folder("oidc-issuer") / "server.mjs"

    @property
    def url(self) -> str:
        """The issuer identifier."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        return ["node", str(self._server)]

    def started(self, process: Process) -> None:
        process.send(json.dumps({**self._settings, "port": self.port}) + "\n", last=True)

    def ready(self) -> bool:
        issuer: str = json.loads(self.running.line())["issuer"]  # said once it listens
        self.port = int(issuer.rpartition(":")[2])
        self.port_numbers = [self.port]
        return True
