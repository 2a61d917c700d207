"""Reading what telemetry wrote: OTLP JSON lines (Kest's, or a collector's) and Kest's SQLite databases.

Needs no OpenTelemetry. Nothing is verified here: what a span says is what somebody wrote into a file.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from kest._kestcore import parse
from kest.errors import KestError, TelemetryError
from kest.telemetry.records import SpanRecord, records_of_otlp
from kest.telemetry.sqlite_schema import COLUMNS, check_schema

__all__ = ["HEAD", "Damage", "TelemetryReader", "is_telemetry"]

MAX_LINE = 64 << 20
"""Bytes of one line. A collector may write a whole batch into one."""
MAX_DAMAGE = 1000
"""How many damaged places are remembered, each."""
HEAD = 1 << 20
_OTLP = re.compile(rb'^[ \t]*\{\s*"resource(Spans|Metrics|Logs)"', re.MULTILINE)
SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that should have been a span: ``where`` it is, such as ``line 7``, and why it is none."""

    where: str
    reason: str


def is_telemetry(head: bytes) -> bool:
    """Whether a file is one of telemetry, by its first `HEAD` bytes: a database, or a line of it is OTLP JSON."""
    return head.startswith(SQLITE_MAGIC) or (head.lstrip()[:1] != b"[" and _OTLP.search(head) is not None)


class TelemetryReader:
    """The spans in a file or database, in the order in which they were written.

    Iterate it, as often as you like. What is damaged is skipped and listed in `damaged`: look there when you are through.
    A file may be read while it is written; a line that is not finished yet counts as damaged.

    Raises:
        TelemetryError: when it is made or read: it cannot be opened, or is of another kind.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.damaged: list[Damage] = []
        self._database: sqlite3.Connection | None = None
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise OSError("it is no regular file")  # it is opened several times: a pipe would be waited for
            with open(self.path, "rb") as file:
                head = file.read(HEAD)
        except (OSError, ValueError) as error:
            raise TelemetryError(f"cannot read {self.path!r}: {_why(error)}") from None
        if head.startswith(SQLITE_MAGIC):
            self._database = self._open_database()
        elif head.strip() and not is_telemetry(head):
            raise TelemetryError(f"{self.path!r} holds no telemetry: neither OTLP JSON lines nor a database of Kest's")

    def _open_database(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            try:
                database.execute("PRAGMA cell_size_check = ON")
                if sys.version_info >= (3, 11):  # of a longer value nothing is read into memory
                    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_LINE)
                check_schema(database)
            except BaseException:
                database.close()
                raise
        except (sqlite3.Error, UnicodeDecodeError, TelemetryError) as error:
            raise TelemetryError(f"cannot read {self.path!r}: {error}") from None
        return database

    @property
    def is_database(self) -> bool:
        """Whether it is an SQLite database; otherwise JSON lines."""
        return self._database is not None

    def __iter__(self) -> Iterator[SpanRecord]:
        self.damaged = []
        return self._lines() if self._database is None else self._rows(self._database)

    def _lines(self) -> Iterator[SpanRecord]:
        try:
            with open(self.path, "rb") as file:
                number = 0
                while line := file.readline(MAX_LINE + 1):
                    number += 1
                    where = f"line {number}"
                    if len(line) > MAX_LINE:
                        self._damage(where, f"it is longer than {MAX_LINE >> 20} MiB")
                        while line and not line.endswith(b"\n"):
                            line = file.readline(MAX_LINE)
                    elif not line.endswith(b"\n"):
                        self._damage(where, "the file ends within it")
                    elif line.strip():
                        yield from self._line(line, where)
        except OSError as error:
            raise TelemetryError(f"cannot read {self.path!r}: {_why(error)}") from None

    def _line(self, line: bytes, where: str) -> list[SpanRecord]:
        try:
            return list(records_of_otlp(parse(line), where))
        except KestError as error:
            self._damage(where, str(error))
            return []

    def _rows(self, database: sqlite3.Connection) -> Iterator[SpanRecord]:
        try:
            rows = database.execute(f"SELECT id, {', '.join(COLUMNS)} FROM spans ORDER BY id")
            for number, *values in rows:
                where = f"row {number}"
                try:
                    record = _record(dict(zip(COLUMNS, values, strict=True)), where)
                except KestError as error:
                    self._damage(where, str(error))
                else:
                    yield record
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the pages themselves
            raise TelemetryError(f"cannot read {self.path!r}: {error}") from None

    def _damage(self, where: str, reason: str) -> None:
        if len(self.damaged) < MAX_DAMAGE:
            self.damaged.append(Damage(where, reason))

    def close(self) -> None:
        """Close the database. Idempotent."""
        if self._database is not None:
            self._database.close()

    def __enter__(self) -> TelemetryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _record(values: dict[str, Any], where: str) -> SpanRecord:
    for name, value in values.items():
        if not isinstance(value, int if name.endswith("_ns") else str):
            raise TelemetryError(f"its {name} is of another type")
    for name in ("attributes", "resource"):
        values[name] = parse(values[name])
        if not isinstance(values[name], dict):
            raise TelemetryError(f"its {name} are no JSON object")
    return SpanRecord(**values, where=where)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
