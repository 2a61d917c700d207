"""Several replicas, each a process, and one real Redis, through everything that happens to networks and servers."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kest_services.processes import Process, Processes
from kest_services.service import wait_until

redis = pytest.importorskip("redis", reason="redis-py is not installed")

Make = Callable[..., Any]


class Asked:
    """A replica, asked over its standard input and output."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def ask(self, command: str, *arguments: Any, **options: Any) -> None:
        self.process.send(json.dumps([command, arguments, options]) + "\n")

    def answer(self) -> Any:
        return json.loads(self.process.line(60))

    def __call__(self, command: str, *arguments: Any, **options: Any) -> Any:
        self.ask(command, *arguments, **options)
        return self.answer()


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Callable[..., list[Asked]]]:
    """Starts so many; they are named for the test alone."""
    import kest

    script = str(Path(__file__).with_name("replica.py"))
    root = str(Path(kest.__file__).resolve().parents[1])
    name = f"t:{uuid.uuid4()}:"
    with Processes(tmp_path) as processes:

        def start(count: int, url: str, most: int = 50) -> list[Asked]:
            paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
            command = [sys.executable, script, url, name, str(most)]
            made = [
                Asked(processes.start(f"replica-{uuid.uuid4()}", command, environment={"PYTHONPATH": paths}))
                for _ in range(count)
            ]
            for one in made:
                assert one.answer() == "ready"
            return made

        yield start


def test_a_limit_is_shared_exactly(replicas: Make, redis_server: Any) -> None:
    made = replicas(3, redis_server.url)
    made[1]("clock", 0.0)  # set back by decades: Redis's clock counts
    for one in made:
        one.ask("evaluate", 40)
    codes = [code for one in made for code in one.answer()]
    assert codes.count("") == 50
    assert set(codes) == {"", "RATE_LIMIT_EXCEEDED"}
    assert made[1]("evaluate", 1, principal_id="bob", session_id="s") == [""]
    (late,) = replicas(1, redis_server.url)
    assert late("evaluate", 1) == ["RATE_LIMIT_EXCEEDED"]


def test_invalidations_reach_all(replicas: Make, redis_server: Any) -> None:
    made = replicas(3, redis_server.url)
    assert [one("told", "mallory") for one in made] == [False] * 3
    assert made[0]("invalidate", "mallory") == []
    for one in made:
        assert one("wait", "mallory")
        assert one("told", "mallory")
        assert one("evaluate", 1, principal_id="mallory") == ["SESSION_INVALID"]
    assert made[2]("evaluate", 1, session_id="s", ip="1.1.1.1") == [""]
    made[1]("evaluate", 1, session_id="s", ip="2.2.2.2")
    assert made[0]("evaluate", 1, session_id="s", ip="1.1.1.1") == ["SESSION_INVALID"]
    (late,) = replicas(1, redis_server.url)
    assert late("told", "mallory")


def test_killed_and_restarted_in_the_middle(replicas: Make, own_redis: Make) -> None:
    server = own_redis(durable=True)
    made = replicas(2, server.url)
    for one in made:
        one.ask("evaluate", 15)
    codes = [code for one in made for code in one.answer()]
    for one in made:
        one.ask("evaluate", 2000)
    server.kill()
    codes += [code for one in made for code in one.answer()]
    assert "POLICY_DENIED" in codes or "SESSION_INVALID" in codes, "Redis was not away while they asked"
    assert made[0]("invalidate", "while-down") == ["while-down"]
    server.start()
    for one in made:
        one.ask("evaluate", 40)
    codes += [code for one in made for code in one.answer()]
    # What Redis has written is there; one call of each may have been counted whose answer never came.
    assert 48 <= codes.count("") <= 50
    assert made[1]("wait", "while-down")
    assert made[1]("told", "while-down")


def test_flushed_in_the_middle(replicas: Make, own_redis: Make) -> None:
    server = own_redis()
    made = replicas(2, server.url)
    assert made[0]("invalidate", "mallory") == []
    assert made[1]("wait", "mallory")
    for one in made:
        one.ask("evaluate", 300)
    with redis.Redis(port=server.port) as client:
        client.flushall()
        client.script_flush()
        codes = [code for one in made for code in one.answer()]
        assert set(codes) <= {"", "RATE_LIMIT_EXCEEDED"}, "counting goes on"
        assert codes.count("") <= 100, "from nothing: what Redis forgets is forgotten, unless it keeps a log"
        for one in made:
            assert one("evaluate", 1, principal_id="mallory") == ["SESSION_INVALID"]
        (late,) = replicas(1, server.url)
        wait_until(lambda: late("told", "mallory"), 20)
        assert late("evaluate", 1, principal_id="mallory") == ["SESSION_INVALID"]


@pytest.mark.parametrize("how", ["stopped", "CLIENT PAUSE"])
def test_paused_for_three_seconds(how: str, replicas: Make, own_redis: Make, stopped: Make) -> None:
    server = own_redis()
    made = replicas(2, server.url)
    assert made[0]("evaluate", 1) == [""]
    with redis.Redis(port=server.port) as client:
        if how == "stopped":
            with stopped(server):
                longest, ticks = made[0]("busy", 3.0)
                assert set(made[0]("evaluate", 1)) <= {"POLICY_DENIED", "SESSION_INVALID"}
                assert made[0]("invalidate", "meanwhile") == ["meanwhile"]
        else:
            client.execute_command("CLIENT", "PAUSE", "3000", "ALL")
            longest, ticks = made[0]("busy", 2.0)
            assert made[0]("invalidate", "meanwhile") == ["meanwhile"]
            wait_until(lambda: made[0]("evaluate", 1, principal_id="carol") == [""], 20)
    assert longest < 1.0, "every other thread goes on"
    assert ticks > 100
    codes = [code for one in made for code in one("evaluate", 40)]
    assert codes.count("") == 49, "nothing was counted that was refused"
    assert made[1]("wait", "meanwhile")


def test_connections_killed_again_and_again(replicas: Make, redis_server: Any) -> None:
    made = replicas(2, redis_server.url)
    names = [f"p{number}" for number in range(10)]
    failed: list[str] = []
    with redis.Redis(port=redis_server.port) as client:
        for name in names:
            made[0].ask("invalidate", name)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            failed += made[0].answer()
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert made[1]("wait", *names), f"those that could not be sent at once among them: {failed}"
    assert [one("evaluate", 1) for one in made] == [[""], [""]]


def test_a_replica_that_was_stopped_catches_up(replicas: Make, redis_server: Any, stopped: Make) -> None:
    """While the stream moves on further than it reaches back."""
    made = replicas(2, redis_server.url)
    names = [f"p{number}" for number in range(400)]
    with stopped(made[1].process):
        assert made[0]("invalidate", *names) == []
    assert made[1]("wait", *names)
    assert made[1]("told", names[0])


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
def test_a_fork_with_listeners(replicas: Make, redis_server: Any) -> None:
    made = replicas(2, redis_server.url)
    assert made[0]("invalidate", "before") == []
    assert made[1]("wait", "before")
    made[1].ask("fork", "after", "later")
    assert made[1].answer() == "forked"
    assert made[0]("invalidate", "after", "later") == []
    assert made[1].answer() == [True, True], "the child's listener and gates, and the parent's"
