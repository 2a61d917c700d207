"""The lives of the process that writes the log: started, listened to, killed."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Life", "Place", "Tail"]

HERE = Path(__file__).resolve().parent
PATIENCE = 30.0


@dataclass(frozen=True)
class Place:
    """Where things are: the log, and a folder that is gone afterwards, with keys and what the pipeline publishes."""

    log: Path
    scratch: Path
    errors: Path

    @property
    def keys(self) -> Path:
        return self.scratch / "keys"


class Tail(NamedTuple):
    """The end of a journal's segment that is no whole write, as the log describes it."""

    segment: str
    offset: int
    size: int
    sha256: str


@dataclass
class Life:
    """What one process told before it ended.

    Attributes:
        after_ms: of its opening the log, when it was killed; None: it ended by itself.
        acknowledged: hashes of what it said is on the disk.
        opened: what it found when it opened the log; None if it did not come so far.
        runs: of the pipeline, from beginning to end.
        failures: what the pipeline said is not as it should be.
        status: of the process.
    """

    after_ms: float | None = None
    acknowledged: list[str] = field(default_factory=list)
    opened: dict[str, Any] | None = None
    runs: int = 0
    failures: list[str] = field(default_factory=list)
    status: int | None = None

    @property
    def torn(self) -> list[Tail]:
        """What it found of writes that did not come to their end; also what others found before, until a checkpoint."""
        return [] if self.opened is None else [Tail(*tail) for tail in self.opened["torn"]]

    @classmethod
    def live(cls, place: Place, *, kill_after: float | None = None, runs: int = 0) -> Life:
        """Start it, and kill it so many seconds after it began to open the log; or wait until it has done its runs."""
        command = [sys.executable, str(HERE / "writer.py"), str(place.log), "--key-file", str(place.keys / "log.key")]
        command += ["--out", str(place.scratch), "--runs", str(runs)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEST_")}
        environment |= {"PENGUIN_KEYS": str(place.keys), "PYTHONIOENCODING": "utf-8"}
        life = cls(None if kill_after is None else 1000 * kill_after)
        with place.errors.open("ab") as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        try:
            said = _listen(child, kill_after)
            life.status = child.wait(PATIENCE)
        finally:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        for line in said.split(b"\n")[:-1]:  # behind the last line break there is nothing, or half a line
            life._hear(json.loads(line))
        return life

    def _hear(self, said: dict[str, Any]) -> None:
        if "acknowledged" in said:
            self.acknowledged += said["acknowledged"]
        elif "found" in said:
            self.opened = said
        elif "run" in said:
            self.runs, self.failures = said["run"], said["failures"]


def _listen(child: subprocess.Popen[bytes], kill_after: float | None) -> bytes:
    """All that it says until it ends, by our hand or its own."""
    assert child.stdout is not None
    said, deadline, killed = b"", time.monotonic() + PATIENCE, False
    opening = kill_after is None
    while True:
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if ready:
            data = os.read(child.stdout.fileno(), 1 << 16)
            if not data:
                return said
            said += data
            if not opening and b"\n" in said:
                opening, deadline = True, time.monotonic() + (kill_after or 0.0)
        if time.monotonic() >= deadline and not killed:
            if kill_after is None or not opening:
                raise TimeoutError(f"the process that writes the log said nothing for {PATIENCE:.0f} s")
            child.kill()  # SIGKILL: it cannot know, and does nothing any more
            killed, deadline = True, time.monotonic() + PATIENCE
