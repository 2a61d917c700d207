"""Runs pytest many times without loading everything around kest each time: a process that forks once for each run.

Line by line on standard input: a JSON object with `library` (the folder with the package to test), `seconds` (of processor
time), `arguments` (for pytest) and `log`. The answer is a line with the exit status, negative for a signal, and the processor
time that was used.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys

_AROUND = (
    "pytest", "pytest_asyncio.plugin", "pytest_timeout", "hypothesis.strategies", "hypothesis.extra.pytestplugin", "httpx",
    "opentelemetry.trace", "cryptography.hazmat.primitives.asymmetric.ed25519", "zoneinfo", "sqlite3", "jwt", "rfc8785",
)  # fmt: skip


def run(order: dict[str, object]) -> str:
    """One run, in a child of its own: its exit status, and how many seconds of processor time it took."""
    child = os.fork()
    if child:
        _, status, used = os.wait4(child, 0)
        return f"{os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime:.1f}"
    status = 1
    try:
        seconds, library = int(str(order["seconds"])), str(order["library"])
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(seconds * 10)  # also a child that sleeps for ever ends
        log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.path.insert(0, library)
        import pytest

        import kest

        assert str(kest.__file__).startswith(library), kest.__file__
        arguments = order["arguments"]
        assert isinstance(arguments, list)
        status = int(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments]))
    except BaseException as why:
        print(repr(why))
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def main() -> None:
    sys.path[:] = [path for path in sys.path if path not in ("", os.getcwd())]
    for name in _AROUND:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert not any(name.partition(".")[0] == "kest" for name in sys.modules)
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
