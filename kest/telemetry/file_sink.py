"""Spans in a file: OTLP JSON lines, appended, readable by its owner only.

Several processes may append to one file. Each batch is one write under a lock of the file; what a full disk cut off is taken
back, so that a torn line can only come from a machine that stopped.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kest.errors import ConfigurationError
from kest.telemetry.pipeline import UnavailableError
from kest.telemetry.records import otlp_line, record_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

try:
    import fcntl
except ImportError:  # Windows: one process per file
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileSink", "open_private"]

log = logging.getLogger("kest.telemetry")

MODE = 0o600
PROBE = 4096


def open_private(path: str, flags: int) -> int:
    """Open or make a regular file that only its owner can read; a looser mode is tightened.

    Raises:
        OSError: it cannot be opened, is no regular file, or is a symbolic link (which could lead anywhere).
    """
    flags |= os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(path, flags, MODE)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if os.name == "posix" and status.st_mode & 0o077:
            os.fchmod(fd, MODE)
            log.warning("telemetry file %s could be read by others: its mode is 0600 now", path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def unwritable(path: str, error: OSError) -> ConfigurationError:
    """What `setup` says when a file cannot be used."""
    if error.errno == errno.ELOOP:
        return ConfigurationError(f"telemetry cannot go to {path!r}: it is a symbolic link; name the file itself")
    reason = error.strerror or type(error).__name__
    return ConfigurationError(
        f"telemetry cannot go to {path!r}: {reason}; name a file (endpoint=) in an existing folder that this process may "
        "write to, on a disk with space left"
    )


class FileSink:
    """See the module. ``service`` overrides the resource's ``service.name`` where it is given."""

    local = True

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._fd: int | None = None

    def check(self) -> None:
        """Whether it can be written to, now.

        Raises:
            ConfigurationError: no, and why.
        """
        try:
            fd = self._opened()
            try:
                with _locked(fd):
                    if os.fstat(fd).st_size == 0:  # a full disk shows only when something is written
                        try:
                            _write(fd, b"\n" * PROBE)
                        finally:
                            os.ftruncate(fd, 0)
                    elif hasattr(os, "fstatvfs") and os.fstatvfs(fd).f_bavail == 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                self.release()
        except OSError as error:
            raise unwritable(self.path, error) from None

    def export(self, spans: Sequence[ReadableSpan]) -> None:
        """Append them, all or none."""
        data = b"".join(otlp_line(record_of(span)) for span in spans)
        try:
            fd = self._opened()
            with _locked(fd):
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    data = b"\n" + data  # somebody stopped within a line: it stays as it is, and ours begin a new one
                try:
                    _write(fd, data)
                except OSError:
                    os.ftruncate(fd, size)
                    raise
        except OSError as error:
            self.release()
            raise UnavailableError(f"{self.path}: {error.strerror or type(error).__name__}") from error

    def _opened(self) -> int:
        """The file of that name: whoever rotates logs has moved the one that was open."""
        if self._fd is not None:
            here = os.fstat(self._fd)
            try:
                there = os.lstat(self.path)
            except FileNotFoundError:
                there = None
            if there is not None and (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return self._fd
            self.release()
        self._fd = open_private(self.path, os.O_RDWR | os.O_APPEND)
        return self._fd

    def release(self) -> None:
        """See `Sink.release`."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def forget(self) -> None:
        """See `Sink.forget`. Closing a copied descriptor takes nothing from the parent."""
        self.release()

    def close(self) -> None:
        """See `Sink.close`."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
        self.release()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    locking: Any = fcntl
    if locking is None:
        yield
        return
    locking.flock(fd, locking.LOCK_EX)
    try:
        yield
    finally:
        locking.flock(fd, locking.LOCK_UN)
