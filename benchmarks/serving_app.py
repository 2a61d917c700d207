"""The same FastAPI application three times: bare, under Kest, under the reference stack. Served by uvicorn.

``python -m benchmarks.serving_app bare|kest|reference h11|httptools``: reads the trusted keys as one line of JSON, says its
port in another, then answers a line per command (see `Control`) and ends with its standard input.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import uvicorn
from fastapi import FastAPI

from benchmarks import children
from benchmarks.flows import LOOKUP, ORDER
from benchmarks.serving_orders import get_order, place_order

__all__ = ["OPERATION", "POLICY", "PRINCIPAL", "SEED", "application"]

PRINCIPAL, SEED = "spiffe://prod.example.com/ns/shop/sa/orders", bytes(range(32))
POLICY, OPERATION = "allow_lookup", "get_order"


def _application(decorate: Callable[[str], Callable[[Any], Any]]) -> FastAPI:
    app = FastAPI()
    app.get(LOOKUP.path.rpartition("/")[0] + "/{order}")(decorate(OPERATION)(get_order))
    app.post(ORDER.path)(decorate("place_order")(place_order))
    return app


def bare(keys: dict[str, bytes]) -> FastAPI:
    """Nothing reads the baggage header."""
    return _application(lambda operation: lambda handler: handler)


def kest(keys: dict[str, bytes]) -> FastAPI:
    """`KestMiddleware`, and the handlers decorated."""
    from kest.core import KestMiddleware, LocalEd25519Provider, MockPolicyEngine, TrustStore, configure, kest_verified

    logging.getLogger("kest").setLevel(logging.ERROR)  # that the forged request is refused is no news
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider(PRINCIPAL, SEED), trust_store=TrustStore(keys))
    app = _application(lambda operation: kest_verified(POLICY, operation_name=operation))
    app.add_middleware(KestMiddleware)
    return app


def reference(keys: dict[str, bytes]) -> FastAPI:
    """The same job by the reference stack."""
    from benchmarks.reference_http import ReferenceMiddleware, governed
    from benchmarks.reference_stack import ReferenceSigner

    signer = ReferenceSigner(PRINCIPAL, SEED)
    app = _application(lambda operation: governed(POLICY, signer, operation))
    app.add_middleware(ReferenceMiddleware, keys=keys)
    return app


def application(variant: str, keys: dict[str, bytes]) -> FastAPI:
    return {"bare": bare, "kest": kest, "reference": reference}[variant](keys)


class Control:
    """What the measuring process can ask of this one."""

    def __init__(self) -> None:
        self._busy = ExitStack()

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return time.process_time()

    def resident(self) -> int:
        """Bytes in memory after everything that is free has been given back."""
        return children.resident()

    def lock(self, mode: Any) -> None:
        """The lock policy of the core."""
        from kest._kestcore import lock_mode

        lock_mode(mode)

    def busy(self, wanted: str) -> None:
        """A thread that computes in Python, or none."""
        from benchmarks.lock import busy_thread

        self._busy.close()
        self._busy.enter_context(busy_thread(wanted == "on"))

    def listen(self, server: uvicorn.Server) -> None:
        """Until standard input ends."""
        for line in sys.stdin:
            name, *arguments = line.split()
            print(json.dumps(getattr(self, name)(*arguments)), flush=True)
        self._busy.close()
        server.should_exit = True


def main() -> None:
    variant, protocol = sys.argv[1:]
    keys = {name: bytes.fromhex(key) for name, key in json.loads(sys.stdin.readline()).items()}
    server = uvicorn.Server(
        uvicorn.Config(
            application(variant, keys),
            http=protocol,
            loop="asyncio",
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=3600,  # connections idle while other variants have their turn
        )
    )
    # asyncio switches Nagle's algorithm off only where the socket says that it is TCP, as uvicorn's own sockets do.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    threading.Thread(target=Control().listen, args=(server,), daemon=True).start()
    print(json.dumps(listening.getsockname()[1]), flush=True)
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
