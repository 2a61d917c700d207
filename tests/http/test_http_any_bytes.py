"""Whatever bytes stand in the header: never a 500, never more trust than the honest sender had, never fewer taints."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from stateful.machines import histories
from wire import ALICE, BOB_KEY, encode, grown, header_of, inline, keys, payload, report, signed, tip_of

from kest.core import BaggageManager, MockPolicyEngine, SimpleCache, configure
from kest.http import Edge, KestMiddleware

TRUST, TAINTS = 60, {"pii", "x"}
CACHE = SimpleCache()


def honest() -> list[Any]:
    engine = MockPolicyEngine()
    configure(engine=engine, identity=ALICE)
    first = grown(1, source_type="third_party_api", added_taints=sorted(TAINTS), user="alice")
    return [
        first,
        grown(1, passport=first, user="alice"),
        grown(6, passport=first, user="alice"),
        grown(20, passport=first, user="alice"),
    ]


def forms(passport: Any) -> list[str]:
    packed = [
        BaggageManager.pack(passport, CACHE, limit=limit, dense=dense)
        for limit in (200, 2000, 4096)
        for dense in (True, False)
    ]
    inflated = json.dumps(passport.entries, separators=(",", ":"))
    packed.append({"kest.passport_z": encode(zlib.compress(inflated.encode(), 9))})
    return [header_of({**p, "kest.user": "alice", "kest.agent": "evil"}) for p in packed]


async def served(app: Any, lines: list[bytes]) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"baggage", line) for line in lines], "method": "POST", "path": "/"}
    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def endpoint(scope: Any, receive: Any, send: Any) -> None:
    body = json.dumps(report()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def check(lines: list[bytes]) -> None:
    verifying = KestMiddleware(endpoint, trust_store=keys(), cache=CACHE)
    degrading = KestMiddleware(endpoint, cache=CACHE)
    for app, store in ((verifying, True), (degrading, False)):
        status, body = asyncio.run(served(app, lines))
        assert status in (200, 400, 403, 424), (status, body)
        answer = json.loads(body)
        if status != 200:
            assert answer["detail"]
            continue
        if not answer["entries"]:
            assert answer["user"] is None
            continue
        assert answer["trust"] <= (TRUST if store else 10)
        assert set(answer["taints"]) >= TAINTS or not store
        assert store or "kest.unverified" in answer["taints"]
        assert answer["user"] in ((None, "alice") if store else (None,))
        assert answer["agent"] is None


octets = st.binary(max_size=200)
members = st.lists(
    st.one_of(
        octets,
        st.tuples(
            st.sampled_from([b"kest.passport", b"kest.passport_z", b"kest.passport_d", b"kest.claim_check", b"kest.chain_tip",
                             b"kest.user", b"kest.agent", b"kest.", b"kest", b"kest%2Epassport", b"v"]),
            st.sampled_from([b"=", b"", b" = ", b"=="]),
            octets,
        ).map(b"".join),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(members.map(b",".join), max_size=4))
def test_arbitrary_members(lines: list[bytes]) -> None:
    check(lines)


class Tampering(RuleBasedStateMachine):
    """Starts from an honest sender's header and does to it whatever a network can."""

    @initialize(which=st.integers(0, 3), form=st.integers(0, 6))
    def begin(self, which: int, form: int) -> None:
        passports = honest()
        self.everything = [line for p in passports for line in forms(p)]
        self.lines = [forms(passports[which])[form].encode()]
        check(self.lines)

    def _at(self, n: int) -> int:
        return n % len(self.lines)

    @rule(line=st.integers(0, 9), at=st.integers(0, 10_000), bit=st.integers(0, 7))
    def flip(self, line: int, at: int, bit: int) -> None:
        data = bytearray(self.lines[self._at(line)])
        if data:
            data[at % len(data)] ^= 1 << bit
        self._put(line, bytes(data))

    @rule(line=st.integers(0, 9), at=st.integers(0, 10_000), gone=st.integers(0, 300), new=octets)
    def splice(self, line: int, at: int, gone: int, new: bytes) -> None:
        data = self.lines[self._at(line)]
        where = at % (len(data) + 1)
        self._put(line, data[:where] + new + data[where + gone :])

    @rule(
        line=st.integers(0, 9),
        at=st.integers(0, 20),
        letters=st.sampled_from([b"A", b"_", b"0", b"%", b"%41", b"%22", b"%2C", b"%5B"]),
    )
    def letter(self, line: int, at: int, letters: bytes) -> None:
        data = self.lines[self._at(line)]
        where = at * 97 % (len(data) + 1)
        self._put(line, data[:where] + letters + data[where + 1 :])

    @rule(line=st.integers(0, 9))
    def split(self, line: int) -> None:
        parts = self.lines[self._at(line)].split(b",")
        self.lines[self._at(line) : self._at(line) + 1] = parts
        check(self.lines)

    @rule(line=st.integers(0, 9))
    def drop(self, line: int) -> None:
        if len(self.lines) > 1:
            del self.lines[self._at(line)]
        check(self.lines)

    @rule(other=st.integers(0, 99))
    def another_generation(self, other: int) -> None:
        self.lines.append(self.everything[other % len(self.everything)].encode())
        check(self.lines)

    @rule(other=st.integers(0, 99), mine=st.integers(0, 9), theirs=st.integers(0, 9))
    def swap_member(self, other: int, mine: int, theirs: int) -> None:
        """A member of another header in place of one of ours."""
        foreign = self.everything[other % len(self.everything)].encode().split(b",")
        line = self.lines[0].split(b",")
        line[mine % len(line)] = foreign[theirs % len(foreign)]
        self._put(0, b",".join(line))

    @rule(trust=st.integers(0, 100), taints=st.booleans(), key=st.booleans())
    def forge(self, trust: int, taints: bool, key: bool) -> None:
        """An entry that claims more, signed by somebody else, after an honest one."""
        first = honest()[0].entries
        claims = payload(trust_score=trust, parent_ids=[tip_of(first[0])], taints=sorted(TAINTS) if taints else [])
        if key:
            claims["labels"]["kest.trust_override"] = str(trust)
        self._put(0, inline([*first, signed(claims, key=BOB_KEY)], user="alice").encode())

    def _put(self, line: int, data: bytes) -> None:
        self.lines[self._at(line)] = data
        check(self.lines)


Tampering.TestCase.settings = histories(40, 15)
TestTampering = Tampering.TestCase


def test_the_edge_alone_raises_nothing_but_its_own_errors() -> None:
    from kest.errors import KestError

    edge = Edge(keys())
    for key in ("kest.passport", "kest.passport_z", "kest.passport_d", "kest.claim_check", "kest.chain_tip"):
        for value in ("", "\x00", "[", "[]", "\ud7ff", '[""]', "0", "null", "A" * 4000, "é", "1e999", "-", '"' * 50):
            try:
                edge.read([header_of({key: value}).encode()])
            except KestError:
                continue
            raise AssertionError(f"{key}={value!r} was taken for a passport")
