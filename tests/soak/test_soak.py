"""ATTACKS.md, row E2: 1,000,000 decorated calls and 100,000 requests leave memory, descriptors, threads and objects flat,
lose no entry, and all of it verifies.

``make soak`` runs just that. Otherwise ``SOAK`` says which part of it (0.01), so that it is tried with every other test.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from figures import STEPS, check, growth, told
from soak_requests import CALLERS, SERVICE, STORE, Client

import kest
from kest.audit import verify_log

SCALE = float(os.environ.get("SOAK", "0.01"))
CALLS, REQUESTS = max(2000, int(1_000_000 * SCALE)), max(1000, int(100_000 * SCALE))
HERE = Path(__file__).resolve().parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        filter(None, (str(Path(kest.__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")))
    ),
    "MALLOC_ARENA_MAX": "2",  # one heap for each thread that ever was would be measured, and not Kest
}
pytestmark = [
    pytest.mark.timeout(600 + 7200 * SCALE),
    pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own"),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux"),
]


def test_e2_decorated_calls(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-W", "error", str(HERE / "soak_calls.py"), str(CALLS)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{told('decorated calls', report)}")
    assert report["count"] == CALLS
    check(report["samples"])


def test_e2_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        str(HERE / "soak_server.py"),
        str(tmp_path / "log"),
        *CALLERS,
    ]
    errors = tmp_path / "errors"
    with (
        errors.open("wb") as log,
        subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as server,
    ):
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            port = server.stdout.readline()
            assert port, errors.read_text()
            client = Client(int(port), REQUESTS)
            report = asyncio.run(client.run())
            server.stdin.close()
            key = server.stdout.readline().decode().strip()
            assert server.wait(60) == 0, errors.read_text()[-4000:]
        finally:
            server.kill()
    found = verify_log(tmp_path / "log", key, STORE)
    with capsys.disabled():
        print(f"\n{told('requests', report)}; {sum(found.kinds.values()):,} records of the log verified")
    assert report["accepted"] + report["refused"] == REQUESTS
    assert report["refused"] > REQUESTS // 3
    assert found.ok, found.problems[:5]
    assert found.missing_count == 0
    assert (found.kinds["entry"], found.kinds["outcome"]) == (report["accepted"], report["accepted"])
    assert SERVICE.get_identity() in {life.principal for life in found.keys}
    check(report["samples"])


@pytest.mark.parametrize(
    ("name", "each", "fine"),
    [
        ("resident", 100, True),
        ("resident", 110, False),
        ("descriptors", 1, False),
        ("threads", 1, False),
        ("objects", 2, False),
    ],
)
def test_what_grows_is_noticed(name: str, each: int, fine: bool) -> None:
    still = {"resident": 50_000, "descriptors": 5, "threads": 1, "objects": 1000}
    samples = [{**still, name: still[name] + each * step} for step in range(STEPS)]
    assert growth(samples)[name] == 80 * each
    if fine:
        check(samples)
        return
    with pytest.raises(AssertionError):
        check(samples)
