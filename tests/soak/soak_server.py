"""A service behind `KestMiddleware` and uvicorn, with an audit log; prints its port, and ends when its input does.

Usage: soak_server.py LOG PRINCIPAL=HEX...
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from typing import Any

import uvicorn
from figures import sample

from kest.audit import AuditLog
from kest.core import LocalEd25519Provider, MockPolicyEngine, TrustStore, configure, kest_verified
from kest.core.context import get_current_passport
from kest.http import KestMiddleware

SEED = b"soak".ljust(32)
NAME = "spiffe://kest.test/service"


@kest_verified("p", operation_name="work")
async def work(whole: bool) -> bytes:
    passport = get_current_passport()
    return passport.serialize().encode() if whole else passport.chain_tip.encode()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["path"] == "/figures":
        body = json.dumps(sample()).encode()
    else:
        body = await work(scope["path"] == "/whole")
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(path: str, callers: list[str]) -> None:
    identity = LocalEd25519Provider(NAME, seed=SEED)
    # A short queue: how long it gets at worst, which is a matter of luck, would be what is measured.
    log = AuditLog(path, identity, max_pending=500)
    configure(engine=MockPolicyEngine(), identity=identity, audit=log)
    store = TrustStore({name: bytes.fromhex(key) for name, _, key in (one.partition("=") for one in callers)})
    # asyncio switches Nagle's algorithm off only where the socket says that it is TCP.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)  # from here on nobody is turned away
        config = uvicorn.Config(
            KestMiddleware(app, trust_store=store), log_level="critical", lifespan="off", access_log=False
        )
        server = uvicorn.Server(config)

        def until_told() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=until_told, daemon=True).start()
        print(listener.getsockname()[1], flush=True)
        server.run(sockets=[listener])
    log.close()
    print(log.key.vkey, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
