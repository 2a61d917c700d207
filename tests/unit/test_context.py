"""Flow of control (PRODUCT.md, section 3): chains, branches, joins, threads, tasks, generators, roll-over."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kest.core import Passport, PassportVerifier, configure, invalidate_policy_cache, kest_verified
from kest.core.context import (
    get_current_agent,
    get_current_jwt,
    get_current_passport,
    get_current_task,
    get_current_user,
    join,
    lineage,
    wrap,
)

pytestmark = pytest.mark.usefixtures("configured")


@kest_verified("p", operation_name="step")
def step() -> Passport:
    return get_current_passport()


@kest_verified("p", operation_name="astep")
async def astep() -> Passport:
    await asyncio.sleep(0)
    return get_current_passport()


def tainted(name: str, **kwargs: Any) -> Any:
    return kest_verified("p", operation_name=f"taint-{name}", added_taints=[name], **kwargs)(
        lambda: get_current_passport()
    )


def operations(passport: Passport) -> list[str]:
    return [entry["operation"] for entry in passport.decode()]


def test_outside_any_flow_there_is_an_empty_passport_and_nobody() -> None:
    assert len(get_current_passport()) == 0
    assert [get() for get in (get_current_user, get_current_agent, get_current_task, get_current_jwt)] == [None] * 4


def test_the_next_call_continues_from_the_newest_entry() -> None:
    step()
    tainted("x")()
    passport = step()
    assert operations(passport) == ["step", "taint-x", "step"]
    assert passport.taints == ("x",)
    assert len(passport.tips) == 1


def test_lineage_opens_a_fresh_root_and_restores_the_flow() -> None:
    tainted("x")()
    before = get_current_passport()
    with lineage() as fresh:
        assert len(fresh) == 0
        inside = step()
        assert inside.taints == ()
        assert inside.decode()[0]["parent_ids"] == ["0"]
    assert get_current_passport() is before

    def fails() -> None:
        with lineage():
            step()
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert get_current_passport() is before


def test_lineage_can_continue_a_given_passport() -> None:
    with lineage():
        earlier = tainted("x")()
    with lineage(earlier):
        passport = step()
    assert operations(passport) == ["taint-x", "step"]
    assert passport.taints == ("x",)


def test_join_makes_a_multi_parent_entry() -> None:
    step()
    shared = get_current_passport()
    branches = []
    for name, origin in (("a", "user_input"), ("b", "third_party_api")):
        with lineage(shared):
            branches.append(tainted(name, source_type=origin)())
    merged = join(*branches)
    assert len(merged.tips) == 2
    assert merged.trust_score == 40
    passport = step()
    entry = passport.decode()[-1]
    assert sorted(entry["parent_ids"]) == entry["parent_ids"] == sorted(merged.tips)
    assert (entry["trust_score"], entry["taints"]) == (40, ["a", "b"])
    assert len(passport) == 4


def test_join_covers_what_is_already_there() -> None:
    step()
    earlier = get_current_passport()
    step()
    now = get_current_passport()
    assert join(earlier).tips == now.tips
    assert join().tips == now.tips
    assert join(Passport()).tips == now.tips


def test_join_keeps_the_ceiling_and_taints_of_an_edge() -> None:
    joined = join(Passport().restrict(10, ["kest.unverified"]))
    assert (joined.trust_score, joined.taints) == (10, ("kest.unverified",))
    entry = step().decode()[-1]
    assert (entry["trust_score"], entry["taints"]) == (10, ["kest.unverified"])


# --- threads ---------------------------------------------------------------------------------------------------------


def in_thread(fn: Any) -> Any:
    box: list[Any] = []
    thread = threading.Thread(target=lambda: box.append(fn()))
    thread.start()
    thread.join()
    return box[0]


def test_wrapped_thread_continues_from_the_last_shared_entry() -> None:
    tainted("x")()
    before = get_current_passport()
    passport = in_thread(wrap(step))
    assert operations(passport) == ["taint-x", "step"]
    assert passport.taints == ("x",)
    assert get_current_passport() is before  # the branch is the thread's own


def test_unwrapped_thread_starts_a_root_that_says_so() -> None:
    tainted("x")()
    entry = in_thread(step).decode()[0]
    assert entry["parent_ids"] == ["0"]
    assert entry["labels"]["kest.root"] == "thread-without-context"


def test_root_of_the_main_thread_needs_no_note() -> None:
    assert "kest.root" not in step().decode()[0]["labels"]


def test_wrapped_calls_in_a_pool_do_not_see_each_other() -> None:
    tainted("x")()
    with ThreadPoolExecutor(4) as pool:
        branches = list(pool.map(lambda fn: fn(), [wrap(step)] * 16))
        assert in_thread(step).decode()[0]["labels"]["kest.root"]
        unwrapped = pool.submit(step).result()
    assert all(operations(branch) == ["taint-x", "step"] for branch in branches)
    assert len({branch.chain_tip for branch in branches}) == 16
    assert unwrapped.decode()[0]["labels"]["kest.root"] == "thread-without-context"
    merged = join(*branches)
    assert len(merged.tips) == 16
    assert len(step()) == 18


def test_wrap_carries_the_caller_and_keeps_the_function() -> None:
    @kest_verified("p", user="u", agent="a", task="t")
    def outer() -> Any:
        @wrap
        def work(x: int, *, y: int) -> Any:
            """Doc."""
            return x, y, get_current_user(), get_current_agent(), get_current_task()

        assert work.__name__ == "work"
        assert work.__doc__ == "Doc."
        return in_thread(lambda: work(1, y=2))

    assert outer() == (1, 2, "u", "a", "t")


async def test_wrap_of_a_coroutine_function() -> None:
    step()

    @wrap
    async def work() -> Any:
        return operations(await astep())

    with lineage():
        tainted("other")()
        assert await work() == ["step", "astep"]
        assert operations(get_current_passport()) == ["taint-other"]

    def elsewhere() -> Any:
        return asyncio.run(work())

    assert await asyncio.get_running_loop().run_in_executor(None, elsewhere) == ["step", "astep"]


# --- asyncio ---------------------------------------------------------------------------------------------------------


async def test_to_thread_branches() -> None:
    tainted("x")()
    passport = await asyncio.to_thread(step)
    assert operations(passport) == ["taint-x", "step"]
    assert "kest.root" not in passport.decode()[0]["labels"]
    assert operations(get_current_passport()) == ["taint-x"]
    join(passport)
    assert operations(get_current_passport()) == ["taint-x", "step"]


async def test_run_in_executor_starts_a_root_that_says_so() -> None:
    tainted("x")()
    passport = await asyncio.get_running_loop().run_in_executor(None, step)
    assert passport.decode()[0]["labels"]["kest.root"] == "thread-without-context"


async def test_gather_branches_from_the_shared_entry() -> None:
    step()
    shared = get_current_passport()
    branches = await asyncio.gather(*(astep() for _ in range(10)))
    assert get_current_passport() is shared
    assert all(operations(branch) == ["step", "astep"] for branch in branches)
    join(*branches)
    entry = step().decode()[-1]
    assert len(entry["parent_ids"]) == 10


async def test_awaiting_continues_the_flow() -> None:
    await astep()
    passport = await astep()
    assert operations(passport) == ["astep", "astep"]
    assert get_current_passport() is passport


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in 3.11")
async def test_task_group_branches() -> None:
    tainted("x")()
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
        tasks = [group.create_task(astep()) for _ in range(5)]
    assert operations(get_current_passport()) == ["taint-x"]
    assert all(task.result().taints == ("x",) for task in tasks)
    assert len({task.result().chain_tip for task in tasks}) == 5


async def test_a_cancelled_task_leaves_other_flows_alone() -> None:
    step()
    shared = get_current_passport()
    started = asyncio.Event()

    @kest_verified("p", user="cancelled")
    async def waits() -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(waits())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert get_current_passport() is shared
    assert get_current_user() is None


async def test_a_timed_out_call_leaves_its_taint() -> None:
    @kest_verified("p", added_taints=["slow"], operation_name="slow")
    async def slow() -> None:
        await asyncio.sleep(60)

    async def timed_out() -> None:
        if sys.version_info >= (3, 11):
            async with asyncio.timeout(0.01):
                await slow()
        else:  # wait_for makes a task of its own there, and with it a branch
            await asyncio.wait_for(slow(), 0.01)

    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
        await timed_out()
    passport = step()
    if sys.version_info >= (3, 11):  # awaited in this very task: what was signed stays signed
        assert operations(passport) == ["slow", "step"]
        assert passport.taints == ("slow",)
    assert get_current_user() is None


# --- generators ------------------------------------------------------------------------------------------------------


@kest_verified("p", operation_name="gen", added_taints=["g"], user="gen-user")
def gen(log: list[Any]) -> Iterator[int]:
    try:
        for i in range(10):
            log.append(get_current_user())
            step()
            yield i
    finally:
        log.append(("closed", operations(step())))


def test_each_step_of_a_generator_extends_the_consumers_flow() -> None:
    log: list[Any] = []
    steps = gen(log)
    next(steps)
    assert operations(get_current_passport()) == ["gen", "step"]
    assert get_current_passport().taints == ("g",)
    assert get_current_user() is None
    tainted("between")()
    next(steps)
    assert operations(get_current_passport()) == ["gen", "step", "taint-between", "step"]
    assert set(log) == {"gen-user"}
    steps.close()  # type: ignore[attr-defined]
    assert log[-1] == ("closed", ["gen", "step", "taint-between", "step", "step"])
    assert (
        len(get_current_passport()) == 5
    )  # this context had seen all of the generator: its closing continues the flow


def test_generator_stepped_in_another_context_keeps_its_lineage() -> None:
    log: list[Any] = []
    tainted("mine")()
    steps = gen(log)
    next(steps)
    other = contextvars.copy_context()

    def there() -> Passport:
        with lineage():
            tainted("theirs")()
            next(steps)
            return get_current_passport()

    passport = other.run(there)
    assert {"mine", "theirs", "g"} <= set(passport.taints)
    assert get_current_passport().taints == ("g", "mine")


def test_generator_closed_in_a_foreign_flow_leaves_that_flow_alone() -> None:
    log: list[Any] = []

    def start() -> Any:
        steps = gen(log)
        next(steps)
        return steps

    steps = contextvars.copy_context().run(start)
    tainted("mine")()
    before = get_current_passport()
    steps.close()
    assert get_current_passport() is before
    assert log[-1] == ("closed", ["gen", "step", "step"])
    assert get_current_user() is None


def test_generator_collected_as_garbage_leaves_the_flow_alone() -> None:
    log: list[Any] = []

    def start() -> Any:
        steps = gen(log)
        next(steps)
        return steps

    steps = contextvars.copy_context().run(start)
    tainted("mine")()
    before = get_current_passport()
    del steps
    gc.collect()
    assert log[-1][0] == "closed"
    assert get_current_passport() is before


async def test_async_generator_steps_and_closing_from_another_task() -> None:
    log: list[Any] = []

    @kest_verified("p", operation_name="agen", added_taints=["ag"], user="agen-user")
    async def agen() -> AsyncIterator[int]:
        try:
            for i in range(10):
                await asyncio.sleep(0)
                log.append(get_current_user())
                await astep()
                yield i
        finally:
            log.append(("closed", operations(await astep())))

    steps: Any = agen()
    await steps.__anext__()
    assert operations(get_current_passport()) == ["agen", "astep"]

    async def close_elsewhere() -> Passport:
        with lineage():
            mine = tainted("closer")()
            await steps.aclose()
            assert get_current_passport() is mine
            assert get_current_user() is None
            return mine

    await asyncio.create_task(close_elsewhere())
    assert log == ["agen-user", ("closed", ["agen", "astep", "astep"])]
    assert operations(get_current_passport()) == ["agen", "astep"]


async def test_a_coroutine_closed_from_another_context_leaves_that_contexts_caller_alone() -> None:
    @kest_verified("p", user="alice")
    async def outer() -> None:
        await inner()

    @kest_verified("p", user="service")
    async def inner() -> None:
        await asyncio.sleep(60)

    context = contextvars.Context()
    coroutine: Any = outer()

    async def first_step() -> None:
        context.run(coroutine.send, None)

    await first_step()

    @kest_verified("p", user="bob")
    def closer() -> Any:
        coroutine.close()
        return get_current_user()

    assert closer() == "bob"
    assert get_current_user() is None


async def test_lineage_in_an_async_generator_closed_by_another_task() -> None:
    async def items() -> AsyncIterator[int]:
        with lineage():
            step()
            yield 1

    steps: Any = items()
    await steps.__anext__()

    async def close() -> None:
        tainted("closer")()
        before = get_current_passport()
        await steps.aclose()
        assert get_current_passport() is before

    await asyncio.create_task(close())


# --- the bound -------------------------------------------------------------------------------------------------------


def test_roll_over_at_the_bound(configured: Any) -> None:
    configure(max_entries=3)
    tainted("x", source_type="user_input")()
    step()
    third = step()
    assert len(third) == 3
    invalidate_policy_cache()  # so that the engine sees the next call
    rolled = step()
    assert len(rolled) == 1
    entry = rolled.decode()[0]
    assert entry["parent_ids"] == ["0"]
    assert entry["labels"]["kest.continues"] == third.chain_tip
    assert (entry["trust_score"], entry["taints"]) == (40, ["x"])
    assert configured.engine.asked[-1][1]["environment"]["parent_hash"] == third.chain_tip
    assert configured.engine.asked[-1][1]["is_root"] is False
    following = step()
    assert len(following) == 2
    assert "kest.continues" not in following.decode()[1]["labels"]
    assert following.taints == ("x",)
    PassportVerifier.verify(rolled, configured.keys)


def test_the_default_bound_is_a_thousand() -> None:
    for _ in range(1000):
        step()
    assert len(get_current_passport()) == 1000
    step()
    assert len(get_current_passport()) == 1
    assert get_current_passport().decode()[0]["labels"]["kest.continues"]


def test_a_flow_of_one_entry_at_a_time_keeps_trust_and_taints() -> None:
    configure(max_entries=1)
    tainted("x", source_type="third_party_api")()
    tips = [get_current_passport().chain_tip]
    for _ in range(3):
        entry = step().decode()[0]
        assert (entry["trust_score"], entry["taints"]) == (60, ["x"])
        assert entry["labels"]["kest.continues"] == tips[-1]
        tips.append(get_current_passport().chain_tip)


def test_a_sanitiser_works_right_after_a_roll_over() -> None:
    configure(max_entries=1)
    tainted("x", source_type="internet")()
    kest_verified("p", removed_taints=["x"], trust_override=90)(lambda: 1)()
    entry = get_current_passport().decode()[0]
    assert (entry["trust_score"], entry["taints"], entry["removed_taints"]) == (90, [], ["x"])
    assert entry["labels"]["kest.trust_override"] == "90"
    assert step().trust_score == 90


def test_a_merged_flow_rolls_over_from_all_its_tips() -> None:
    configure(max_entries=3)
    branches = []
    for name in "abc":
        with lineage():
            branches.append(tainted(name)())
    merged = join(*branches)
    entry = step().decode()[0]
    assert entry["labels"]["kest.continues"] == merged.chain_tip
    assert entry["labels"]["kest.continues"].count(",") == 2
    assert entry["taints"] == ["a", "b", "c"]
