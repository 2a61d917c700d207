"""ATTACKS.md, rows B3 to B6, as far as no network is needed: nothing is lost silently."""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
import threading
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kest._kestcore import b64url_decode, b64url_encode, pack_dense, pack_z, sha256
from kest.core import (
    BaggageManager,
    KestEntry,
    LocalEd25519Provider,
    Passport,
    SimpleCache,
    configure,
    kest_verified,
    sign_entry,
)
from kest.core.context import get_current_passport, join, lineage, wrap
from kest.core.trust import origin_trust
from kest.errors import BaggageError, ClaimCheckError, KestError

pytestmark = pytest.mark.usefixtures("configured")
IDENTITY = LocalEd25519Provider("spiffe://kest.test/b")


def made(n: int) -> Passport:
    passport, parents = Passport(), ("0",)
    for _ in range(n):
        jws = sign_entry(KestEntry("op", parent_ids=parents), IDENTITY)
        parents = (sha256(jws.encode()).hex(),)
        passport.add_signature(jws)
    return passport


# --- B3 --------------------------------------------------------------------------------------------------------------


def test_b3_every_truncation_of_the_inline_form_is_an_error() -> None:
    packed = BaggageManager.pack(made(2))
    text = packed["kest.passport"]
    for cut in range(len(text)):
        with pytest.raises(BaggageError):
            BaggageManager.unpack({**packed, "kest.passport": text[:cut]})


def test_b3_every_truncation_of_the_compressed_form_is_an_error() -> None:
    packed = BaggageManager.pack(made(5))
    text = packed["kest.passport_z"]
    for cut in range(len(text)):
        with pytest.raises(BaggageError):
            BaggageManager.unpack({"kest.passport_z": text[:cut]})  # without the tip: the form itself must notice


def test_b3_every_truncation_of_the_dense_form_is_an_error() -> None:
    text = pack_dense(made(8))
    assert text is not None
    assert len(BaggageManager.unpack({"kest.passport_d": text})) == 8
    for cut in range(len(text)):
        with pytest.raises(BaggageError):
            BaggageManager.unpack({"kest.passport_d": text[:cut]})


@pytest.mark.parametrize("form", ["kest.passport_z", "kest.passport_d"])
def test_b3_corrupt_bytes_are_an_error_or_named_by_verification(form: str) -> None:
    passport = made(6)
    packed = {form: (pack_dense if form.endswith("d") else pack_z)(passport), "kest.chain_tip": passport.chain_tip}
    raw = bytearray(b64url_decode(packed[form]))
    for at in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[at] ^= 0x55
        try:
            again = BaggageManager.unpack({**packed, form: b64url_encode(changed)})
        except BaggageError:
            continue
        # It still decompresses: then an entry is broken, and everything that would read the passport says so.
        with pytest.raises(KestError):
            again.decode()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"null", b'["a.b.c"', b"[1]", b'"x"', b"\xff", b'["a"] ["b"]', b"[" * 5000],
)
def test_b3_wrong_content_of_the_compressed_form(body: bytes) -> None:
    with pytest.raises(BaggageError):
        BaggageManager.unpack({"kest.passport_z": b64url_encode(zlib.compress(body)), "kest.chain_tip": "0" * 64})


def test_b3_what_follows_the_stream_is_an_error() -> None:
    packed = BaggageManager.pack(made(5))
    raw = b64url_decode(packed["kest.passport_z"])
    for tail in (b"\0", raw, b"x" * 100):
        with pytest.raises(BaggageError):
            BaggageManager.unpack({**packed, "kest.passport_z": b64url_encode(raw + tail)})
    for other in (zlib.compress(b"[]")[2:], b"\x1f\x8b" + raw, raw[2:]):
        with pytest.raises(BaggageError):
            BaggageManager.unpack({**packed, "kest.passport_z": b64url_encode(other)})


def test_b3_claims() -> None:
    passport, cache = made(60), SimpleCache()
    packed = BaggageManager.pack(passport, cache)
    claim = packed["kest.claim_check"]
    with pytest.raises(ClaimCheckError, match="no cache"):
        BaggageManager.unpack(packed)
    with pytest.raises(ClaimCheckError):
        BaggageManager.unpack(packed, SimpleCache())
    for wrong in (str(uuid.uuid4()), claim.upper(), claim + "x", f"{{{claim}}}", "../" + claim, "*", claim[:-1]):
        with pytest.raises(ClaimCheckError):
            BaggageManager.unpack({**packed, "kest.claim_check": wrong}, cache)
    other = BaggageManager.pack(made(60), cache)
    with pytest.raises(ClaimCheckError, match="another passport"):
        BaggageManager.unpack({**packed, "kest.claim_check": other["kest.claim_check"]}, cache)
    cache.delete(claim)
    with pytest.raises(ClaimCheckError, match="expired"):
        BaggageManager.unpack(packed, cache)


def test_b3_expired_claim() -> None:
    cache = SimpleCache()
    packed = BaggageManager.pack(made(60), cache, ttl=1e-9)
    with pytest.raises(ClaimCheckError, match="expired"):
        BaggageManager.unpack(packed, cache)


@pytest.mark.parametrize(
    "record",
    ["", "x", "\n", "\n[]", 5, b"\xff\xfe", ["a"], b"", "tip\n[", "[]", '["a.b.c"]', "x" * 2_000_000, {"a": 1}, True],
)
def test_b3_wrong_records_behind_a_claim(record: Any) -> None:
    passport = made(60)
    cache: dict[str, Any] = {}
    packed = BaggageManager.pack(passport, cache)
    cache[packed["kest.claim_check"]] = record
    for baggage in (packed, {"kest.claim_check": packed["kest.claim_check"]}):
        with pytest.raises(BaggageError):
            BaggageManager.unpack(baggage, cache)


def test_b3_a_truncated_record_is_an_error() -> None:
    cache: dict[str, Any] = {}
    packed = BaggageManager.pack(made(60), cache)
    claim = packed["kest.claim_check"]
    record = cache[claim]
    for cut in range(0, len(record), 997):
        cache[claim] = record[:cut]
        with pytest.raises(BaggageError):
            BaggageManager.unpack(packed, cache)
    # Entries cut off whole, in valid JSON: the tip notices.
    bound, _, text = record.partition("\n")
    cache[claim] = f"{bound}\n{json.dumps(json.loads(text)[:-1])}"
    for baggage in (packed, {"kest.claim_check": claim}):  # also by the tip that the record itself names
        with pytest.raises(BaggageError):
            BaggageManager.unpack(baggage, cache)


# --- B4 --------------------------------------------------------------------------------------------------------------


@kest_verified("p", operation_name="source", source_type="user_input", added_taints=["raw"])
def source() -> None: ...


@kest_verified("p", operation_name="leaf")
def leaf() -> Passport:
    return get_current_passport()


@kest_verified("p", operation_name="aleaf")
async def aleaf() -> Passport:
    await asyncio.sleep(0)
    return get_current_passport()


def kept(passport: Passport) -> None:
    assert passport.trust_score == 40
    assert passport.taints == ("raw",)
    assert passport.decode()[0]["operation"] == "source"


def test_b4_nested_functions() -> None:
    @kest_verified("p")
    def outer() -> Passport:
        source()
        return leaf()

    passport = outer()
    assert (passport.trust_score, passport.taints) == (40, ("raw",))
    assert leaf().taints == ("raw",)


def test_b4_generators() -> None:
    source()

    @kest_verified("p")
    def gen() -> Iterator[Passport]:
        for _ in range(3):
            yield leaf()

    for passport in gen():
        kept(passport)
    kept(get_current_passport())


def test_b4_a_taint_taken_in_by_a_generator_reaches_its_consumer() -> None:
    @kest_verified("p", operation_name="reader")
    def reader() -> Iterator[int]:
        yield 1
        source()
        yield 2

    steps = reader()
    next(steps)
    assert get_current_passport().taints == ()
    next(steps)
    assert get_current_passport().taints == ("raw",)
    assert leaf().trust_score == 40


async def test_b4_async_generators() -> None:
    source()

    @kest_verified("p")
    async def agen() -> AsyncIterator[Passport]:
        for _ in range(3):
            yield await aleaf()

    async for passport in agen():
        kept(passport)
    kept(get_current_passport())


async def test_b4_functions_that_return_coroutines() -> None:
    @kest_verified("p", operation_name="source", source_type="user_input", added_taints=["raw"])
    def f() -> Any:
        return body()

    async def body() -> Passport:
        await asyncio.sleep(0)
        return await aleaf()

    kept(await f())
    with lineage():
        kept(await asyncio.create_task(f()))


class Agent:
    async def __call__(self) -> Passport:
        await asyncio.sleep(0)
        return await aleaf()


async def test_b4_callables_with_async_call() -> None:
    source()
    kept(await kest_verified("p")(Agent())())
    kept(get_current_passport())


def in_thread(fn: Any) -> Any:
    box: list[Any] = []
    thread = threading.Thread(target=lambda: box.append(fn()))
    thread.start()
    thread.join()
    return box[0]


def test_b4_threads() -> None:
    source()
    kept(in_thread(wrap(leaf)))
    stray = in_thread(leaf)
    assert stray.decode()[0]["labels"]["kest.root"] == "thread-without-context"
    context = contextvars.copy_context()
    kept(in_thread(lambda: context.run(leaf)))


def test_b4_thread_pools() -> None:
    source()
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(wrap(leaf)) for _ in range(6)]:
            kept(future.result())
        stray = pool.submit(leaf).result()
        assert stray.decode()[0]["labels"]["kest.root"] == "thread-without-context"
        # A worker that has run a stray call must not hand its flow to the next one unnoticed.
        kept(pool.submit(wrap(leaf)).result())


async def test_b4_to_thread_and_joining_its_result() -> None:
    kept(await asyncio.to_thread(lambda: (source(), leaf())[1]))
    branch = await asyncio.to_thread(lambda: (source(), leaf())[1])
    assert len(get_current_passport()) == 0
    join(branch)
    kept(leaf())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in 3.11")
async def test_b4_task_groups() -> None:
    source()
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
        tasks = [group.create_task(aleaf()) for _ in range(4)]
    for task in tasks:
        kept(task.result())
    kept(get_current_passport())


async def test_b4_cancelled_and_timed_out_tasks() -> None:
    source()
    inside: list[Passport] = []

    @kest_verified("p")
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            inside.append(await aleaf())
            raise

    task = asyncio.create_task(slow())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
        await asyncio.wait_for(slow(), 0.01)
    assert len(inside) == 2
    for passport in inside:
        kept(passport)
    kept(await aleaf())


async def test_b4_async_generator_closed_from_another_context() -> None:
    closed: list[Passport] = []

    @kest_verified("p")
    async def agen() -> AsyncIterator[int]:
        try:
            source()
            yield 1
        finally:
            closed.append(await aleaf())

    steps: Any = agen()
    await steps.__anext__()

    def elsewhere() -> Any:
        return asyncio.get_running_loop().create_task(steps.aclose())

    await contextvars.Context().run(elsewhere)
    assert closed[0].trust_score == 40
    assert closed[0].taints == ("raw",)


# --- B5 --------------------------------------------------------------------------------------------------------------


def test_b5_a_sanitisers_effect_holds_ten_hops_later() -> None:
    source()
    kest_verified("p", trust_override=90, removed_taints=["raw"], classification="sanitizer")(lambda: 1)()
    for _ in range(10):
        # Over the wire and back at every hop, as a passport travels between services.
        passport = BaggageManager.unpack(BaggageManager.pack(get_current_passport(), cache := SimpleCache()), cache)
        with lineage(passport):
            leaf()
            passport = get_current_passport()
            assert (passport.trust_score, passport.taints) == (90, ())
        join(passport)
    assert len(get_current_passport()) == 12


def test_b5_a_removed_taint_does_not_come_back_but_an_unsanitised_branch_brings_its_own() -> None:
    source()
    before = get_current_passport()
    kest_verified("p", trust_override=90, removed_taints=["raw"])(lambda: 1)()
    leaf()
    assert get_current_passport().taints == ()
    with lineage(before):
        branch = leaf()
    join(branch)
    passport = leaf()
    assert (passport.trust_score, passport.taints) == (40, ("raw",))


@pytest.mark.parametrize("wrong", ["", "unknown", "Internal", " internal", "system ", "SYSTEM", "kest.system"])
def test_b5_an_unknown_source_type_never_means_full_trust(wrong: str) -> None:
    with pytest.raises(ValueError, match="source_type"):
        kest_verified("p", source_type=wrong)(lambda: 1)
    assert origin_trust(wrong) == 10


# --- B6 --------------------------------------------------------------------------------------------------------------


def test_b6_every_configured_tier_was_really_asked(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(enterprise_policies=["e1", "e2"], platform_policies=["l"], app_policies=["a"])
    for use_cache in ("0", "5"):
        monkeypatch.setenv("KEST_POLICY_CACHE_TTL", use_cache)
        configure()
        configured.engine.asked.clear()
        with lineage():
            kest_verified(["f1", "f2"])(lambda: 1)()
            recorded = get_current_passport().decode()[0]["policy_context"]
        asked = {given["environment"]["policy_tier"]: names for names, given in configured.engine.asked}
        assert {tier: list(names) for tier, names in asked.items()} == {
            tier: recorded[f"{tier}_policies"] for tier in ("enterprise", "platform", "app", "function")
        }


def test_b6_tiers_that_are_not_configured_are_not_recorded(configured: Any) -> None:
    configure(platform_policies=["l"])
    kest_verified("f")(lambda: 1)()
    recorded = get_current_passport().decode()[0]["policy_context"]
    assert recorded["enterprise_policies"] == recorded["app_policies"] == []
    assert [names for names, _ in configured.engine.asked] == [("l",), ("f",)]


def test_b6_a_deviation_applies_only_to_its_operation_and_appears_only_there(configured: Any) -> None:
    deviation = {"policy": "e", "tier": "enterprise", "scope": "Exempt.op", "reason": "r", "approver": "a"}
    configure(enterprise_policies=["e", "e2"], deviations=[deviation])
    configured.engine.answer = lambda names, context: "e" not in names
    kest_verified("f", operation_name="Exempt.op")(lambda: 1)()
    entry = get_current_passport().decode()[0]
    assert entry["policy_context"]["deviations"] == [{k: v for k, v in deviation.items() if k != "scope"}]
    assert entry["policy_context"]["enterprise_policies"] == ["e2"]
    for operation in ("Exempt.op2", "exempt.op", "Exempt", "op", "Exempt.op ", "x.Exempt.op"):
        with pytest.raises(PermissionError):
            kest_verified("f", operation_name=operation)(lambda: 1)()
    configured.engine.answer = True
    kest_verified("f", operation_name="other")(lambda: 1)()
    assert get_current_passport().decode()[-1]["policy_context"]["deviations"] == []


def test_b6_changes_of_configuration_reach_decorated_functions(configured: Any) -> None:
    f = kest_verified("f")(lambda: 1)
    for policies in (["a"], ["b"], [], ["a", "b"]):
        configure(enterprise_policies=policies)
        with lineage():
            f()
            assert get_current_passport().decode()[0]["policy_context"]["enterprise_policies"] == policies


def test_b6_what_is_recorded_was_asked_while_the_configuration_changes(
    configured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEST_POLICY_CACHE_TTL", "0")
    local = threading.local()

    class Engine:
        in_process = True

        def evaluate(self, entry_id: str, names: Any, context: Any) -> bool:
            local.asked.setdefault(context["environment"]["policy_tier"], []).extend(names)
            return True

    configure(engine=Engine())
    f = kest_verified("f")(lambda: get_current_passport())
    stop = threading.Event()
    wrong: list[Any] = []

    def work() -> None:
        while not stop.is_set():
            local.asked = {}
            with lineage():
                recorded = f().decode()[0]["policy_context"]
            asked = local.asked.get("enterprise", [])
            if asked != recorded["enterprise_policies"]:
                wrong.append((asked, recorded))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(500):
            expected = [f"P{i}"]
            configure(enterprise_policies=expected)
            local.asked = {}
            with lineage():
                assert f().decode()[0]["policy_context"]["enterprise_policies"] == expected
            assert local.asked["enterprise"] == expected
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert not wrong
