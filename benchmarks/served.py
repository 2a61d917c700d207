"""An application of `serving_app` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import kest
from benchmarks.flows import LOOKUP, Operation
from benchmarks.load import Client

__all__ = ["Served"]


class Served:
    """A server, and a client of it.

    Args:
        variant: bare, kest or reference.
        protocol: uvicorn's HTTP implementation, h11 or httptools.
        keys: raw public keys by principal.
    """

    def __init__(self, variant: str, protocol: str, keys: Mapping[str, bytes]) -> None:
        self.variant = variant
        places = [str(Path(module).resolve().parent.parent) for module in (kest.__file__, __file__)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": ""}
        environment.pop("KEST_CONFIG", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving_app", variant, protocol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            port = self.ask(json.dumps({name: key.hex() for name, key in keys.items()}))
            self.client = Client(port, LOOKUP.answer)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.__exit__(None, None, None)
        self._end()

    def _end(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def ask(self, command: str) -> Any:
        """See `serving_app.Control`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the {self.variant} server ended")
        return json.loads(answer)

    def load(self, requests: Sequence[bytes], operation: Operation = LOOKUP) -> tuple[float, float]:
        """Microseconds per request, of time and of the server's processor time."""
        before = float(self.ask("cpu"))
        spent = self.client.closed(requests, operation.answer)
        return spent / len(requests) * 1e6, (float(self.ask("cpu")) - before) / len(requests) * 1e6
