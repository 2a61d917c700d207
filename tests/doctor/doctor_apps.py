"""Applications to attack: one that believes everything, and ones that Kest's hooks protect."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from fastapi import FastAPI, Request

from kest.core import LocalEd25519Provider
from kest.http import KestIdentityMiddleware, KestMiddleware

ALICE_SEED = b"a" * 32
ALICE = LocalEd25519Provider("spiffe://kest.test/alice", seed=ALICE_SEED)
ISSUER = LocalEd25519Provider("issuer", seed=b"i" * 32)


def protected(jwks: str | None = None, **settings: Any) -> FastAPI:
    """With a trust store, and where there is an issuer, tokens."""
    started: list[bool] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        started.append(True)
        yield
        started.clear()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(KestMiddleware, **{"trust_store": {ALICE.get_identity(): ALICE}, **settings})
    if jwks is not None:
        app.add_middleware(KestIdentityMiddleware, jwks_uri=jwks, prefetch=False)

    @app.get("/")
    async def root() -> dict[str, bool]:
        assert started  # the state that the lifespan makes is there
        return {"ok": True}

    return app


def unprotected() -> FastAPI:
    """Reads what comes without verifying anything, and acts on it: what must be found."""
    app = FastAPI()

    @app.get("/")
    async def root(request: Request) -> dict[str, Any]:
        baggage = dict(
            member.split("=", 1)
            for line in request.headers.getlist("baggage")
            for member in line.split(",")
            if "=" in member
        )
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return {
            "names": [unquote(value) for key, value in baggage.items() if key != "kest.passport"][:3],
            "jwt": _claims(unquote(baggage.get("kest.jwt", ""))),
            "token": _claims(token),
            "user": [value for name, value in request.headers.items() if name.startswith("x-")],
        }

    return app


def _claims(token: str) -> Any:
    parts = token.split(".")
    if len(parts) < 2:
        return token
    with contextlib.suppress(ValueError):
        return json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    return None


@contextlib.contextmanager
def issuing() -> Iterator[str]:
    """The URL of the key set of `ISSUER`."""
    document = json.dumps({"keys": [{**ISSUER.public_jwk(), "kid": "kest-doctor"}]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(document)))
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
