"""The C core and the call path from many threads, and across fork."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kest._kestcore import Signer, lock_mode, pack_z, unpack_z, uuid7
from kest.core import (
    BaggageManager,
    KestEntry,
    LocalEd25519Provider,
    MockPolicyEngine,
    Passport,
    PassportVerifier,
    TrustStore,
    VerificationError,
    configure,
    invalidate_policy_cache,
    kest_verified,
    sign_entry,
)
from kest.core.context import get_current_passport, lineage, wrap

THREADS = 8
NAME = "spiffe://kest.test/threads"


def together(work: Callable[[int], None], count: int = THREADS) -> None:
    """Run ``work(index)`` in threads that start at the same moment; the first error is raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=["adaptive", "hold", "always"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    before = lock_mode(None)
    lock_mode(request.param)
    yield request.param
    lock_mode(before)


def entries(n: int, identity: Any) -> list[str]:
    from kest._kestcore import sha256

    made: list[str] = []
    for i in range(n):
        parents = (sha256(made[-1].encode()).hex(),) if made else ("0",)
        made.append(sign_entry(KestEntry(f"op{i}", parent_ids=parents), identity))
    return made


def test_signing_from_eight_threads(mode: str) -> None:
    signer = Signer(NAME)
    expected = {i: signer.sign(str(i).encode()) for i in range(50)}

    def work(index: int) -> None:
        for _ in range(4):
            for i, signature in expected.items():
                assert signer.sign(str(i).encode()) == signature

    together(work)


def test_sealing_from_eight_threads(mode: str, identity: Any) -> None:
    configure(engine=MockPolicyEngine(), identity=identity)
    f = kest_verified("p", added_taints=["x"])(lambda i: i)
    f(0)
    shared = get_current_passport()
    tips: list[str] = []

    def work(index: int) -> None:
        for i in range(100):
            assert f(i) == i
        passport = get_current_passport()
        assert len(passport) == 101
        assert passport.entries[0] == shared.entries[0]
        PassportVerifier.verify(passport, {identity.get_identity(): identity})
        tips.append(passport.chain_tip)

    wrapped = [wrap(work) for _ in range(THREADS)]
    together(lambda index: wrapped[index](index))
    assert len(set(tips)) == THREADS
    assert get_current_passport() is shared


def test_verifying_one_passport_from_eight_threads(mode: str, identity: Any) -> None:
    good = Passport(entries(100, identity))
    forged = Passport([*good.entries[:70], *entries(1, LocalEd25519Provider(identity.get_identity()))])
    store = TrustStore({identity.get_identity(): identity})

    def work(index: int) -> None:
        for _ in range(5):
            assert len(PassportVerifier.verify(good, store)) == 100
            with pytest.raises(VerificationError) as caught:
                PassportVerifier.verify(forged, store)
            assert caught.value.index == 70

    together(work)


def test_packing_one_passport_from_eight_threads(identity: Any) -> None:
    passport = Passport(entries(80, identity))

    def work(index: int) -> None:
        for _ in range(20):
            assert unpack_z(pack_z(passport), 1 << 24, 1000).entries == passport.entries
            assert passport.serialize().startswith('["')

    together(work)


def test_a_passport_that_is_added_to_while_it_is_verified(identity: Any, switching: None) -> None:
    """What a verification vouches for is what it looked at, whatever is added meanwhile."""
    made = entries(120, identity)
    evil = [sign_entry(KestEntry(f"evil{i}"), LocalEd25519Provider("spiffe://evil/x")) for i in range(50)]
    store = TrustStore({identity.get_identity(): identity})
    for _ in range(10):
        passport = Passport(made)
        verified: list[Any] = []
        indices: list[Any] = []

        def work(
            index: int, passport: Passport = passport, verified: list[Any] = verified, indices: list[Any] = indices
        ) -> None:
            if index == 0:
                for jws in evil:
                    passport.add_signature(jws)
                return
            for _ in range(3):
                try:
                    verified.append(PassportVerifier.verify(passport, store))
                except VerificationError as error:
                    indices.append(error.index)

        together(work, 4)
        assert len(passport) == 170
        assert all(index is not None and index >= 120 for index in indices)
        for result in verified:
            assert len(result) == 120
            assert len(result.tips) == 1
            assert result.principals == {identity.get_identity()}
            assert result.entries == made


def test_a_passport_that_is_added_to_while_it_is_read(identity: Any, switching: None) -> None:
    made = entries(200, identity)
    for _ in range(5):
        passport = Passport(made[:50])

        def work(index: int, passport: Passport = passport) -> None:
            if index == 0:
                for jws in made[50:]:
                    passport.add_signature(jws)
                return
            for _ in range(40):
                seen = passport.entries
                assert seen == made[: len(seen)]
                assert len(passport.decode()) >= 50
                assert len(passport.tips) == 1
                assert passport.serialize().count(",") >= 49

        together(work, 4)
        assert passport.entries == made


def test_a_form_packed_while_an_entry_is_added_is_not_kept(identity: Any) -> None:
    """The compressed form is made without the interpreter's lock; it must not be remembered for a longer passport."""
    made = entries(300, identity)
    more = [sign_entry(KestEntry(f"more{i}"), identity) for i in range(30)]
    for jws in more:
        passport = Passport(made)
        thread = threading.Thread(target=pack_z, args=(passport,))
        thread.start()
        passport.add_signature(jws)
        thread.join()
        assert unpack_z(pack_z(passport), 1 << 24, 1000).entries == passport.entries


def test_a_finalizer_that_adds_entries_while_a_passport_is_read(run_python: Any) -> None:
    """Allocating the result can run the garbage collector, and that any code."""
    run_python(
        """
import gc
from kest.core import *
identity = LocalEd25519Provider("p")
base = [sign_entry(KestEntry(f"op{i}"), identity) for i in range(40)]
extra = [sign_entry(KestEntry(f"x{i}"), identity) for i in range(400)]
passport, armed = None, False

class Adds:
    def __del__(self):
        global armed
        if armed:
            armed = False
            for jws in extra:
                passport.add_signature(jws)

readers = [lambda p: p.entries, lambda p: p.decode(), lambda p: p.tips, lambda p: p.tip_scores, lambda p: p.taints,
           lambda p: p.chain_tip, lambda p: p.serialize(), lambda p: Passport.merge(p).entries, lambda p: repr(p)]
for reader in readers:
    for _ in range(20):
        passport = Passport(base)
        passport.tips
        cycle = Adds()
        cycle.me = cycle
        del cycle
        gc.set_threshold(1)
        armed = True
        result = reader(passport)
        armed = False
        gc.set_threshold(700)
        repr(result)
        assert len(passport.entries) in (40, 440)
        gc.collect()
"""
    )


def test_calls_while_configuration_and_cache_change(identity: Any, switching: None) -> None:
    configure(engine=MockPolicyEngine(), identity=identity)
    f = kest_verified("p", context_map={"n": "n"})(lambda n: n)
    stop = threading.Event()

    def churn() -> None:
        i = 0
        while not stop.is_set():
            configure(app_policies=[f"a{i % 3}"])
            invalidate_policy_cache()
            i += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:

        def work(index: int) -> None:
            for i in range(200):
                with lineage():
                    assert f(i) == i

        together(work, 4)
    finally:
        stop.set()
        thread.join()


def test_a_trust_store_that_changes_while_it_is_used(identity: Any, switching: None) -> None:
    store = TrustStore({identity.get_identity(): identity})
    passport = Passport(entries(5, identity))

    def work(index: int) -> None:
        for i in range(100):
            if index == 0:
                store.add(f"spiffe://other/{i}", identity)
            elif index == 1:
                store.remove(f"spiffe://other/{i}")
            else:
                assert len(PassportVerifier.verify(passport, store)) == 5

    together(work, 4)


def test_claim_checks_from_eight_threads(identity: Any) -> None:
    from kest.core import SimpleCache

    passport, cache = Passport(entries(60, identity)), SimpleCache()

    def work(index: int) -> None:
        for _ in range(10):
            assert BaggageManager.unpack(BaggageManager.pack(passport, cache), cache).chain_tip == passport.chain_tip

    together(work)
    assert len(cache) == 80


def test_long_chains_die_in_any_thread(identity: Any) -> None:
    configure(engine=MockPolicyEngine(), identity=identity, max_entries=100_000)
    f = kest_verified("p")(lambda: 1)
    for _ in range(15_000):
        f()
    holder = [get_current_passport()]
    with lineage():
        pass
    from kest.core import context

    context.passport_var.set(None)
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    gc.collect()


FORK = """
import os, signal, sys, threading, time
from kest._kestcore import uuid7
from kest.core import *
from kest.core.context import get_current_passport, lineage
identity = LocalEd25519Provider("p")
configure(engine=MockPolicyEngine(), identity=identity)
f = kest_verified("p", context_map={"n": "n"})(lambda n: n)
stop = threading.Event()
"""


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "work",
    [
        "f(time.monotonic_ns() % 1000)",
        "invalidate_policy_cache(); f(time.monotonic_ns() % 1000)",
        "configure(app_policies=['a'])",
        "PassportVerifier.verify(long, {'p': identity})",
        "cache.set('k', 'v'); cache.get('k')",
        "store.add('q', identity); store.remove('q')",
        "identity.sign(b'{}'); uuid7()",
    ],
)
def test_e3_fork_while_threads_work(work: str, run_python: Any) -> None:
    """The child has one thread; nothing that another held in the parent may stop it."""
    done = run_python(
        FORK
        + f"""
cache, store = SimpleCache(), TrustStore({{"p": identity}})
with lineage():
    for i in range(100): f(i)
    long = get_current_passport()
def work():
    while not stop.is_set():
        {work}
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
for thread in threads: thread.start()
seen = set()
for i in range(30):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        code = 1
        try:
            sys.setswitchinterval(0.005)
            invalidate_policy_cache()
            configure(app_policies=["child"])
            with lineage():
                f(i)
                passport = get_current_passport()
            PassportVerifier.verify(passport, {{"p": identity}}, chain_tip=passport.chain_tip)
            PassportVerifier.verify(long, {{"p": identity}})
            cache.set("child", "x"); store.add("child", identity); len(store.ring())
            os.write(write, passport.decode()[0]["entry_id"].encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    seen.add(os.read(read, 100))
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f"child {{i}}: {{status}} (14: it hung)"
stop.set()
for thread in threads: thread.join()
assert len(seen) == 30
print("ok")
""",
        timeout=100,
    )
    assert done.stdout == "ok\n"


def test_e3_interpreter_shutdown_while_threads_sign(run_python: Any) -> None:
    for mode in ("adaptive", "always"):
        run_python(
            FORK
            + f"""
from kest._kestcore import lock_mode
lock_mode({mode!r})
def work():
    while True:
        with lineage(): f(1)
for _ in range(4): threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
            # Threads that end where they wait for the lock never free what they hold.
            env={"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"},
        )


def test_uuids_sort_across_threads() -> None:
    before = uuid7()
    made: list[str] = []
    together(lambda index: made.extend([uuid7() for _ in range(1000)]))
    assert min(made) > before
    assert len(set(made)) == len(made)
    assert uuid7() > max(made)
