"""The lab's folder: whether somebody runs a lab there, what it says of itself, and which processes it has started."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = ["MARK", "LabError", "State"]

MARK = "LAB_FOLDER"
"""A variable in the environment of everything that the lab starts."""


class LabError(Exception):
    """What is wrong, and what to do."""


class State:
    """The folder of one lab.

    Args:
        folder: made if it is not there. What it holds is the lab's, and goes with it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.file = self.folder / "state.json"
        self.log = self.folder / "supervisor.log"
        self.early_log = self.folder.parent / f".{self.folder.name}.log"
        """The supervisor's, until the folder is its own."""
        self._lock = self.folder / "lock"

    # --- who runs it ---

    def owned(self) -> bool:
        """Whether a lab was ever started here, so that what is in the folder may be removed."""
        return self._lock.exists()

    def take(self) -> IO[str]:
        """Become the supervisor, until the file is closed; LabError if there is one."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.owned() and any(self.folder.iterdir()):
            raise LabError(f"{self.folder} is not empty, and not the folder of a lab: name another one with --folder")
        file = self._lock.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise LabError(f"a lab is running in {self.folder}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    def supervisor(self) -> int | None:
        """The number of the supervisor's process; None if there is none."""
        try:
            file = self._lock.open("r", encoding="utf-8")
        except FileNotFoundError:
            return None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None  # nothing yet: it has only just taken the lock
        return None

    def remove(self) -> None:
        """Remove the folder, if it is a lab's; nobody runs it now."""
        self.early_log.unlink(missing_ok=True)
        if not self.owned():
            return
        # Under another name, so that of two who do this at once one has it to itself, and a new lab can begin.
        gone = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}-", dir=self.folder.parent))
        with suppress(FileNotFoundError):
            self.folder.rename(gone)
        shutil.rmtree(gone)

    # --- what it says of itself ---

    def write(self, **said: Any) -> None:
        """Say something, all at once."""
        new = self.file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(said, indent=2) + "\n", "utf-8")
        new.rename(self.file)

    def read(self) -> dict[str, Any]:
        """What was said last."""
        try:
            found: dict[str, Any] = json.loads(self.file.read_text("utf-8"))
        except FileNotFoundError:
            return {"state": "starting", "parts": {}}
        return found

    # --- what it started ---

    def processes(self) -> dict[int, str]:
        """Number and command of everything that this lab has started and that still runs, the supervisor too (Linux)."""
        mark = f"{MARK}={self.folder}".encode()
        sessions = {number: began for number, began in self.read().get("sessions", {}).values()}
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is somebody else's
                state, began, session = _stat(process)
                # Its environment says whose it is. Redis writes over its own; then the session that we gave it says so.
                marked = mark in (process / "environ").read_bytes().split(b"\0")
                if state != "Z" and (marked or began >= sessions.get(session, float("inf"))):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                    found[int(process.name)] = command[:160].strip()
        return found

    def kill(self) -> dict[int, str]:
        """Kill all of it; what had to be killed. LabError if something survives that."""
        before = self.processes()
        for number in before:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while left := self.processes():
            if time.monotonic() > deadline:
                raise LabError(f"still running: {left}")
            time.sleep(0.02)
        return before

    # --- talking to it ---

    @contextmanager
    def address(self) -> Iterator[str]:
        """The supervisor's socket, by a path that is short enough for one however deep the folder is (Linux)."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/control.sock"
        finally:
            os.close(folder)

    def ask(self, request: str) -> str:
        """Ask the supervisor to do something, and wait until it has; LabError if it could not."""
        with self.address() as address, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(120.0)
            try:
                connection.connect(address)
            except OSError:
                raise LabError("no lab is up: make lab-up") from None
            connection.sendall(f"{request}\n".encode())
            with connection.makefile("r", encoding="utf-8") as stream:
                answer = stream.read().strip()
        if not answer.startswith("ok"):
            raise LabError(answer or "the supervisor ended")
        return answer.removeprefix("ok").strip()


def session_of(number: int) -> tuple[int, int]:
    """A process that leads a session, as `State.processes` knows it: its number, and when it began."""
    return number, _stat(Path(f"/proc/{number}"))[1]


def _stat(process: Path) -> tuple[str, int, int]:
    """State, begin (clock ticks since boot) and session of a process: proc_pid_stat(5), fields 3, 22 and 6."""
    fields = (process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return fields[0], int(fields[19]), int(fields[3])
