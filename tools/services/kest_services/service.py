"""What all the servers have in common: an address on 127.0.0.1, readiness, an end, and a new start on the same address."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from kest_services.processes import Process, ProcessError, Processes

__all__ = ["Service", "free_port", "http", "wait_until"]

_Self = TypeVar("_Self", bound="Service")
_ATTEMPTS = 3
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service(ABC):
    """A server. Also a context manager that starts and stops it.

    Args:
        processes: starts it, and stops it if nobody else does.
        folder: for its configuration and data; kept across restarts.
    """

    name = ""
    patience = 20.0
    """Seconds until it must be ready."""
    talks = False
    forks = False
    """Whether it starts processes of its own."""
    ports = 1

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.processes = processes
        self.folder = folder
        self.port = 0
        """The (first) port; 0 before it was ever started."""
        self.port_numbers: list[int] = []
        self.process: Process | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """How to start it on `port_numbers`; writes its configuration first if it has one."""

    def environment(self) -> Mapping[str, str | None]:
        """Variables of its own; None takes one of ours away."""
        return {}

    @abstractmethod
    def ready(self) -> bool:
        """Does it answer? Asked again and again; OSError is a no."""

    def started(self, process: Process) -> None:  # noqa: B027 (most servers need to be told nothing)
        """Say on its standard input what it must know at once."""

    def launch(self) -> None:
        """Start it without waiting until it is ready."""
        if self.process is not None:
            raise ProcessError(f"{self.name} is running already")
        if not self.port_numbers:
            self.port_numbers = [free_port() for _ in range(self.ports)]
            self.port = self.port_numbers[0] if self.port_numbers else 0
        self.process = self.processes.start(
            self.name, list(self.command()), talks=self.talks, forks=self.forks, environment=self.environment()
        )
        self.started(self.process)

    def wait(self) -> None:
        """Wait until it is ready; ProcessError if it is not in time."""
        process = self.running
        try:
            wait_until(self._ready, self.patience, process.alive)
        except TimeoutError:
            raise process.failed(f"was not ready after {self.patience:.0f} seconds") from None

    def start(self) -> None:
        """Start it, on the ports that it had before if it had any, and wait until it is ready."""
        chosen_here = bool(self.ports) and not self.port_numbers
        for attempt in range(_ATTEMPTS):
            self.launch()
            try:
                self.wait()
                return
            except ProcessError:
                ended_itself = self.running.child.poll() is not None
                self.stop()
                # A port that was free a moment ago may be somebody else's now.
                if not (chosen_here and ended_itself) or attempt == _ATTEMPTS - 1:
                    raise
                self.port_numbers = []

    def stop(self) -> None:
        """End it politely, then not; nothing if it does not run."""
        process, self.process = self.process, None
        if process is not None:
            self.processes.stop(process)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.running.end(signal.SIGKILL)
        self.stop()

    def restart(self) -> None:
        """Stop, and start on the same ports with the same data."""
        self.stop()
        self.start()

    @property
    def running(self) -> Process:
        """Its process; ProcessError if there is none."""
        if self.process is None:
            raise ProcessError(f"{self.name} is not running")
        return self.process

    @property
    def memory(self) -> int:
        """Bytes of its resident memory (Linux)."""
        for line in Path(f"/proc/{self.running.child.pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessError(f"{self.name} has ended")

    def __enter__(self: _Self) -> _Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ready(self) -> bool:
        try:
            return self.ready()
        except OSError:
            return False


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float, check: Callable[[], None] | None = None) -> None:
    """Ask until it is so.

    Args:
        check: called before each question; what it raises ends the waiting.

    Raises:
        TimeoutError: it was never so.
    """
    deadline = time.monotonic() + seconds
    while True:
        if check is not None:
            check()
        if condition():
            return
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not so after {seconds:g} seconds")
        time.sleep(0.01)


def http(method: str, url: str, body: object = None, content_type: str = "application/json") -> tuple[int, Any]:
    """One request to a server of ours, never through a proxy: status, and the JSON or text of the answer.

    Args:
        body: text as it is, everything else as JSON; None for no body.
    """
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    request = urllib.request.Request(url, data, {"Content-Type": content_type}, method=method)
    try:
        with _direct.open(request, timeout=5) as answer:
            status, raw = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, raw = error.code, error.read()
    try:
        return status, json.loads(raw)
    except ValueError:
        return status, raw.decode("utf-8", "replace")
