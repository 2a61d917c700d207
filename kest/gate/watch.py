"""Policies that follow a file."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kest.errors import KestError, MissingExtraError
from kest.gate.policies import load_file

if TYPE_CHECKING:
    from kest.gate.gate import Gate

__all__ = ["PolicyWatch"]

log = logging.getLogger("kest.gate")

LOOK_AGAIN_MS = 1_000  # whatever the operating system reports: network file systems report nothing
DEBOUNCE_MS = 200


class PolicyWatch:
    """Reloads a gate from a file when its content changes. The folder is watched, so that files that are replaced
    (editors, ConfigMaps) are seen as well. In the child of a fork nothing is watched: start another one there."""

    def __init__(self, gate: Gate, path: Path, on_error: Callable[[Exception], object] | None) -> None:
        try:
            from watchfiles import watch  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingExtraError("Gate.watch needs the package watchfiles: pip install 'kest[watch]'") from None
        self._watch = watch
        self._gate = gate
        self._path = path
        self._on_error = on_error
        self._seen = self._content()
        gate.reload(load_file(path))
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="kest-policy-watch", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether changes are being followed in this process."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def stop(self, timeout: float | None = 5.0) -> None:
        """Follow no further change. May be called again."""
        self._stop.set()
        if self._pid == os.getpid() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def __enter__(self) -> PolicyWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _content(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except OSError:
            return None

    def _run(self) -> None:
        changes = self._watch(
            self._path.parent,
            watch_filter=None,
            stop_event=self._stop,
            debounce=DEBOUNCE_MS,
            rust_timeout=LOOK_AGAIN_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
        )
        try:
            for _ in changes:
                if self._stop.is_set():
                    return
                self._look()
        except Exception as error:  # the folder is gone
            self._report(error)

    def _look(self) -> None:
        content = self._content()
        if content == self._seen:
            return
        self._seen = content
        try:
            self._gate.reload(self._path)
        except (OSError, KestError) as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        log.error("policies of %s: the last good ones stay in force: %s", self._path, error)
        if self._on_error is None:
            return
        try:
            self._on_error(error)
        except Exception:
            log.exception("on_error of a policy watch raised")
