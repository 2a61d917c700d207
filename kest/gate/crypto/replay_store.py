"""Remembering what was used, so that it is not used again: permits, and messages of a secure channel.

A store is asked once for each use, after everything else about the permit or message has been verified. One in Redis or
elsewhere needs the one method of `ReplayStore`.
"""

from __future__ import annotations

import heapq
import os
import sqlite3
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from kest._kestcore import sha256
from kest.errors import GateInputError, ReplayStoreError
from kest.gate.crypto import clock
from kest.locks import Lock

__all__ = ["FileReplayStore", "InMemoryReplayStore", "ReplayStore", "replay_key"]


def replay_key(*parts: str | bytes) -> bytes:
    """The 32 bytes under which a use is remembered: a hash of the parts, each with its length before it."""
    out = bytearray()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        out += len(data).to_bytes(4, "big") + data
    return sha256(bytes(out))


@runtime_checkable
class ReplayStore(Protocol):
    """Remembers uses. Thread-safe, and one atomic step for everybody who shares it."""

    def first_use(self, key: bytes, expires_at: float, /) -> bool:
        """Remember the key until a time, and say whether this was the first use.

        Args:
            key: 32 bytes.
            expires_at: Unix seconds; afterwards the store may forget it, because it is refused for its age.

        Raises:
            ReplayStoreError: the store cannot tell. The use is then refused.
        """
        ...


@final
class InMemoryReplayStore:
    """Of this process only: what was used before a restart is not remembered.

    Args:
        max_entries: how many are remembered at most. Beyond it nothing is accepted until some expire, since forgetting one
            that still counts would let it be used again.
    """

    def __init__(self, max_entries: int = 1_000_000) -> None:
        if isinstance(max_entries, bool) or not isinstance(max_entries, int) or max_entries < 1:
            raise GateInputError("max_entries is an int of at least 1")
        self._most = max_entries
        self._lock = Lock()
        self._known: set[bytes] = set()
        self._ends: list[tuple[float, bytes]] = []

    def first_use(self, key: bytes, expires_at: float, /) -> bool:
        """See `ReplayStore`."""
        now = clock.now()
        with self._lock:
            for _ in range(8):  # a few each time, so that no call pays for many
                if not self._ends or self._ends[0][0] >= now:
                    break
                self._known.discard(heapq.heappop(self._ends)[1])
            if key in self._known:
                return False
            if len(self._known) >= self._most:
                raise ReplayStoreError(
                    f"the replay store holds its {self._most} entries and none has expired: raise max_entries"
                )
            self._known.add(key)
            heapq.heappush(self._ends, (expires_at, key))
            return True

    def __len__(self) -> int:
        return len(self._known)


@final
class FileReplayStore:
    """In an SQLite file, mode 0600: survives restarts, and several processes of a machine may share it.

    Every use is on disk before it counts. Waiting for the disk happens without the interpreter's lock.
    """

    def __init__(self, path: str | Path, *, timeout: float = 5.0) -> None:
        self._path = Path(path)
        self._timeout = timeout
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._calls = 0
        with self._lock:
            self._open()

    def _open(self) -> sqlite3.Connection:
        """The connection of this process; one that came through a fork is left alone."""
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS used (key BLOB PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID"
            )
            connection.execute("CREATE INDEX IF NOT EXISTS used_until ON used (until)")
        except (OSError, sqlite3.Error) as error:
            raise ReplayStoreError(f"replay store {str(self._path)!r} cannot be opened: {error}") from error
        self._connection, self._owner = connection, os.getpid()
        return connection

    def first_use(self, key: bytes, expires_at: float, /) -> bool:
        """See `ReplayStore`."""
        with self._lock:
            try:
                connection = self._open()
                self._calls += 1
                if self._calls % 64 == 0:
                    connection.execute("DELETE FROM used WHERE until < ?", (clock.now(),))
                done = connection.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (key, expires_at))
                return done.rowcount == 1
            except sqlite3.Error as error:
                raise ReplayStoreError(f"replay store {str(self._path)!r} failed: {error}") from error

    def __len__(self) -> int:
        with self._lock:
            return int(self._open().execute("SELECT count(*) FROM used").fetchone()[0])

    def close(self) -> None:
        """Close the file. A later use opens it again."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None

    def __enter__(self) -> FileReplayStore:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
