"""What starts servers for tests: whatever ends the parent, nothing is left; a failure says what the server said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kest_services.processes import ProcessError, Processes
from kest_services.service import Service, http, wait_until

TOOLS = Path(__file__).resolve().parents[2] / "tools/services"
# A shell that starts a process of its own, says the numbers of both, and waits, as servers with a start script do.
SHELL = ["sh", "-c", "sleep 600 & echo $$ $!; wait"]
PARENT = f"""
import sys, time
from pathlib import Path
from kest_services.processes import Processes
process = Processes(Path(sys.argv[1])).start("shell", {SHELL!r}, forks=True)
print(process.line(), flush=True)
time.sleep(600)
"""
SERVER = """
import http.server, sys
if len(sys.argv) > 2:
    sys.exit("no such policy")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ok": true}')
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Web(Service):
    """A server that is always there."""

    name = "web"
    extra: tuple[str, ...] = ()

    def command(self) -> list[str]:
        return [sys.executable, "-c", SERVER, str(self.port), *self.extra]

    def ready(self) -> bool:
        return http("GET", f"http://127.0.0.1:{self.port}/") == (200, {"ok": True})


def gone(pid: int) -> bool:
    """Is there no such process, or only what is left of one until its parent asks?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_killed_parent_leaves_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = [int(word) for word in parent.stdout.readline().split()]
        assert len(started) == 2
        assert not any(gone(pid) for pid in started)
        parent.kill()
    wait_until(lambda: all(gone(pid) for pid in started), 10)


@pytest.mark.parametrize("forks", [False, True])
def test_a_stopped_process_takes_its_children_along(tmp_path: Path, forks: bool) -> None:
    with Processes(tmp_path) as processes:
        process = processes.start("shell", SHELL, forks=forks)
        started = [int(word) for word in process.line().split()]
        processes.stop(process)
        wait_until(lambda: all(gone(pid) for pid in started), 10)
        assert process.child.poll() is not None


def test_a_server_starts_again_where_it_was(processes: Processes, tmp_path: Path) -> None:
    with Web(processes, tmp_path / "web") as web:
        first, port = web.running.child.pid, web.port
        assert web.memory > 1_000_000
        web.kill()
        with pytest.raises(OSError):
            web.ready()
        web.start()
        assert web.port == port
        assert web.running.child.pid != first
        with pytest.raises(ProcessError, match="is running already"):
            web.launch()
        last = web.running.child.pid
    assert gone(last)


def test_a_server_has_variables_of_its_own(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAKEN", "ours")
    monkeypatch.setenv("KEPT", "ours")
    monkeypatch.setenv("KEST_NEVER", "ours")

    class Asked(Web):
        def environment(self) -> dict[str, str | None]:
            return {"GIVEN": "its", "TAKEN": None}

    with Asked(processes, tmp_path / "web") as web:
        found = Path(f"/proc/{web.running.child.pid}/environ").read_bytes().split(b"\0")
    assert {b"GIVEN=its", b"KEPT=ours"} <= set(found)
    assert not any(one.startswith((b"TAKEN=", b"KEST_NEVER=")) for one in found)


def test_what_does_not_start_says_why(processes: Processes, tmp_path: Path) -> None:
    web = Web(processes, tmp_path / "web")
    web.extra = ("broken",)
    with pytest.raises(ProcessError, match=r"web ended early(.|\n)*no such policy"):
        web.start()
    assert processes.stop() == {}


def test_what_is_not_ready_in_time_is_stopped(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = Web(processes, tmp_path / "web")
    monkeypatch.setattr(web, "patience", 0.1)
    monkeypatch.setattr(web, "ready", lambda: False)
    with pytest.raises(ProcessError, match="was not ready"):
        web.start()
    assert web.process is None


def test_a_stubborn_process_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kest_services.processes.GRACE", 0.2)
    with Processes(tmp_path) as processes:
        process = processes.start("stubborn", ["sh", "-c", "trap '' TERM; echo here; while :; do sleep 600; done"])
        assert process.line() == "here"
        assert processes.stop(process) == {"stubborn": -signal.SIGKILL}
