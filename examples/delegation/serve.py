"""One of the five services, in a process of its own: ``python serve.py NAME FD`` serves on an inherited socket.

Standard input brings the settings as one line of JSON (no secret is in an argument list or environment), standard output
takes the public key, and a second line on standard input says that the operator has put everybody's keys together.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from pathlib import Path

import uvicorn
from workload import Issuer, JsonLines, engine, principal_of, start

from kest import RedisCache, StaticIdentity, TrustStore, configure


def main() -> None:
    """Take the settings, publish the key, wait for the others' keys, serve."""
    name, descriptor = sys.argv[1], int(sys.argv[2])
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = json.loads(sys.stdin.readline())
    identity = StaticIdentity(principal_of(name))  # made here and never written down: only its public half leaves
    print(json.dumps(identity.public_jwk()), flush=True)
    if not sys.stdin.readline():
        sys.exit("the operator went away")
    store = TrustStore.from_jwks(settings["keys"])
    configure(
        engine=engine(name),
        identity=identity,
        cache=RedisCache(settings["redis"]),
        trust_store=store,
        audit=JsonLines(Path(settings["records"])),
    )
    url = settings["issuer"]
    app = start(name, store, Issuer(url, f"{url}/jwks", f"{url}/token"), settings["secret"], settings["peers"])
    print("ready", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
    asyncio.run(server.serve([socket.socket(fileno=descriptor)]))


if __name__ == "__main__":
    main()
