"""Builds components: each once per content of its folder, by its recipe, into the cache, all or nothing.

A recipe is an executable in the component's folder. It runs there, fills the folder ``$OUT``, may use the folder ``$WORK``
and the interpreter ``$PYTHON``, and leaves its own folder as it is. Modules, crates and packages come through the user's own
settings and caches.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from kest_services import components
from kest_services.toolchains import MissingToolError, provide

__all__ = ["BuildError", "build", "main"]

_TAIL = 30  # lines of a log
_talking = Lock()


class BuildError(Exception):
    """A recipe failed; the message holds the end of its log, and names it."""


def build(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Its folder in the cache, built if it was not.

    Args:
        say: gets a line for everything that takes time.

    Raises:
        MissingToolError: what it is built with is not here.
        BuildError: the recipe failed.
    """
    target, home = components.expected(name), components.cache()
    if target.is_dir():
        say(f"ready in {target}")
        return target
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "toolchains.lock"):
        provide(name, say)
    with _locked(home / f"{name}.lock") as lock:
        if target.is_dir():  # somebody else built it while we waited
            say(f"ready in {target}")
            return target
        for abandoned in home.glob(f".{name}-*"):  # nobody else builds it now
            shutil.rmtree(abandoned, ignore_errors=True)
        log = home / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        say(f"building, see {log}")
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home) as scratch:
            out, work = Path(scratch, "out"), Path(scratch, "work")
            out.mkdir()
            work.mkdir()
            _run(name, {"OUT": str(out), "WORK": str(work)}, log, lock)
            out.rename(target)
        say(f"built in {time.monotonic() - begun:.0f} s, {_megabytes(target)} MB in {target}")
    return target


def _run(name: str, folders: dict[str, str], log: Path, lock: int) -> None:
    environment = {
        **os.environ,
        **folders,
        "PYTHON": sys.executable,
        "TMPDIR": folders["WORK"],
        # Only what the lock files say; no path of this machine in what is built.
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -trimpath -mod=readonly".strip(),
        "GOWORK": "off",
    }
    with log.open("wb") as file:
        done = subprocess.run(
            ["./recipe"],
            cwd=components.source(name),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],  # should we be killed, nobody else builds it until the recipe has ended too
        )
    if done.returncode:
        tail = log.read_text("utf-8", "replace").splitlines()[-_TAIL:]
        what = f"the recipe of {name} exited with {done.returncode}; the end of {log}:"
        raise BuildError("\n    ".join([what, *tail]))


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        yield file.fileno()


def _megabytes(folder: Path) -> int:
    return -(-sum(path.lstat().st_size for path in folder.rglob("*")) // 1_000_000)


def _say(text: str) -> None:
    with _talking:
        print(text, file=sys.stderr, flush=True)


def main() -> int:
    """The command line; 0 if everything that was asked for is there."""
    names = components.known()
    parser = argparse.ArgumentParser(description="Builds servers into ~/.cache/kest-services ($KEST_SERVICES).")
    parser.add_argument("component", nargs="*", help=f"what to build (all): {', '.join(names)}")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many to build at once (1)")
    parser.add_argument(
        "--possible", action="store_true", help="leave out, with a word, what this machine has no tools to build"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.component) - set(names)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    begun = time.monotonic()
    with ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        wanted = arguments.component or names
        outcomes = list(pool.map(lambda name: _outcome(name, arguments.possible), wanted))
    if len(wanted) > 1:
        _say(f"{outcomes.count(True)} of {len(wanted)} in {time.monotonic() - begun:.0f} s")
    return 0 if False not in outcomes else 1


def _outcome(name: str, forgiving: bool) -> bool | None:
    try:
        build(name, lambda text: _say(f"{name}: {text}"))
    except MissingToolError as error:
        _say(f"{name}: cannot be built here: {error}")
        return None if forgiving else False
    except (BuildError, OSError) as error:
        _say(f"{name}: FAILED: {error}")
        return False
    return True
