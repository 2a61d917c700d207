"""The audit demo: a pipeline that is killed and resumes, its log verified, proven from and tampered with."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from test_delegation import environment, left_over

from kest import TrustStore
from kest.audit import AuditReader, verify_log, verify_proof

ROOT = Path(__file__).resolve().parents[2]
RUN = "audit/run.py"

Run = tuple[subprocess.CompletedProcess[str], Path]


@pytest.fixture(scope="module", autouse=True)
def data() -> None:
    try:
        version("palmerpenguins")
    except PackageNotFoundError:
        pytest.skip("the demo's data set is missing: pip install --no-deps -r examples/requirements.txt")


def run(examples: Path, folder: Path, *options: str) -> Run:
    scratch = folder / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(examples / RUN), "--out", str(folder / "out"), "--no-open", *options],
        cwd=folder, env=environment(scratch), capture_output=True, text=True, encoding="utf-8", timeout=150,
    )  # fmt: skip
    assert left_over(scratch) == []
    assert list(scratch.iterdir()) == []
    return done, folder / "out"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(ROOT / "examples", tmp_path_factory.mktemp("audit"), "--kills", "5")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The examples in a folder of their own, to be changed."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "examples"


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_all_checks_hold(demo: Run) -> None:
    done, out = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "NOT AS EXPECTED" not in done.stdout
    assert re.search(r"^(\d+) of \1 checks hold", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.replace(str(out), "out/audit").splitlines()) <= 80
    assert re.search(r"^seed \d+ ", done.stdout, re.MULTILINE)
    assert re.findall(r"^ +([-\d]+) +(?:\d+ ms|to the end) ", done.stdout, re.MULTILINE) == [*"12345", "-", "-"]
    assert re.search(r"(\d+) of \1 acknowledged records are there", done.stdout)


def test_each_tampering_has_its_verdict(demo: Run) -> None:
    done, _ = demo
    assert re.findall(r"^  (\d)  (\w+)", done.stdout, re.MULTILINE) == [(str(n), "refused") for n in range(1, 7)]
    text = " ".join(done.stdout.split())
    for verdict in (
        "the signature does not match",
        "fewer records than",
        "the log went back from",
        "the records do not hash to the root that was signed",
        "the checkpoint is not signed by penguins.example/audit",
        "does not lead from record",
    ):
        assert verdict in text


def test_what_it_leaves_verifies_without_it(demo: Run) -> None:
    _, out = demo
    vkey, keys = (out / "log.vkey").read_text("utf-8"), TrustStore.from_jwks(out / "keys.jwks.json")
    report = verify_log(out / "log", vkey, keys)
    assert report.ok
    assert all(call.lost for call in report.missing)
    proved = verify_proof((out / "entry.tlog-proof").read_text("utf-8"), vkey, keys)
    assert proved.verdict.good
    assert AuditReader(out / "log", vkey).record(proved.record.index).jws == proved.record.jws
    page = (out / "lineage.html").read_text("utf-8")
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    nodes = json.loads(found[1])["nodes"]
    assert sum(node.get("outcome", {}).get("state") == "missing" for node in nodes) == report.missing_count
    for file in out.rglob("*"):
        assert not file.is_file() or b"PRIVATE" not in file.read_bytes(), file
    assert "Traceback" not in (out / "writer.log").read_text("utf-8", "replace")


def test_a_seed_gives_the_same_moments(demo: Run, tmp_path: Path) -> None:
    seed = re.search(r"^seed (\d+) ", demo[0].stdout, re.MULTILINE)
    assert seed is not None
    done, _ = run(ROOT / "examples", tmp_path, "--kills", "2", "--seed", seed[1])
    assert done.returncode == 0, done.stdout + done.stderr
    moments = [re.findall(r"^ +\d +(\d+) ms", one.stdout, re.MULTILINE) for one in (demo[0], done)]
    assert len(moments[1]) == 2
    assert moments[0][:2] == moments[1]


def test_an_acknowledged_record_that_is_lost_fails_it(copy: Path, tmp_path: Path) -> None:
    """A writer that acknowledges an entry, of which nothing is written."""
    change(copy / "audit/writer.py", "        pipeline.set_up(audit=log)\n", "        pipeline.set_up(audit=log)\n"
           "        tell(acknowledged=['5' * 64])\n")  # fmt: skip
    done, _ = run(copy, tmp_path, "--kills", "0")
    assert done.returncode == 1
    assert done.stdout.count("NOT AS EXPECTED: every acknowledged record is in the log") == 1


def test_a_tampering_that_passes_fails_it(copy: Path, tmp_path: Path) -> None:
    """Two records that keep their places."""
    change(copy / "audit/tamper.py", "leaves[one], leaves[two] = leaves[two], leaves[one]", "")
    done, _ = run(copy, tmp_path, "--kills", "0")
    assert done.returncode == 1
    assert re.search(r"^  4  PASSED", done.stdout, re.MULTILINE)
    assert done.stdout.count("NOT AS EXPECTED") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_whatever_ends_it_nothing_is_left_running(tmp_path: Path, number: signal.Signals, status: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, str(ROOT / "examples" / RUN), "--out", str(tmp_path / "out"), "--no-open"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(scratch), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.split()[:1] == ["1"]:
                break
        child.send_signal(number)
        rest = child.stdout.read()
        assert child.wait(20) == status, rest
    assert "Traceback" not in rest
    deadline = time.monotonic() + 20  # after SIGKILL the writer ends when nobody listens any more
    while left_over(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_over(scratch) == []
