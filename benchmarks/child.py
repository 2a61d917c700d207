"""Starts `children` in a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kest

__all__ = ["run"]

CHILD = Path(__file__).with_name("children.py")


def run(task: str, argument: str, **environment: str) -> dict[str, Any]:
    """What the child printed. It imports the same kest as this process, wherever that is."""
    where = str(Path(kest.__file__).resolve().parent.parent)
    env = {**os.environ, **environment, "PYTHONPATH": where, "PYTHONDONTWRITEBYTECODE": ""}
    for name in ("KEST_CONFIG", "PYTHONMALLOC", "OTEL_PYTHON_TRACER_PROVIDER"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, str(CHILD), task, argument], capture_output=True, text=True, env=env, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
