"""``kest log``, and ``kest verify`` and ``kest inspect`` of audit logs: real logs, read as people and scripts read them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kest import LocalEd25519Provider, configure, kest_verified
from kest._kestcore import Signer
from kest.audit import AuditLog, NoteKey, key_event
from kest.cli.log_verify import SHOWN
from kest.cli.main import main
from kest.core.context import get_current_passport, lineage
from kest.errors import PolicyDeniedError

LONG = "\x1b[31m" + "x" * 8_000_000
HOSTILE = "a\x1b[2J\u202e<script>b"


@dataclass
class Made:
    """A log in a folder, what verifies it, and what a call left in it."""

    path: Path
    log: AuditLog
    options: list[str]
    entries: list[str]

    @property
    def name(self) -> str:
        return str(self.path)

    def reopened(self) -> AuditLog:
        signer = Signer("log.kest.test/unit", bytes(range(32)))
        return AuditLog(self.path, signer, checkpoint_interval=3600.0)


@pytest.fixture
def made(configured: Any, tmp_path: Path) -> Made:
    """Five calls: two returned, one raised, one with an ugly name, one of 100 kB; and a denial. Closed."""
    path = tmp_path / "log"
    log = AuditLog(path, Signer("log.kest.test/unit", bytes(range(32))), checkpoint_interval=3600.0)
    try:
        configure(audit=log)
        good = kest_verified("p", operation_name="good")(lambda: 1)
        with lineage():
            good()
            good()
            entries = list(get_current_passport().entries)
            with pytest.raises(ZeroDivisionError):
                kest_verified("p", operation_name="bad")(lambda: 1 // 0)()
            kest_verified("p", operation_name=HOSTILE)(lambda: 1)()
            kest_verified("p", operation_name="x" * 100_000)(lambda: 1)()
            configured.engine.answer = False
            with pytest.raises(PolicyDeniedError):
                kest_verified("q", operation_name="good")(lambda: 1)()
    finally:
        log.close()
    keys = tmp_path / "keys.json"
    keys.write_text(
        json.dumps({"keys": [{**configured.identity.public_jwk(), "kid": configured.identity.get_identity()}]})
    )
    (tmp_path / "log.vkey").write_text(log.key.vkey + "\n")
    return Made(path, log, ["--log-key", log.key.vkey, "--trust", str(keys)], entries)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def change(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def fails(capsys: pytest.CaptureFixture[str], status: int, what: str, *arguments: str) -> None:
    """With one line on standard error, and nothing elsewhere."""
    assert main(list(arguments)) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert what in said.err
    assert said.err.count("\n") == 1
    assert said.err.isprintable() or said.err.rstrip("\n").isprintable()


# --- show ---


def test_show(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "show", made.name]) == 0
    said = capsys.readouterr()
    assert "not verified" in said.err
    rows = said.out.splitlines()
    assert len(rows) == 13
    assert "opened" in rows[0]
    assert "closed" in rows[-1]
    assert "good  trust 100" in rows[1]
    assert "good  returned after" in rows[2]
    assert any("bad  raised builtins" in row for row in rows)
    assert any("denial" in row and "good  by q" in row for row in rows)
    assert all(row.isprintable() and "<script" not in row for row in rows)
    assert max(map(len, rows)) < 200
    assert main(["log", "show", made.name, "--log-key", made.log.key.vkey]) == 0
    assert capsys.readouterr().err == ""


def test_show_full_is_harmless_and_short(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "show", made.name, "--full"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "<script" not in out
    assert r"a\x1b[2J" in out
    assert len(out) < 100_000
    assert "characters more: --json has all" in out


def test_a_string_of_megabytes(configured: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with AuditLog(tmp_path / "log", Signer("log.kest.test/unit", bytes(range(32)))) as log:
        log.record_event("verdict", {"said": LONG}).wait(20)
        vkey = log.key.vkey
    assert main(["log", "show", str(tmp_path / "log"), "--full"]) == 0
    out = capsys.readouterr().out
    assert len(out) < 20_000
    assert "\x1b" not in out
    assert main(["log", "export", str(tmp_path / "log"), "-o", str(tmp_path / "all")]) == 0
    text = (tmp_path / "all").read_text()
    assert lines(text)[1]["payload"]["said"] == LONG
    assert text.isascii()
    capsys.readouterr()
    assert main(["log", "verify", str(tmp_path / "log"), "--log-key", vkey]) == 0
    assert len(capsys.readouterr().out) < 2000


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--kind", "denial"], ["denial"]),
        (["--kind", "denial", "--kind", "log"], ["log", "denial", "log"]),
        (["--operation", "bad"], ["entry", "outcome"]),
        (["--operation", "b*d"], ["entry", "outcome"]),
        (["--operation", "goo"], []),
        (["--principal", "log.kest.test/*"], ["log", "log"]),
        (["--principal", "spiffe://kest.test/unit", "--kind", "log"], []),
        (["--until", "2001-01-01"], []),
        (["--since", "2001-01-01T00:00:00Z", "--kind", "log"], ["log", "log"]),
        (["--since", "1h", "--limit", "2"], ["denial", "log"]),
        (["--until", "1h"], []),
        (["--limit", "0"], []),
        (["--limit", "1"], ["log"]),
        (["--entry", "1"], ["entry"]),
    ],
)
def test_filters(made: Made, capsys: pytest.CaptureFixture[str], options: list[str], kinds: list[str]) -> None:
    assert main(["log", "show", made.name, "--json", *options]) == 0
    assert [one["kind"] for one in lines(capsys.readouterr().out)] == kinds


def test_everything_about_one_call(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    from kest._kestcore import sha256, tlog_leaf

    hash_ = sha256(made.entries[0].encode()).hex()
    assert main(["log", "show", made.name, "--json", "--entry", hash_]) == 0
    found = lines(capsys.readouterr().out)
    assert [(one["index"], one["kind"], one["entry_hash"]) for one in found] == [
        (1, "entry", hash_),
        (2, "outcome", hash_),
    ]
    assert main(["log", "show", made.name, "--json", "--entry", found[0]["payload"]["entry_id"]]) == 0
    assert lines(capsys.readouterr().out) == found
    leaf = tlog_leaf(made.entries[0].encode()).hex()
    assert found[0]["leaf_hash"] == leaf
    assert main(["log", "show", made.name, "--json", "--entry", leaf]) == 0
    assert lines(capsys.readouterr().out) == found[:1]
    (made.path / "index").unlink()  # only a help
    assert main(["log", "show", made.name, "--json", "--entry", found[0]["payload"]["entry_id"]]) == 0
    assert lines(capsys.readouterr().out) == found
    capsys.readouterr()
    for text, what in [("13", "has 13 records"), ("0" * 64, "nothing in the log"), ("nothing", "is no index")]:
        assert main(["log", "show", made.name, "--log-key", made.log.key.vkey, "--entry", text]) == 2
        assert what in capsys.readouterr().err


# --- verify ---


@pytest.mark.parametrize("command", [["log", "verify"], ["verify"]])
def test_verify(made: Made, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main([*command, made.name, *made.options]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("verified: 13 records of log.kest.test/unit")
    assert "13 valid" in said.out
    assert main([*command, made.name, *made.options, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["verified"] is True
    assert facts["kinds"] == {"entry": 5, "outcome": 5, "denial": 1, "log": 2}
    assert (facts["problems"], facts["missing"], facts["verdicts"]) == ([], [], {"valid": 13})


def test_a_key_in_a_file(made: Made, tmp_path: Path) -> None:
    assert main(["verify", made.name, "--log-key", str(tmp_path / "log.vkey"), *made.options[2:]]) == 0


def test_verify_without_the_keys_of_signers(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "verify", made.name, *made.options[:2]]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "11 unknown key" in said.err
    assert "--trust" in said.err


@pytest.mark.parametrize(
    ("name", "at", "what", "proved"),
    [
        ("tile/entries/000.p/13", 700, "do not hash to the root", "1"),
        ("tile/0/000.p/13", 40, "does not hold the hashes", "0"),
    ],
)
def test_tampering(made: Made, capsys: pytest.CaptureFixture[str], name: str, at: int, what: str, proved: str) -> None:
    change(made.path / name, at)
    assert main(["log", "verify", made.name, *made.options]) == 1
    assert what in capsys.readouterr().err
    assert main(["verify", made.name, *made.options, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["verified"] is False
    assert facts["problem_count"] >= 1
    fails(capsys, 1, "does not lead to the root", "log", "prove", made.name, proved, *made.options[:2])


def test_a_torn_bundle(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.path / "tile/entries/000.p/13"
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["log", "verify", made.name, *made.options]) == 1
    assert "not verified" in capsys.readouterr().err
    fails(capsys, 1, "kest: entry bundle 0", "log", "show", made.name, *made.options[:2])
    path.unlink()
    fails(capsys, 1, "is missing", "log", "show", made.name, *made.options[:2])


def test_a_key_that_was_revoked(made: Made, configured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log = made.reopened()
    try:
        log.record_event("key", key_event("revoked", configured.identity.get_identity(), configured.identity)).wait()
        configured.engine.answer = True
        configure(audit=log)
        kest_verified("p", operation_name="late")(lambda: 1)()
    finally:
        log.close()
    assert main(["log", "verify", made.name, *made.options, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdicts"]["valid, key since revoked"] == 11
    assert facts["verdicts"]["signed after the key was revoked"] == 2
    assert next(key for key in facts["keys"] if key["misused"])["revoked"] == 14
    assert main(["log", "verify", made.name, *made.options]) == 1
    assert "signed after the key was revoked" in capsys.readouterr().err


def test_a_call_without_outcome(made: Made, configured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log = made.reopened()
    log.record("entry", _unfinished(configured))
    log.close()
    assert main(["log", "verify", made.name, *made.options]) == 0
    assert "no outcome: record 14: lost" in capsys.readouterr().out
    assert main(["log", "verify", made.name, *made.options, "--strict"]) == 1
    assert "its process has ended since" in capsys.readouterr().err
    assert main(["verify", made.name, *made.options, "--json"]) == 0
    (missing,) = json.loads(capsys.readouterr().out)["missing"]
    assert (missing["index"], missing["operation"], missing["lost"]) == (14, "lost", True)


def _unfinished(configured: Any) -> str:
    from kest import KestEntry, sign_entry

    return sign_entry(KestEntry("lost"), configured.identity)


def test_a_log_that_was_rolled_back(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "yesterday"
    shutil.copytree(made.path, copy)
    before = tmp_path / "before"
    shutil.copy(made.path / "checkpoint", before)
    made.reopened().close()
    after = tmp_path / "after"
    shutil.copy(made.path / "checkpoint", after)
    assert main(["log", "verify", made.name, *made.options, "--checkpoint", str(before)]) == 0
    assert "with the earlier checkpoint of 13 records" in capsys.readouterr().out
    assert main(["log", "verify", str(copy), *made.options]) == 0  # by itself, it is a good log
    capsys.readouterr()
    assert main(["log", "verify", str(copy), *made.options, "--checkpoint", str(after)]) == 1
    assert "rolled back: it had 15 records" in capsys.readouterr().err
    assert main(["log", "verify", str(copy), *made.options, "--checkpoint", str(after), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["checkpoint_checked"]["consistent"] is False
    proof = tmp_path / "proof"  # ends in a checkpoint, too
    assert main(["log", "prove", made.name, "14", "-o", str(proof)]) == 0
    assert main(["log", "verify", str(copy), *made.options, "--checkpoint", str(proof)]) == 1
    capsys.readouterr()
    fails(
        capsys,
        2,
        "--checkpoint",
        "log",
        "verify",
        made.name,
        *made.options,
        "--checkpoint",
        str(tmp_path / "keys.json"),
    )


def test_history_written_anew(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By somebody who has the log's key."""
    with AuditLog(tmp_path / "other", Signer("log.kest.test/unit", bytes(range(32)))) as other:
        for _ in range(20):
            other.record_event("verdict", {"another": "history"})
    earlier = str(made.path / "checkpoint")
    assert main(["log", "verify", str(tmp_path / "other"), *made.options]) == 0
    capsys.readouterr()
    assert main(["log", "verify", str(tmp_path / "other"), *made.options, "--checkpoint", earlier]) == 1
    assert "history was rewritten" in capsys.readouterr().err


def test_the_wrong_key(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    from kest.audit import NoteKey

    thief = NoteKey("log.kest.test/unit", Signer("x", bytes(32)).public_key).vkey
    other = NoteKey("log.kest.test/other", Signer("x", bytes(32)).public_key).vkey
    fails(capsys, 1, "not signed by log.kest.test/unit", "log", "verify", made.name, "--log-key", thief)
    fails(capsys, 1, "not of 'log.kest.test/other'", "verify", made.name, "--log-key", other)
    fails(capsys, 1, "not signed by", "log", "show", made.name, "--log-key", thief)
    fails(capsys, 2, "is not a verifier key", "log", "verify", made.name, "--log-key", "a+b+c\x1b[2J")
    fails(capsys, 2, "cannot read", "log", "verify", made.name, "--log-key", "no-such-file")
    fails(capsys, 2, "whose log is it?", "log", "verify", made.name)
    fails(capsys, 1, "witnesses that are wanted", "log", "verify", made.name, *made.options, "--witness", other)
    fails(capsys, 2, "--quorum", "log", "verify", made.name, *made.options, "--quorum", "1")


# --- proofs ---


@pytest.mark.parametrize("by", ["index", "id", "hash"])
def test_a_proof(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    from kest._kestcore import sha256
    from kest.audit import AuditReader

    record = AuditReader(made.path, made.log.key).record(3)
    entry = {"index": "3", "id": record.entry_id, "hash": sha256(made.entries[1].encode()).hex()}[by]
    proof = tmp_path / "proof"
    assert main(["log", "prove", made.name, entry, "-o", str(proof), *made.options[:2]]) == 0
    assert "record 3 of 13" in capsys.readouterr().out
    assert proof.stat().st_mode & 0o777 == 0o600
    assert main(["verify", str(proof), *made.options]) == 0
    assert capsys.readouterr().out.startswith("verified: record 3 of 13 in log.kest.test/unit; its signature: valid")
    assert main(["verify", str(proof), *made.options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["payload"] == record.payload
    assert main(["verify", str(proof), *made.options[:2]]) == 1
    assert "unknown key" in capsys.readouterr().err
    fails(capsys, 2, "whose log is it?", "verify", str(proof))
    change(proof, proof.read_text().index("\nindex ") + 20)
    fails(capsys, 1, "not verified: ", "verify", str(proof), *made.options)


def test_a_proof_on_standard_output(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    from kest.audit import verify_proof

    assert main(["log", "prove", made.name, "0"]) == 0
    assert verify_proof(capsys.readouterr().out, made.log.key).record.index == 0


# --- export, inspect, usage ---


def test_export(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "export", made.name, *made.options[:2]]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.isascii()
    assert "<" not in said.out
    found = lines(said.out)
    assert [one["index"] for one in found] == list(range(13))
    assert [one["jws"] for one in found[1:4:2]] == made.entries
    path = tmp_path / "all.jsonl"
    assert main(["log", "export", made.name, *made.options[:2], "-o", str(path)]) == 0
    assert path.read_text() == said.out
    assert sorted(one.name for one in tmp_path.iterdir() if "tmp" in one.name) == []
    fails(capsys, 2, "cannot write", "log", "export", made.name, *made.options[:2], "-o", str(tmp_path / "no/such"))
    assert main(["viz", str(path)]) == 0  # what was exported can be drawn
    assert "good" in capsys.readouterr().out


def test_an_export_of_a_damaged_log_leaves_nothing(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made.path / "tile/entries/000.p/13").unlink()
    before = sorted(tmp_path.iterdir())
    output = str(tmp_path / "all.jsonl")
    fails(capsys, 1, "is missing", "log", "export", made.name, *made.options[:2], "-o", output)
    assert sorted(tmp_path.iterdir()) == before


def test_inspect(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", made.name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["entries"]
    assert [one["payload"]["operation"] for one in found][:3] == ["good", "good", "bad"]
    assert found[1]["parents"] == [0]


def test_what_is_no_log(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for part in (["show"], ["verify"], ["export"], ["tail"], ["prove"]):
        end = ["0"] if part == ["prove"] else []
        for name, what in [
            (empty, "no checkpoint"),
            (tmp_path / "none", "there is no"),
            (tmp_path / "keys.json", "is a file"),
        ]:
            fails(capsys, 2, what, "log", *part, str(name), *end, *made.options[:2])
    fails(capsys, 2, "neither", "verify", str(empty), *made.options)
    (empty / "checkpoint").write_bytes(b"\x00\xff nonsense")
    for part in ("show", "verify"):
        fails(capsys, 1, "signed note", "log", part, str(empty), *made.options[:2])
    fails(capsys, 1, "signed note", "log", "show", str(empty))
    fails(capsys, 2, "signed note", "inspect", str(empty))
    fails(capsys, 2, "for audit logs", "verify", str(tmp_path / "keys.json"), *made.options)
    fails(capsys, 2, "kest log verify --checkpoint", "verify", made.name, *made.options, "--chain-tip", "0" * 64)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    path = made.path / "tile/entries/000.p/13"
    path.chmod(0)
    for part in ("show", "verify"):
        fails(capsys, 2, "Permission denied", "log", part, made.name, *made.options[:2])
    (made.path / "checkpoint").chmod(0)
    fails(capsys, 2, "Permission denied", "log", "show", made.name)


def test_a_disk_error(made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs this: a file that cannot be read is said by name."""

    def broken(path: Path, most: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("kest.audit.tiles.read_file", broken)
    fails(capsys, 2, "cannot read", "log", "show", made.name, *made.options[:2])


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file(made: Made, capsys: pytest.CaptureFixture[str], make: Any) -> None:
    path = made.path / "tile/entries/000.p/13"
    path.unlink()
    make(path)
    fails(capsys, 1, "no regular file", "log", "show", made.name, *made.options[:2])
    assert main(["log", "verify", made.name, *made.options]) == 1
    assert "no regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--kind", "x"],
        ["--since", "yesterday"],
        ["--limit", "-1"],
        ["--limit", "x"],
        ["--until", "9" * 9 + "d"],
        ["--quorum", "x"],
    ],
)
def test_wrong_usage(made: Made, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["log", "show", made.name, *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("kest log show: ")


# --- tail ---


@contextlib.contextmanager
def tailing(made: Made, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """``kest log tail`` from the last record on, in a process of its own."""
    command = [sys.executable, "-m", "kest", "log", "tail", made.name, *options, "--limit", "1", "--interval", "0.02"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [*command, *made.options[:2]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_tail(made: Made, configured: Any) -> None:
    """Follows a log that is written by somebody else, and ends quietly."""
    with tailing(made, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None

        def next_line() -> dict[str, Any]:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 60)[0]
            found: dict[str, Any] = json.loads(process.stdout.readline())
            return found

        assert next_line()["index"] == 12
        log = made.reopened()
        try:
            log.checkpoint()
            assert next_line()["payload"]["event"] == "opened"
            log.record_event("verdict", {"n": 1}).wait()
            log.checkpoint()
            assert next_line()["payload"]["n"] == 1
        finally:
            log.close()
        assert next_line()["payload"]["event"] == "closed"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b""


def test_tail_notices_a_roll_back(made: Made, tmp_path: Path) -> None:
    before = (made.path / "checkpoint").read_bytes()
    made.reopened().close()
    with tailing(made) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"closed" in process.stdout.readline()
        other = tmp_path / "checkpoint"
        other.write_bytes(before)
        other.replace(made.path / "checkpoint")
        assert process.wait(20) == 1
        assert process.stderr.read() == b"kest: the log went back from 15 to 13 records\n"


def test_a_witness(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kest.audit.note import NoteKey, note_line, signer_of

    witness = LocalEd25519Provider("w.kest.test/1", seed=bytes(32))
    signer = signer_of(witness)
    note = (made.path / "checkpoint").read_text()
    (made.path / "checkpoint").write_text(
        note + note_line("w.kest.test/1", signer, note[: note.rfind("\n\n") + 1], time=7)
    )
    vkey = NoteKey("w.kest.test/1", signer.public_key, 4).vkey
    assert main(["log", "verify", made.name, *made.options, "--witness", vkey]) == 0
    assert "w.kest.test/1 at 7 s" in capsys.readouterr().out


# --- what is said of odd logs ---


def test_records_that_nobody_can_read(made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with made.reopened() as log:
        log.append("no.record").wait()
        log.checkpoint()
        assert main(["log", "show", made.name, *made.options[:2], "--kind", "unreadable"]) == 0
        said = capsys.readouterr()
        assert "9 bytes" in said.out
        assert "unreadable" in said.out
        assert main(["log", "show", made.name, *made.options[:2], "--operation", "*", "--json"]) == 0
        assert "unreadable" not in capsys.readouterr().out  # it says of no operation what it is
        log.append("no.record").wait()
        assert main(["log", "show", made.name, *made.options[:2], "--limit", "1"]) == 0
        assert "bytes of records are in the journal, under no checkpoint yet" in capsys.readouterr().err
        assert main(["log", "verify", made.name, *made.options]) == 1
        assert "bytes that no checkpoint covers yet" in capsys.readouterr().err


def test_a_record_that_is_kept_beside_the_log_and_missing(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with made.reopened() as log:
        log.append("ey" + "x" * 70_000).wait()
    for path in (made.path / "large").iterdir():
        path.unlink()
    assert main(["log", "show", made.name, *made.options[:2], "--kind", "large"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3  # those of `made`, too
    assert all(line.endswith("large       kept beside the log, and missing there") for line in said)


def test_a_time_that_no_calendar_has(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with made.reopened() as log:
        log.record_event("log", {"event": "x", "timestamp_ms": (1 << 53) - 1}).wait()
    assert main(["log", "show", made.name, *made.options[:2]]) == 0
    assert f"{(1 << 53) - 1} ms" in capsys.readouterr().out


def test_more_problems_than_are_shown(made: Made, configured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with made.reopened() as log:
        for number in range(SHOWN + 3):
            log.append(f"no.record.{number}")
        configure(audit=log)
        for _ in range(SHOWN + 2):
            log.append(_unfinished(configured))
        configure(audit=None)
    assert main(["log", "verify", made.name, *made.options]) == 1
    said = capsys.readouterr().err
    assert "more problems: see --json" in said


def test_refusals_as_json(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    (made.path / "checkpoint").write_bytes(b"nonsense")
    assert main(["log", "verify", made.name, *made.options, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] is False
    assert "signed note" in told["reason"]


def test_usage_of_keys_and_intervals(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "large.vkey").write_bytes(b" " * (2 << 20))
    fails(capsys, 2, "is larger than", "log", "show", made.name, "--log-key", str(tmp_path / "large.vkey"))
    witness = Signer("w", bytes(32)).public_key
    vkey = NoteKey("w", witness, 4).vkey
    fails(capsys, 2, "without a key nothing is verified", "log", "show", made.name, "--witness", vkey)
    for seconds in ("soon", "0", "4000"):
        assert main(["log", "tail", made.name, "--interval", seconds]) == 2
        assert "seconds, from 0.01 to 3600" in capsys.readouterr().err


def test_an_output_that_cannot_be_replaced(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out" / "full").mkdir(parents=True)
    fails(capsys, 2, "cannot write", "log", "export", made.name, *made.options[:2], "-o", str(tmp_path / "out"))
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["full"]
    assert not list(tmp_path.glob("*.tmp"))
