"""Open Policy Agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kest_services import components
from kest_services.processes import ProcessError, Processes
from kest_services.service import Service, http

__all__ = ["Opa"]


class Opa(Service):
    """``opa run --server``. Policies that were put into it are gone after a restart; those in `policies` are not.

    Args:
        policies: files or folders that it loads at every start.
    """

    name = "opa"

    def __init__(self, processes: Processes, folder: Path, *, policies: Sequence[Path] = ()) -> None:
        super().__init__(processes, folder)
        self._policies = [str(path) for path in policies]
        self._binary = components.folder("opa") / "opa"

    @property
    def url(self) -> str:
        """Its REST API."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        options = ["--addr", f"127.0.0.1:{self.port}", "--skip-version-check", "--log-level", "error"]
        return [str(self._binary), "run", "--server", *options, *self._policies]

    def ready(self) -> bool:
        return http("GET", f"{self.url}/health")[0] == 200

    def put_policy(self, name: str, rego: str) -> None:
        """Add or replace a Rego module."""
        status, answer = http("PUT", f"{self.url}/v1/policies/{name}", rego, "text/plain")
        if status != 200:
            raise ProcessError(f"OPA refuses the policy {name} ({status}): {answer}")

    def put_data(self, path: str, value: object) -> None:
        """Set ``data.<path>`` (slashes between the parts)."""
        status, answer = http("PUT", f"{self.url}/v1/data/{path}", value)
        if status not in (200, 204):
            raise ProcessError(f"OPA refuses the data {path} ({status}): {answer}")
