"""Child processes that end with their parent, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO

__all__ = ["Process", "ProcessError", "Processes"]

GRACE = 4.0
"""Seconds that all of them together have for an orderly end."""
_WARDEN = str(Path(__file__).with_name("warden.py"))
_PR_SET_PDEATHSIG = 1


class ProcessError(Exception):
    """A process did not start, or ended too early; the message names its log."""


def _with_parent(parent: int) -> None:
    """In the child: be killed when the parent's thread ends, even if it had no chance to say so (Linux)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def _environment() -> dict[str, str]:
    """Ours, without settings of Kest and proxies: what the services do is decided by what they are told."""
    unwanted = ("KEST_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(unwanted)}


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """A running child: lines on its standard input and output, everything on standard error in its log."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.child, self.log = name, child, log
        self._read = b""

    def send(self, text: str, last: bool = False) -> None:
        """Write to its standard input; ``last`` closes it."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(text.encode())
            self.child.stdin.flush()
            if last:
                self.child.stdin.close()
        except BrokenPipeError:
            raise self.failed("ended early") from None

    def line(self, timeout: float = 20.0) -> str:
        """The next line of its standard output."""
        assert self.child.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._read:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise self.failed(f"said nothing for {timeout:.0f} seconds")
                piece = os.read(self.child.stdout.fileno(), 65536)
                if not piece:
                    raise self.failed("ended early")
                self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def alive(self) -> None:
        """ProcessError if it is not running any more."""
        if self.child.poll() is not None:
            raise self.failed("ended early")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to it, and to all that it has started."""
        # It leads a group of its own (start_new_session), whose number is not given to anybody else before it is waited for.
        if self.child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, number)

    def ended(self, timeout: float) -> int:
        """Wait for its end, killing it when the time is up: its exit status (negative: the signal that ended it)."""
        try:
            self.child.wait(max(0.0, timeout))
        except subprocess.TimeoutExpired:
            self.end(signal.SIGKILL)
            self.child.wait()
        # What it has left behind: the number of a group is not given away while the group has members.
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        return self.child.returncode

    def failed(self, what: str) -> ProcessError:
        """An error that says what happened, with the end of its log."""
        tail = self.log.read_text("utf-8", "replace").splitlines()[-8:]
        return ProcessError("\n    ".join([f"{self.name} {what}; the end of {self.log}:", *tail]))


class Processes:
    """A context manager that stops what it started: the last first, politely, then not."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: list[Process] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        talks: bool = True,
        forks: bool = False,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str | None] | None = None,
    ) -> Process:
        """Start a child in a session of its own, so that Ctrl-C reaches the parent only.

        Args:
            talks: its standard output is read with `Process.line`; otherwise it goes into the log too.
            forks: it starts processes of its own; they too end when the parent is killed. Costs a small process.
            pass_fds: descriptors that it inherits.
            environment: variables of its own; None takes one of ours away.

        The thread that calls this must outlive the child: when it ends, the kernel ends the child.
        """
        if forks:
            command = [sys.executable, "-I", "-S", _WARDEN, str(os.getpid()), *command]
        variables = {**_environment(), **(environment or {})}
        log = self.logs / f"{name}.log"
        with log.open("ab") as file:
            output: int | IO[bytes] = subprocess.PIPE if talks else file
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=file,
                env={name: value for name, value in variables.items() if value is not None},
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=partial(_with_parent, os.getpid()),
            )
        process = Process(name, child, log)
        self._running.append(process)
        return process

    def stop(self, *chosen: Process) -> dict[str, int]:
        """End them, or only the chosen ones; each one's exit status (negative: the signal that ended it)."""
        stopping = [process for process in self._running if not chosen or process in chosen]
        self._running = [process for process in self._running if process not in stopping]
        for process in reversed(stopping):
            if process.child.poll() is None:
                process.end()
        deadline = time.monotonic() + GRACE
        for process in reversed(stopping):
            process.ended(deadline - time.monotonic())
        return {process.name: process.child.returncode for process in stopping}

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave anybody behind.
        before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            self.stop()
        finally:
            for number, handler in before:
                signal.signal(number, handler)
