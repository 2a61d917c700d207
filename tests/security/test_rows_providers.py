"""B6, D4 and D5 for every provider that needs no server; tests/services has those of SPIRE, AWS and the issuers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kest._kestcore import b64url_encode
from kest.core import (
    BedrockAgentIdentity,
    LocalEd25519Provider,
    MockIdentityProvider,
    OIDCIdentity,
    PassportVerifier,
    StaticIdentity,
    configure,
    kest_verified,
)
from kest.core.context import get_current_passport, lineage
from kest.core.identity import BaseIdentity, async_sign_payload, sign_payload, signing_input, waiting
from kest.core.identity.jws import compact
from kest.errors import IdentityError

NAME = "spiffe://kest.test/provider"
KEY = StaticIdentity(NAME, b"k" * 32)
TIERS = ("enterprise", "platform", "app", "function")


def token() -> str:
    claims = {"iss": "https://issuer.test", "sub": "shop", "exp": int(time.time()) + 600}
    return ".".join(b64url_encode(json.dumps(part).encode()) for part in ({"alg": "ES256"}, claims, "signature"))


def bedrock(kind: type[BedrockAgentIdentity] = BedrockAgentIdentity) -> BedrockAgentIdentity:
    return kind("ABCDEFGHIJ", "TSTALIASID", signer=KEY, account="123456789012", region="eu-central-1")


class Whole:
    """A custom provider that returns whole JWS."""

    def get_identity(self) -> str:
        return NAME

    def sign(self, payload: bytes) -> Any:
        message = signing_input(NAME, payload, "EdDSA")[1]
        return compact(message, KEY.sign_message(message))

    def public_jwk(self) -> dict[str, Any]:
        return KEY.public_jwk()


class Raw(Whole):
    """A custom provider that returns raw signatures, over what it is told to sign."""

    algorithm = "EdDSA"

    def sign(self, payload: bytes) -> Any:
        return KEY.sign_message(signing_input(NAME, payload, "EdDSA")[1])


class Asynchronous(Whole):
    """A custom provider for event loops."""

    async def async_sign(self, payload: bytes) -> Any:
        await asyncio.sleep(0)
        return Whole.sign(self, payload)


class Based(BaseIdentity):
    """A custom provider made from four members."""

    def get_identity(self) -> str:
        return NAME

    def sign_message(self, message: bytes) -> bytes:
        return KEY.sign_message(message)

    def public_jwk(self) -> dict[str, Any]:
        return KEY.public_jwk()


class Keyless(Whole):
    """A custom provider that does not publish its key."""

    public_jwk = None  # type: ignore[assignment]


CUSTOM = (Whole, Raw, Asynchronous, Based, Keyless)
MAKERS: dict[str, Callable[[], Any]] = {
    "local": lambda: LocalEd25519Provider(NAME),
    "static": lambda: StaticIdentity(NAME, b"k" * 32),
    "mock": MockIdentityProvider,
    "oidc": lambda: OIDCIdentity(token=token(), key=b"k" * 32),
    "bedrock": bedrock,
    **{kind.__name__.lower(): kind for kind in CUSTOM},
}


def subclass(name: str, **members: Any) -> Any:
    """The provider of this name with some members of its class replaced."""
    made = MAKERS[name]()
    kind = type(made)
    other = type(f"Other{kind.__name__}", (kind,), {"__slots__": (), **members} if name not in CUSTOM else members)
    if name == "bedrock":
        return bedrock(other)
    if name == "oidc":
        return other(token=token(), key=b"k" * 32)
    return other() if kind in CUSTOM or name == "mock" else other(NAME, b"k" * 32)


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("name", MAKERS)
async def test_b6_what_is_recorded_was_asked_and_verifies(name: str, recording: Any, payload_of: Any) -> None:
    identity = MAKERS[name]()
    deviation = {"policy": "p2", "tier": "platform", "scope": "work", "reason": "tried", "approver": "ops"}
    configure(
        engine=recording, identity=identity, enterprise_policies=["e"], platform_policies=["p1", "p2"],
        app_policies=["a"], deviations=[deviation],
    )  # fmt: skip

    @kest_verified("f", operation_name="work")
    async def later() -> None: ...

    with lineage():
        kest_verified("f", operation_name="work")(lambda: None)()
        await later()
        passport = get_current_passport()
    key = KEY if isinstance(identity, Keyless) else identity.public_jwk()
    assert len(PassportVerifier.verify(passport, {identity.get_identity(): key})) == 2
    for jws in passport.entries:
        context = payload_of(jws)["policy_context"]
        assert [context[f"{tier}_policies"] for tier in TIERS] == [["e"], ["p1"], ["a"], ["f"]]
        assert [one["policy"] for one in context["deviations"]] == ["p2"]
    assert {name for names, _ in recording.asked for name in names} == {"e", "p1", "a", "f"}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("returned", ["pending", None, b"", b"x" * 64, "a.b.c", KEY.sign(b"{}"), OSError("hunter2")])
async def test_d5_what_is_no_signature_fails_closed(name: str, returned: Any, configured: Any) -> None:
    def sign(self: Any, payload: bytes) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    async def async_sign(self: Any, payload: bytes) -> Any:
        return sign(self, payload)

    ran: list[int] = []
    calls: dict[str, Any] = {"sign": sign, "async_sign": async_sign}
    for members in ({"sign": sign}, calls):
        if name == "asynchronous":
            members = calls
        identity = subclass(name, **members)

        @kest_verified("work", identity=identity)
        async def step() -> None:
            ran.append(1)

        with pytest.raises(IdentityError) as caught:
            kest_verified("work", identity=identity)(lambda: ran.append(1))()
        assert "hunter2" not in str(caught.value)
        with pytest.raises(IdentityError):
            await step()
    assert not ran
    assert len(get_current_passport()) == 0


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("method", ["sign", "get_identity", "async_sign"])
async def test_d5_a_provider_that_hangs_is_given_up(
    name: str, method: str, hanging: threading.Event, configured: Any
) -> None:
    async def never(self: Any, payload: bytes) -> Any:
        await asyncio.get_running_loop().run_in_executor(None, hanging.wait, 60)

    members = {method: never if method == "async_sign" else lambda self, *payload: hanging.wait(60)}
    identity = subclass(name, call_timeout=0.05, blocking=True, **members)
    ran: list[int] = []

    @kest_verified("work", identity=identity)
    async def step() -> None:
        ran.append(1)

    if name != "asynchronous" or method != "sign":  # which has a way of its own for event loops
        with pytest.raises(IdentityError, match=r"did not answer within 0\.05 s; nothing was signed"):
            await step()
    if method != "async_sign":
        with pytest.raises(IdentityError, match=r"did not answer within 0\.05 s; nothing was signed"):
            kest_verified("work", identity=identity)(lambda: ran.append(1))()
        assert not ran
    hanging.set()


@pytest.mark.parametrize("kind", CUSTOM)
async def test_custom_providers_run_off_the_loop_unless_they_say_that_they_never_wait(kind: Any) -> None:
    where: list[str] = []

    class Seen(kind):  # type: ignore[misc]
        def get_identity(self) -> str:
            where.append(threading.current_thread().name)
            return NAME

    class Quick(Seen):
        blocking = False

    await async_sign_payload(Seen(), b"{}")
    assert set(where) == {"kest-identity"}
    where.clear()
    await async_sign_payload(Quick(), b"{}")
    sign_payload(Quick(), b"{}")
    assert set(where) == {threading.current_thread().name}


def test_a_call_that_was_given_up_in_the_queue_is_never_signed(
    hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MAX_THREADS", 1)
    monkeypatch.setattr(waiting, "_threads", None)
    signed: list[bytes] = []

    class Hangs(Whole):
        call_timeout = 0.05

        def sign(self, payload: bytes) -> Any:
            signed.append(payload)
            hanging.wait(60)
            return super().sign(payload)

    for payload in (b"[1]", b"[2]"):
        with pytest.raises(IdentityError, match="did not answer"):
            sign_payload(Hangs(), payload)
    hanging.set()
    assert sign_payload(Whole(), b"{}")  # by the same thread, after what was queued before
    assert signed == [b"[1]"]


async def test_a_cancelled_call_cancels_its_provider(configured: Any) -> None:
    ended: list[str] = []

    class Waits(Whole):
        async def async_sign(self, payload: bytes) -> Any:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

    started = asyncio.Event()

    @kest_verified("work", identity=Waits())
    async def step() -> None:
        ended.append("ran")

    task = asyncio.create_task(step())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


@pytest.mark.parametrize("limit", [0, -1, "5", None, True, float("nan")])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    provider = Whole()
    provider.call_timeout = limit  # type: ignore[attr-defined]
    with pytest.raises(IdentityError, match="call_timeout must be a number of seconds above 0"):
        sign_payload(provider, b"{}")


def test_a_timeout_of_the_provider_is_the_providers() -> None:
    class TimesOut(Whole):
        def sign(self, payload: bytes) -> Any:
            raise TimeoutError("hunter2")

    with pytest.raises(IdentityError, match=r"TimesOut\.sign\(\) failed with TimeoutError"):
        sign_payload(TimesOut(), b"{}")


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_providers_that_wait_work_in_the_child_of_a_fork(run_python: Any) -> None:
    script = (
        "import os, sys\n"
        "from kest.core import StaticIdentity\n"
        "from kest.core.identity import sign_payload\n"
        "class Slow(StaticIdentity):\n"
        "    blocking = True\n"
        "one = Slow('a', b'k' * 32)\n"
        "assert sign_payload(one, b'{}')\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os._exit(0 if sign_payload(one, b'{}') else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    run_python(script, timeout=30)


def test_a_provider_that_hangs_does_not_keep_the_interpreter_from_ending(run_python: Any) -> None:
    script = (
        "import asyncio, threading\n"
        "from kest.core import StaticIdentity\n"
        "from kest.core.identity import async_sign_payload, sign_payload\n"
        "class Hangs(StaticIdentity):\n"
        "    blocking, call_timeout = True, 0.05\n"
        "    def sign(self, payload): threading.Event().wait()\n"
        "for call in (lambda: sign_payload(Hangs('a'), b''), lambda: asyncio.run(async_sign_payload(Hangs('a'), b''))):\n"
        "    try: call()\n"
        "    except Exception as error: print(error)"
    )
    assert run_python(script, timeout=30).stdout.count("Hangs did not answer within 0.05 s") == 2


def test_nothing_is_logged_of_a_provider_that_fails(configured: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Whole):
        def sign(self, payload: bytes) -> Any:
            raise OSError("token=hunter2")

    with caplog.at_level(logging.DEBUG), pytest.raises(IdentityError):
        kest_verified("work", identity=Fails())(lambda: None)()
    assert "hunter2" not in caplog.text
