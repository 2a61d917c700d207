"""``kest doctor`` on audit logs and telemetry: what is said of each, and how bad it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kest._kestcore import Signer
from kest.audit import AuditLog, Redaction
from kest.cli.main import main
from kest.core import (
    LocalEd25519Provider,
    MockIdentityProvider,
    MockPolicyEngine,
    StaticIdentity,
    configure,
    kest_verified,
)
from kest.doctor import Report, examine
from kest.doctor.audit import check_log
from kest.doctor.telemetry import check_file

SIGNER = Signer("log.kest.test/unit", bytes(range(32)))


def said(report: Report, severity: str) -> str:
    return "\n".join(f"{one.reason} -> {one.fix}" for one in report.findings if one.severity == severity)


def of(path: Path, key: Any = None) -> Report:
    report = Report()
    check_log(report, path, key)
    return report


def facts(report: Report, path: Path) -> dict[str, str]:
    return dict(report.sections[f"audit log {path}"])


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Callable[..., AuditLog]]:
    opened: list[AuditLog] = []

    def open_it(signer: Any = SIGNER, **settings: Any) -> AuditLog:
        opened.append(AuditLog(tmp_path / "log", signer, checkpoint_interval=3600.0, **settings))
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


@pytest.fixture
def closed(tmp_path: Path) -> tuple[Path, Any]:
    """A log that was closed properly, with a call in it, and its key."""
    configure(
        engine=MockPolicyEngine(), identity=LocalEd25519Provider("spiffe://kest.test/unit"),
        audit=(log := AuditLog(tmp_path / "log", SIGNER)),
    )  # fmt: skip
    kest_verified("p")(lambda: 1)()
    configure(clear=True)
    log.close()
    return log.path, log.key


def test_a_log_that_is_in_use(open_log: Callable[..., AuditLog], tmp_path: Path) -> None:
    log = open_log(LocalEd25519Provider("spiffe://kest.test/log"), on_failure="block", durable_intents=True)
    log.append("a.b.c").wait()
    report = examine()
    found = facts(report, log.path)
    assert found["on failure"] == "calls wait"
    assert found["intents"] == "durable before calls run"
    assert found["signer"] == "LocalEd25519Provider, Ed25519"
    assert found["writer"] == "this process"
    assert found["checkpoint"] == "none yet"
    assert found["queue"].endswith("of 10000 records")
    assert "every call waits" in said(report, "note")
    assert "the log's key ends with this process" in said(report, "warning")
    log.checkpoint()
    report = examine(logs=[log.path, log.path / "journal" / ".."], log_key=log.key)  # once, whatever it is called
    assert [name for name in report.sections if name.startswith("audit log")] == [f"audit log {log.path}"]
    assert facts(report, log.path)["checkpoint"].startswith("2 records of kest.test/log, 0 s old")
    log.close()
    assert "journal" not in said(examine(), "warning")


def test_a_log_that_cannot_be_written_to(open_log: Callable[..., AuditLog], monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log()
    log.flush()
    monkeypatch.setitem(log._problems, "records", OSError("No space left on device"))
    assert "calls fail: No space left on device" in said(examine(), "danger")
    monkeypatch.undo()
    assert "No space" not in said(examine(), "danger")


def test_disclosures_that_others_may_read(open_log: Callable[..., AuditLog], tmp_path: Path) -> None:
    path = tmp_path / "disclosures.db"
    log = open_log(redaction=Redaction(path))
    assert facts(examine(), log.path)["redaction"] == str(path)
    assert "everything personal" not in said(examine(), "danger")
    path.chmod(0o644)
    assert "everything personal" in said(examine(), "danger")


def test_a_log_in_order(closed: tuple[Path, Any]) -> None:
    path, key = closed
    report = of(path, key)
    assert [one.severity for one in report.findings] == ["warning"]
    assert "no witness has cosigned" in said(report, "warning")
    found = facts(report, path)
    assert found["folder"].startswith("drwx------ ")
    assert found["writer"] == "none"
    assert found["log key"] == "Ed25519, verified"
    assert found["journal"] == "empty"
    assert found["without outcome"].startswith("0 calls of the last 4 records")
    assert "GiB" in found["free space"]
    assert facts(of(path), path)["log key"].startswith("not given")


@pytest.mark.parametrize(
    ("part", "mode", "severity", "words"),
    [
        (".", 0o770, "danger", "its group may write to"),
        ("journal", 0o702, "danger", "everybody may write to"),
        ("checkpoint", 0o620, "danger", "its group may write to"),
        (".", 0o755, "note", "others than its owner may read"),
        ("..", 0o777, "danger", "put another in its place"),
    ],
)
def test_permissions(closed: tuple[Path, Any], part: str, mode: int, severity: str, words: str) -> None:
    path, _ = closed
    assert words not in said(of(path), severity)
    place = (path / part).resolve()
    before = place.stat().st_mode
    place.chmod(mode)
    try:
        assert words in said(of(path), severity)
    finally:
        place.chmod(before)


def test_a_sticky_folder_above_is_no_danger(closed: tuple[Path, Any]) -> None:
    path, _ = closed
    path.parent.chmod(0o1777)
    assert "put another in its place" not in said(of(path), "danger")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_log_of_somebody_else(closed: tuple[Path, Any]) -> None:
    path, _ = closed
    os.chown(path, 12345, -1)
    assert "belongs to uid 12345" in said(of(path), "warning")


@pytest.mark.parametrize(
    ("free", "files", "severity", "words"),
    [(1 << 20, 10**6, "danger", "1 MiB are free"), (500 << 20, 10**6, "warning", "500 MiB are free"),
     (1 << 40, 9, "warning", "9 more files fit"), (1 << 40, 10**6, "", "")],
)  # fmt: skip
def test_free_space(
    closed: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, free: int, files: int, severity: str, words: str
) -> None:
    disk = SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=1 << 41, f_files=10**7, f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    report = of(closed[0])
    if severity:
        assert words in said(report, severity)
    else:
        assert "on the disk of" not in said(report, "danger") + said(report, "warning")


def test_a_writer_that_was_killed(open_log: Callable[..., AuditLog], tmp_path: Path) -> None:
    log = open_log()
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider("spiffe://kest.test/unit"), audit=log)
    log.checkpoint()

    def call() -> None:
        log.checkpoint()  # its entry is there, and its outcome is not
        shutil.copytree(log.path, tmp_path / "other")  # by another lock file, which nobody holds

    kest_verified("p")(call)()
    log.flush()
    shutil.copytree(log.path / "journal", tmp_path / "other" / "journal", dirs_exist_ok=True)
    path = tmp_path / "other"
    ((segment),) = (path / "journal").iterdir()
    with segment.open("ab") as file:
        file.write(b"torn")
    os.utime(path / "checkpoint", (1e9, 1e9))
    report = of(path)
    assert "its writer ended without closing it" in said(report, "warning")
    assert "newer records than the last checkpoint, which is" in said(report, "warning")
    assert "4 bytes of journal segment" in said(report, "note")
    assert facts(report, path)["without outcome"] == "1 calls of the last 2 records, 1 of them by processes that ended"
    assert "1 calls of the last 2 records have no outcome" in said(report, "warning")
    assert facts(of(log.path), log.path)["writer"] == "a process has it open"  # as another process sees it
    assert "ended" not in said(of(log.path), "warning")
    data = bytearray(segment.read_bytes())
    data[90] ^= 1
    segment.write_bytes(data)
    assert said(of(path), "danger").startswith("its journal is damaged") or "4 bytes" not in said(of(path), "note")


def test_what_is_damaged(closed: tuple[Path, Any]) -> None:
    path, key = closed
    assert "its checkpoint does not hold" in said(of(path, type(key)("another", key.raw)), "danger")
    next((path / "tile" / "entries").rglob("000*")).rename(path / "away")
    assert "it cannot be read" in said(of(path), "danger")
    (path / "checkpoint").write_text("none")
    assert "its checkpoint does not hold" in said(of(path), "danger")
    (path / "checkpoint").unlink()
    assert "nothing in it is under a checkpoint" in said(of(path), "warning")


def test_a_log_whose_key_anybody_can_compute(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "log", MockIdentityProvider("spiffe://kest.test/mock")) as log:
        assert "anybody can compute it" not in said(examine(), "danger")  # nothing is signed yet
    assert "anybody can compute it" in said(of(log.path), "danger")


def test_a_log_that_was_cosigned(closed: tuple[Path, Any]) -> None:
    from kest.audit.note import note_line

    path, key = closed
    note = (path / "checkpoint").read_text()
    text = note.partition("\n\n")[0] + "\n"
    (path / "checkpoint").write_text(note + note_line("w.kest.test", SIGNER, text, time=1))
    report = of(path, key)
    assert facts(report, path)["witnesses"].startswith("w.kest.test")
    assert "no witness" not in said(report, "warning")


def test_the_command(
    closed: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEST_ALLOWED_HOSTS", "api.example.org")
    path, key = closed
    assert main(["doctor", "--log", str(path), "--log-key", key.vkey]) == 0
    assert "no witness has cosigned" in " ".join(capsys.readouterr().out.split())
    assert main(["doctor", "--log", str(path), "--strict"]) == 1
    capsys.readouterr()
    path.chmod(0o777)
    assert main(["doctor", "--log", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["findings"][0]["subject"] == f"audit log {path}"
    assert {"name": "journal", "value": "empty"} in document["facts"][f"audit log {path}"]
    for wrong in (
        ["--log", str(tmp_path / "none")],
        ["--log", str(path / "checkpoint")],
        ["--log-key", key.vkey],
        ["--log", str(path), "--attack", "http://127.0.0.1:1"],
        ["--telemetry", "no\0name"],
    ):
        assert main(["doctor", *wrong]) == 2, wrong
    capsys.readouterr()


# --- telemetry ---


def test_a_telemetry_file(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text('{"resourceSpans": []}\n')
    path.chmod(0o600)
    report = Report()
    check_file(report, path)
    assert report.findings == []
    assert dict(report.sections[f"telemetry file {path}"])["kind"] == "OTLP JSON lines"
    with path.open("a") as file:
        file.write('{"resourceSp')
    path.chmod(0o646)
    report = Report()
    check_file(report, path)
    assert "everybody may write to" in said(report, "danger")
    assert "others than its owner may read" in said(report, "danger")
    assert "ends within a line" in said(report, "note")
    path.write_text("no telemetry")
    link = tmp_path / "link"
    link.symlink_to(path)
    report = examine(telemetry=[link, path])
    assert "holds no telemetry" in said(report, "danger")
    assert "symbolic link" in said(report, "warning")
    assert len([name for name in report.sections if name.startswith("telemetry file")]) == 1


def test_exporters(tmp_path: Path, run_python: Any) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
    script = f"""
import json, os
from kest.doctor import examine
from kest.telemetry import KestTelemetry
def report(known):
    found = examine(object() if known else None)
    print(json.dumps([found.document()["facts"].get("telemetry"), [one for one in found.document()["findings"]
        if "elemetry" in one["subject"] or "OTEL" in one["subject"]]]))
report(True)
KestTelemetry.setup("service", "file", {str(tmp_path / "spans.jsonl")!r})
KestTelemetry.setup("service", "sqlite", {str(tmp_path / "spans.db")!r})
report(False)
os.chmod({str(tmp_path / "spans.db")!r}, 0o644)
KestTelemetry.setup("service", "console")
KestTelemetry.setup("service", "otlp", "http://collector.example.org:4317", metrics=False)
KestTelemetry.setup("service", "otlp", "http://localhost:4318", metrics=False)
from kest.telemetry.setup import current_state
current_state().routes()[0].pipeline.dropped = 3
report(False)
KestTelemetry.shutdown(0.1)
"""
    lines = run_python(script).stdout.splitlines()
    nothing, files, everything = (json.loads(line) for line in lines if line.startswith("[["))
    assert {"name": "exporters", "value": "none"} in nothing[0]
    named = {fact["name"]: fact["value"] for fact in files[0]}
    assert named["TracerProvider"] == "Kest's"
    assert named["file"].endswith("0 exported, 0 failed, 0 dropped, 0 of 2048 queued")
    assert files[1] == []
    reasons = "\n".join(f"{one['severity']} {one['subject']}: {one['reason']}" for one in everything[1])
    assert "warning telemetry to standard output: spans go to standard output" in reasons
    assert "3 spans were lost (0 by the exporter, 3 for want of room)" in reasons
    assert "collector.example.org:4317: spans, which say who did what" in reasons
    assert "localhost" not in reasons
    assert "danger telemetry file" in reasons


def test_an_applications_own_provider(run_python: Any) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    script = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
trace.set_tracer_provider(TracerProvider(sampler=TraceIdRatioBased(0.5), shutdown_on_exit=False))
from kest.doctor import examine
report = examine()
print(dict(report.sections["telemetry"])["TracerProvider"], [f.severity for f in report.findings if f.subject == "telemetry"])
"""
    assert run_python(script).stdout.splitlines()[-1] == "the application's (TracerProvider) ['note']"


def test_a_static_signer_is_not_complained_of(open_log: Callable[..., AuditLog], tmp_path: Path) -> None:
    log = open_log(StaticIdentity("spiffe://kest.test/log", key_file=tmp_path / "log.key"))
    assert facts(examine(), log.path)["signer"] == "StaticIdentity, Ed25519"
    assert "the log's key" not in said(examine(), "warning")
