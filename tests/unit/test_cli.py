"""The command as people and scripts meet it: a process, its exit status, and what it writes where."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kest import KestEntry, LocalEd25519Provider, Passport, StaticIdentity, sign_entry
from kest._kestcore import sha256
from kest.cli.terminal import Column, clean, clip, fold, table, width

ALICE = LocalEd25519Provider("spiffe://example.org/alice", bytes(range(32)))
BOB = LocalEd25519Provider("spiffe://example.org/bob", bytes(range(1, 33)))


def environment(**extra: str) -> dict[str, str]:
    ours = ("KEST_", "SPIFFE_", "AWS_", "COLUMNS", "NO_COLOR", "TERM", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONIOENCODING": "utf-8", **extra}


def kest(*arguments: str | Path, cwd: Path, stdin: bytes = b"", **extra: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "kest", *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra),
        input=stdin,
        capture_output=True,
        timeout=60,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def chain(*steps: dict[str, Any]) -> list[str]:
    """Entries that each continue from the one before."""
    entries: list[str] = []
    for step in steps:
        fields: dict[str, Any] = {"timestamp_ms": 1_700_000_000_123, **step}
        identity = fields.pop("by", ALICE)
        if entries:
            fields.setdefault("parent_ids", [sha256(entries[-1].encode()).hex()])
        entries.append(sign_entry(KestEntry(fields.pop("operation", "step"), **fields), identity))
    return entries


def context(**tiers: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {f"{tier}_policies": [] for tier in ("enterprise", "platform", "app", "function")}
    return {**empty, "deviations": [], **tiers}


HONEST = chain(
    {
        "operation": "load",
        "trust_score": 60,
        "added_taints": ["raw"],
        "taints": ["raw"],
        "policy_context": context(
            enterprise_policies=["org/base"],
            function_policies=["data/read"],
            deviations=[
                {"policy": "platform/ticket", "tier": "platform", "reason": "nightly", "approver": "ops@example.org"}
            ],
        ),
    },
    {
        "operation": "clean",
        "trust_score": 90,
        "removed_taints": ["raw"],
        "by": BOB,
        "labels": {"kest.trust_override": "90"},
    },
    {"operation": "main.<lambda>", "trust_score": 90},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "passport.json").write_text(json.dumps(HONEST))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [ALICE.public_jwk(), BOB.public_jwk()]}))
    return tmp_path


def save(folder: Path, entries: Sequence[Any], name: str = "other.json") -> Path:
    (folder / name).write_text(json.dumps(entries))
    return folder / name


# --- verify ---


def test_verify_says_what_was_verified(folder: Path) -> None:
    done = kest("verify", "passport.json", "--trust", "keys.json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("verified: 3 entries")
    for text in (
        ALICE.get_identity(),
        BOB.get_identity(),
        "trust       90",
        "taints      none",
        Passport(HONEST).chain_tip,
    ):
        assert text in done.stdout


def test_verify_json(folder: Path) -> None:
    tip = Passport(HONEST).chain_tip
    done = kest("verify", "passport.json", "--trust", "keys.json", "--chain-tip", tip, "--json", cwd=folder)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "verified": True,
        "entries": 3,
        "principals": [ALICE.get_identity(), BOB.get_identity()],
        "trust_score": 90,
        "taints": [],
        "tips": [tip],
        "chain_tip_checked": True,
    }


def test_verify_reads_standard_input(folder: Path) -> None:
    assert kest("verify", "-", "--trust", "keys.json", cwd=folder, stdin=json.dumps(HONEST).encode()).returncode == 0


def flip(entry: str, part: int) -> str:
    parts = entry.split(".")
    parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
    return ".".join(parts)


@pytest.mark.parametrize("index", range(len(HONEST)))
@pytest.mark.parametrize("part", range(3))
def test_verify_names_the_tampered_entry(folder: Path, index: int, part: int) -> None:
    entries = list(HONEST)
    entries[index] = flip(entries[index], part)
    save(folder, entries)
    done = kest("verify", "other.json", "--trust", "keys.json", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"not verified: entry {index}: .+\n", done.stderr)
    verdict = kest("verify", "other.json", "--trust", "keys.json", "--json", cwd=folder)
    assert verdict.returncode == 1
    answer = json.loads(verdict.stdout)
    assert (answer["verified"], answer["index"]) == (False, index)
    if part == 2:
        assert answer["reason"] == "the signature does not match"


def test_verify_without_a_key_says_how_to_give_one(folder: Path) -> None:
    done = kest("verify", "passport.json", cwd=folder)
    assert done.returncode == 1
    assert done.stderr == f"not verified: entry 0: no key for principal {ALICE.get_identity()}; pass --trust KEYS\n"
    save(folder, {"keys": [ALICE.public_jwk()]}, "alice.json")  # type: ignore[arg-type]
    done = kest("verify", "passport.json", "--trust", "alice.json", cwd=folder)
    assert done.returncode == 1
    assert done.stderr == f"not verified: entry 1: no key for principal {BOB.get_identity()}; pass --trust KEYS\n"


def test_verify_notices_a_cut_tail_with_the_tip(folder: Path) -> None:
    save(folder, HONEST[:-1])
    assert kest("verify", "other.json", "--trust", "keys.json", cwd=folder).returncode == 0
    done = kest("verify", "other.json", "--trust", "keys.json", "--chain-tip", Passport(HONEST).chain_tip, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("not verified: passport: the tip")


def test_verify_refuses_an_empty_passport(folder: Path) -> None:
    save(folder, [])
    done = kest("verify", "other.json", "--trust", "keys.json", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "not verified: passport: the passport is empty: it proves nothing\n")


def test_verify_names_a_member_that_is_no_string(folder: Path) -> None:
    save(folder, [HONEST[0], None, {}])
    done = kest("verify", "other.json", "--trust", "keys.json", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "not verified: entry 1: a string is expected, not null\n")


def test_verify_takes_pem_and_several_files(folder: Path) -> None:
    import base64

    for name, identity in (("alice", ALICE), ("bob", BOB)):
        raw = base64.urlsafe_b64decode(identity.public_jwk()["x"] + "=")
        der = bytes.fromhex("302a300506032b6570032100") + raw
        pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
        (folder / f"{name}.pem").write_text(pem)
    (folder / "bob.jwk").write_text(json.dumps(BOB.public_jwk()))
    alice, bob = ALICE.get_identity(), BOB.get_identity()
    two = ("--trust", "alice.pem", "--principal", alice, "--trust", "bob.pem", "--principal", bob)
    mixed = ("--trust", "bob.jwk", "--trust", "alice.pem", "--principal", alice)
    for trust in (two, mixed):
        assert kest("verify", "passport.json", *trust, cwd=folder).returncode == 0
    swapped = ("--trust", "alice.pem", "--principal", bob, "--trust", "bob.pem", "--principal", alice)
    assert kest("verify", "passport.json", *swapped, cwd=folder).returncode == 1
    done = kest("verify", "passport.json", "--trust", "alice.pem", cwd=folder)
    assert (done.returncode, done.stderr) == (
        2,
        "kest: key file alice.pem does not say whose key it is: add --principal NAME\n",
    )
    done = kest("verify", "passport.json", "--trust", "keys.json", "--principal", alice, cwd=folder)
    assert done.returncode == 2


def test_verify_uses_the_trust_store_of_the_configuration(folder: Path) -> None:
    save(folder, {"trust_store": "keys.json"}, "kest-config.json")  # type: ignore[arg-type]
    config = str(folder / "kest-config.json")
    assert kest("verify", "passport.json", cwd=folder, KEST_CONFIG=config).returncode == 0
    assert kest("verify", "passport.json", cwd=folder, KEST_CONFIG=str(folder / "no.toml")).returncode == 2
    save(folder, {"keys": [ALICE.public_jwk()]}, "alice.json")  # type: ignore[arg-type]
    assert kest("verify", "passport.json", "--trust", "alice.json", cwd=folder, KEST_CONFIG=config).returncode == 1


def test_verify_holds_principals_to_what_the_key_file_grants(folder: Path) -> None:
    save(folder, {"keys": [ALICE.public_jwk(), {**BOB.public_jwk(), "kest_may_sanitise": False}]}, "k.json")  # type: ignore[arg-type]
    done = kest("verify", "passport.json", "--trust", "k.json", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("not verified: entry 1: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "COMMAND"),
        (("nonsense",), "invalid choice"),
        (("verify",), "FILE"),
        (("verify", "missing.json"), "cannot read missing.json: No such file or directory"),
        (("verify", "."), "is a folder"),
        (("verify", "notjson.txt"), "not a passport"),
        (("verify", "keys.json"), "not an array"),
        (("verify", "binary"), "not a passport"),
        (("verify", "deep.json"), "not a passport"),
        (("verify", "passport.json", "--trust", "missing.json"), "cannot read missing.json"),
        (("verify", "passport.json", "--trust", "notjson.txt"), "key file notjson.txt: "),
        (("verify", "passport.json", "--trust", "passport.json"), "a key file holds"),
        (("verify", "passport.json", "--trust", "empty.jwks"), "empty"),
        (("verify", "passport.json", "--trust", "private.jwks"), "secret key"),
        (("verify", "passport.json", "--trust", "private.pem", "--principal", "x"), "private key"),
        (("verify", "passport.json", "--chain-tip", "xyz"), "--chain-tip"),
        (("verify", "passport.json", "--nonsense"), "--nonsense"),
        (("inspect", "missing.json"), "cannot read missing.json"),
        (("inspect", "notjson.txt"), "not a passport"),
        (("keygen", "--principal", ""), "--principal"),
        (("keygen", "--out", "-"), "--out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_line_and_status_2(folder: Path, arguments: tuple[str, ...], says: str) -> None:
    (folder / "notjson.txt").write_text("hello\x1b[31m")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "empty.jwks").write_text('{"keys": []}')
    seed = "d" * 43
    (folder / "private.jwks").write_text(json.dumps({"keys": [{**ALICE.public_jwk(), "d": seed}]}))
    (folder / "private.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{seed}\n-----END PRIVATE KEY-----\n")
    done = kest(*arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert seed not in done.stderr
    assert "\x1b" not in done.stderr


def test_an_unreadable_file_is_status_2(folder: Path) -> None:
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)  # not even root can open it
    done = kest("verify", "socket", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("kest: cannot read socket: ")


# --- inspect ---

HOSTILE = chain(
    {
        "operation": "\x1b[2J\x1b[31mowned\r\nverified: 9 entries\x9b\u202e<script>alert(1)</script>&lt;",
        "added_taints": ["<img src=x>", "\x07bell"],
        "taints": ["<img src=x>", "\x07bell"],
        "labels": {"note\n": "\x00"},
        "policy_context": context(
            function_policies=["p\x1b]0;title\x07"],
            deviations=[{"policy": "\n", "tier": "\r", "reason": "\u2028", "approver": "\u200b"}],
        ),
    },
    {"operation": "解析データ処理" * 9, "taints": ["<img src=x>", "\x07bell"], "by": BOB},
    {"operation": "Z\u0300\u0301\u0302\u0303\u0304" * 40, "taints": ["<img src=x>", "\x07bell"]},
    {"operation": "x" * 100_000, "taints": ["<img src=x>", "\x07bell"], "timestamp_ms": 2**53 - 1},
)
VISIBLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.mark.parametrize("columns", [80, 81, 100, 120, 200])
@pytest.mark.parametrize("full", [(), ("--full",)])
def test_inspect_neutralises_and_fits(folder: Path, columns: int, full: tuple[str, ...]) -> None:
    save(folder, [*HOSTILE, "\x1b[31m.<b>.", None, 7])
    done = kest("inspect", "other.json", *full, cwd=folder, COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    assert not VISIBLE.search(done.stdout)
    assert not re.search(r"<(?!lambda>)[A-Za-z/!]|&lt;", done.stdout)
    assert all(width(line) <= columns for line in done.stdout.splitlines())
    assert done.stdout.startswith("NOT VERIFIED")
    assert done.stdout.count("(broken)") == 3


def test_inspect_shows_what_matters(folder: Path) -> None:
    done = kest("inspect", "passport.json", cwd=folder, COLUMNS="120")
    lines = done.stdout.splitlines()
    first = next(line for line in lines if line.startswith("0"))
    assert first.split() == ["0", "load", "60", "+raw", "root", "22:13:20.123"]
    assert "2023-11-14 UTC" in done.stdout
    assert next(line for line in lines if line.startswith("1")).split()[:5] == ["1", "clean", "90", "-raw", "0"]
    assert next(line for line in lines if line.startswith("2")).split()[:4] == ["2", "main.<lambda>", "90", "1"]
    tiers = "enterprise org/base; function data/read"
    for text in (BOB.get_identity(), tiers, "approved by ops@example.org", "raised to 90"):
        assert text in done.stdout


def test_inspect_shows_on_whose_behalf(folder: Path) -> None:
    who = {"user": "alice\x1b[31m", "agent": "portal", "task": "refund order 7"}
    save(folder, chain(*({"labels": {"kest.identity": text}} for text in (json.dumps(who), '{"user": 5}', "[]", "{"))))
    said = [line.split() for line in kest("inspect", "other.json", cwd=folder).stdout.splitlines()]
    assert ["user", "alice\\x1b[31m"] in said
    assert ["agent", "portal"] in said
    assert ["task", "refund", "order", "7"] in said
    assert ["user", "5"] in said
    assert ["identity", "[]"] in said
    assert ["identity", "{"] in said


def test_inspect_aligns_wide_characters(folder: Path) -> None:
    save(folder, chain({"operation": "データ"}, {"operation": "plain"}))
    lines = kest("inspect", "other.json", cwd=folder).stdout.splitlines()
    wide, plain = (next(line for line in lines if name in line) for name in ("データ", "plain"))

    def column(line: str) -> int:
        before = line[: line.index("100")]
        return sum(2 if unicodedata.east_asian_width(c) == "W" else 1 for c in before)

    assert column(wide) == column(plain)


def test_inspect_shows_broken_entries_with_the_reason(folder: Path) -> None:
    save(folder, ["garbage", *HONEST[1:], 7])
    done = kest("inspect", "other.json", cwd=folder)
    assert done.returncode == 0
    assert "a compact JWS must have exactly three non-empty parts" in done.stdout
    assert "a parent entry is missing" in done.stdout  # of the second, which is shown all the same
    assert "clean" in done.stdout
    assert "a string is expected" in done.stdout
    members = json.loads(kest("inspect", "other.json", "--json", cwd=folder).stdout)
    assert members["verified"] is False
    assert ["broken" in member for member in members["entries"]] == [True, True, False, True]
    assert members["entries"][1]["parents"] == [None]
    assert members["entries"][2]["parents"] == [1]


def test_inspect_shows_an_entry_that_does_not_fit_its_parents(folder: Path) -> None:
    save(folder, chain({"trust_score": 10}, {"operation": "risen", "trust_score": 90}))
    done = kest("inspect", "other.json", cwd=folder)
    assert "risen" in done.stdout
    assert "trust rises above what the parents allow" in done.stdout


def test_inspect_json_is_inert_and_exact(folder: Path) -> None:
    save(folder, HOSTILE)
    done = kest("inspect", "other.json", "--json", "--full", cwd=folder)
    assert done.stdout.isascii()
    assert not re.search("[<>&\x1b]", done.stdout)
    entries = json.loads(done.stdout)["entries"]
    assert [entry["jws"] for entry in entries] == HOSTILE
    assert [entry["payload"] for entry in entries] == Passport(HOSTILE).decode()
    assert [entry["parents"] for entry in entries] == [[], [0], [1], [2]]


def test_inspect_of_an_empty_passport(folder: Path) -> None:
    save(folder, [])
    done = kest("inspect", "other.json", cwd=folder)
    assert done.returncode == 0
    assert "empty" in done.stdout


# --- keygen ---


def test_keygen_makes_a_pair_that_works(tmp_path: Path) -> None:
    name = "spiffe://example.org/report"
    done = kest("keygen", "--principal", name, "--out", "key.pem", "--jwks", "keys.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    identity = StaticIdentity(name, key_file=tmp_path / "key.pem")
    assert json.loads((tmp_path / "keys.json").read_text()) == {"keys": [identity.public_jwk()]}
    save(tmp_path, [sign_entry(KestEntry("work"), identity)])
    assert kest("verify", "other.json", "--trust", "keys.json", cwd=tmp_path).returncode == 0


def test_keygen_prints_the_public_half_only(tmp_path: Path) -> None:
    done = kest("keygen", cwd=tmp_path)
    assert done.returncode == 0
    (jwk,) = json.loads(done.stdout)["keys"]
    assert "d" not in jwk
    secret = (tmp_path / "kest-key.pem").read_text().splitlines()[1]
    assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("there", ["key.pem", "keys.json"])
def test_keygen_overwrites_nothing(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    done = kest("keygen", "--out", "key.pem", "--jwks", "keys.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [there]  # nothing else was left behind
    assert (tmp_path / there).read_text() == "precious"


# --- identity ---


def test_identity_explains_itself(tmp_path: Path) -> None:
    done = kest("identity", "--explain", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^1\. spire +no .*\n2\. aws +no .*\n3\. local +chosen", done.stdout)
    assert "spiffe://kest.internal/local-workload" in done.stdout
    document = json.loads(kest("identity", "--json", "--explain", cwd=tmp_path).stdout)
    assert document["source"] == "local"
    assert [source["source"] for source in document["sources"]] == ["spire", "aws", "local"]
    assert set(document["public_jwk"]) == {"alg", "crv", "kid", "kty", "use", "x"}


def test_identity_that_is_configured_but_not_there(tmp_path: Path) -> None:
    socket = f"unix://{tmp_path}/no.sock"
    done = kest("identity", "--explain", cwd=tmp_path, SPIFFE_ENDPOINT_SOCKET=socket)
    assert done.returncode == 1
    assert "1. spire  chosen" in done.stdout
    assert "local-workload" not in done.stdout  # no silent fallback
    assert done.stderr.startswith("kest: ")
    assert done.stderr.count("\n") == 1


# --- terminals, pipes, signals ---


def in_terminal(*arguments: str, cwd: Path, **extra: str) -> str:
    master, slave = pty.openpty()
    settings = environment(**{"TERM": "xterm", "COLUMNS": "100", **extra})
    process = subprocess.Popen(
        [sys.executable, "-m", "kest", *arguments], cwd=cwd, env=settings, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    output = b""
    try:
        while chunk := os.read(master, 65536):
            output += chunk
    except OSError:  # Linux says EIO when the other end is gone
        pass
    os.close(master)
    process.wait(60)
    return output.decode()


def test_colours_only_in_a_terminal_that_wants_them(folder: Path) -> None:
    command = ("verify", "passport.json", "--trust", "keys.json")
    assert "\x1b[32mverified\x1b[0m" in in_terminal(*command, cwd=folder)
    assert "\x1b[31mnot verified\x1b[0m" in in_terminal("verify", "passport.json", cwd=folder)
    assert "\x1b" not in in_terminal(*command, cwd=folder, NO_COLOR="1")
    assert "\x1b" not in in_terminal(*command, cwd=folder, TERM="dumb")
    assert "\x1b" not in kest(*command, cwd=folder, TERM="xterm").stdout


def test_hostile_text_sends_no_escape_to_a_terminal(folder: Path) -> None:
    save(folder, HOSTILE)
    shown = re.sub(r"\x1b\[[0-9]+m", "", in_terminal("inspect", "other.json", cwd=folder)).replace("\r\n", "\n")
    assert not VISIBLE.search(shown)
    assert all(width(line) <= 100 for line in shown.splitlines())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_output_encoding_will_do(folder: Path, encoding: str) -> None:
    save(folder, HOSTILE)
    process = subprocess.run(
        [sys.executable, "-m", "kest", "inspect", "other.json"],
        cwd=folder,
        capture_output=True,
        timeout=60,
        env=environment(PYTHONIOENCODING=encoding),
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert all(width(line) <= 80 for line in process.stdout.decode(encoding).splitlines())


@pytest.mark.parametrize(
    "command", [("inspect", "passport.json"), ("verify", "passport.json", "--trust", "keys.json"), ("--help",)]
)
def test_a_reader_that_leaves_is_no_error(folder: Path, command: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "kest", *command],
        cwd=folder,
        env=environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_error(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "kest", "inspect", "passport.json"],
            cwd=folder,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert process.returncode == 1
    assert process.stderr == b"kest: cannot write the output: No space left on device\n"


def test_interrupting_is_quiet(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    process = subprocess.Popen(
        [sys.executable, "-m", "kest", "inspect", "fifo"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with open(folder / "fifo", "wb"):  # returns when the command has opened its end, and is about to read
        for _ in range(6):  # a signal just before read(2) begins is noticed only after it: then a person tries again
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=10)
                break
            except subprocess.TimeoutExpired:
                continue
        else:
            process.kill()
            process.communicate()
            pytest.fail("Ctrl-C has no effect")
    assert (process.returncode, out, err) == (130, b"", b"")


def test_version(tmp_path: Path) -> None:
    assert kest("--version", cwd=tmp_path).stdout == "kest 0.3.0\n"


# --- text ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\x1bb\x00\x7f", r"a\x1bb\x00\x7f"),
        ("\u202eabc\u200b", r"\u202eabc\u200b"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("\u0301x", r"\u0301x"),
        ("e\u0301\u0301\u0301", "e\u0301\u0301\\u0301"),
        ("a\u00a0b", r"a\xa0b"),
        ("<b>", r"\x3cb>"),
        ("</b>", r"\x3c/b>"),
        ("<!--", r"\x3c!--"),
        ("&lt;&#60;&#x3c;", r"\x26lt;\x26#60;\x26#x3c;"),
        ("f.<lambda> a < b && c", "f.<lambda> a < b && c"),
        ("<lambda onclick=x>", r"\x3clambda onclick=x>"),
    ],
)
def test_clean(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", type("Out", (), {"encoding": "utf-8"})())
    assert clean(text) == shown
    assert clean(shown) == shown


def test_clip_and_fold_count_columns() -> None:
    assert clip("データ", 6) == "データ"
    assert clip("データ", 5) == "デー…"
    assert clip("abcdef", 4, "...") == "a..."
    assert fold("aa bb cc", 5) == ["aa bb", "cc"]
    assert fold("データデータ", 5) == ["デー", "タデ", "ータ"]
    assert fold("", 5) == [""]


def test_table_takes_from_the_widest() -> None:
    columns = [Column("a"), Column("name", 6), Column("n", right=True)]
    lines = ["  ".join(line) for line in table(columns, [["x", "y" * 50, "1"]], 20)]
    assert lines == ["a  name            n", "x  yyyyyyyyyyyyy…  1"]
    narrow = ["  ".join(line) for line in table(columns, [["x", "y" * 50, "1"]], 5)]
    assert narrow == ["a  name    n", "x  yyyyy…  1"]
