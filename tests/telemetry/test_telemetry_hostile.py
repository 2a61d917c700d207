"""Databases and files of telemetry, changed in every way: no entry is made up, and only TelemetryError comes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kest import KestEntry, LocalEd25519Provider, TrustStore, sign_entry
from kest._kestcore import sha256
from kest.core import PassportVerifier
from kest.errors import PassportError, TelemetryError
from kest.telemetry import TelemetryReader, flows
from kest.telemetry.records import SpanRecord, otlp_line
from kest.telemetry.sqlite_schema import COLUMNS, INSERT, create_schema
from kest.telemetry.sqlite_sink import row_of
from kest.viz import SourceError, graph_of, read

ALICE = LocalEd25519Provider("spiffe://kest.test/alice", bytes(range(32)))
STORE = TrustStore({ALICE.get_identity(): ALICE})


@pytest.fixture(autouse=True)
def _never_hangs(within_minutes: Any) -> Iterator[None]:
    with within_minutes(4):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Four entries in a row and a denial, as a database and as lines."""
    folder = tmp_path_factory.mktemp("telemetry")
    entries: list[str] = []
    for number in range(4):
        parents = [sha256(entries[-1].encode()).hex()] if entries else ["0"]
        entries.append(sign_entry(KestEntry(f"op{number}", parent_ids=parents), ALICE))
    spans = [
        SpanRecord("n", "0" * 32, f"{at:016x}", scope="kest.core", start_ns=at, end_ns=at, attributes={
            "kest.operation": f"op{at}", "kest.signature": entry, "kest.allowed": True, "kest.taints": ["a"],
        })
        for at, entry in enumerate(entries)
    ]  # fmt: skip
    spans.append(SpanRecord("n", "0" * 32, "f" * 16, scope="kest.core", attributes={"kest.allowed": False}))
    (folder / "t.jsonl").write_bytes(b"".join(map(otlp_line, spans)))
    database = sqlite3.connect(folder / "t.db", isolation_level=None)
    create_schema(database)
    for span in spans:
        database.execute(INSERT, row_of(span))
    database.close()
    return SimpleNamespace(folder=folder, entries=entries)


def use(made: SimpleNamespace, path: Path) -> int:
    """Read, link, verify and draw; how many entries verified. None verifies that was not there before."""
    found = []
    try:
        with TelemetryReader(path) as reader:
            found = flows(reader)
    except TelemetryError:
        pass
    good = 0
    for flow in found:
        try:
            PassportVerifier.verify(flow.entries, STORE)
        except PassportError:
            continue
        assert set(flow.entries) <= set(made.entries)
        good += len(flow.entries)
    try:
        graph = graph_of(read(path), STORE)
    except SourceError:
        return good
    assert sum(node.verdict.state == "valid" for node in graph.nodes) <= len(made.entries)
    return good


@pytest.mark.parametrize("name", ["t.db", "t.jsonl"])
def test_as_it_is(made: SimpleNamespace, name: str) -> None:
    assert use(made, made.folder / name) == 4


@pytest.mark.parametrize("name", ["t.db", "t.jsonl"])
@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change(made: SimpleNamespace, tmp_path: Path, name: str, data: st.DataObject) -> None:
    whole = (made.folder / name).read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        # The first page of a database says how all others are to be read.
        at = data.draw(st.integers(0, len(changed)) | st.integers(0, min(200, len(changed))))
        some = data.draw(st.binary(min_size=1, max_size=24))
        how = data.draw(st.sampled_from(["cut", "extend", "insert", "overwrite", "flip", "repeat"]))
        if how == "cut":
            del changed[at:]
        elif how == "extend":
            changed += some * 100
        elif how == "insert":
            changed[at:at] = some
        elif how == "overwrite":
            changed[at : at + len(some)] = some
        elif how == "repeat":
            changed[at:at] = changed[max(0, at - 2000) : at]
        elif at < len(changed):
            changed[at] ^= some[0]
    path = tmp_path / name
    path.write_bytes(changed)
    assert use(made, path) <= 4


HUGE = 200_000_000


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    "value", ["NULL", "1.5", "-9223372036854775808", "x'00ff'", "''", "'{}'", "'[[[[]]]]'", "zeroblob(1000)"]
)
def test_values_of_any_type(made: SimpleNamespace, tmp_path: Path, column: str, value: str) -> None:
    """SQLite keeps whatever is put into a column, and constraints can be written out of the schema and back."""
    path = _rewritten(made, tmp_path, f"UPDATE spans SET {column} = {value} WHERE id = 2")
    with TelemetryReader(path) as reader:
        assert len(list(reader)) + len(reader.damaged) == 5
        if value in ("NULL", "1.5", "x'00ff'", "zeroblob(1000)") and column not in ("attributes", "resource"):
            damaged = not (value == "1.5" and not column.endswith("_ns"))  # a column of text makes text of a number
            assert [one.where for one in reader.damaged] == (["row 2"] if damaged else [])
    assert use(made, path) <= 4


def _rewritten(made: SimpleNamespace, tmp_path: Path, *statements: str) -> Path:
    """The database after these, without the constraints of its table, and with its old schema again."""
    path = Path(shutil.copy(made.folder / "t.db", tmp_path / "t.db"))
    database = sqlite3.connect(path, isolation_level=None)
    (sql,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'spans'").fetchone()
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'spans'", [sql.replace(" NOT NULL", "")])
    database.close()
    database = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        with contextlib.suppress(sqlite3.OperationalError):  # an index over a computed column refuses what is no JSON
            database.execute(statement)
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'spans'", [sql])
    database.close()
    return path


@pytest.mark.parametrize("column", ["name", "status_description"])
def test_huge_values(made: SimpleNamespace, tmp_path: Path, column: str) -> None:
    """What is beyond the longest line of a file is not read into memory either."""
    database = _rewritten(made, tmp_path, f"UPDATE spans SET {column} = printf('%.*c', {HUGE}, 'x') WHERE id = 3")
    if sys.version_info >= (3, 11):
        with TelemetryReader(database) as reader, pytest.raises(TelemetryError, match="too big"):
            list(reader)
    assert use(made, database) <= 4


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TRIGGER t BEFORE UPDATE ON spans BEGIN SELECT load_extension('x'); END",
        "CREATE VIEW more AS SELECT writefile('x', 'y')",
        "CREATE TEMP TABLE more (id); CREATE VIRTUAL TABLE search USING fts5(x)",
        "CREATE TABLE stat1 (tbl, idx, stat)",
        "CREATE INDEX more ON spans (abs(id))",
        "ALTER TABLE spans RENAME TO old; CREATE TABLE spans AS SELECT * FROM old",
        "ANALYZE",
    ],
)
def test_schemas_of_others(made: SimpleNamespace, tmp_path: Path, change: str) -> None:
    path = Path(shutil.copy(made.folder / "t.db", tmp_path / "t.db"))
    connection = sqlite3.connect(path)
    connection.executescript(change)
    connection.close()
    with pytest.raises(TelemetryError):
        TelemetryReader(path)
    assert use(made, path) == 0


def test_a_schema_that_is_no_sql(made: SimpleNamespace, tmp_path: Path) -> None:
    for sql in ("CREATE TABLE spans (", "SELECT 1", "CREATE TABLE spans (id" + ", c" * 5000 + ")", "\u0000", ""):
        path = Path(shutil.copy(made.folder / "t.db", tmp_path / "t.db"))
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'spans'", [sql])
        connection.close()
        with pytest.raises(TelemetryError):
            TelemetryReader(path)


@pytest.mark.parametrize("name", ["t.db", "t.jsonl"])
@pytest.mark.parametrize("how", ["folder", "pipe", "/dev/null", "loop", "gone"])
def test_what_is_no_file(made: SimpleNamespace, tmp_path: Path, name: str, how: str) -> None:
    path = tmp_path / name
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how != "gone":
        path.symlink_to(path if how == "loop" else how)
    with pytest.raises(TelemetryError, match="cannot read"):
        TelemetryReader(path)


@pytest.mark.parametrize("name", ["t.db", "t.jsonl"])
def test_holes(made: SimpleNamespace, tmp_path: Path, name: str) -> None:
    path = Path(shutil.copy(made.folder / name, tmp_path / name))
    os.truncate(path, HUGE)
    if name == "t.jsonl":
        with TelemetryReader(path) as reader:
            assert len(list(reader)) == 5
            assert [damage.where for damage in reader.damaged] == ["line 6"]
    assert use(made, path) <= 4


def test_strange_lines(made: SimpleNamespace, tmp_path: Path) -> None:
    whole = (made.folder / "t.jsonl").read_bytes()
    first = whole.splitlines()[0]
    lines: list[Any] = [
        b'{"resourceSpans":' * 70, b"[" * 100_000, b'{"resourceSpans":[' * 5000, first[:-1], first + first, b"\0" * 5000,
        b"\xff\xfe" + first, first.replace(b'"resourceSpans"', b'"resourceSpans":[],"resourceSpans"'),
        first.replace(b'"startTimeUnixNano":"0"', b'"startTimeUnixNano":' + b"9" * 5000),
        first.replace(b"kest.operation", b"\\u0000\\ud800"), b'{"resourceSpans":' + b"1" * 10_000 + b"}",
    ]  # fmt: skip
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n".join([*lines, whole]))
    with TelemetryReader(path) as reader:
        spans = list(reader)
        assert len(reader.damaged) >= len(lines) - 1
    assert 5 <= len(spans) <= 6
    assert use(made, path) == 4
