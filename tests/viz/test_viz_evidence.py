"""Audit logs and telemetry as pictures."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kest import KestEntry, TrustStore, configure, kest_verified, sign_entry
from kest._kestcore import Signer
from kest.audit import AuditLog, key_event
from kest.core.context import get_current_passport, lineage
from kest.telemetry import SpanRecord
from kest.telemetry.records import otlp_line
from kest.telemetry.sqlite_schema import COLUMNS
from kest.telemetry.sqlite_sink import SqliteSink
from kest.viz import SourceError, graph_of, read


@pytest.fixture
def log(configured: Any, tmp_path: Path) -> Iterator[AuditLog]:
    """Two calls, and one of which nobody knows how it ended."""
    log = AuditLog(tmp_path / "log", Signer("log.kest.test/unit", bytes(range(32))), checkpoint_interval=3600.0)
    configure(audit=log)
    call = kest_verified("p", operation_name="call")(lambda: 1)
    with lineage():
        call()
        call()
    log.record("entry", sign_entry(KestEntry("lost"), configured.identity))
    log.checkpoint()
    yield log
    log.close()


def test_an_audit_log(log: AuditLog, configured: Any) -> None:
    store = TrustStore(configured.keys)
    for source in (read(log.path), read(log.path, log.key, store)):
        graph = graph_of(source, store)
        assert [(node.operation, node.verdict.state, node.outcome.state) for node in graph.nodes] == [
            ("call", "valid", "returned"), ("call", "valid", "returned"), ("lost", "valid", "missing"),
        ]  # fmt: skip
        assert graph.nodes[0].outcome.verdict.state == "valid"
        assert graph.edges == [(0, 1)]
    assert graph_of(read(log.path)).count("unchecked") == 3


def test_the_lives_of_keys(log: AuditLog, configured: Any) -> None:
    identity = configured.identity
    log.record_event("key", key_event("revoked", identity.get_identity(), identity)).wait()
    kest_verified("p", operation_name="late")(lambda: 1)()
    log.checkpoint()
    store = TrustStore(configured.keys)
    graph = graph_of(read(log.path, log.key.vkey, store), store)
    assert [node.verdict.state for node in graph.nodes] == ["signature"] * 3 + ["invalid"]
    assert "since revoked" in graph.nodes[0].verdict.reason
    assert "after the key was revoked" in graph.nodes[3].verdict.reason
    unknown = graph_of(read(log.path, log.key.vkey))
    assert unknown.count("unknown_key") == 4


def test_a_log_that_was_changed(log: AuditLog, configured: Any) -> None:
    store = TrustStore(configured.keys)
    (bundle,) = (log.path / "tile/entries").rglob("*.p/*")
    data = bytearray(bundle.read_bytes())
    data[-3] ^= 1
    bundle.write_bytes(data)
    graph = graph_of(read(log.path, log.key, store), store)
    assert {node.verdict.state for node in graph.nodes} == {"invalid"}
    bundle.unlink()
    assert [node.kind for node in graph_of(read(log.path, log.key, store), store).nodes] == ["broken"]


def test_what_is_not_this_log(log: AuditLog, tmp_path: Path) -> None:
    other = AuditLog(tmp_path / "other", Signer("log.kest.test/unit", bytes(32)))
    other.close()
    with pytest.raises(SourceError, match=r"does not match|not signed by"):
        read(log.path, other.key)
    (log.path / "checkpoint").write_text("nothing")
    with pytest.raises(SourceError, match="not a signed note"):
        read(log.path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no log"):
        read(tmp_path / "empty")


def _database(path: Path, spans: list[SpanRecord]) -> None:
    sink = SqliteSink(str(path))
    try:
        sink.check()
    finally:
        sink.close()
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for span in spans:
            values = [getattr(span, name) for name in COLUMNS]
            row = [json.dumps(value) if isinstance(value, dict) else value for value in values]
            places = ", ".join("?" * len(COLUMNS))
            database.execute(f"INSERT INTO spans ({', '.join(COLUMNS)}) VALUES ({places})", row)


@pytest.mark.parametrize("kind", ["lines", "database"])
def test_telemetry(configured: Any, tmp_path: Path, kind: str) -> None:
    with lineage():
        kest_verified("p", operation_name="seen")(lambda: 1)()
        (entry,) = get_current_passport().entries
    from kest._kestcore import sha256

    common = {"kest.operation": "seen", "kest.workload_id": configured.identity.get_identity(), "kest.trust_score": 100}
    denied = {**common, "kest.operation": "refused", "kest.allowed": False, "kest.policy_ids": ["kest/strict"],
              "kest.parent_hash": sha256(entry.encode()).hex()}  # fmt: skip
    spans = [
        SpanRecord("kest.verified.seen", "1" * 32, "1" * 16, scope="kest.core",
                   attributes={**common, "kest.allowed": True, "kest.signature": entry}),
        SpanRecord("kest.verified.refused", "2" * 32, "2" * 16, scope="kest.core", attributes=denied),
        SpanRecord("GET /", "3" * 32, "3" * 16, scope="http"),
    ]  # fmt: skip
    path = tmp_path / "telemetry"
    if kind == "lines":
        path.write_bytes(b"".join(map(otlp_line, spans)) + b"{torn")
    else:
        _database(path, spans)
    graph = graph_of(read(path), TrustStore(configured.keys))
    seen, refused = graph.nodes[:2]
    assert (seen.operation, seen.verdict.state, seen.outcome.state) == ("seen", "valid", "unknown")
    assert (refused.kind, refused.operation, refused.verdict.state, refused.parents) == (
        "denial",
        "refused",
        "unsigned",
        (0,),
    )
    assert refused.denial is not None
    assert refused.denial.policy == "kest/strict"
    assert [node.kind for node in graph.nodes[2:]] == (["broken"] if kind == "lines" else [])


def test_the_command(log: AuditLog, configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kest.cli.main import main

    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({**configured.identity.public_jwk(), "kid": configured.identity.get_identity()}))
    assert main(["viz", str(log.path), "--trust", str(keys), "--log-key", log.key.vkey]) == 0
    said = capsys.readouterr()
    assert "lost<br/>trust 100<br/>no outcome" in said.out
    assert said.err == ""


def test_entries_with_commitments_in_place_of_fields(tmp_path: Path, configured: Any) -> None:
    """What a log with ``redaction=`` writes is drawn as entries, with edges between them, and shown with trust and taints."""
    from kest._kestcore import Signer
    from kest.audit import AuditLog, Redaction
    from kest.cli.log_records import Wanted, show_record
    from kest.cli.terminal import Paint
    from kest.core import configure, kest_verified
    from kest.core.context import lineage
    from kest.viz import graph_of, read, to_html

    redaction = Redaction(tmp_path / "private.db")
    with AuditLog(tmp_path / "log", Signer("log.kest.test/unit", bytes(range(32))), redaction=redaction) as log:
        configure(audit=log)
        with lineage():
            kest_verified("p", operation_name="one", user="alice@example.org", added_taints=["pii"])(lambda: 1)()
            kest_verified("p", operation_name="two", user="alice@example.org")(lambda: 1)()
    graph = graph_of(read(log.path, log.key, configured.keys))
    one, two = graph.nodes
    assert [(node.kind, node.operation, node.trust, node.withheld) for node in (one, two)] == [
        ("entry", "one", 100, 1), ("entry", "two", 100, 1),
    ]  # fmt: skip
    assert graph.edges == [(0, 1)]
    assert (two.taints, two.outcome.state, two.verdict.state) == (("pii",), "returned", "valid")
    assert two.principal == "spiffe://kest.test/unit"
    assert "alice@example.org" not in to_html(graph)
    from kest.audit import AuditReader

    record = AuditReader(log.path, log.key).record(1)
    assert record.kind == "intent"
    assert "one  trust 100; taints pii" in next(iter(show_record(record, Paint())))
    assert record in Wanted(principal="spiffe://kest.test/unit")


def test_what_is_not_valid_is_red(records: Any) -> None:
    from kest.viz import Source, SourceRecord, graph_of
    from kest.viz.style import colour_of

    one = records.entry("one")
    source = Source([SourceRecord(one), SourceRecord(one[:-6] + "AAAAAA")])
    assert [colour_of(node) for node in graph_of(source, records.store).nodes] == ["high", "low"]
    assert [colour_of(node) for node in graph_of(source, TrustStore()).nodes] == ["absent", "absent"]
    assert [colour_of(node) for node in graph_of(source).nodes] == ["high", "high"]  # not looked at
