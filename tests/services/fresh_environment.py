"""A virtual environment with Kest installed in it from this checkout, as a user would have it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = "cedar,fastapi,oidc"
TIMEOUT = 600.0
_SOURCES = ("csrc", "kest", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")


class Environment:
    """Commands run in it by name, and see neither this checkout nor this process's packages."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")

    def variables(self, **extra: str) -> dict[str, str]:
        """Of this process, without what would lead Python or Kest elsewhere."""
        unwanted = ("KEST_", "OTEL_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        ours = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        ours.update(PATH=f"{self.bin}{os.pathsep}{ours.get('PATH', '')}", PYTHONIOENCODING="utf-8", **extra)
        return ours

    def run(self, *command: str, cwd: Path, timeout: float = 120.0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; AssertionError with its output unless it succeeds."""
        done = subprocess.run(
            command, cwd=cwd, env=self.variables(**extra), capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{command[0]}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def make(folder: Path) -> tuple[Environment, Path]:
    """An empty environment, and a copy of the sources from which pip can build a wheel: nothing of a build leaks in."""
    source = folder / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.egg-info")
    for name in _SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True, timeout=TIMEOUT)
    return Environment(folder / "env"), source
