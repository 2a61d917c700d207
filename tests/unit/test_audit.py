"""Signed records of entries, denials and outcomes, through a small sink."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from kest._kestcore import PublicKey, b64url_decode, sha256
from kest.core import AuditSink, LocalEd25519Provider, PolicyDeniedError, configure, kest_verified
from kest.core.context import get_current_passport
from kest.core.hashing import hash_value
from kest.errors import KestError

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def audit(sink: Any) -> Any:
    configure(audit=sink)
    return sink


def header(jws: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(b64url_decode(jws.split(".")[0]))
    return result


def outcomes(audit: Any) -> list[str]:
    return [payload["result"] for payload in audit.payloads("outcome")]


def test_the_sink_protocol(sink: Any) -> None:
    assert isinstance(sink, AuditSink)


def test_entry_then_outcome(audit: Any, identity: Any) -> None:
    @kest_verified("p", operation_name="op")
    def f() -> dict[str, int]:
        assert [kind for kind, _ in audit.records] == ["entry"]  # before the body runs
        return {"x": 1}

    f()
    (_, entry), (_, outcome) = audit.records
    assert entry == get_current_passport().entries[0]
    assert header(outcome) == {"alg": "EdDSA", "kid": "spiffe://kest.test/unit", "typ": "kest-outcome+jws"}
    message, _, signature = outcome.rpartition(".")
    assert PublicKey.from_jwk(identity.public_jwk()).verify(message.encode(), b64url_decode(signature))
    (payload,) = audit.payloads("outcome")
    assert payload["entry_hash"] == sha256(entry.encode()).hex()
    assert payload["entry_id"] == get_current_passport().decode()[0]["entry_id"]
    assert payload["operation"] == "op"
    assert payload["result"] == "returned"
    assert payload["output_hash"] == hash_value({"x": 1})[0]
    assert payload["error"] is None
    assert 0 <= payload["duration_us"] < 10_000_000


def test_an_outcome_is_no_entry(audit: Any) -> None:
    from kest.core import Passport, VerificationError

    kest_verified("p")(lambda: 1)()
    outcome = audit.records[1][1]
    with pytest.raises(VerificationError):
        Passport([outcome]).decode()


def test_raised(audit: Any) -> None:
    def fails() -> None:
        raise LookupError("the card of a customer")

    with pytest.raises(LookupError, match="customer"):
        kest_verified("p")(fails)()
    (payload,) = audit.payloads("outcome")
    assert (payload["result"], payload["error"], payload["output_hash"]) == ("raised", "builtins.LookupError", "")
    assert "customer" not in json.dumps(payload)


def test_denied(audit: Any, configured: Any) -> None:
    configured.engine.answer = False
    configure(enterprise_policies=["e"])
    with pytest.raises(PolicyDeniedError) as denied:
        kest_verified("p", operation_name="op", user="u", source_type="llm", added_taints=["t"])(lambda: 1)()
    ((kind, jws),) = audit.records
    assert kind == "denial"
    assert header(jws)["typ"] == "kest-denial+jws"
    (payload,) = audit.payloads("denial")
    assert (payload["policy"], payload["tier"], payload["operation"]) == ("e", "enterprise", "op")
    assert payload["entry_id"] == denied.value.entry_id
    assert payload["reason"] == denied.value.reason
    assert (payload["trust_score"], payload["taints"], payload["parent_ids"]) == (0, ["t"], ["0"])
    assert json.loads(payload["labels"]["kest.identity"])["user"] == "u"


async def test_cancelled(audit: Any) -> None:
    started = asyncio.Event()

    @kest_verified("p")
    async def waits() -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(waits())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(audit) == ["cancelled"]


async def test_coroutine_returned(audit: Any) -> None:
    @kest_verified("p")
    async def f() -> int:
        await asyncio.sleep(0)
        return 5

    await f()
    (payload,) = audit.payloads("outcome")
    assert (payload["result"], payload["output_hash"]) == ("returned", hash_value(5)[0])


async def test_a_function_that_returns_a_coroutine_is_not_over_before_the_coroutine_is(audit: Any) -> None:
    @kest_verified("p")
    def f() -> Any:
        async def body() -> None:
            await asyncio.sleep(0)
            raise LookupError

        return body()

    with pytest.raises(LookupError):
        await f()
    assert outcomes(audit) == ["raised"]


def running_hash(items: list[Any]) -> str:
    running = hashlib.sha256()
    for item in items:
        running.update(bytes.fromhex(hash_value(item)[0]))
    return running.hexdigest()


def test_streams_have_a_running_hash(audit: Any) -> None:
    @kest_verified("p")
    def gen(n: int) -> Iterator[int]:
        yield from range(n)

    list(gen(3))
    (payload,) = audit.payloads("outcome")
    assert (payload["result"], payload["output_hash"]) == ("returned", running_hash([0, 1, 2]))


def test_a_stream_closed_early(audit: Any) -> None:
    @kest_verified("p")
    def gen() -> Iterator[int]:
        yield from range(10)

    steps = gen()
    next(steps)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    (payload,) = audit.payloads("outcome")
    assert (payload["result"], payload["error"]) == ("closed", None)
    assert payload["output_hash"] == running_hash([0, 1])


def test_a_stream_that_fails(audit: Any) -> None:
    @kest_verified("p")
    def gen() -> Iterator[int]:
        yield 0
        raise LookupError

    with pytest.raises(LookupError):
        list(gen())
    (payload,) = audit.payloads("outcome")
    assert (payload["result"], payload["output_hash"]) == ("raised", running_hash([0]))


async def test_async_streams(audit: Any) -> None:
    @kest_verified("p")
    async def agen(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i
        if n == 2:
            raise LookupError

    assert [i async for i in agen(3)] == [0, 1, 2]
    with pytest.raises(LookupError):
        [i async for i in agen(2)]
    steps: Any = agen(9)
    await steps.__anext__()
    await steps.aclose()
    assert outcomes(audit) == ["returned", "raised", "closed"]


async def test_a_cancelled_stream(audit: Any) -> None:
    @kest_verified("p")
    async def agen() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    async def consume() -> None:
        async for _ in agen():
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert outcomes(audit) == ["cancelled"]


def test_a_stream_never_started_was_never_called(audit: Any) -> None:
    @kest_verified("p")
    def gen() -> Iterator[int]:
        yield 1

    gen().close()  # type: ignore[attr-defined]
    assert audit.records == []


def test_a_foreign_signer_signs_records_too(audit: Any) -> None:
    key = LocalEd25519Provider("spiffe://kest.test/foreign")

    class Foreign:
        def get_identity(self) -> str:
            return key.get_identity()

        def sign(self, payload: bytes) -> str:
            return key.sign(payload)

    kest_verified("p", identity=Foreign())(lambda: 1)()
    assert [kind for kind, _ in audit.records] == ["entry", "outcome"]
    (payload,) = audit.payloads("outcome")
    assert payload["record"] == "outcome"


class Full:
    """A sink that refuses one kind of record."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.calls = 0

    def record(self, kind: str, jws: str) -> None:
        if kind == self.kind:
            self.calls += 1
            raise KestError("the audit log is full")


def test_an_entry_that_cannot_be_recorded_stops_the_call() -> None:
    configure(audit=Full("entry"))
    ran: list[int] = []
    with pytest.raises(KestError, match="full"):
        kest_verified("p")(lambda: ran.append(1))()
    assert not ran
    assert len(get_current_passport()) == 0


def test_an_outcome_that_cannot_be_recorded_is_not_silent() -> None:
    full = Full("outcome")
    configure(audit=full)
    ran: list[int] = []
    with pytest.raises(KestError, match="full"):
        kest_verified("p")(lambda: ran.append(1))()
    assert ran == [1]
    assert full.calls == 1


def test_a_denial_that_cannot_be_recorded_stays_a_denial(configured: Any) -> None:
    configure(audit=Full("denial"))
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError) as denied:
        kest_verified("p")(lambda: 1)()
    assert isinstance(denied.value.__cause__, KestError)


def test_any_failure_to_record_a_denial_leaves_it_a_denial(configured: Any) -> None:
    class Broken:
        def record(self, kind: str, jws: str) -> None:
            raise OSError("disk")

    configure(audit=Broken())
    configured.engine.answer = False
    with pytest.raises(PolicyDeniedError):
        kest_verified("p")(lambda: 1)()


def test_nested_calls_are_recorded_in_order(audit: Any) -> None:
    inner = kest_verified("p", operation_name="inner")(lambda: 1)
    kest_verified("p", operation_name="outer")(lambda: inner())()
    kinds = [(kind, json.loads(b64url_decode(jws.split(".")[1]))["operation"]) for kind, jws in audit.records]
    assert kinds == [("entry", "outer"), ("entry", "inner"), ("outcome", "inner"), ("outcome", "outer")]


class Waiting:
    """What a sink returns whose queue is full: the wait fails, and the record is ``written`` all the same or taken back."""

    def __init__(self, written: bool) -> None:
        self.written = written
        self.waited = 0

    def wait(self) -> None:
        self.waited += 1
        raise KeyboardInterrupt

    async def wait_async(self) -> None:
        self.wait()

    def withdraw(self) -> bool:
        return not self.written


class Slow:
    """A sink that makes entries wait."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.outcomes: list[str] = []

    def record(self, kind: str, jws: str) -> Any:
        if kind == "entry":
            return self.waiting
        self.outcomes.append(json.loads(b64url_decode(jws.split(".")[1]))["result"])
        return None


@pytest.mark.parametrize("written", [False, True])
def test_a_call_that_stops_waiting_for_its_entry_does_not_run(written: bool) -> None:
    slow = Slow(Waiting(written))
    configure(audit=slow)
    ran: list[int] = []

    async def body() -> None:
        ran.append(1)

    async def main() -> None:
        await kest_verified("p")(body)()

    with pytest.raises(KeyboardInterrupt):
        kest_verified("p")(lambda: ran.append(1))()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert not ran
    assert slow.waiting.waited == 2
    assert slow.outcomes == (["not_run"] * 2 if written else [])
    assert len(get_current_passport()) == 0


def test_a_sink_that_signs_by_itself(identity: Any, sink: Any) -> None:
    """It is given the payload and the key; identities whose key is elsewhere sign as before."""
    given: list[tuple[str, str, str]] = []

    class Signing:
        def record(self, kind: str, jws: str) -> None:
            sink.record(kind, jws)

        def record_unsigned(self, kind: str, signer: Any, typ: str, payload: bytes) -> None:
            given.append((kind, typ, signer.principal))
            sink.record(kind, signer.sign_jws(payload, typ))

    configure(audit=Signing())
    kest_verified("p")(lambda: 1)()
    assert given == [("outcome", "kest-outcome+jws", identity.get_identity())]
    assert [kind for kind, _ in sink.records] == ["entry", "outcome"]
    assert sink.payloads("outcome")[0]["result"] == "returned"
