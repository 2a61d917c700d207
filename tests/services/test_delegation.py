"""The delegation demo: five services, Redis and an OpenID Connect issuer as real processes, honest and attacked."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kest import Passport, PassportVerifier, TrustStore, VerificationError

ROOT = Path(__file__).resolve().parents[2]
RUN = "examples/delegation/run.py"
SERVICES = "tools/services"
ISSUER = f"{SERVICES}/oidc-issuer"

needs_services = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("node", "npm", "redis-server")),
    reason="needs node, npm and redis-server (on Debian: apt-get install nodejs npm redis-server)",
)


def environment(scratch: Path) -> dict[str, str]:
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith("KEST_") or name == "KEST_SERVICES"
    }
    paths = os.pathsep.join(filter(None, sys.path))
    ours.update(PYTHONPATH=paths, PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED="1", COLUMNS="80", TMPDIR=str(scratch))
    return ours


def left_over(scratch: Path) -> list[str]:
    """Command lines of the processes of this run: by their environment; Redis, which overwrites its own, by its folder."""
    wanted, found = f"TMPDIR={scratch}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes().split(b"\0")
            if wanted in environ or os.readlink(process / "cwd").startswith(f"{scratch}{os.sep}"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def run(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    scratch = out.parent / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, str(root / RUN), "--out", str(out)],
        cwd=out.parent, env=environment(scratch), capture_output=True, text=True, encoding="utf-8", timeout=150,
    )  # fmt: skip
    assert left_over(scratch) == []
    assert list(scratch.iterdir()) == []
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = tmp_path_factory.mktemp("delegation") / "out"
    return run(ROOT, out), out


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The demo in a folder of its own, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=ignored)
    shutil.copytree(ROOT / SERVICES, tmp_path / SERVICES, ignore=ignored)
    return tmp_path


@needs_services
def test_the_flow_holds_what_it_promises(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "NOT AS EXPECTED" not in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = re.findall(r"^(\d)  (\S+) (/\S+) +(\S+) +(\d+)  (\S+)", done.stdout, re.MULTILINE)
    assert rows == [
        ("1", "kest-agent", "/delegate", "alice", "10", "delegation_policy"),
        ("2", "kest-gateway", "/authorise", "alice", "100", "gateway_policy"),
        ("3", "kest-gateway", "/execute-task", "alice", "100", "task_policy"),
        ("4", "hop1", "/process", "alice", "100", "workload_user_policy"),
        ("5", "hop2", "/process", "alice", "100", "workload_user_policy"),
        ("6", "hop3", "/process", "alice", "100", "workload_user_policy"),
    ]
    for text in ("act hop2 < hop1 < kest-gateway < kest-agent", "claim check", "verified: 6 entries", "not verified"):
        assert text in done.stdout
    seconds = re.search(r"checks hold \((\d+\.\d) s\)", done.stdout)
    assert seconds is not None
    assert float(seconds[1]) < 30


@needs_services
def test_its_proof_convinces_another_process(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, out = demo
    keys = TrustStore.from_jwks(out / "keys.jwks.json")
    passport = Passport.deserialize((out / "passport.json").read_text("utf-8"))
    verified = PassportVerifier.verify(passport, keys, chain_tip=passport.chain_tip)
    assert (len(verified), verified.trust_score, verified.taints) == (6, 100, ())
    assert [entry["trust_score"] for entry in verified.decode()] == [10, 100, 100, 100, 100, 100]
    assert verified.principals == {
        f"spiffe://delegation.example/{name}" for name in ("kest-agent", "kest-gateway", "hop1", "hop2", "hop3")
    }
    shortened = Passport.deserialize((out / "shortened.json").read_text("utf-8"))
    with pytest.raises(VerificationError):
        PassportVerifier.verify(shortened, keys, chain_tip=passport.chain_tip)

    # Without the gateway's right to raise trust, the same six entries prove nothing.
    published = json.loads((out / "keys.jwks.json").read_text("utf-8"))
    for key in published["keys"]:
        key["kest_may_sanitise"] = False
    with pytest.raises(VerificationError) as refused:
        PassportVerifier.verify(passport, TrustStore.from_jwks(published))
    assert refused.value.index == 1


@needs_services
def test_every_attack_is_refused(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, out = demo
    attacks = json.loads((out / "attacks.json").read_text("utf-8"))
    assert all(attack["refused"] and 400 <= attack["status"] < 500 for attack in attacks)
    groups = [attack["group"] for attack in attacks]
    assert {group: groups.count(group) for group in groups} == {
        "forged passport": 5,
        "stolen token": 6,
        "dropped entry": 3,
        "too little scope": 1,
    }
    denials = [json.loads(line) for line in (out / "records/kest-gateway.jsonl").read_text("utf-8").splitlines()]
    assert [record["kind"] for record in denials].count("denial") == 3
    for log in (out / "logs").iterdir():
        text = log.read_text("utf-8")
        assert "Traceback" not in text, f"{log.name}: {text}"
        assert "eyJ" not in text


@needs_services
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_whatever_ends_it_nothing_is_left_running(tmp_path: Path, number: signal.Signals, status: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, str(ROOT / RUN), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(scratch), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "processes on 127.0.0.1" in line:
                break
        assert len(left_over(scratch)) == 8
        child.send_signal(number)
        rest = child.stdout.read()
        assert child.wait(20) == status, rest
    assert "Traceback" not in rest
    deadline = time.monotonic() + 5  # after SIGKILL it is the kernel that stops them
    while left_over(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_over(scratch) == []


@needs_services
def test_it_fails_when_a_policy_is_not_what_it_was(copy: Path) -> None:
    policy = copy / "examples/delegation/policies/gateway_policy.cedar"
    policy.write_text('@id("gateway_policy") permit (principal, action, resource);\n', "utf-8")
    done = run(copy, copy / "out")
    assert done.returncode == 1
    assert "NOT AS EXPECTED: the agent's token, used by batch-report with lineage of its own" in done.stdout
    assert "checks FAILED" in done.stdout


@needs_services
def test_a_service_that_does_not_start_is_named(copy: Path) -> None:
    (copy / "examples/delegation/policies/workload_user_policy.rego").write_text(
        "package broken\n\nallow if {", "utf-8"
    )
    done = run(copy, copy / "out")
    assert done.returncode == 1
    assert "FAILED: kest-agent ended early" in done.stderr
    assert "workload_user_policy" in done.stderr


def test_the_lock_file_pins_by_hash_only() -> None:
    text = (ROOT / ISSUER / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in text
    packages = json.loads(text)["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)
