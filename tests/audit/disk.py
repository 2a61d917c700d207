"""A disk that fails, or loses power, at any operation that one chooses."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kest.audit.storage import Storage


class PowerCutError(BaseException):
    """The process ends here."""


class File:
    """What is in a file, and how much of it would outlast a power failure."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.synced = b""


FAULTS = ("error before", "error within", "error after", "crash before", "crash within", "crash after")


class FaultyDisk(Storage):
    """Does what `Storage` does, remembers what of it is durable, and has one fault.

    Args:
        root: the folder whose files are watched.
        at: the number of the operation with the fault, from 0; None: none has.
        fault: one of `FAULTS`; "within" a write half of it is written.
    """

    def __init__(self, root: Path, at: int | None = None, fault: str = "error before") -> None:
        self.root, self.at, self.fault = root, at, fault
        self.count = 0
        self.names: dict[Path, File] = {}
        self.durable: dict[Path, File] = {}
        self.folders: set[Path] = set()
        self.durable_folders: set[Path] = {root.parent, *root.parent.parents}
        self._open: dict[int, File] = {}
        self.log: list[str] = []

    def _operation(self, name: str, do: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        number, self.count = self.count, self.count + 1
        self.log.append(name)
        if number != self.at:
            return do()
        when = self.fault.split()[1]
        if when == "after":
            do()
        elif when == "within" and half is not None:
            half()
        if self.fault.startswith("crash"):
            raise PowerCutError(f"{name}, operation {number}")
        raise OSError(errno.ENOSPC, f"No space left on device ({name}, operation {number})")

    # --- operations ---

    def create(self, path: Path) -> int:
        def do() -> int:
            fd = Storage.create(self, path)
            self.names[path] = self._open[fd] = File()
            return fd

        result: int = self._operation(f"create {path.name}", do)
        return result

    def open_at(self, path: Path, size: int) -> int:
        def do() -> int:
            fd = Storage.open_at(self, path, size)
            file = self._open[fd] = self.names.setdefault(path, File())
            del file.content[size:]
            return fd

        result: int = self._operation(f"open {path.name}", do)
        return result

    def write(self, fd: int, data: bytes) -> None:
        def do(part: bytes = data) -> None:
            Storage.write(self, fd, part)
            self._open[fd].content += part

        self._operation(f"write {len(data)}", do, lambda: do(data[: len(data) // 2]))

    def sync(self, fd: int) -> None:
        def do() -> None:
            self._open[fd].synced = bytes(self._open[fd].content)

        self._operation("sync", do)

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        Storage.close(self, fd)

    def rename(self, source: Path, target: Path) -> None:
        def do() -> None:
            Storage.rename(self, source, target)
            self.names[target] = self.names.pop(source)

        self._operation(f"rename {target.name}", do)

    def remove(self, path: Path) -> None:
        def do() -> None:
            Storage.remove(self, path)
            self.names.pop(path, None)

        self._operation(f"remove {path.name}", do)

    def make_folder(self, path: Path) -> bool:
        def do() -> bool:
            made = Storage.make_folder(self, path)
            self.folders.add(path)
            return made

        result: bool = self._operation(f"folder {path.name}", do)
        return result

    def remove_folder(self, path: Path) -> None:
        def do() -> None:
            Storage.remove_folder(self, path)
            self.folders.discard(path)

        self._operation(f"remove folder {path.name}", do)

    def sync_folder(self, path: Path) -> None:
        def do() -> None:
            for name in [name for name in self.durable if name.parent == path]:
                del self.durable[name]
            self.durable |= {name: file for name, file in self.names.items() if name.parent == path}
            self.durable_folders |= {folder for folder in self.folders if folder.parent == path}

        self._operation(f"sync folder {path.name}", do)

    # --- what is left ---

    def _kept(self, path: Path) -> bool:
        return all(folder in self.durable_folders for folder in path.parents if folder not in self.root.parents)

    def left(self, kind: str) -> dict[Path, bytes]:
        """Files after the end: of the process ("kill"), of the power with all names that were ever given ("names", which a
        file system may keep, and data that was synced), or with nothing but what had to be kept ("power")."""
        if kind == "kill":
            return {path: bytes(file.content) for path, file in self.names.items()}
        if kind == "names":
            return {path: file.synced for path, file in self.names.items()}
        return {path: file.synced for path, file in self.durable.items() if self._kept(path)}

    def restore(self, kind: str, target: Path) -> Path:
        """The log's folder as it is found afterwards."""
        target.mkdir(parents=True)
        for path, content in self.left(kind).items():
            place = target / path.relative_to(self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return target
