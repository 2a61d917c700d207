"""What is killed: the pipeline of ``make demo``, run over and over into an audit log, on a disk that takes its time.

It tells whoever started it, a line of JSON at a time on standard output, what is on the disk; never before it is.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import demo
import penguin_pipeline as pipeline

from kest import StaticIdentity
from kest.audit import AuditLog, Pending
from kest.audit.storage import Storage

ORIGIN = "penguins.example/audit"


def tell(**said: Any) -> None:
    """One line, in one write: it is there as a whole or not at all."""
    os.write(1, json.dumps(said).encode() + b"\n")


class SlowStorage(Storage):
    """A disk that is slow with the journal: half a millisecond for 128 bytes, so that a kill may leave half a record."""

    def __init__(self) -> None:
        self._journal = -1

    def create(self, path: Path) -> int:
        self._journal = super().create(path)
        return self._journal

    def write(self, fd: int, data: bytes) -> None:
        if fd != self._journal:
            super().write(fd, data)
            return
        for at in range(0, len(data), 128):
            super().write(fd, data[at : at + 128])
            time.sleep(0.0005)

    def close(self, fd: int) -> None:
        if fd == self._journal:
            self._journal = -1  # the number is given to other files now
        super().close(fd)


class Told:
    """An entry on its way to the disk: when it is there, and before its function runs, that is told."""

    def __init__(self, pending: Pending, name: str) -> None:
        self._pending, self._name = pending, name

    def wait(self) -> None:
        self._pending.wait()
        tell(acknowledged=[self._name])

    async def wait_async(self) -> None:
        await self._pending.wait_async()
        tell(acknowledged=[self._name])

    def withdraw(self) -> bool:
        return self._pending.withdraw()


class TellingLog(AuditLog):
    """An audit log that tells what it has acknowledged: entries by the hash of the JWS, others by that of their payload."""

    def __init__(self, path: Path, key_file: Path) -> None:
        self._recorded: list[str] = []
        signer = StaticIdentity(f"spiffe://{ORIGIN}", key_file=key_file)
        super().__init__(path, signer, durable_intents=True, checkpoint_interval=0.1, storage=SlowStorage())

    def record(self, kind: str, jws: str) -> Any:
        pending = super().record(kind, jws)
        return None if pending is None else Told(pending, hashlib.sha256(jws.encode()).hexdigest())

    def record_unsigned(self, kind: str, signer: Any, typ: str, payload: bytes) -> Pending | None:
        pending = super().record_unsigned(kind, signer, typ, payload)
        self._recorded.append(hashlib.sha256(payload).hexdigest())
        return pending

    def settle(self) -> None:
        """Wait for outcomes and denials too, and tell."""
        recorded, self._recorded = self._recorded, []
        self.flush()
        tell(acknowledged=recorded)


def main() -> int:
    """Run the pipeline as often as asked; 0 runs: until something ends this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("log", type=Path, help="the log's folder")
    parser.add_argument("--key-file", type=Path, required=True, help="the log's key")
    parser.add_argument("--out", type=Path, required=True, help="where the pipeline publishes its report")
    parser.add_argument("--runs", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("kest").setLevel(logging.ERROR)  # denials are logged as warnings; here they are meant
    tell(opening=True)
    with TellingLog(arguments.log, arguments.key_file) as log:
        log.flush()
        found = log.recovery
        torn = [[tail.segment, tail.offset, tail.size, tail.sha256] for tail in found.torn]
        tell(found=found.size, published=found.published, torn=torn)
        pipeline.set_up(audit=log)
        run = 0
        while not arguments.runs or run < arguments.runs:
            run += 1
            (arguments.out / "report.json").unlink(missing_ok=True)
            with contextlib.redirect_stdout(sys.stderr):
                demo.run_pipeline(pipeline, arguments.out)
            log.settle()
            tell(run=run, failures=demo.failures)
    tell(closed=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
