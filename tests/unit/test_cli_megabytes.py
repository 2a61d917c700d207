"""Strings of ten megabytes, full of escapes and markup, in all that ``kest`` shows: short, quick, in little memory."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kest import KestEntry, LocalEd25519Provider, TrustStore, sign_entry
from kest._kestcore import Signer, sha256
from kest.audit import AuditLog, AuditReader, verify_log, verify_proof
from kest.cli.terminal import fold
from kest.telemetry.records import SpanRecord, otlp_line
from kest.telemetry.sqlite_schema import INSERT, create_schema
from kest.telemetry.sqlite_sink import row_of

HUGE = "\x1b[31m<script>alert(1)</script>&amp;\u202e" + "<b>word " * 1_250_000
"""10 MB, and as JSON in an entry hardly more: what a log takes at most is 12 MB."""
ALICE = LocalEd25519Provider("spiffe://kest.test/alice", bytes(range(32)))
MOST = 20
"""Times the size of what is read: how much memory a command may take for it."""

COMMAND = """
import sys
from kest.cli.main import main
status = main(sys.argv[1:])
sys.stdout.flush()
peak = next((line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), "0")
print("\\npeak", peak, file=sys.stderr)
sys.exit(status)
"""


def bytes_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same two entries and a denial in all that Kest writes."""
    folder = tmp_path_factory.mktemp("megabytes")
    first = sign_entry(KestEntry("first", parent_ids=["0"], labels={"note": HUGE}), ALICE)
    second = sign_entry(KestEntry(HUGE, parent_ids=[sha256(first.encode()).hex()]), ALICE)
    with AuditLog(folder / "log", Signer("log.kest.test/unit", bytes(range(32)))) as log:
        for jws in (first, second):
            log.append(jws)
        denial = {
            "operation": HUGE[:9_000_000],
            "parent_ids": ["0"],
            "policy": "p",
            "reason": HUGE[:900_000],
            "tier": "app",
        }
        log.record_event("denial", denial).wait(60)
    (folder / "vkey").write_text(log.key.vkey)
    (folder / "keys.json").write_text(json.dumps({"keys": [{**ALICE.public_jwk(), "kid": ALICE.get_identity()}]}))
    (folder / "passport.json").write_text(json.dumps([first, second]))
    (folder / "lines.jsonl").write_text(
        f'{{"jws":"{first}"}}\n"{second}"\n'
        + json.dumps({"payload": {"operation": HUGE, "parent_ids": [HUGE], "taints": [HUGE], "policy": HUGE}})
        + "\n"
    )
    spans = [
        _span(1, {"kest.operation": "first", "kest.signature": first, "kest.allowed": True}),
        _span(2, {"kest.operation": HUGE, "kest.signature": second, "kest.allowed": True}),
        _span(3, {"kest.operation": HUGE, "kest.allowed": False, "kest.taints": [HUGE], "kest.policy_ids": [HUGE]}),
    ]
    (folder / "spans.jsonl").write_bytes(b"".join(map(otlp_line, spans)))
    database = sqlite3.connect(folder / "spans.db", isolation_level=None)
    create_schema(database)
    for span in spans:
        database.execute(INSERT, row_of(span))
    database.close()
    return SimpleNamespace(folder=folder, log=folder / "log", key=log.key, jws=(first, second))


def _span(number: int, attributes: dict[str, Any]) -> SpanRecord:
    return SpanRecord("n", "0" * 32, f"{number:016x}", scope="kest.core", attributes=attributes)


def run(made: SimpleNamespace, source: str, *arguments: str, expect: int = 0) -> str:
    """What a command says, which is harmless; quadratic time would take days, and too much memory fails."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=made.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        timeout=120,
    )
    out, error = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == expect, error[-3000:]
    assert "\x1b" not in out + error
    assert "\u202e" not in out + error
    assert "<script>alert" not in out + error
    assert len(error) < 20_000
    if "KEST_SANITIZED" not in os.environ:
        peak = int(error.rpartition("peak ")[2]) * 1024
        assert peak < (80 << 20) + MOST * bytes_of(made.folder / source)
    return out


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
class TestShown:
    @pytest.mark.parametrize(
        "options", [[], ["--full"], ["--limit", "2", "--full"], ["--operation", "*word*", "--full"]]
    )
    def test_log_show(self, made: SimpleNamespace, options: list[str]) -> None:
        out = run(made, "log", "log", "show", "log", *options)
        assert len(out) < 25_000
        assert re.search(r"denial +\([\d,]+ bytes\)", out)
        if "--full" in options:
            assert "characters more: --json has all)" in out

    def test_log_export_has_all_of_it(self, made: SimpleNamespace) -> None:
        run(made, "log", "log", "export", "log", "-o", "export.jsonl")
        lines = (made.folder / "export.jsonl").read_text().splitlines()
        assert json.loads(lines[2])["payload"]["operation"] == HUGE
        assert json.loads(lines[2])["jws"] == made.jws[1]
        assert len(run(made, "export.jsonl", "viz", "export.jsonl", "-f", "html")) < 200_000
        (made.folder / "export.jsonl").unlink()

    def test_log_tail(self, made: SimpleNamespace) -> None:
        command = [sys.executable, "-m", "kest", "log", "tail", "log", "--limit", "4", "--full", "--interval", "0.02"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            command, cwd=made.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as tail:
            assert tail.stdout is not None
            said = ""
            while "closed" not in said:
                line = tail.stdout.readline()
                assert line
                said += line
            tail.send_signal(signal.SIGINT)
            said += tail.stdout.read()
        assert len(said) < 25_000
        assert "\x1b" not in said

    def test_log_verify_and_prove(self, made: SimpleNamespace) -> None:
        options = ["--log-key", "vkey", "--trust", "keys.json"]
        assert len(run(made, "log", "log", "verify", "log", *options)) < 2000
        assert len(run(made, "log", "log", "prove", "log", "2", "--log-key", "vkey", "-o", "proof")) < 500
        out = run(made, "proof", "verify", "proof", *options)
        assert len(out) < 10_000
        assert "characters more" in out
        proved = verify_proof((made.folder / "proof").read_bytes(), made.key, {ALICE.get_identity(): ALICE})
        assert proved.verdict.good
        assert proved.record.jws == made.jws[1]

    @pytest.mark.parametrize("source", ["passport.json", "spans.jsonl", "spans.db", "log"])
    def test_inspect(self, made: SimpleNamespace, source: str) -> None:
        out = run(made, source, "inspect", source)
        assert len(out) < 10_000
        assert "…" in out

    @pytest.mark.parametrize("source", ["passport.json", "spans.jsonl", "spans.db"])
    def test_verify(self, made: SimpleNamespace, source: str) -> None:
        assert "verified: 2 entries" in run(made, source, "verify", source, "--trust", "keys.json")

    @pytest.mark.parametrize(
        ("source", "form", "most"),
        [
            *(
                (source, "html", 200_000)
                for source in ("log", "passport.json", "lines.jsonl", "spans.jsonl", "spans.db")
            ),
            ("lines.jsonl", "svg", 20_000),
            ("lines.jsonl", "mermaid", 10_000),
        ],
    )
    def test_viz(self, made: SimpleNamespace, source: str, form: str, most: int) -> None:
        key = ["--log-key", "vkey"] if source == "log" else []
        out = run(made, source, "viz", source, "-f", form, "--trust", "keys.json", *key)
        assert len(out) < most
        if form != "mermaid":
            assert f"{len(HUGE):,} characters)" in out


def test_a_log_takes_ten_megabytes(made: SimpleNamespace) -> None:
    report = verify_log(made.log, made.key, TrustStore({ALICE.get_identity(): ALICE}))
    assert report.ok
    assert AuditReader(made.log, made.key).record(2).payload["operation"] == HUGE
    assert len(HUGE) >= 10_000_000


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("aaaa bbbbbbbbbbbb cc", ["aaaa", "bbbbbbbbbb", "bb cc"]),
        ("aaaaaaaaaa b", ["aaaaaaaaaa", "b"]),
        ("aaaaaaaaaab", ["aaaaaaaaaa", "b"]),
        ("a b c d e f", ["a b c d e", "f"]),
        ("", [""]),
    ],
)
def test_folding(text: str, lines: list[str]) -> None:
    assert fold(text, 10) == lines
    assert fold(text.replace("b", "\u00e4"), 10) == [line.replace("b", "\u00e4") for line in lines]  # the same width


def test_folding_megabytes() -> None:
    lines = fold("word " * 2_000_000, 77)
    assert max(map(len, lines)) <= 77
    assert len(lines) == 2_000_000 // 15 + 1
    assert {len(line) for line in fold("x" * 10_000_001, 80)} == {80, 1}
