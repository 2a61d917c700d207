"""cedar-agent: Cedar 2.4 behind HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kest_services import components
from kest_services.processes import ProcessError, Processes
from kest_services.service import Service, http

__all__ = ["CedarAgent"]


class CedarAgent(Service):
    """cedar-agent. It starts empty: what was put into it is gone after a restart."""

    name = "cedar-agent"

    def __init__(self, processes: Processes, folder: Path) -> None:
        super().__init__(processes, folder)
        self._binary = components.folder("cedar-agent") / "bin/cedar-agent"

    @property
    def url(self) -> str:
        """Its REST API, without the ``/v1``."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        return [str(self._binary), "--addr", "127.0.0.1", "--port", str(self.port)]

    def ready(self) -> bool:
        return http("GET", f"{self.url}/v1/policies")[0] == 200

    def put_policies(self, policies: Mapping[str, str]) -> None:
        """Replace all policies: Cedar text by id."""
        self._put("policies", [{"id": name, "content": text} for name, text in policies.items()])

    def put_entities(self, entities: Sequence[Mapping[str, Any]]) -> None:
        """Replace all entities: {"uid": …, "attrs": …, "parents": …} each."""
        self._put("data", list(entities))

    def _put(self, what: str, content: object) -> None:
        status, answer = http("PUT", f"{self.url}/v1/{what}", content)
        if status != 200:
            raise ProcessError(f"cedar-agent refuses the {what} ({status}): {answer}")
