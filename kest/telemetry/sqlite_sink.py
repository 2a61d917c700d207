"""Spans in an SQLite database, in WAL mode: readers and several writing processes at the same time."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kest.errors import ConfigurationError, TelemetryError
from kest.telemetry.file_sink import open_private, unwritable
from kest.telemetry.pipeline import UnavailableError
from kest.telemetry.records import SpanRecord, record_of
from kest.telemetry.sqlite_schema import COLUMNS, INSERT, create_schema

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["SqliteSink", "row_of"]

EXACT = 1 << 53
BUSY = 5.0
"""Seconds for which a writer waits for another process's transaction."""

_inherited: list[sqlite3.Connection] = []  # closing a connection of the parent's would end the parent's locks


class SqliteSink:
    """One transaction for each batch, one connection for each process."""

    local = True

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what is open

    def check(self) -> None:
        """Make the database, or see that it is one.

        Raises:
            ConfigurationError: it cannot be used, and why.
        """
        try:
            self._opened()
        except OSError as error:
            raise unwritable(self.path, error) from None
        except (sqlite3.Error, UnicodeDecodeError, TelemetryError) as error:
            raise ConfigurationError(
                f"telemetry cannot go to {self.path!r}: {error}; name a new file, or a database that Kest's telemetry "
                "made, on a local disk with space left"
            ) from None
        finally:
            self.release()

    def export(self, spans: Sequence[ReadableSpan]) -> None:
        """Insert them, all or none; a span that is there already stays as it is."""
        rows = [row_of(record_of(span)) for span in spans]
        try:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(INSERT, rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (OSError, sqlite3.Error, UnicodeDecodeError, TelemetryError) as error:
            self._discard()
            if isinstance(error, sqlite3.ProgrammingError):  # ours: it would fail the next time too
                raise
            raise UnavailableError(f"{self.path}: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._file == self._there():
                return self._connection
            self._discard()  # moved or deleted: nobody would find what is written to it
        os.close(open_private(self.path, os.O_RDWR))  # SQLite's other files take its mode
        connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise TelemetryError("this file system has no write-ahead log for SQLite")
            connection.execute("PRAGMA synchronous = NORMAL")
            create_schema(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._file = connection, self._there()
        return connection

    def _there(self) -> tuple[int, int] | None:
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _discard(self) -> None:
        try:
            self.release()
        except sqlite3.Error:
            self._connection = None

    def release(self) -> None:
        """See `Sink.release`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """See `Sink.forget`."""
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None

    def close(self) -> None:
        """See `Sink.close`."""
        self.release()


def row_of(record: SpanRecord) -> tuple[Any, ...]:
    """What `INSERT` takes."""
    return tuple(_storable(getattr(record, name)) for name in COLUMNS)


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps({name: _exact(member) for name, member in value.items()}, separators=(",", ":"))
    return value


def _exact(value: Any) -> Any:
    """Integers that not every reader of JSON has exactly become strings; none of Kest's is that large."""
    if isinstance(value, list):
        return [_exact(item) for item in value]
    return str(value) if isinstance(value, int) and not -EXACT < value < EXACT else value
