"""Who may write to files and folders, who may read them, and how much room is left. By mode bits, not access lists."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kest.doctor.findings import Report

__all__ = ["check_ancestors", "check_readers", "check_room", "check_writers", "mode_of"]

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
LEAST, LITTLE = 64 << 20, 1 << 30
"""Bytes of free space: a full queue of an audit log needs the first; below the second, somebody should look."""
FEW_FILES = 10_000


def mode_of(path: Path) -> str:
    """As ``ls -l`` shows it, with the owner's name or number."""
    status = path.lstat()
    return f"{stat.filemode(status.st_mode)} {_owner(status.st_uid)}"


def _owner(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"uid {uid}"


def check_writers(report: Report, subject: str, paths: Iterable[Path], what: str) -> None:
    """Find what others than the owner may write to, and what belongs to neither this user nor root; the first of each."""
    loose = foreign = False
    for path in paths:
        try:
            status = path.lstat()
        except OSError:
            continue  # not there, or not to be seen: said where it is read
        if status.st_mode & OTHERS_WRITE and not stat.S_ISLNK(status.st_mode) and not loose:
            loose = True
            who = "everybody" if status.st_mode & stat.S_IWOTH else "its group"
            report.find("danger", subject, f"{who} may write to {path}: {what}", f"chmod -R go-w {path}")
        if hasattr(os, "geteuid") and status.st_uid not in (0, os.geteuid()) and not foreign:
            foreign = True
            report.find(
                "warning",
                subject,
                f"{path} belongs to {_owner(status.st_uid)}, who is neither this user nor root: {what}",
                "let the user that writes it own it, and run kest doctor as that user",
            )


def check_ancestors(report: Report, subject: str, path: Path) -> None:
    """Find the folder above in which others may replace ``path`` as a whole; a sticky one (``/tmp``) does not let them."""
    for folder in path.absolute().parents:
        try:
            mode = folder.stat().st_mode
        except OSError:
            continue
        if mode & OTHERS_WRITE and not mode & stat.S_ISVTX:
            report.find(
                "danger",
                subject,
                f"others may write to {folder}, and so move {path.name or path} away and put another in its place",
                f"chmod go-w {folder}",
            )
            return


def check_readers(report: Report, subject: str, path: Path, severity: str, what: str) -> None:
    """Find a file or folder that others than its owner may read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        report.find(severity, subject, f"others than its owner may read {path}: {what}", f"chmod go-rwx {path}")


def check_room(report: Report, section: str, subject: str, path: Path, then: str) -> None:
    """The free space on the disk of ``path``; ``then``: what happens when there is none."""
    folder = path if path.is_dir() else path.absolute().parent
    try:
        disk = os.statvfs(folder)
    except (AttributeError, OSError):
        return
    free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    report.fact(section, "free space", f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB")
    if free < LEAST:
        report.find(
            "danger", subject, f"{free >> 20} MiB are free on the disk of {path}: {then}", "make room, or grow the disk"
        )
    elif free < LITTLE and free < whole // 4:
        report.find(
            "warning", subject, f"{free >> 20} MiB are free on the disk of {path}; without any, {then}", "make room"
        )
    if disk.f_files and disk.f_favail < FEW_FILES:
        report.find(
            "warning",
            subject,
            f"{disk.f_favail} more files fit on the disk of {path} (inodes); without any, {then}",
            "make room, or a file system with more inodes",
        )
