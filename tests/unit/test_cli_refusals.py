"""Commands with input that is missing, too long or of another kind than they read; in this process."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from kest import KestEntry, LocalEd25519Provider, sign_entry
from kest.cli import source
from kest.cli.main import main
from kest.cli.terminal import clip
from kest.cli.verify import _has_chain, _kind
from kest.telemetry.records import SpanRecord, otlp_line

ALICE = LocalEd25519Provider("spiffe://example.org/alice", bytes(range(32)))


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**ALICE.public_jwk(), "kid": ALICE.get_identity()}]}))
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], why: str, *arguments: str) -> None:
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert why in said.err


def test_without_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    monkeypatch.setattr("sys.stdin", None)
    refused(capsys, "there is no standard input to read", "inspect", "-")
    refused(capsys, "there is no standard input to read", "verify", "-", "--trust", keys)


def test_input_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "passport.json"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(source.UsageError, match=r"passport\.json is larger than 1 MiB, more than this command reads"):
        source._read(str(path), 1 << 20)
    assert len(source._read(str(path), 2 << 20)) == (1 << 20) + 1


@pytest.mark.parametrize(
    ("value", "name"), [(None, "null"), ({}, "an object"), ([], "an array"), (True, "a boolean"), (1.5, "a number")]
)
def test_kinds_of_json(value: Any, name: str) -> None:
    assert _kind(value) == name


def test_entries_with_a_chain() -> None:
    from kest._kestcore import b64url_encode

    assert _has_chain(b64url_encode(b'{"x5c":[]}') + ".e30.AA")
    for entry in (b64url_encode(b"{}"), b64url_encode(b"[]"), b64url_encode(b"{"), "\0", 7, None):
        assert not _has_chain(entry)


def test_clipping_to_no_room_at_all() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("abc", 2) == "a…"
    assert clip("abc", 1) == "…"


def test_a_key_without_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passport, jwk = tmp_path / "passport.json", tmp_path / "key.json"
    passport.write_text(json.dumps([sign_entry(KestEntry("one"), ALICE)]))
    jwk.write_text(json.dumps({name: value for name, value in ALICE.public_jwk().items() if name != "kid"}))
    assert main(["verify", str(passport), "--trust", str(jwk), "--principal", ALICE.get_identity()]) == 0
    capsys.readouterr()
    refused(capsys, "--principal", "verify", str(passport), "--trust", str(jwk))


def test_a_key_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public = str(tmp_path / "no" / "such.json")
    refused(capsys, "No such file", "keygen", "--out", str(tmp_path / "key"), "--jwks", public)
    assert not (tmp_path / "key").exists()


# --- telemetry ---


def span(number: int, entry: str = "", scope: str = "kest.core") -> bytes:
    attributes = {"kest.signature": entry} if entry else {}
    return otlp_line(SpanRecord("n", "0" * 32, f"{number:016x}", scope=scope, attributes=attributes))


def test_telemetry_with_spans_of_others_and_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: str
) -> None:
    path = tmp_path / "t.jsonl"
    entry = sign_entry(KestEntry("one"), ALICE)
    path.write_bytes(span(1, entry) + span(2, scope="app"))
    assert main(["verify", str(path), "--trust", keys, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True
    path.write_bytes(span(1, entry) + b"{}\n" * 40)
    assert main(["verify", str(path), "--trust", keys]) == 1
    assert "more: --json has all" in capsys.readouterr().err
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr()
    assert "one" in said.out
    assert "40 places in" in said.err


def test_a_database_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(b"SQLite format 3\0" + bytes(4096))
    refused(capsys, "t.db", "inspect", str(path))


def test_names_that_are_no_log(tmp_path: Path) -> None:
    assert not source.holds_log("-")
    assert not source.holds_log("a\0b")
    assert not source.holds_log(str(tmp_path))
    (tmp_path / "checkpoint").touch()
    assert source.holds_log(str(tmp_path))


def test_a_second_command_of_a_process_takes_the_log_over(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        refused(capsys, "no such", "verify", "/no such passport")
    logging.getLogger("kest.cli").warning("once")
    assert capsys.readouterr().err == "kest: warning: once\n"
