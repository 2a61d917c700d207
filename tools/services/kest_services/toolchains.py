"""Compilers and package managers: is there one that is new enough, and if not, has Debian one?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kest_services import components

__all__ = ["MissingToolError", "provide", "wanting"]

_Version = tuple[int, ...]


class MissingToolError(Exception):
    """What a build needs is not here and cannot be installed; the message names it."""


class _Tool(NamedTuple):
    ask: tuple[str, ...]  # prints its version
    package: str  # Debian's


_TOOLS = {
    "go": _Tool(("go", "version"), "golang-go"),
    "cargo": _Tool(("cargo", "--version"), "cargo"),
    "cc": _Tool(("cc", "--version"), "gcc libc6-dev"),
    "node": _Tool(("node", "--version"), "nodejs"),
    "npm": _Tool(("npm", "--version"), "npm"),
    "venv": _Tool(("python3", "-c", "import ensurepip, venv; print('1.0')"), "python3-venv"),
}


def wanting(name: str) -> list[str]:
    """What a component needs for its build and is not here, in words."""
    return [problem for _, _, problem in _missing(name)]


def provide(name: str, say: Callable[[str], None]) -> None:
    """Make sure that what a component's build needs is here: install it if Debian has it and we may.

    Raises:
        MissingToolError: it is not here, and cannot be installed.
    """
    for tool, least, problem in _missing(name):
        packages = _TOOLS[tool].package.split()
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            hint = f" (on Debian: apt-get install {' '.join(packages)})" if least is None else ""
            raise MissingToolError(f"{name} needs {problem}{hint}")
        say(f"installing {' '.join(packages)}")
        _apt("apt-get", "update", "-qq")
        offered = _debian_version(packages[0])
        if least is not None and (offered is None or offered < least):
            has = _text(offered) if offered else "none"
            raise MissingToolError(f"{name} needs {problem}; Debian's here is {has}")
        _apt("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
    left = wanting(name)
    if left:
        raise MissingToolError(f"{name} needs {', '.join(left)}")


def _missing(name: str) -> list[tuple[str, _Version | None, str]]:
    found = []
    for need in components.needs(name):
        tool, _, stated = need.partition(">=")
        least = _go_directive(components.source(name)) if tool == "go" else _parse(stated)
        problem = _problem(tool, least)
        if problem is not None:
            found.append((tool, least, problem))
    return found


def _problem(tool: str, least: _Version | None) -> str | None:
    wanted = tool if least is None else f"{tool} {_text(least)} or newer"
    here = _output(*_TOOLS[tool].ask)
    if here is None:
        return f"{wanted}, which is not installed"
    version = _parse(here)
    if least is None or version is None or version >= least:
        return None
    # From 1.21 on go fetches the toolchain that a go.mod asks for, unless it has been told not to.
    if tool == "go" and version >= (1, 21) and (_output("go", "env", "GOTOOLCHAIN") or "local").strip() != "local":
        return None
    return f"{wanted}; {_text(version)} is installed"


def _go_directive(source: Path) -> _Version | None:
    found = re.search(r"^go (\S+)$", (source / "go.mod").read_text("utf-8"), re.MULTILINE)
    return _parse(found[1]) if found else None


def _debian_version(package: str) -> _Version | None:
    found = re.search(r"Candidate: (?:\d+:)?(\d\S*)", _output("apt-cache", "policy", package) or "")
    return _parse(found[1]) if found else None


def _apt(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise MissingToolError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _parse(text: str) -> _Version | None:
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, re.sub(r"(\.0+)+$", "", found[0]).split("."))) if found else None  # 1.26.0 is 1.26


def _text(version: _Version) -> str:
    return ".".join(map(str, version))
