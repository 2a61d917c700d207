"""The caches beside dicts: claim checks, decisions, and what verified before, under a clock that the machines move."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import pytest
from clocks import Clock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from machines import histories

from kest._kestcore import pack_dense, pack_z
from kest.core import (
    BaggageManager,
    KestEntry,
    LocalEd25519Provider,
    Passport,
    PassportVerifier,
    PolicyDeniedError,
    PolicyDeviation,
    SimpleCache,
    TrustStore,
    VerificationError,
    cache,
    configure,
    decisions,
    invalidate_policy_cache,
    kest_verified,
    sign_entry,
)
from kest.core.context import lineage
from kest.core.engine import Decision
from kest.errors import ClaimCheckError, ConfigurationError
from kest.http.verified import VerifiedEntries

ALICE, BOB = (
    LocalEd25519Provider(f"spiffe://kest.test/{name}", seed=name.encode().ljust(32)) for name in ("alice", "bob")
)
pauses = st.sampled_from([0.0, 0.5, 1.0, 1.5, 5.0, 60.0])


# --- claim checks ---

keys = st.sampled_from("abcdef")
sizes = st.integers(0, 40)


class ClaimChecks(RuleBasedStateMachine):
    """A `SimpleCache` is a dict whose oldest records go first, and which forgets in time."""

    @initialize(ttl=st.sampled_from([1.0, 5.0]), items=st.integers(1, 4), most=st.integers(30, 90))
    def begin(self, ttl: float, items: int, most: int) -> None:
        self.clock = Clock(cache)
        self.ttl, self.items, self.most = ttl, items, most
        self.cache = SimpleCache(ttl, items, most)
        self.model: dict[str, tuple[float, str]] = {}

    @rule(key=keys, size=sizes, ttl=st.sampled_from([None, None, 0.5, 2.0, 0.0]))
    def set(self, key: str, size: int, ttl: float | None) -> None:
        value = key * size
        if size > self.most:
            with pytest.raises(ConfigurationError):
                self.cache.set(key, value, ttl)
            return
        self.cache.set(key, value, ttl)
        self.model.pop(key, None)
        while len(self.model) >= self.items or self.held() + size > self.most:
            del self.model[next(iter(self.model))]
        self.model[key] = self.clock.now + (self.ttl if ttl is None else ttl), value

    def held(self) -> int:
        return sum(len(value) for _, value in self.model.values())

    @rule(key=keys)
    def get(self, key: str) -> None:
        until, value = self.model.get(key, (0.0, None))
        if value is not None and until < self.clock.now:
            del self.model[key]
            value = None
        assert self.cache.get(key) == value

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.cache.delete(key)
        self.model.pop(key, None)

    @rule(pause=pauses)
    def wait(self, pause: float) -> None:
        self.clock.now += pause

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache) == len(self.model) <= self.items
        assert self.cache._bytes == self.held() <= self.most

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            self.clock.stop()


ClaimChecks.TestCase.settings = histories(200, 30)
TestClaimChecks = ClaimChecks.TestCase


def chained(count: int, identity: LocalEd25519Provider, base: Passport | None = None) -> Passport:
    passport = Passport(base.entries if base is not None else ())
    for _ in range(count):
        passport.add_signature(sign_entry(KestEntry("op", parent_ids=passport.tips or ("0",)), identity))
    return passport


PASSPORTS = [chained(count, ALICE) for count in (1, 3, 6)]


class Redeemed(RuleBasedStateMachine):
    """Passports that wait behind claims: each comes out whole, under its own tip, while it lasts; nothing else does."""

    @initialize(items=st.integers(1, 4))
    def begin(self, items: int) -> None:
        self.clock = Clock(cache)
        self.cache = SimpleCache(max_items=items)
        self.items = items
        self.claims: dict[str, tuple[float, Passport]] = {}  # those there is still room for, the oldest first
        self.sent: list[dict[str, str]] = []

    @rule(which=st.integers(0, 2), ttl=st.sampled_from([1.0, 5.0, 300.0]))
    def send(self, which: int, ttl: float) -> None:
        members = BaggageManager.pack(PASSPORTS[which], self.cache, limit=100, ttl=ttl)
        self.sent.append(members)
        self.claims[members["kest.claim_check"]] = self.clock.now + ttl, PASSPORTS[which]
        while len(self.claims) > self.items:
            del self.claims[next(iter(self.claims))]

    @precondition(lambda self: self.sent)
    @rule(at=st.integers(0, 99), tip_of=st.integers(0, 99), with_tip=st.booleans())
    def redeem(self, at: int, tip_of: int, with_tip: bool) -> None:
        members = dict(self.sent[at % len(self.sent)])
        claim, mine = members["kest.claim_check"], members.pop("kest.chain_tip")
        tip = self.sent[tip_of % len(self.sent)]["kest.chain_tip"]
        if with_tip:
            members["kest.chain_tip"] = tip
        until, passport = self.claims.get(claim, (0.0, None))
        if until < self.clock.now:
            self.claims.pop(claim, None)  # it is forgotten when it is asked for
            passport = None
        if passport is None or (with_tip and tip != mine):
            with pytest.raises(ClaimCheckError):
                BaggageManager.unpack(members, self.cache)
        else:
            assert BaggageManager.unpack(members, self.cache).entries == passport.entries

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 9))
    def overwrite(self, at: int) -> None:
        """Somebody else writes to the cache: the record is no passport, or another one than the claim's."""
        claim = list(self.claims)[at % len(self.claims)]
        _, passport = self.claims.pop(claim)
        members = {"kest.claim_check": claim, "kest.chain_tip": passport.chain_tip}
        other = PASSPORTS[(PASSPORTS.index(passport) + 1) % 3]
        for record in (
            other.serialize(),
            f"{other.chain_tip}\n{other.serialize()}",
            "",
            "\n",
            f"{passport.chain_tip}\n[]",
        ):
            self.cache.set(claim, record, 300.0)
            with pytest.raises(ValueError):
                BaggageManager.unpack(members, self.cache)
        self.cache.delete(claim)

    @rule(pause=pauses)
    def wait(self, pause: float) -> None:
        self.clock.now += pause

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            self.clock.stop()


Redeemed.TestCase.settings = histories(100, 25)
TestRedeemed = Redeemed.TestCase


# --- decisions ---


class Engine:
    """Policies that can be changed: what they say of each kind of question."""

    in_process = True

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False
        self.allowed: dict[tuple[str, ...], bool] = {}

    def evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        self.asked += 1
        if self.broken:
            raise OSError("down")
        question = str(context["args"].get("n")), ",".join(context["taints"])
        allowed = all(self.allowed.get((name, *question), True) for name in policy_names)
        return Decision(allowed, "" if allowed else "no")


class Stateful(Engine):
    stateful = True


DEVIATION = PolicyDeviation("a1", "app", "op", "because", "somebody")
questions = st.tuples(
    st.sampled_from(["p", "q", "a1", "a2"]), st.sampled_from(["1", "2", "True"]), st.sampled_from(["", "t"])
)
BOUND = 4


class Decisions(RuleBasedStateMachine):
    """An engine is asked exactly when nothing is remembered of just this question, and a call runs exactly when what was
    said then, or is said now, is yes."""

    @initialize(ttl=st.sampled_from([0, 2, 5]))
    def begin(self, ttl: int) -> None:
        self.clock = Clock(decisions)
        self.bound = patch.object(decisions.decisions, "_bound", BOUND)
        self.bound.start()
        self.environment = patch.dict(os.environ)
        self.environment.start()
        self.engines = [Engine(), Engine(), Stateful()]
        self.ran: list[Any] = []
        self.app: list[str] = []
        self.deviates = False
        self.last: Any = None
        # The engine object, tier, policies and question → until when, and what.
        self.model: dict[tuple[Any, ...], tuple[float, bool]] = {}

        async def work(n: Any) -> Any:
            return self.work(n)

        self.functions: dict[str, tuple[Any, Any]] = {}
        for policy in ("p", "q"):  # that nothing but their policies tells apart
            call = kest_verified(policy, context_map={"n": "n"}, operation_name="op")
            self.functions[policy] = call(self.work), call(work)
        configure(clear=True)
        self.configured(engine=self.engines[0], identity=ALICE)
        self.ttl(ttl)

    def work(self, n: Any) -> Any:
        self.ran.append(n)
        return n

    def configured(self, **settings: Any) -> None:
        """Whatever is configured, nothing from before is remembered."""
        configure(**settings)
        self.engine = settings.get("engine", getattr(self, "engine", None))
        self.model.clear()

    def ttl(self, seconds: int) -> None:
        os.environ["KEST_POLICY_CACHE_TTL"] = str(seconds)
        self.seconds = seconds
        self.configured()

    # One rule, so that it does not come before every other call: nothing is remembered beyond it.
    @rule(
        what=st.sampled_from(["ttl", "engine", "tiers", "invalidate"]), which=st.integers(0, 2), deviates=st.booleans()
    )
    def change(self, what: str, which: int, deviates: bool) -> None:
        if what == "ttl":
            self.ttl((0, 2, 5)[which])
        elif what == "engine":
            self.configured(engine=self.engines[which])
        elif what == "tiers":
            self.app, self.deviates = ["a1", "a2"][:which], deviates
            self.configured(app_policies=self.app, deviations=[DEVIATION] if deviates else [])
        else:
            invalidate_policy_cache()
            self.model.clear()

    @rule(question=questions, allowed=st.booleans())
    def reload(self, question: tuple[str, ...], allowed: bool) -> None:
        """Policies change where Kest cannot see it: what is remembered holds until its time is up."""
        for engine in self.engines:
            engine.allowed[question] = allowed

    @rule(broken=st.sampled_from([False, False, True]))
    def breaks(self, broken: bool) -> None:
        self.engines[0].broken = broken

    @rule(pause=pauses)
    def wait(self, pause: float) -> None:
        self.clock.now += pause

    @rule(
        policy=st.sampled_from(["p", "p", "q"]),
        n=st.sampled_from([1, 2, True]),
        tainted=st.booleans(),
        asynchronous=st.booleans(),
    )
    def call(self, policy: str, n: Any, tainted: bool, asynchronous: bool) -> None:
        self.last = policy, n, tainted, asynchronous
        expected, questions = self.expected(policy, n, "t" if tainted else "")
        sync, coroutine = self.functions[policy]
        asked, ran = self.engine.asked, len(self.ran)
        with lineage():
            if tainted:
                from kest.core import context

                context.passport_var.set(Passport().restrict(100, ["t"]))
            denied: PolicyDeniedError | None = None
            try:
                result = asyncio.run(coroutine(n)) if asynchronous else sync(n)
                assert result is n
            except PolicyDeniedError as error:
                denied = error
        assert (denied is None) == expected
        assert len(self.ran) - ran == expected
        assert self.engine.asked - asked == questions

    @precondition(lambda self: self.last is not None)
    @rule(pause=st.sampled_from([0.0, 0.0, 2.0, 2.5, 5.5]))
    def again(self, pause: float) -> None:
        self.clock.now += pause
        self.call(*self.last)

    def expected(self, policy: str, n: Any, taints: str) -> tuple[bool, int]:
        """Whether the call runs, and how often the engine is asked for it."""
        engine = self.engine
        skipped = self.deviates and "a1" in self.app
        app = tuple(name for name in self.app if not (self.deviates and name == "a1"))
        remembers = self.seconds > 0 and not isinstance(engine, Stateful)
        questions = 0
        for tier, names in (("app", app), ("function", (policy,))):
            if not names:
                continue
            key = (engine, tier, names, skipped and tier == "app", type(n), n, taints)
            until, allowed = self.model.get(key, (0.0, None))
            if allowed is None or until < self.clock.now:
                questions += 1
                if engine.broken:
                    return False, questions
                allowed = all(engine.allowed.get((name, str(n), taints), True) for name in names)
                if remembers:
                    self.model.pop(key, None)
                    while len(self.model) >= BOUND:
                        del self.model[next(iter(self.model))]
                    self.model[key] = self.clock.now + self.seconds, allowed
            if not allowed:
                return False, questions
        return True, questions

    @invariant()
    def bounded(self) -> None:
        assert len(decisions.decisions) == len(self.model) <= BOUND

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            self.environment.stop()
            self.bound.stop()
            self.clock.stop()
            configure(clear=True)


Decisions.TestCase.settings = histories(200, 30)
TestDecisions = Decisions.TestCase


# --- what verified before ---

FORMS: tuple[tuple[str, Callable[[Passport], Any]], ...] = (
    ("kest.passport", Passport.serialize),
    ("kest.passport_z", pack_z),
    ("kest.passport_d", pack_dense),
)
BY = {ALICE.get_identity(): ALICE, BOB.get_identity(): BOB}
names = st.sampled_from(sorted(BY))


class Verified(RuleBasedStateMachine):
    """Chains that grow and come again, to a service whose keys change: what it shares and skips changes no verdict."""

    @initialize(first=st.sets(names))
    def begin(self, first: set[str]) -> None:
        self.store = TrustStore({name: BY[name] for name in sorted(first)})
        self.trusted = set(first)
        self.verified = VerifiedEntries()
        self.chains: list[tuple[Passport, list[str]]] = [(Passport(), [])]
        self.arrived: list[tuple[Passport, list[str]]] = []  # kept by requests that are still running
        self.model: set[str] = set()

    @rule(name=names, at=st.integers(0, 9), count=st.integers(1, 3), anew=st.booleans())
    def grow(self, name: str, at: int, count: int, anew: bool) -> None:
        base, signers = (Passport(), []) if anew else self.chains[at % len(self.chains)]
        self.chains.append((chained(count, BY[name], base), signers + [name] * count))

    @rule(name=names)
    def trust(self, name: str) -> None:
        self.store.add(name, BY[name])
        self.trusted.add(name)
        self.model.clear()

    @rule(name=names)
    def distrust(self, name: str) -> None:
        self.store.remove(name)
        if name in self.trusted:
            self.model.clear()
        self.trusted.discard(name)

    @rule(at=st.integers(0, 99), form=st.sampled_from(FORMS), forged=st.integers(0, 99))
    def arrive(self, at: int, form: tuple[str, Callable[[Passport], Any]], forged: int) -> None:
        passport, signers = self.chains[at % len(self.chains)]
        if not passport:
            return
        entries = passport.entries
        bad = forged if forged < len(entries) else None
        if bad is not None:
            signature = entries[bad][-60:]
            entries[bad] = entries[bad][:-60] + signature[:7] + ("B" if signature[7] == "A" else "A") + signature[8:]
        key, write = form
        sent = write(Passport(entries))
        if sent is None:
            return  # no dense form for what names parents that are not there
        known = self.verified.under(self.store.ring())
        got = known.unpack(key, sent, 1 << 20, 2000)
        assert got.entries == entries
        self.judge(got, entries, signers, bad)
        if bad is None:
            self.arrived.append((got, signers))

    @precondition(lambda self: self.arrived)
    @rule(at=st.integers(0, 99))
    def again(self, at: int) -> None:
        """The very object, that was believed or not under the keys of then."""
        got, signers = self.arrived[at % len(self.arrived)]
        self.judge(got, got.entries, signers, None)

    def judge(self, got: Passport, entries: list[str], signers: list[str], bad: int | None) -> None:
        known = self.verified.under(self.store.ring())
        wrong = [at for at, name in enumerate(signers) if name not in self.trusted or (bad is not None and at >= bad)]
        # A forged entry has another hash: whatever follows names a parent that is not there.
        assert known.missing(got) >= len(wrong)
        for verify in (known.verify, lambda passport: PassportVerifier.verify(passport, self.store)):
            found: list[Any] = []
            try:
                verify(got)
            except VerificationError as error:
                found.append(error.index)
            assert found == wrong[:1]
        if not wrong:
            self.model.update(entries)
            assert known.missing(got) == 0

    @invariant()
    def only_what_verified(self) -> None:
        assert len(self.verified.under(self.store.ring())) <= len(self.model)


Verified.TestCase.settings = histories(150, 25)
TestVerified = Verified.TestCase
