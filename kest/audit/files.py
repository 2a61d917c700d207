"""Reading files that anybody may have put into a log's folder: no more than so much, and nothing that makes one wait."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from kest.errors import AuditCorruptError

__all__ = ["open_file", "read_file"]


def open_file(path: Path) -> int:
    """A descriptor of a regular file, or of one that a symbolic link leads to.

    Raises:
        AuditCorruptError: something else is there: a folder, a pipe that nobody writes to, a device without end.
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # ENXIO: a socket
            raise AuditCorruptError(f"{path} is no regular file ({error.strerror})") from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AuditCorruptError(f"{path} is no regular file")
    return fd


def read_file(path: Path, most: int | None = None) -> bytes:
    """What is in a file, if that is not more than ``most`` bytes.

    Raises:
        AuditCorruptError: it is more, or the file is no regular one.
        OSError: it cannot be read.
    """
    with open(open_file(path), "rb") as file:
        data = file.read() if most is None else file.read(most + 1)
    if most is not None and len(data) > most:
        raise AuditCorruptError(f"{path} has more than the {most:,} bytes that it can have")
    return data
