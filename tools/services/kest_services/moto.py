"""moto: a simulator of AWS, here for KMS and STS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kest_services import components
from kest_services.processes import Processes
from kest_services.service import Service, http

__all__ = ["Moto"]


class Moto(Service):
    """moto_server. It starts empty: keys that were made in it are gone after a restart."""

    name = "moto"

    def __init__(self, processes: Processes, folder: Path) -> None:
        super().__init__(processes, folder)
        self._python = components.folder("moto") / "bin/python"

    @property
    def url(self) -> str:
        """``endpoint_url`` for boto3; any credentials and region will do."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        # -I: nothing of the caller's environment or folder is imported.
        return [str(self._python), "-I", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def ready(self) -> bool:
        return http("GET", f"{self.url}/moto-api/data.json")[0] == 200
