"""Commands run to their end, and the Pythons and environments that they run in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
_OURS = (
    "KEST_",
    "CFLAGS",
    "CPPFLAGS",
    "LDFLAGS",
    "CC",
    "LDSHARED",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "OTEL_",
    "TZ",
)


class Failed(Exception):
    """A command failed, or a distribution is not as it should be: what, and its output."""


def run(*command: str | Path, cwd: Path, env: Mapping[str, str], timeout: float = 1800) -> str:
    """Its standard output; Failed with all it said unless it succeeds."""
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise Failed(
            f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
    return done.stdout


def environment(**extra: str) -> dict[str, str]:
    """This process's, without what would change a build or lead Python elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "LC_ALL": "C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **extra}


def find_python(version: str) -> Path | None:
    """Of pyenv, or on the path: one that has venv and its own headers."""
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    on_path = shutil.which(f"python{version}")
    candidates = [*sorted(root.glob(f"{version}.*/bin/python")), *([Path(on_path)] if on_path else [])]
    probe = "import ensurepip, os, sysconfig, venv; os.stat(sysconfig.get_path('include') + '/Python.h')"
    for candidate in candidates:
        done = subprocess.run([str(candidate), "-c", probe], capture_output=True, check=False, cwd="/")
        if done.returncode == 0:
            return candidate
    return None


def make_environment(python: Path, folder: Path, *packages: str) -> Path:
    """A fresh virtual environment with these packages in their pinned versions; its folder of commands."""
    shutil.rmtree(folder, ignore_errors=True)
    run(python, "-m", "venv", folder, cwd=folder.parent, env=environment())
    if packages:
        run(
            folder / "bin/python",
            "-m",
            "pip",
            "install",
            "-q",
            "-c",
            REQUIREMENTS,
            *packages,
            cwd=folder.parent,
            env=environment(),
        )
    return folder / "bin"
