"""One replica, as a process of its own: does what each line of standard input says, and answers with a line."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from typing import Any

from kest.gate import (
    ActionContext,
    Gate,
    RedisInvalidationBroadcaster,
    RedisRateLimitStore,
    RedisSessionStore,
    spawn_invalidation_listener,
)


class Replica:
    """A gate with everything in Redis, and a listener."""

    def __init__(self, url: str, name: str, most: int) -> None:
        self.rates = RedisRateLimitStore(url, prefix=f"{name}rate:")
        self.sessions = RedisSessionStore(url, prefix=f"{name}gate:")
        self.broadcaster = RedisInvalidationBroadcaster(url, name, key=b"k" * 32, max_stream=100)
        limit = {"rate_limit": {"max": most, "window": "1h"}}
        self.gate = Gate.from_dict(
            {"policies": [{"name": "p", "effect": "permit", "conditions": [limit]}]},
            rate_store=self.rates, session_store=self.sessions, broadcaster=self.broadcaster,
        )  # fmt: skip
        self.only_told = Gate.from_dict(
            {"policies": [{"name": "all", "effect": "permit", "conditions": []}]}, broadcaster=self.broadcaster
        )
        self.heard: list[str] = []
        self.changed = threading.Condition()
        spawn_invalidation_listener(self.broadcaster, self.hear)

    def hear(self, scope: Any) -> None:
        with self.changed:
            self.heard.append(scope.target_id)
            self.changed.notify_all()

    def evaluate(self, times: int, **given: Any) -> list[str]:
        """The codes of so many verdicts; "" for a permit."""
        context = {"principal_id": "alice", "principal_kind": "user", "action_name": "pay", **given}
        return [self.gate.evaluate(ActionContext(**context)).code or "" for _ in range(times)]

    def told(self, principal: str) -> bool:
        """Whether the gate without a session store refuses the principal."""
        return self.only_told.evaluate(ActionContext(principal, "user", "pay")).code == "SESSION_INVALID"

    def invalidate(self, *targets: str) -> list[str]:
        """Publishes all; those that Redis did not take."""
        failed = []
        for target in targets:
            try:
                self.gate.invalidate(target, "principal")
            except Exception:
                failed.append(target)
        return failed

    def wait(self, *ids: str) -> bool:
        """Until the listener has heard of all of them."""
        with self.changed:
            return self.changed.wait_for(lambda: set(ids) <= set(self.heard), 20)

    def busy(self, seconds: float) -> list[float]:
        """Evaluates for so long in one thread; the longest pause of another one, and how often that one ran."""
        done = threading.Event()
        times: list[float] = []

        def tick() -> None:
            while not done.wait(0.005):
                times.append(time.monotonic())

        ticker = threading.Thread(target=tick)
        ticker.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.evaluate(1, principal_id="busy")
        done.set()
        ticker.join()
        return [max(b - a for a, b in itertools.pairwise(times)), len(times)]

    def clock(self, wall: float) -> None:
        """Sets this process's clocks, as far as Kest can see them."""
        self.gate._core.set_clock(round(wall * 1e9), round(wall * 1e9))
        time.time = lambda: wall
        time.time_ns = lambda: round(wall * 1e9)

    def fork(self, *ids: str) -> list[bool]:
        """A child: whether it hears of what another replica publishes after the line "forked", and can publish itself."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            answer = b"n"
            try:
                self.heard.clear()
                os.write(write, b"r")
                ok = self.wait(*ids) and self.evaluate(1, session_id="child") == [""] and self.told(ids[0])
                self.invalidate(f"by-child-{os.getpid()}")
                answer = b"y" if ok else b"n"
            finally:
                os.write(write, answer)
                os._exit(0)
        assert os.read(read, 1) == b"r"
        print(json.dumps("forked"), flush=True)
        answer = os.read(read, 1)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
        return [answer == b"y", self.wait(*ids, f"by-child-{child}")]


def main() -> None:
    url, name, most = sys.argv[1:]
    replica = Replica(url, name, int(most))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command, arguments, options = json.loads(line)
        print(json.dumps(getattr(replica, command)(*arguments, **options)), flush=True)
    replica.broadcaster.close()
    replica.rates.close()
    replica.sessions.close()


if __name__ == "__main__":
    main()
