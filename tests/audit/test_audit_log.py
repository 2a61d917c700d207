"""`AuditLog`: the queue, durability, what callers see when the disk fails, one writer, forks."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kest._kestcore import Signer
from kest.audit import AuditLog, AuditReader, Verdict, verify_log
from kest.audit.storage import Storage
from kest.core import LocalEd25519Provider, PolicyDeniedError, configure, kest_verified
from kest.errors import AuditCorruptError, AuditError, AuditLockedError, AuditUnavailableError, ConfigurationError

JWS = "eyJh.eyJi.c2ln"


class Switchable(Storage):
    """A disk that is full as long as one says so. ``tried`` is set by every attempt to write to it meanwhile."""

    def __init__(self) -> None:
        self.full = False
        self.tried = threading.Event()

    def write(self, fd: int, data: bytes) -> None:
        if self.full:
            self.tried.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(fd, data)

    def break_now(self) -> None:
        self.tried.clear()
        self.full = True

    def mend(self) -> None:
        self.full = False


@pytest.fixture
def disk() -> Switchable:
    return Switchable()


def kinds(path: Path, log: AuditLog) -> list[str]:
    return [record.kind for record in AuditReader(path, log.key).records() if record.kind != "log"]


def results(log: AuditLog) -> list[str]:
    reader = AuditReader(log.path, log.key)
    return [record.payload["result"] for record in reader.records() if record.kind == "outcome"]


def broken(log: AuditLog, disk: Switchable) -> None:
    """Until the log knows that its disk is full."""
    disk.break_now()
    log.record("outcome", JWS)
    assert disk.tried.wait(30)
    while log.failure is None:
        threading.Event().wait(0.001)


def waits(log: AuditLog) -> None:
    """Until somebody waits for the log."""
    while not log.pending:
        threading.Event().wait(0.001)


# --- records ---


def test_acknowledged_records_are_there(open_log: Callable[..., AuditLog]) -> None:
    log = open_log()
    pending = [log.append(f"ey{i}.a.b") for i in range(1000)]
    assert [one.wait() for one in pending] == list(range(1, 1001))  # after the log's own first record
    checkpoint = log.checkpoint()
    assert checkpoint.size == 1001
    reader = AuditReader(log.path, log.key)
    assert [record.jws for record in reader.records(1)] == [f"ey{i}.a.b" for i in range(1000)]
    assert reader.record(1000).jws == "ey999.a.b"
    with pytest.raises(IndexError, match="1001 records"):
        reader.record(1001)


def test_records_of_several_threads_are_all_there(open_log: Callable[..., AuditLog]) -> None:
    log = open_log(max_pending=50)

    def work(number: int) -> None:
        for i in range(300):
            if (pending := log.record("entry", f"ey{number}.{i}.b")) is not None:
                pending.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.checkpoint()
    reader = AuditReader(log.path, log.key)
    written = [record.jws for record in reader.records(1)]
    assert sorted(written) == sorted(f"ey{n}.{i}.b" for n in range(4) for i in range(300))
    for number in range(4):  # in order per flow
        assert [jws for jws in written if jws.startswith(f"ey{number}.")] == [f"ey{number}.{i}.b" for i in range(300)]


def test_a_log_goes_on_where_it_ended(open_log: Callable[..., AuditLog]) -> None:
    for turn in range(3):
        log = open_log()
        assert log.recovery.clean
        for i in range(300):
            log.append(f"ey{turn}.{i}.b")
        log.close()
    report = verify_log(log.path, log.key)
    assert report.kinds["log"] == 6
    assert report.opened == 3
    assert report.checkpoint.size == 906
    assert report.journal_bytes == 0


def test_long_records_are_kept_beside_the_log(open_log: Callable[..., AuditLog], identity: Any) -> None:
    log = open_log()
    long = identity.sign(
        json.dumps({"record": "verdict", "timestamp_ms": 1, "x": "y" * 100_000}, separators=(",", ":")).encode()
    )
    edge = "ey" + "x" * 65_533
    assert log.append(long).wait() == 1
    assert log.append(edge).wait() == 2
    log.record_unsigned(
        "verdict",
        identity.signer,
        "kest-verdict+jws",
        json.dumps({"record": "verdict", "timestamp_ms": 1, "z": "y" * 70_000}).encode(),
    )
    log.checkpoint()
    reader = AuditReader(log.path, log.key)
    assert reader.record(1).jws == long
    assert len(reader.record(1).leaf) < 200
    assert reader.record(2).jws == edge
    assert reader.record(3).payload["z"] == "y" * 70_000
    assert reader.find(long) == [1]
    for path in (log.path / "large").iterdir():
        path.write_bytes(path.read_bytes() + b"A")
    log.close()
    report = verify_log(log.path, log.key, {identity.get_identity(): identity})
    assert report.verdicts[Verdict.MISSING] == 2
    assert [record.kind for record in reader.records()][1:4] == ["large", "unreadable", "large"]


def test_what_can_never_be_written_is_refused_at_once(open_log: Callable[..., AuditLog], signer: Any) -> None:
    log = open_log()
    with pytest.raises(AuditError, match="the most is 12,000,000"):
        log.record_event("verdict", {"said": "\x1b[31m" * 2_000_000})
    with pytest.raises(AuditError, match="the most is 12,000,000"):
        log.record_unsigned("denial", signer, "kest-denial+jws", b"x" * 12_000_001)
    with pytest.raises(AuditError, match="the most is 16,777,216"):
        log.append("x" * 16_777_217)
    log.record_event("verdict", {"said": "x" * 10_000_000}).wait(30)
    log.record_unsigned("denial", signer, "kest-denial+jws", b"x" * 12_000_000)
    assert log.record_event("verdict", {"said": "still here"}).wait(30)


def test_records_are_text(open_log: Callable[..., AuditLog]) -> None:
    log = open_log()
    for wrong in ("", "é", "a\nb", "a\0"):
        with pytest.raises(AuditError, match="ASCII"):
            log.append(wrong)
    with pytest.raises(AuditError, match="ASCII"):
        log.record("entry", "é")
    with pytest.raises(AuditError, match="no kind"):
        log.record_event("nothing", {})


def test_settings(tmp_path: Path, signer: Any) -> None:
    for wrong in (
        {"on_failure": "drop"},
        {"max_pending": 0},
        {"commit_interval": -1},
        {"origin": "a b"},
        {"origin": "a+b"},
    ):
        with pytest.raises(ConfigurationError):
            AuditLog(tmp_path / "never", signer, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Ed25519"):
        AuditLog(tmp_path / "never", object())
    assert not (tmp_path / "never").exists()


def test_the_origin_is_the_principal_without_its_scheme(open_log: Callable[..., AuditLog], identity: Any) -> None:
    log = open_log(signer=identity)
    assert log.key.name == "kest.test/unit"
    assert repr(log) == f"<AuditLog kest.test/unit in {log.path}, open>"


def test_files_are_the_owners(open_log: Callable[..., AuditLog]) -> None:
    log = open_log()
    log.append(JWS)
    log.checkpoint()
    for folder, _, names in os.walk(log.path):
        assert os.stat(folder).st_mode & 0o077 == 0
        assert all(os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0 for name in names)


# --- calls ---


@pytest.fixture
def logged(configured: Any, open_log: Callable[..., AuditLog]) -> AuditLog:
    log = open_log()
    configure(audit=log)
    return log


def verified(log: AuditLog, configured: Any) -> Any:
    log.checkpoint()
    report = verify_log(log.path, log.key, configured.keys)
    assert report.ok, report.problems
    return report


def test_calls_of_every_kind(logged: AuditLog, configured: Any) -> None:
    @kest_verified("p")
    def plain() -> int:
        return 1

    @kest_verified("p")
    def fails() -> None:
        raise LookupError

    @kest_verified("p")
    def late() -> None:
        raise TimeoutError

    @kest_verified("p")
    def stream() -> Iterator[int]:
        yield from range(3)

    @kest_verified("p")
    async def coroutine() -> int:
        await asyncio.sleep(0)
        return 2

    @kest_verified("p")
    async def astream() -> AsyncIterator[int]:
        yield 1
        yield 2

    @kest_verified("p")
    async def slow() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        await coroutine()
        async for _ in astream():
            break
        task = asyncio.create_task(slow())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(kest_verified("p")(late_coroutine)(), 5)

    async def late_coroutine() -> None:
        raise asyncio.TimeoutError

    plain()
    with pytest.raises(LookupError):
        fails()
    with pytest.raises(TimeoutError):
        late()
    list(stream())
    closed = stream()
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    asyncio.run(main())
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        kest_verified("q")(lambda: 1)()
    report = verified(logged, configured)
    assert report.kinds == {"log": 1, "entry": 9, "outcome": 9, "denial": 1}
    assert report.missing_count == 0
    found = results(logged)
    assert found[:5] == ["returned", "raised", "timed_out", "returned", "closed"]
    assert sorted(found[5:]) == ["cancelled", "closed", "returned", "timed_out"]


def test_outcomes_are_canonical(logged: AuditLog, configured: Any) -> None:
    class Odd(Exception):
        """With a name that needs escaping."""

    Odd.__qualname__ = 'a"\\\u20ac\n'

    def raises() -> None:
        raise Odd

    with pytest.raises(Odd):
        kest_verified("p", operation_name='op "\\ é')(raises)()
    report = verified(logged, configured)  # refuses what is not canonical
    assert report.kinds["outcome"] == 1


def test_a_call_without_outcome_is_reported(
    logged: AuditLog, configured: Any, open_log: Callable[..., AuditLog]
) -> None:
    @kest_verified("p", operation_name="runs on")
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    steps = stream()
    next(steps)
    report = verified(logged, configured)
    (missing,) = report.missing
    assert (missing.operation, missing.lost, report.missing_count) == ("runs on", False, 1)
    logged.close()
    (missing,) = verify_log(logged.path, logged.key, configured.keys).missing
    assert missing.lost
    with pytest.raises(AuditUnavailableError, match="closed"):
        list(steps)


def test_durable_intents_are_on_the_disk_before_the_call_runs(
    configured: Any, open_log: Callable[..., AuditLog]
) -> None:
    log = open_log(durable_intents=True, commit_interval=3600)
    configure(audit=log)
    seen: list[int] = []

    def body() -> None:
        seen.append(sum(path.stat().st_size for path in (log.path / "journal").iterdir()))

    kest_verified("p")(body)()
    assert seen[0] > 700  # an entry's length

    async def main() -> None:
        async def coroutine() -> None:
            body()

        await kest_verified("p")(coroutine)()

    asyncio.run(main())
    assert seen[1] > 2 * 700
    verified(log, configured)


# --- a disk that fails ---


def test_calls_fail_before_they_run(configured: Any, open_log: Callable[..., AuditLog], disk: Switchable) -> None:
    log = open_log(storage=disk)
    configure(audit=log)
    ran: list[int] = []
    call = kest_verified("p")(lambda: ran.append(1))
    call()
    log.flush()
    broken(log, disk)
    with pytest.raises(AuditUnavailableError, match="No space left"):
        call()
    assert ran == [1]
    configured.engine.answer = False
    disk.mend()
    log.flush()
    assert log.failure is None
    configured.engine.answer = True
    call()
    assert ran == [1, 1]


def test_what_ran_is_recorded_when_the_disk_is_there_again(
    configured: Any, open_log: Callable[..., AuditLog], disk: Switchable
) -> None:
    log = open_log(storage=disk)
    configure(audit=log)

    @kest_verified("p")
    def call() -> int:
        broken(log, disk)
        return 1

    assert call() == 1
    disk.mend()
    log.checkpoint()
    assert results(log) == ["returned"]


def test_a_call_that_waits_for_its_entry_fails_and_leaves_no_trace(
    configured: Any, open_log: Callable[..., AuditLog], disk: Switchable
) -> None:
    log = open_log(storage=disk, durable_intents=True)
    configure(audit=log)
    log.flush()
    disk.break_now()
    ran: list[int] = []
    with pytest.raises(AuditUnavailableError, match="No space left"):
        kest_verified("p")(lambda: ran.append(1))()
    assert not ran
    disk.mend()
    log.flush()
    assert log.failure is None
    kest_verified("p")(lambda: ran.append(1))()
    assert ran == [1]
    log.checkpoint()
    assert kinds(log.path, log) == ["entry", "outcome"]


def test_all_who_wait_are_told(configured: Any, open_log: Callable[..., AuditLog], disk: Switchable) -> None:
    """Also those whose records were not tried yet, and those who wait while the log gives up."""
    log = open_log(storage=disk, durable_intents=True, close_timeout=0.0)
    log.flush()
    disk.break_now()
    log.record("outcome", JWS)
    assert disk.tried.wait(30)
    told: list[str] = []

    def waiting(action: Callable[[], Any]) -> None:
        try:
            action()
        except AuditUnavailableError as error:
            told.append(str(error))

    threads = [
        threading.Thread(target=waiting, args=(action,)) for action in (lambda: log.append(JWS).wait(), log.flush)
    ]
    for thread in threads:
        thread.start()
    threads[0].join(30)
    assert len(told) == 1
    with pytest.raises(AuditError, match="lost"):
        log.close()
    threads[1].join(30)
    assert len(told) == 2


def test_calls_block_until_the_disk_is_there(
    configured: Any, open_log: Callable[..., AuditLog], disk: Switchable
) -> None:
    log = open_log(storage=disk, on_failure="block")
    configure(audit=log)
    broken(log, disk)
    done: list[int] = []
    thread = threading.Thread(target=kest_verified("p")(lambda: done.append(1)))
    thread.start()
    waits(log)
    assert not done
    disk.mend()
    thread.join(30)
    assert done == [1]
    log.checkpoint()
    assert results(log)[-1:] == ["returned"]


async def test_a_blocked_call_leaves_the_event_loop_free_and_can_be_cancelled(
    configured: Any, open_log: Callable[..., AuditLog], disk: Switchable
) -> None:
    log = open_log(storage=disk, on_failure="block")
    configure(audit=log)
    await asyncio.to_thread(broken, log, disk)
    ran: list[int] = []

    async def body() -> None:
        ran.append(1)

    task = asyncio.create_task(kest_verified("p")(body)())
    await asyncio.to_thread(waits, log)  # the loop goes on meanwhile
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    disk.mend()
    await asyncio.to_thread(log.checkpoint)
    assert not ran
    report = verify_log(log.path, log.key, configured.keys)
    assert report.missing_count == 0  # withdrawn, or recorded as not run


def test_a_full_queue_makes_callers_wait(open_log: Callable[..., AuditLog], disk: Switchable) -> None:
    log = open_log(storage=disk, max_pending=5)
    log.flush()
    disk.break_now()
    waiting = [one for one in (log.record("outcome", JWS) for _ in range(4)) if one is not None]
    assert disk.tried.wait(30)
    disk.mend()
    for one in waiting:
        one.wait(30)
    log.flush()


def test_large_queues_are_bounded_in_bytes(open_log: Callable[..., AuditLog]) -> None:
    log = open_log(max_pending_bytes=1000, commit_interval=3600)
    log.flush()
    pending = log.record("outcome", "x" * 2000)
    while pending is None:  # the writer was faster
        pending = log.record("outcome", "x" * 2000)
    assert isinstance(pending.wait(30), int)


def test_close_says_what_is_lost(tmp_path: Path, signer: Any, disk: Switchable) -> None:
    log = AuditLog(tmp_path / "log", signer, storage=disk, close_timeout=0)
    log.flush()
    disk.break_now()
    log.record("outcome", JWS)
    with pytest.raises(AuditError, match="2 records could not be written"):  # and "closed"
        log.close()
    with pytest.raises(AuditUnavailableError, match="closed"):
        log.append(JWS)
    log.close()  # again: nothing


def test_a_checkpoint_that_cannot_be_written(
    open_log: Callable[..., AuditLog], disk: Switchable, monkeypatch: Any
) -> None:
    log = open_log(storage=disk)
    assert log.append(JWS).wait() == 1

    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "publish", fails)
    with pytest.raises(AuditUnavailableError, match="No space left"):
        log.checkpoint()
    monkeypatch.undo()
    assert log.checkpoint().size == 2


# --- processes ---


def test_e4_one_writer(open_log: Callable[..., AuditLog], run_python: Any, signer: Any) -> None:
    log = open_log()
    with pytest.raises(AuditLockedError, match=str(os.getpid())):
        AuditLog(log.path, signer)
    script = (
        "import sys; from kest.audit import AuditLog; from kest._kestcore import Signer\n"
        "from kest.errors import AuditLockedError\n"
        "try: AuditLog(sys.argv[1], Signer('log.kest.test/unit', bytes(range(32))))\n"
        "except AuditLockedError: print('locked')"
    )
    assert run_python(script, str(log.path)).stdout == "locked\n"
    log.close()
    open_log()


def test_another_key_is_another_log(open_log: Callable[..., AuditLog], tmp_path: Path) -> None:
    log = open_log()
    log.close()
    with pytest.raises(AuditCorruptError, match="for life"):
        AuditLog(log.path, Signer("log.kest.test/unit", bytes(32)))
    with pytest.raises(AuditCorruptError, match="for life"):
        AuditLog(log.path, Signer("log.kest.test/other", bytes(range(32))))


FORK = """
import os, sys, threading
from kest.audit import AuditLog, AuditReader
from kest._kestcore import Signer
from kest.errors import AuditUnavailableError
signer = Signer('log.kest.test/unit', bytes(range(32)))
log = AuditLog(sys.argv[1], signer)
log.append('a.b.c').wait()
child = os.fork()
if not child:
    try:
        log.record('entry', 'x.y.z')
    except AuditUnavailableError as error:
        own = AuditLog(sys.argv[1] + '-child', signer)
        own.append('d.e.f').wait()
        sys.exit(0 if 'forked' in str(error) else 3)
    sys.exit(4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
log.append('g.h.i').wait()
"""


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
def test_forks(run_python: Any, tmp_path: Path, signer: Any) -> None:
    run_python(FORK, str(tmp_path / "log"))  # neither closes its log: the end of the process does
    for path, texts in ((tmp_path / "log", ["a.b.c", "g.h.i"]), (tmp_path / "log-child", ["d.e.f"])):
        reader = AuditReader(path, signer.public_key, origin="log.kest.test/unit")
        assert [r.jws for r in reader.records() if r.kind != "log"] == texts


KILLED = """
import sys, time
from kest.core import *
from kest.core.context import lineage
from kest.audit import AuditLog
from kest._kestcore import Signer
log = AuditLog(sys.argv[1], Signer('log.kest.test/unit', bytes(range(32))), commit_interval=0.0005, checkpoint_interval=0.02)
configure(engine=MockPolicyEngine(), identity=StaticIdentity('spiffe://kest.test/unit', key=bytes(range(32))), audit=log)
call = kest_verified('p')(lambda: 1)
print(flush=True)
number = 0
while True:
    with lineage():
        call()
    jws = f'ey{sys.argv[2]}.{number}.x'
    index = log.append(jws).wait()
    sys.stdout.write(f'{index} {jws}\\n'); sys.stdout.flush()
    number += 1
"""


def test_e4_killed_at_any_moment(tmp_path: Path, signer: Any) -> None:
    """Twenty processes, one after the other, each killed while it writes; the last word is the log's."""
    acknowledged: dict[int, str] = {}
    environment = {**os.environ, "PYTHONPATH": str(Path(sys.modules["kest"].__file__ or "").parents[1])}
    for turn in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "log"), str(turn)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        try:
            process.stdout.readline()
            for _ in range(3 + turn * 7):
                index, jws = process.stdout.readline().split()
                acknowledged[int(index)] = jws
            process.kill()
            for line in process.stdout:  # what it still managed to say
                if line.endswith("\n"):
                    index, jws = line.split()
                    acknowledged[int(index)] = jws
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    log = AuditLog(tmp_path / "log", signer)
    log.close()
    reader = AuditReader(log.path, log.key)
    for index, jws in acknowledged.items():
        assert reader.record(index).jws == jws
    from kest.core import StaticIdentity

    identity = StaticIdentity("spiffe://kest.test/unit", key=bytes(range(32)))
    report = verify_log(log.path, log.key, {identity.get_identity(): identity})
    assert all("unreadable" in problem.reason for problem in report.problems)
    assert report.opened == 21
    assert report.missing_count <= 20
    assert all(missing.lost for missing in report.missing)
    assert report.kinds["unreadable"] >= len(acknowledged)


def test_e4_a_real_full_disk(tmp_path: Path, signer: Any) -> None:
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        log = AuditLog(place / "log", signer, checkpoint_interval=3600, close_timeout=0.1)
        acknowledged = []

        def fill() -> None:
            for number in range(10_000):
                text = f"ey{number}." + "x" * 1000 + ".y"
                log.append(text).wait()
                acknowledged.append(text)

        with pytest.raises(AuditUnavailableError, match="No space left"):
            fill()
        assert len(acknowledged) > 100
        with pytest.raises(AuditError):
            log.close()
        subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
        log = AuditLog(place / "log", signer)
        log.close()
        reader = AuditReader(log.path, log.key)
        assert [r.jws for r in reader.records() if r.kind != "log"] == acknowledged
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_e4_a_read_only_folder(run_python: Any, tmp_path: Path) -> None:
    place = tmp_path / "ro"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with pytest.raises(OSError, match="Read-only"):
            AuditLog(place / "log", Signer("x", bytes(32)))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_e4_a_clock_that_is_set_back(configured: Any, open_log: Callable[..., AuditLog], monkeypatch: Any) -> None:
    import time

    log = open_log(checkpoint_interval=0.001)
    configure(audit=log)
    call = kest_verified("p")(lambda: 1)
    call()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    monkeypatch.setattr(time, "time", lambda: 1.0)
    call()
    report = verified(log, configured)
    assert report.kinds["outcome"] == 2


def test_the_process_ends_with_records_in_the_queue(run_python: Any, tmp_path: Path, signer: Any) -> None:
    script = (
        "import sys; from kest.audit import AuditLog; from kest._kestcore import Signer\n"
        "log = AuditLog(sys.argv[1], Signer('log.kest.test/unit', bytes(range(32))), commit_interval=60)\n"
        "for i in range(100): log.record('outcome', f'a.{i}.b')"
    )
    run_python(script, str(tmp_path / "log"))
    reader = AuditReader(tmp_path / "log", signer.public_key, origin="log.kest.test/unit")
    assert sum(record.jws.startswith("a.") for record in reader.records()) == 100


def test_a_provider_signs_the_log(open_log: Callable[..., AuditLog]) -> None:
    identity = LocalEd25519Provider("spiffe://kest.test/log")
    log = open_log(signer=identity)
    log.close()
    reader = AuditReader(log.path, identity, origin="kest.test/log")
    assert reader.size == 2
    with pytest.raises(AuditError, match="origin="):
        AuditReader(log.path, identity)


def test_a_signer_with_a_very_long_name(open_log: Callable[..., AuditLog]) -> None:
    """Its header makes records too long that seemed to fit: they are kept beside the log."""
    name = "spiffe://kest.test/" + "\u20ac" * 20_000
    log = open_log()
    log.record_unsigned(
        "verdict", Signer(name, bytes(32)), "kest-verdict+jws", b'{"record":"verdict","timestamp_ms":1}'
    )
    log.append(JWS).wait(30)
    log.checkpoint()
    record = AuditReader(log.path, log.key).record(1)
    assert (record.kind, record.signer) == ("verdict", name)


def test_nothing_is_taken_that_nobody_writes(tmp_path: Path, signer: Any) -> None:
    """Threads that record while the log is closed: each record is in the log, or refused."""
    log = AuditLog(tmp_path / "log", signer)
    taken: list[str] = []

    def work(number: int) -> None:
        for i in range(100_000):
            text = f"ey{number}.{i}.b"
            try:
                log.record("outcome", text)
            except AuditUnavailableError:
                return
            taken.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    log.flush()
    log.close()
    for thread in threads:
        thread.join()
    written = {record.jws for record in AuditReader(log.path, log.key).records()}
    assert taken
    assert set(taken) <= written
