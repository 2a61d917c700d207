"""Files and databases of telemetry: what they are made of, and what happens when they cannot be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kest.errors import ConfigurationError
from kest.telemetry import TelemetryReader
from kest.telemetry.file_sink import FileSink
from kest.telemetry.pipeline import UnavailableError
from kest.telemetry.sqlite_sink import SqliteSink

SINKS: dict[str, Any] = {"file": FileSink, "sqlite": SqliteSink}


@pytest.fixture(params=SINKS)
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Both kinds, at ``tmp_path / "t"``."""
    made = SINKS[request.param](str(tmp_path / "t"))
    yield made
    made.close()


def names(path: Path) -> list[str]:
    with TelemetryReader(path) as reader:
        return [span.name for span in reader]


def test_a_checked_sink_is_an_empty_one(sink: Any, tmp_path: Path) -> None:
    sink.check()
    sink.check()
    assert names(tmp_path / "t") == []


def test_only_its_owner_can_read_it(sink: Any, tmp_path: Path, make_span: Any) -> None:
    before = os.umask(0)
    try:
        sink.export([make_span()])
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600] * len(list(tmp_path.iterdir()))


def test_a_mode_that_is_too_wide_is_tightened_and_said(sink: Any, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "t").touch()
    (tmp_path / "t").chmod(0o644)
    sink.check()
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
    assert "0600" in caplog.text


@pytest.mark.parametrize("what", ["folder", "no folder", "symbolic link", "pipe"])
def test_what_is_no_file_is_refused(what: str, sink: Any, tmp_path: Path) -> None:
    target = tmp_path / "t"
    if what == "folder":
        target.mkdir()
    elif what == "no folder":
        sink.path = str(tmp_path / "absent" / "t")
    elif what == "symbolic link":
        (tmp_path / "other").touch()
        target.symlink_to(tmp_path / "other")
    else:
        os.mkfifo(target)
    with pytest.raises(ConfigurationError, match="telemetry cannot go to") as error:
        sink.check()
    assert error.value.__cause__ is None
    assert ("symbolic link" in str(error.value)) == (what == "symbolic link")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_of_somebody_elses_is_refused(sink: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigurationError, match="Permission denied"):
            sink.check()
    finally:
        tmp_path.chmod(0o700)


def test_lone_surrogates_and_odd_numbers_can_be_written(sink: Any, tmp_path: Path, make_span: Any) -> None:
    span = make_span("n\ud800", kest__operation="a\u2028\x00b", big=1 << 62, inf=float("inf"), mixed=[1.5, 2.5])
    sink.export([span])
    with TelemetryReader(tmp_path / "t") as reader:
        (found,) = reader
        assert reader.damaged == []
    assert found.name == "n?"
    assert found.operation == "a\u2028\x00b"
    assert str(found.attributes["big"]) == str(1 << 62)
    assert found.attributes["inf"] == "inf"
    assert found.attributes["mixed"] == [1.5, 2.5]


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_what_was_rotated_is_made_anew(how: str, sink: Any, tmp_path: Path, make_span: Any) -> None:
    path = tmp_path / "t"
    sink.export([make_span("one")])
    sink.export([make_span("two")])
    (tmp_path / "old").mkdir()
    for file in list(tmp_path.glob("t*")):
        if how == "moved":
            file.rename(tmp_path / "old" / file.name)
        else:
            file.unlink()
    sink.export([make_span("three")])
    sink.close()
    assert names(path) == ["three"]
    assert path.stat().st_mode & 0o777 == 0o600
    if how == "moved":
        assert names(tmp_path / "old" / "t") == ["one", "two"]


# --- files ---


def test_a_torn_line_stays_alone(tmp_path: Path, make_span: Any) -> None:
    path = tmp_path / "t"
    sink = FileSink(str(path))
    sink.export([make_span("one")])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    sink.export([make_span("two")])
    sink.close()
    with TelemetryReader(path) as reader:
        assert [span.name for span in reader] == ["one", "two"]
        assert [damage.where for damage in reader.damaged] == ["line 2"]


# --- databases ---


def test_the_database_is_as_documented(tmp_path: Path, make_span: Any) -> None:
    sink = SqliteSink(str(tmp_path / "t"))
    span = make_span(
        kest__operation="op", kest__trust_score=40, kest__allowed=False, kest__taints=["a"], kest__entry_id="e",
        kest__workload_id="w", kest__parent_hash="0", kest__chain_tip="c", kest__signature="s", kest__policy_ids=["p"],
    )  # fmt: skip
    sink.export([span, span])
    sink.export([span])
    with sqlite3.connect(tmp_path / "t") as database:
        database.row_factory = sqlite3.Row
        (row,) = database.execute("SELECT * FROM spans")
        plan = database.execute("EXPLAIN QUERY PLAN SELECT id FROM spans WHERE operation = 'op'").fetchone()["detail"]
        denied = database.execute("EXPLAIN QUERY PLAN SELECT id FROM spans WHERE allowed = 0").fetchone()["detail"]
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    database.close()
    sink.close()
    assert (row["operation"], row["trust_score"], row["allowed"], row["taints"]) == ("op", 40, 0, '["a"]')
    assert (row["entry_id"], row["workload_id"], row["parent_hash"]) == ("e", "w", "0")
    assert (row["chain_tip"], row["signature"], row["policy_ids"]) == ("c", "s", '["p"]')
    assert row["service"].startswith("unknown_service")
    assert "spans_operation" in plan
    assert "spans_denied" in denied


@pytest.mark.parametrize(
    "foreign", ["CREATE TABLE spans (id)", "PRAGMA application_id = 1262834516; CREATE VIEW spans AS SELECT 1"]
)
def test_a_database_of_something_else_is_left_alone(foreign: str, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "t")
    database.executescript(foreign)
    database.close()
    before = (tmp_path / "t").stat().st_size
    with pytest.raises(ConfigurationError, match="name a new file"):
        SqliteSink(str(tmp_path / "t")).check()
    assert (tmp_path / "t").stat().st_size == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("a letter, and not a database\n" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        SqliteSink(str(tmp_path / "t")).check()


def test_a_database_that_is_locked_is_tried_again(
    tmp_path: Path, make_span: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kest.telemetry.sqlite_sink.BUSY", 0.05)
    sink = SqliteSink(str(tmp_path / "t"))
    sink.check()
    other = sqlite3.connect(tmp_path / "t", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    span = make_span("late")
    with pytest.raises(UnavailableError, match="locked"):
        sink.export([span])
    other.execute("ROLLBACK")
    other.close()
    sink.export([span])
    sink.close()
    assert names(tmp_path / "t") == ["late"]


# --- full disks ---

FULL = (
    "import resource\n"
    "KestTelemetry.setup('shop', {kind!r}, PATH + '/t')\n"
    "f(); assert KestTelemetry.flush()\n"
    "size = max(os.stat(PATH + '/' + name).st_size for name in os.listdir(PATH))\n"
    "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))\n"
    "for n in range(20): assert f(n) == n\n"
    "assert not KestTelemetry.flush()\n"
    "(status,) = KestTelemetry.status()\n"
    "assert status['queued'] == 20 and status['exported'] == 1, status\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))\n"
    "{after}"
)


@pytest.mark.parametrize("kind", SINKS)
def test_a_disk_that_is_full_for_a_while_loses_nothing(kind: str, script: Any, tmp_path: Path, read: Any) -> None:
    done = script(FULL.format(kind=kind, after="assert KestTelemetry.flush()\n"))
    assert len(read(tmp_path / "t")) == 21
    assert done.stderr.count("telemetry to ") == 2  # that it fails, and that it works again
    assert "Calls go on" in done.stderr


@pytest.mark.parametrize("kind", SINKS)
def test_what_could_not_be_written_is_counted_and_said_at_the_end(
    kind: str, script: Any, tmp_path: Path, read: Any
) -> None:
    done = script(FULL.format(kind=kind, after="resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))\n"))
    assert "ended with 20 spans lost" in done.stderr
    assert len(read(tmp_path / "t")) == 1


@pytest.mark.parametrize("kind", SINKS)
def test_a_really_full_disk_is_an_error_at_setup(kind: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no rights to mount a small disk")
    try:
        with pytest.raises(OSError), open(disk / "filler", "wb", buffering=0) as filler:  # noqa: PT012
            while True:
                filler.write(bytes(4096))
        with pytest.raises(ConfigurationError, match="space left"):
            SINKS[kind](str(disk / "t")).check()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
