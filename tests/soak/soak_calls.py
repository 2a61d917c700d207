"""Decorated calls, sync and async, in one thread and in eight, for as long as one likes; prints what it saw as JSON.

Usage: soak_calls.py COUNT
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from typing import Any

from figures import STEPS, sample

from kest.core import (
    LocalEd25519Provider,
    MockPolicyEngine,
    PassportVerifier,
    PolicyDeniedError,
    TrustStore,
    configure,
    kest_verified,
)
from kest.core.context import get_current_passport, lineage

FLOW, THREADS, DENIED_EVERY, VERIFIED_EVERY = 25, 8, 1000, 40
IDENTITY = LocalEd25519Provider("spiffe://kest.test/soak")
STORE = TrustStore({IDENTITY.get_identity(): IDENTITY})


class Counting:
    """An audit sink that counts: what was decided to run, what came of it, and what was denied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kinds = {"entry": 0, "outcome": 0, "denial": 0}

    def record(self, kind: str, jws: str) -> None:
        with self.lock:
            self.kinds[kind] += 1


class Soak:
    def __init__(self) -> None:
        self.sink = Counting()
        configure(engine=MockPolicyEngine(), identity=IDENTITY, audit=self.sink)
        self.denying = MockPolicyEngine(allow=False)
        self.lock = threading.Lock()
        self.called = self.denied = self.verified = 0
        self.flows = itertools.count()
        self.plain = kest_verified("p", context_map={"n": "n"}, added_taints=["soak"])(lambda n: n)
        self.refused = kest_verified("p", engine=self.denying)(lambda n: n)

        @kest_verified("p", user=lambda: "alice", resource_attr={"kind": "row"})
        async def coroutine(n: int) -> int:
            await asyncio.sleep(0)
            return n

        @kest_verified("p")
        def items(n: int) -> Any:
            yield from (n, n)

        self.coroutine, self.items = coroutine, items

    def flow(self, calls: int) -> None:
        """So many calls in one flow; a passport as long as that comes of it."""
        with lineage():
            for n in range(calls):
                if n % 3:
                    assert self.plain(n) == n
                else:
                    assert list(self.items(n)) == [n, n]
            self.done(calls)

    async def flow_async(self, calls: int) -> None:
        with lineage():
            for n in range(calls):
                assert await self.coroutine(n) == n
            self.done(calls)

    def done(self, calls: int) -> None:
        passport = get_current_passport()
        assert len(passport) == calls, "an entry was lost"
        number = next(self.flows)
        verify = number % VERIFIED_EVERY == 0
        if verify:
            assert len(PassportVerifier.verify(passport, STORE, chain_tip=passport.chain_tip)) == calls
            BAGGAGE.append(passport.serialize())
        denied = 0
        if number % (DENIED_EVERY // FLOW) == 0:
            try:
                self.refused(1)
            except PolicyDeniedError:
                denied = 1
        with self.lock:
            self.called += calls
            self.verified += verify
            self.denied += denied

    # --- a step is one kind of them ---

    def sync(self, calls: int) -> None:
        for size in sizes(calls):
            self.flow(size)

    def threaded(self, calls: int) -> None:
        errors: list[BaseException] = []

        def work(share: int) -> None:
            try:
                self.sync(share)
            except BaseException as error:
                errors.append(error)

        shares = [calls // THREADS + (n < calls % THREADS) for n in range(THREADS)]
        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def concurrent(self, calls: int) -> None:
        async def all_of_them() -> None:
            waiting = list(sizes(calls))
            for at in range(0, len(waiting), 20):
                await asyncio.gather(*(self.flow_async(size) for size in waiting[at : at + 20]))

        asyncio.run(all_of_them())


BAGGAGE: list[str] = []  # the latest passports as text, as what sends them holds them


def sizes(calls: int) -> Any:
    """Flows of that many calls altogether."""
    for at in range(0, calls, FLOW):
        yield min(FLOW, calls - at)


def main(count: int) -> None:
    soak, samples, started = Soak(), [], time.monotonic()
    kinds = [soak.sync, soak.concurrent, soak.threaded]
    for step in range(STEPS):
        kinds[step % 3](count * (step + 1) // STEPS - count * step // STEPS)
        del BAGGAGE[:-10]
        samples.append(sample())
    assert soak.called == count
    assert soak.sink.kinds == {"entry": count, "outcome": count, "denial": soak.denied}, soak.sink.kinds
    assert soak.verified > 0
    seconds = time.monotonic() - started
    print(json.dumps({"count": count, "seconds": seconds, "verified": soak.verified, "samples": samples}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
