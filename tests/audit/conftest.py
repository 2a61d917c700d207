"""Logs in a folder of the test's own."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).resolve().parent
for _path in (str(_HERE.parent), str(_HERE)):
    if _path not in sys.path:
        sys.path.append(_path)


@pytest.fixture
def signer() -> Any:
    """The log's key."""
    from kest._kestcore import Signer

    return Signer("log.kest.test/unit", bytes(range(32)))


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: for many small files that no disk has to see."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def open_log(tmp_path: Path, signer: Any) -> Iterator[Callable[..., Any]]:
    """Opens logs, and closes those that the test leaves open."""
    from kest.audit import AuditLog
    from kest.errors import AuditError

    opened: list[Any] = []

    def open_it(path: Path | None = None, **settings: Any) -> Any:
        settings = {"checkpoint_interval": 3600.0, "close_timeout": 0.2, **settings}
        log = AuditLog(path or tmp_path / "log", settings.pop("signer", signer), **settings)
        opened.append(log)
        return log

    yield open_it
    for log in opened:
        with contextlib.suppress(AuditError):
            log.close()
