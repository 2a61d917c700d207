"""Redis, as Debian has it: everything in memory, and in a log on disk if asked for."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from kest_services.components import NotBuiltError
from kest_services.processes import Process, Processes
from kest_services.service import Service

__all__ = ["Redis"]


class Redis(Service):
    """redis-server.

    Args:
        password: what clients must know; "" lets everybody in.
        limit: bytes of data that it holds at most; 0 for no limit.
        durable: every write is on disk before it is answered.
    """

    name = "redis"

    def __init__(
        self, processes: Processes, folder: Path, *, password: str = "", limit: int = 64 << 20, durable: bool = False
    ) -> None:
        super().__init__(processes, folder)
        self._password, self._limit, self._durable = password, limit, durable
        if shutil.which("redis-server") is None:
            raise NotBuiltError("redis-server is not installed (on Debian: apt-get install redis-server)")

    @property
    def url(self) -> str:
        """Where clients find it, with the password."""
        login = f":{self._password}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        return ["redis-server", "-"]

    def started(self, process: Process) -> None:
        # On standard input, so that the password is in no argument list.
        lines = [
            f'bind 127.0.0.1\nport {self.port}\nsave ""\n',
            "appendonly yes\nappendfsync always\n" if self._durable else "appendonly no\n",
            f'dir "{self.folder}"\nmaxmemory {self._limit}\n',
            f"requirepass {self._password}\n" if self._password else "",
        ]
        process.send("".join(lines), last=True)

    def ready(self) -> bool:
        login = f"AUTH {self._password}\r\n" if self._password else ""
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(f"{login}PING\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answer:
                return b"+PONG" in answer.read()
