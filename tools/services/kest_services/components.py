"""What can be built, what identifies a build of it, and where that is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["NotBuiltError", "cache", "expected", "folder", "known", "needs", "source"]

_ROOT = Path(__file__).resolve().parents[1]


class NotBuiltError(Exception):
    """A component has not been built; the message says how to."""


def cache() -> Path:
    """Where builds go: ``KEST_SERVICES``, or ~/.cache/kest-services."""
    return Path(os.environ.get("KEST_SERVICES") or Path.home() / ".cache/kest-services").absolute()


def known() -> list[str]:
    """Every component that is built: the folders with a recipe."""
    return sorted(path.parent.name for path in _ROOT.glob("*/recipe"))


def source(name: str) -> Path:
    """The folder of its recipe and lock files."""
    if name not in known():
        raise ValueError(f"no component is called {name!r}; there are {', '.join(known())}")
    return _ROOT / name


def needs(name: str) -> list[str]:
    """The commands that its recipe says it needs, each with the least version if there is one (``node>=20.12``)."""
    for line in (source(name) / "recipe").read_text("utf-8").splitlines():
        if line.startswith("# needs:"):
            return line.removeprefix("# needs:").split()
    return []


def expected(name: str) -> Path:
    """Where its build is, or will be: named by the hash of all that it is made from."""
    origin, digest = source(name), hashlib.sha256()
    for path in sorted(path for path in origin.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(origin)}\0{len(content)}\0".encode())
        digest.update(content)
    return cache() / f"{name}-{digest.hexdigest()[:16]}"


def folder(name: str) -> Path:
    """Where its build is; NotBuiltError if there is none."""
    path = expected(name)
    if not path.is_dir():
        raise NotBuiltError(f"{name} is not built: run tools/services/build {name}")
    return path
