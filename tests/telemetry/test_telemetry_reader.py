"""Reading telemetry back: damage is found, nothing hostile is believed, and entries can be verified again."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kest.cli.main import main
from kest.core import Passport, PassportVerifier, VerificationError, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.errors import TelemetryError
from kest.telemetry import SpanRecord, TelemetryReader, flows
from kest.telemetry.lineage import contradiction
from kest.telemetry.records import otlp_line
from kest.telemetry.sqlite_sink import SqliteSink


@pytest.fixture
def traced(configured: Any) -> list[SpanRecord]:
    """Spans of three flows: a chain of ten, one of three that joins nothing, and a denial."""
    import hashlib

    records: list[SpanRecord] = []

    def record() -> None:
        entry = get_current_passport().entries[-1]
        payload = get_current_passport().decode()[-1]
        attributes = {
            "kest.signature": entry, "kest.chain_tip": hashlib.sha256(entry.encode()).hexdigest(), "kest.allowed": True,
            "kest.entry_id": payload["entry_id"], "kest.operation": payload["operation"],
            "kest.trust_score": payload["trust_score"], "kest.taints": payload["taints"], "kest.workload_id": "spiffe://kest.test/unit",
        }  # fmt: skip
        number = len(records)
        records.append(
            SpanRecord("kest.verified.f", f"{number:032x}", f"{number:016x}", scope="kest.core", attributes=attributes,
                       where=f"line {number + 1}")
        )  # fmt: skip

    f = kest_verified("p", operation_name="f", added_taints=["t"])(lambda: 1)
    for length in (10, 3):
        with lineage():
            for _ in range(length):
                f()
                record()
    records.append(
        SpanRecord("kest.verified.f", "f" * 32, "f" * 16, scope="kest.core", attributes={"kest.allowed": False})
    )
    return records


def write(path: Path, records: list[SpanRecord]) -> Path:
    path.write_bytes(b"".join(map(otlp_line, records)))
    return path


@pytest.fixture
def trust(configured: Any, tmp_path: Path) -> list[str]:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({**configured.identity.public_jwk(), "kid": configured.identity.get_identity()}))
    return ["--trust", str(path)]


# --- flows ---


def test_entries_come_back_in_an_order_that_verifies(traced: list[SpanRecord], configured: Any) -> None:
    random.Random(7).shuffle(traced)
    found = sorted(flows(traced), key=lambda flow: len(flow.entries))
    assert [len(flow.entries) for flow in found] == [3, 10]
    for flow in found:
        assert flow.missing == ()
        assert [flow.spans[i].signature for i in range(len(flow.entries))] == flow.entries
        assert len(PassportVerifier.verify(flow.entries, configured.keys)) == len(flow.entries)


def test_a_branched_flow_is_one(configured: Any) -> None:
    f = kest_verified("p")(lambda: 1)
    f()
    start = get_current_passport()
    tips = []
    for _ in range(2):
        with lineage():
            from kest.core.context import passport_var

            passport_var.set(start)
            f()
            tips.append(get_current_passport())
    joined = Passport.merge(*tips)
    spans = [
        SpanRecord("s", "0" * 32, f"{n:016x}", scope="kest.core", attributes={"kest.signature": entry})
        for n, entry in enumerate(reversed(joined.entries))
    ]
    (flow,) = flows(spans)
    assert sorted(flow.entries) == sorted(joined.entries)
    assert len(PassportVerifier.verify(flow.entries, configured.keys)) == 3


def test_a_parent_that_is_nowhere_is_named(traced: list[SpanRecord], configured: Any) -> None:
    lost = traced.pop(4)
    flow = max(flows(traced), key=lambda flow: len(flow.entries))
    assert flow.missing == (lost.chain_tip,)
    assert len(flow.entries) == 5  # and what came before is a flow of its own
    with pytest.raises(VerificationError) as error:
        PassportVerifier.verify(flow.entries, configured.keys)
    assert error.value.index == 0


def test_entries_of_others_come_from_the_passport(traced: list[SpanRecord], configured: Any) -> None:
    chain = [span.signature for span in traced[:10]]
    traced[5].attributes["kest.passport"] = Passport(chain[:6]).serialize()
    (flow, _) = flows(traced[5:])
    assert flow.entries == chain
    assert flow.missing == ()
    assert min(flow.spans) == 5
    assert traced[5].passport is not None
    assert len(traced[5].passport) == 6


@pytest.mark.parametrize(
    "signature",
    [
        "x",
        "a.b.c",
        "..",
        "eyJ9.eyJwYXJlbnRfaWRzIjo3fQ.",
        "eyJ9.eyJwYXJlbnRfaWRzIjpbN119.",
        "\ud800.\ud800.",
        "." * 1000,
    ],
)
def test_what_is_no_entry_is_a_flow_that_does_not_verify(signature: str, configured: Any) -> None:
    span = SpanRecord("s", "0" * 32, "0" * 16, scope="kest.core", attributes={"kest.signature": signature})
    (flow,) = flows([span])
    assert flow.entries == [signature]
    with pytest.raises((VerificationError, ValueError)):
        PassportVerifier.verify(flow.entries, configured.keys)


# --- reading ---


def test_damaged_lines_are_listed_and_the_others_read(traced: list[SpanRecord], tmp_path: Path) -> None:
    lines = [otlp_line(span) for span in traced]
    lines[2] = lines[2][:200] + b"\n"
    lines[4] = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz","spanId":"00"}]}]}]}\n'
    lines[6] = b'{"a":1,"a":2}\n'
    lines[7] = b"[]\n"
    lines.append(lines[0][:300])
    path = tmp_path / "t"
    path.write_bytes(b"".join(lines))
    with TelemetryReader(path) as reader:
        for _ in range(2):  # again, from the start
            assert len(list(reader)) == len(traced) - 4
            assert [damage.where for damage in reader.damaged] == ["line 3", "line 5", "line 7", "line 8", "line 15"]


def test_metrics_and_logs_between_spans_are_passed_over(traced: list[SpanRecord], tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b'{"resourceMetrics":[]}\n\n' + otlp_line(traced[0]) + b'{"resourceLogs":[]}\n')
    with TelemetryReader(path) as reader:
        assert len(list(reader)) == 1
        assert reader.damaged == []


def test_a_line_without_end_is_damage_and_no_memory(
    traced: list[SpanRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kest.telemetry.reader.MAX_LINE", 10_000)
    path = tmp_path / "t"
    path.write_bytes(otlp_line(traced[0]) + b'{"resourceSpans":' + b"[" * 100_000 + b"\n" + otlp_line(traced[1]))
    with TelemetryReader(path) as reader:
        assert len(list(reader)) == 2
        assert [damage.where for damage in reader.damaged] == ["line 2"]


@pytest.mark.parametrize("content", [b"[]", b"hello\n", b"\x00\x01", b'{"keys":[]}'])
def test_other_files_are_no_telemetry(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(TelemetryError, match="no telemetry"):
        TelemetryReader(tmp_path / "t")


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", f"{tmp_path}/a\0b"):
        with pytest.raises(TelemetryError, match="cannot read"):
            TelemetryReader(path)


MEMBERS = (
    "resource", "attributes", "key", "value", "stringValue", "intValue", "doubleValue", "arrayValue", "values", "scopeSpans",
    "scope", "spans", "name", "traceId", "spanId", "status", "code", "kind", "startTimeUnixNano",
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=4),
    max_leaves=20,
)


@given(value=values, member=st.sampled_from(["resourceSpans", "resourceMetrics"]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_a_span_or_damage(value: Any, member: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(json.dumps({member: value}) + "\n")
    with TelemetryReader(path) as reader:
        flows(reader)
        assert len(reader.damaged) <= 1


# --- hostile databases ---


@pytest.fixture
def database(tmp_path: Path, make_span: Any) -> Path:
    sink = SqliteSink(str(tmp_path / "t.db"))
    sink.export([make_span(f"kest.verified.{n}", kest__operation="op") for n in range(50)])
    sink.close()
    return tmp_path / "t.db"


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE spans; CREATE VIEW spans AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT n FROM r",
        "ALTER TABLE spans ADD COLUMN more TEXT",
        "CREATE TABLE more (id)",
        "CREATE TRIGGER t AFTER INSERT ON spans BEGIN DELETE FROM spans; END",
        "DROP INDEX spans_denied",
        "PRAGMA application_id = 1",
    ],
)
def test_a_changed_schema_is_refused(change: str, database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.executescript(change)
    connection.close()
    with pytest.raises(TelemetryError, match=r"tables|not one of Kest"):
        TelemetryReader(database)


@pytest.mark.parametrize("change", ["attributes = '[]'", "name = x'ff'", "start_ns = 'soon'", "resource = '1'"])
def test_changed_rows_are_damage(change: str, database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute(f"UPDATE spans SET {change} WHERE id = 7")
    connection.commit()
    connection.close()
    with TelemetryReader(database) as reader:
        assert len(list(reader)) == 49
        assert [damage.where for damage in reader.damaged] == ["row 7"]


def test_random_bytes_in_a_database_never_escape_as_another_error(database: Path, tmp_path: Path) -> None:
    original = database.read_bytes()
    chance = random.Random(11)
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        for _ in range(chance.choice((1, 8, 200))):
            data[chance.randrange(16, len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(100, len(data)) :]
        path = tmp_path / "fuzzed.db"
        path.write_bytes(data)
        try:
            with TelemetryReader(path) as reader:
                flows(reader)
        except TelemetryError:
            refused += 1
    assert refused > 10


# --- contradictions ---


@pytest.mark.parametrize(
    ("name", "value"),
    [("kest.trust_score", 99), ("kest.taints", []), ("kest.operation", "g"), ("kest.entry_id", "x"),
     ("kest.workload_id", "w"), ("kest.chain_tip", "0" * 64), ("kest.allowed", False)],
)  # fmt: skip
def test_a_span_that_says_otherwise_than_its_entry(name: str, value: Any, traced: list[SpanRecord]) -> None:
    assert contradiction(traced[0]) is None
    traced[0].attributes[name] = value
    assert name in (contradiction(traced[0]) or "")


# --- kest verify, kest inspect ---


def verdict(capsys: Any, *arguments: str) -> tuple[int, Any]:
    status = main(["verify", *arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_verify_a_file(traced: list[SpanRecord], trust: list[str], tmp_path: Path, capsys: Any) -> None:
    path = str(write(tmp_path / "t", traced))
    assert verdict(capsys, path, *trust) == (0, {
        "verified": True, "spans": 14, "denied": 1, "entries": 13, "flows": 2, "principals": ["spiffe://kest.test/unit"],
        "other_spans": 0, "problems": [],
    })  # fmt: skip
    assert main(["verify", path, *trust]) == 0
    assert "verified: 13 entries in 2 flows, of 14 spans (1 denied)" in capsys.readouterr().out
    assert main(["inspect", path]) == 0
    assert capsys.readouterr().out.count("spiffe://kest.test/unit") == 13


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_verify_what_a_process_wrote(kind: str, script: Any, tmp_path: Path, keys: Any, capsys: Any) -> None:
    script(f"KestTelemetry.setup('shop', {kind!r}, PATH + '/t')\nfor _ in range(30): f()\n")
    ((principal, identity),) = keys.items()
    (tmp_path / "k").write_text(json.dumps({**identity.public_jwk(), "kid": principal}))
    status, facts = verdict(capsys, str(tmp_path / "t"), "--trust", str(tmp_path / "k"))
    assert (status, facts["verified"], facts["entries"], facts["flows"]) == (0, True, 30, 1)


def tampered(text: str) -> str:
    return text[:-10] + ("A" if text[-10] != "A" else "B") + text[-9:]


@pytest.mark.parametrize("how", ["signature", "attribute", "lost", "unsigned", "torn", "stranger", "empty"])
def test_verify_refuses(how: str, traced: list[SpanRecord], trust: list[str], tmp_path: Path, capsys: Any) -> None:
    where = "line 6"
    if how == "signature":
        traced[5].attributes["kest.signature"] = tampered(traced[5].signature)
    elif how == "attribute":
        traced[5].attributes["kest.trust_score"] = 1
    elif how == "lost":
        del traced[4]
        where = "line 5"
    elif how == "unsigned":
        del traced[5].attributes["kest.signature"]
    elif how == "stranger":
        trust, where = [], "line 1"
    elif how == "empty":
        traced, where = traced[-1:], "telemetry"
    path = write(tmp_path / "t", traced)
    if how == "torn":
        lines = path.read_bytes().splitlines(keepends=True)
        lines[5] = lines[5][:100] + b"\n"
        path.write_bytes(b"".join(lines))
    status, facts = verdict(capsys, str(path), *trust)
    assert (status, facts["verified"]) == (1, False)
    assert where in {problem["where"] for problem in facts["problems"]}
    assert main(["verify", str(path), *trust]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("not verified: ")


def test_problems_are_shown_without_what_a_terminal_would_obey(
    traced: list[SpanRecord], tmp_path: Path, capsys: Any
) -> None:
    traced[0].attributes["kest.entry_id"] = "\x1b[2J<script>"
    assert main(["verify", str(write(tmp_path / "t", traced))]) == 1
    assert "\x1b[2J" not in capsys.readouterr().err


def test_verify_wrong_usage(database: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copy(database, tmp_path / "cut.db")
    with open(tmp_path / "cut.db", "r+b") as file:
        file.truncate(5000)
    assert main(["verify", str(tmp_path / "cut.db")]) == 2
    assert main(["verify", str(database), "--chain-tip", "0" * 64]) == 2
    assert "--chain-tip is for a passport" in capsys.readouterr().err
