"""Servers on real sockets, honest and forged passports, and the headers that carry them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI

from kest.core import LocalEd25519Provider, MockPolicyEngine, Passport, get_active_cache, kest_verified
from kest.core.context import get_current_agent, get_current_passport, get_current_task, get_current_user, lineage

_TESTS = str(Path(__file__).resolve().parent.parent)
if _TESTS not in sys.path:
    sys.path.append(_TESTS)

from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: E402
from reference import b64, canonical  # noqa: E402
from reference import entry as spec  # noqa: E402

ALICE = LocalEd25519Provider("spiffe://kest.test/alice", seed=b"a" * 32)
BOB = LocalEd25519Provider("spiffe://kest.test/bob", seed=b"b" * 32)
HOP = LocalEd25519Provider("spiffe://kest.test/hop", seed=b"h" * 32)
STRANGER = LocalEd25519Provider("spiffe://elsewhere.example/nobody", seed=b"s" * 32)
ALICE_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"a" * 32)
BOB_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"b" * 32)

ENTRY_ID = "0192f0c1-7a3b-7c4d-8e5f-0123456789ab"


def keys(*identities: Any) -> dict[str, Any]:
    return {identity.get_identity(): identity for identity in identities or (ALICE, BOB, HOP)}


# --- servers ---


@contextlib.contextmanager
def serving(app: Any, **settings: Any) -> Iterator[str]:
    """The base URL of an application behind uvicorn, on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        settings = {"log_level": "critical", "ws": "wsproto", "http": "h11", "loop": "asyncio", **settings}
        server = uvicorn.Server(uvicorn.Config(app, **settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            assert server.started
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextlib.contextmanager
def serving_h2(app: Any) -> Iterator[str]:
    """The base URL of an application behind hypercorn, which speaks HTTP/2 without TLS."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "CRITICAL"
    stop = threading.Event()

    async def stopped() -> None:
        await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve(app, config, shutdown_trigger=stopped)), daemon=True)
    thread.start()
    try:
        until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        thread.join(10)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def until(done: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def report() -> dict[str, Any]:
    """The flow as a handler sees it."""
    passport = get_current_passport()
    return {
        "entries": passport.entries,
        "trust": passport.trust_score,
        "taints": list(passport.taints),
        "user": get_current_user(),
        "agent": get_current_agent(),
        "task": get_current_task(),
    }


def service(ran: list[Any] | None = None, identity: Any = HOP, **settings: Any) -> FastAPI:
    """An application with one governed operation, POST /work, and one that is not, GET /plain."""
    from kest.http import KestMiddleware

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        close = getattr(settings.get("cache") or get_active_cache(), "aclose", None)
        if close is not None:
            await close()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(KestMiddleware, **settings)

    @app.post("/work")
    @kest_verified(policy="work", identity=identity)
    async def work() -> dict[str, Any]:
        if ran is not None:
            ran.append(1)
        return report()

    @app.get("/plain")
    async def plain() -> dict[str, Any]:
        if ran is not None:
            ran.append(1)
        return report()

    return app


# --- passports ---


def grown(n: int, *, identity: Any = ALICE, passport: Passport | None = None, **settings: Any) -> Passport:
    """A passport with ``n`` more entries, made by decorated calls."""

    @kest_verified(policy="grow", engine=MockPolicyEngine(), identity=identity, operation_name="grow", **settings)
    def grow() -> None:
        pass

    with lineage(passport):
        for _ in range(n):
            grow()
        return get_current_passport()


def payload(principal: str = ALICE.get_identity(), **changes: Any) -> dict[str, Any]:
    """A well-formed payload of a root entry, with members changed."""
    made = spec.build_payload(
        operation="forged", principal=principal, entry_id=ENTRY_ID, timestamp_ms=1_700_000_000_000
    )
    return {**made, **changes}


def signed(
    claims: Any = None,
    key: Any = ALICE_KEY,
    principal: str = ALICE.get_identity(),
    header: Any = None,
    raw_payload: bytes | None = None,
    raw_header: bytes | None = None,
) -> str:
    head = raw_header or canonical.canonicalize(header or spec.header(principal, spec.algorithm(key)))
    body = raw_payload or canonical.canonicalize(payload(principal) if claims is None else claims)
    return spec.sign_raw(head, body, key)


def tip_of(jws: str) -> str:
    return spec.jws_hash(jws)


def encode(data: bytes) -> str:
    return b64.encode(data)


# --- headers ---


def header_of(members: dict[str, str]) -> str:
    return ",".join(f"{key}={quote(value, safe='')}" for key, value in members.items())


def inline(entries: Sequence[str], tip: str | None = "", **members: str) -> str:
    """A ``baggage`` header with these entries; the tip is the last one's unless given, and left out for None."""
    import json

    values = {"kest.passport": json.dumps(list(entries), separators=(",", ":"))}
    if tip is not None:
        values["kest.chain_tip"] = tip or (tip_of(entries[-1]) if entries else "")
    values |= {f"kest.{name}": value for name, value in members.items()}
    return header_of(values)
