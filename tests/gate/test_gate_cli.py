"""``kest gate check``, ``explain``, ``diff`` and ``replay`` as people meet them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from kest.cli.gate import MAX_CONTEXT
from kest.cli.main import main

SMALL = """
[[policies]]
name = "small"
effect = "permit"
conditions = [{ action = "pay" }, { param_max = { field = "amount", max = 10 } }, { rate_limit = { max = 2, window = "1m" } }]
"""


def pay(amount: float, at: float | None = None, verdict: str | None = None, **more: Any) -> str:
    context = {
        "principal_id": "a",
        "principal_kind": "user",
        "action_name": "pay",
        "params": {"amount": amount},
        **more,
    }
    record = {"context": context, **({"at": at} if at else {}), **({"verdict": verdict} if verdict else {})}
    return json.dumps(record if at or verdict else context)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.toml").write_text(SMALL)
    (tmp_path / "new.toml").write_text(SMALL.replace("max = 10", "max = 5"))
    return tmp_path


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "check", "old.toml", "new.toml"]) == 0
    assert capsys.readouterr().out.count("valid: ") == 2
    (folder / "bad.toml").write_text(SMALL.replace('"1m"', '"1 minute"'))
    assert main(["gate", "check", "old.toml", "bad.toml"]) == 1
    shown = capsys.readouterr()
    assert "policies[0].conditions[2].rate_limit.window" in shown.err
    assert "valid: old.toml" in shown.out
    assert main(["gate", "check", "--json", "bad.toml"]) == 1
    (result,) = json.loads(capsys.readouterr().out)
    assert result["path"] == "policies[0].conditions[2].rate_limit.window"
    assert not result["valid"]
    (folder / "empty.toml").write_text("")
    assert main(["gate", "check", "empty.toml"]) == 0
    assert "every action is refused" in capsys.readouterr().out
    assert main(["gate", "check", "absent.toml"]) == 2
    assert main(["gate"]) == 2


def test_explain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "context.json").write_text(pay(7))
    assert main(["gate", "explain", "old.toml", "context.json"]) == 0
    assert "permit by policy small" in capsys.readouterr().out
    assert main(["gate", "explain", "new.toml", "context.json"]) == 0
    out = capsys.readouterr().out
    assert "NO_POLICY_MATCH" in out
    assert "param_max is false: 'amount' is 7; at most 5" in out
    assert main(["gate", "explain", "old.toml", "context.json", "--invariant", "cap:amount:1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["code"] == "INVARIANT_VIOLATION"
    assert told["policies"][0]["applies"] is True
    for bad in ("{", "[]", '{"principal_id": "a"}', '{"x": 1}', pay(1, ip="nowhere")):
        (folder / "context.json").write_text(bad)
        assert main(["gate", "explain", "old.toml", "context.json"]) == 2
        assert capsys.readouterr().err.startswith("kest: context.json")
    assert main(["gate", "explain", "old.toml", "context.json", "--invariant", "cap"]) == 2


def test_diff(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "records.jsonl").write_text("\n".join([pay(3), "", pay(7), pay(11)]))
    assert main(["gate", "diff", "old.toml", "new.toml", "records.jsonl"]) == 1
    out = capsys.readouterr().out
    assert "line 3: a: pay" in out
    assert "1 of 3 contexts are decided differently" in out
    assert main(["gate", "diff", "old.toml", "old.toml", "records.jsonl"]) == 0
    capsys.readouterr()
    assert main(["gate", "diff", "--json", "old.toml", "new.toml", "records.jsonl"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["contexts"] == 3
    assert [flip["line"] for flip in found["flips"]] == [3]
    (folder / "records.jsonl").write_text(pay(3) + "\n{")
    assert main(["gate", "diff", "old.toml", "new.toml", "records.jsonl"]) == 2
    assert "line 2" in capsys.readouterr().err


def test_replay_follows_the_recorded_clock(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = 1_700_000_000
    lines = [
        pay(1, start, "permit"),
        pay(1, start + 1, "permit"),
        pay(1, start + 2, "refuse"),
        pay(1, start + 60, "permit"),
    ]
    (folder / "records.jsonl").write_text("\n".join(lines))
    assert main(["gate", "replay", "old.toml", "records.jsonl"]) == 0
    assert "RATE_LIMIT_EXCEEDED" in capsys.readouterr().out
    (folder / "records.jsonl").write_text("\n".join([*lines, pay(1, start + 60.5, "permit")]))
    assert main(["gate", "replay", "old.toml", "records.jsonl"]) == 1
    assert "1 decided differently than recorded" in capsys.readouterr().out
    for bad in (
        '{"context": {}, "at": -1}',
        '{"context": {}, "when": 1}',
        pay(1, 5, "maybe"),
        '{"context": {}, "at": 1e400}',
    ):
        (folder / "records.jsonl").write_text(bad)
        assert main(["gate", "replay", "old.toml", "records.jsonl"]) == 2


def test_what_a_record_holds_cannot_move_the_cursor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "records.jsonl").write_text(
        pay(1, principal_id="\x1b[2J\u202eadmin", action_name="pay\nvalid: everything")
    )
    assert main(["gate", "replay", "old.toml", "records.jsonl"]) == 0
    assert main(["gate", "diff", "old.toml", "new.toml", "records.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\nvalid" not in out


class Input:
    """Standard input of these bytes."""

    def __init__(self, data: bytes) -> None:
        self._file = io.TextIOWrapper(io.BytesIO(data), "utf-8")
        self.buffer = self._file.buffer

    def __iter__(self) -> Any:
        return iter(self._file)


def test_standard_input(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Input(pay(7).encode()))
    assert main(["gate", "explain", "old.toml", "-"]) == 0
    assert "permit by policy small" in capsys.readouterr().out
    lines = [pay(7, at=1_700_000_000, verdict="permit"), pay(70, at=1_700_000_001, verdict="permit")]
    monkeypatch.setattr("sys.stdin", Input("\n".join(lines).encode()))
    assert main(["gate", "replay", "old.toml", "-", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(one["line"], one["recorded"]) for one in told] == [(1, "permit"), (2, "permit")]
    assert told[1]["code"] == "NO_POLICY_MATCH"


def test_files_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "latin.jsonl").write_bytes(b"\xe9")
    (folder / "large.json").write_bytes(b" " * (MAX_CONTEXT + 1))
    for arguments, why in (
        (["replay", "old.toml", "absent.jsonl"], "cannot read absent.jsonl: No such file"),
        (["replay", "old.toml", "latin.jsonl"], "latin.jsonl is not UTF-8"),
        (["explain", "old.toml", "absent.json"], "cannot read absent.json: No such file"),
        (["explain", "old.toml", "large.json"], "large.json is larger than a context can be"),
    ):
        assert main(["gate", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert why in said.err


def test_settings_that_no_gate_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "context.json").write_text(pay(7))
    assert main(["gate", "explain", "old.toml", "context.json", "--max-session-actions", "-1"]) == 2
    assert "max_session_actions" in capsys.readouterr().err


def test_check_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "check", "--json", "old.toml"]) == 0
    said = capsys.readouterr()
    (result,) = json.loads(said.out)
    assert (result["file"], result["valid"], result["policies"]) == ("old.toml", True, 1)
    assert said.err == ""
