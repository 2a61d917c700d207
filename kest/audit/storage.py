"""The few operations on files that a log is written with: one small object, so that tests can make each of them fail."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from kest.errors import AuditLockedError

__all__ = ["Storage"]

FILE_MODE, FOLDER_MODE = 0o600, 0o700
"""An audit log names people: others read it when its owner says so."""


class Storage:
    """Files as POSIX has them. Every method raises OSError when it fails; what it had done by then is not known."""

    # --- appending ---

    def create(self, path: Path) -> int:
        """A new file that is only ever appended to; its descriptor."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)

    def open_at(self, path: Path, size: int) -> int:
        """A file, made if it is not there, of which everything behind ``size`` is dropped; its descriptor, at the end."""
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            os.ftruncate(fd, size)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def write(self, fd: int, data: bytes) -> None:
        """All of ``data``, in as many pieces as it takes."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int) -> None:
        """The file's contents are on the disk, and so is what is needed to read them."""
        if (full := getattr(fcntl, "F_FULLFSYNC", None)) is not None:  # macOS: fsync leaves data in the drive's cache
            fcntl.fcntl(fd, full)
        elif hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:
            os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    # --- whole files ---

    def publish(self, path: Path, data: bytes) -> None:
        """A file that is there with all its content, or as it was before: written aside, synced, then renamed.

        That the name lasts needs `sync_folder` on its folder.
        """
        temporary = path.with_name(f".{path.name}.tmp")
        fd = self.open_at(temporary, 0)
        try:
            self.write(fd, data)
            self.sync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Gone; it is no error if it was already."""
        path.unlink(missing_ok=True)

    # --- folders ---

    def make_folder(self, path: Path) -> bool:
        """Whether it had to be made. Its parent is there."""
        try:
            os.mkdir(path, FOLDER_MODE)
        except FileExistsError:
            return False
        return True

    def remove_folder(self, path: Path) -> None:
        os.rmdir(path)

    def sync_folder(self, path: Path) -> None:
        """The names in the folder are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # --- one writer ---

    def lock(self, path: Path) -> int:
        """Hold the lock file until its descriptor is closed, or the process ends.

        Raises:
            AuditLockedError: somebody else holds it.
        """
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "another"
            os.close(fd)
            raise AuditLockedError(
                f"{path.parent} is being written to by process {owner}: a log has one writer. Give each process a log of "
                "its own, or read this one with AuditReader"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return fd
