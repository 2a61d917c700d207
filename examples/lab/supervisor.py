"""The process behind ``make lab-up``: starts everything, keeps it running, does as it is asked, and stops it all.

Whatever ends this process ends the rest: it stops them when it is asked to, and the kernel does when it is killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tools/services"))

from kest_services.components import NotBuiltError
from kest_services.processes import ProcessError, Processes
from kest_services.service import Service
from kest_services.toolchains import MissingToolError
from parts import Parts
from state import LabError, State, session_of

__all__ = ["main"]


class Supervisor:
    """Runs one lab.

    Args:
        state: its folder.
        parts: what it consists of.
    """

    def __init__(self, state: State, parts: Parts) -> None:
        self._state, self._parts = state, parts
        self._ready: list[str] = []
        self._running: list[str] = []

    def start(self) -> None:
        """Start everything, and say so as it goes on."""
        self._say("starting")
        self._parts.start(self._started)
        self._say("up")

    def serve(self, listening: socket.socket) -> None:
        """Do as asked until SIGTERM, and say when something has ended by itself."""
        while True:
            readable, _, _ = select.select([listening], [], [], 0.5)
            if readable:
                connection, _ = listening.accept()
                with connection:
                    self._answer(connection)
            elif sorted(self._parts.running) != self._running:
                self._say("up")

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        try:
            verb, _, name = connection.recv(256).decode("utf-8", "replace").strip().partition(" ")
            answer = self._do(verb, name)
        except (ProcessError, OSError) as error:
            answer = str(error)
        try:
            connection.sendall(answer.encode())
        except OSError:
            return  # whoever asked has gone

    def _do(self, verb: str, name: str) -> str:
        part = self._parts.all.get(name)
        if part is None:
            return f"no part is called {name!r}; there are {', '.join(self._parts.all)}"
        if verb == "stop":
            part.stop()
        elif verb == "start":
            if name in self._parts.running:
                return f"{name} is running already"
            part.stop()  # where it has ended by itself: so that it counts as stopped
            part.start()
        else:
            return f"there are stop and start, not {verb!r}"
        self._say("up")
        return "ok"

    def _started(self, part: Service) -> None:
        self._ready.append(part.name)
        self._say("starting")

    def _say(self, state: str) -> None:
        running = self._parts.running
        self._running = sorted(running)
        self._state.write(
            state=state,
            ready=self._ready,
            running=self._running,
            addresses={} if state == "starting" else self._parts.addresses,
            spans=str(self._parts.collector.file),
            records=str(self._state.folder / "records"),
            pythons={name: str(path) for name, path in self._parts.pythons.items()},
            sessions={name: session_of(number) for name, number in running.items()},
        )


def _asked_to_end(*_: object) -> None:
    sys.exit(0)


def main() -> int:
    """``supervisor.py FOLDER [ISSUER]``: 0 after an orderly end."""
    state = State(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, _asked_to_end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        held = state.take()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    logs = state.folder / "logs"
    with held:
        try:
            logs.mkdir()
            with Processes(logs) as processes, socket.socket(socket.AF_UNIX) as listening:
                supervisor = Supervisor(state, Parts(processes, state.folder, *sys.argv[2:]))
                supervisor.start()
                with state.address() as address:
                    listening.bind(address)
                listening.listen()
                supervisor.serve(listening)
        except (ProcessError, NotBuiltError, MissingToolError, OSError) as error:
            state.write(state="failed", message=str(error), sessions={})
            return 1
        except Exception:
            state.write(state="failed", message=traceback.format_exc(), sessions={})
            return 1
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
