"""One of the five services of examples/delegation, with an identity from SPIRE: ``python service.py NAME``.

It takes from its environment, here and in compose.yaml, where everything is: SPIFFE_ENDPOINT_SOCKET, OPA_URL, REDIS_URL,
OTEL_EXPORTER_OTLP_ENDPOINT, OIDC_ISSUER and OIDC_CLIENT_SECRET, PEERS (``name=url`` each, separated by spaces), LISTEN
(``host:port``) and RECORDS, a folder for what it signs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "delegation"))

import tracing
import uvicorn
from spiffe import X509Source
from spiffe.errors import PySpiffeError
from workload import SERVICES, Issuer, JsonLines, principal_of, start

from kest import OPAPolicyEngine, RedisCache, SPIREProvider, TrustStore, configure
from kest.errors import KestError

__all__ = ["DOMAIN", "believe"]

DOMAIN = "delegation.example"
PATIENCE = 20.0  # seconds for the first SVID: the agent may still be learning of this workload


def believe(source: Any) -> TrustStore:
    """Whoever has an SVID of the trust domain may say who they are; only the gateway may raise trust and remove taints.

    Args:
        source: the bundle, in any form that `TrustStore.from_spiffe_bundle` takes.
    """
    gateway = {principal_of("kest-gateway"): {"max_trust": 100, "may_sanitise": True}}
    return TrustStore.from_spiffe_bundle(source, DOMAIN, max_trust=10, may_sanitise=False, rights=gateway)


def issuer() -> Issuer:
    """A Keycloak realm: its tokens name no actor, so the client that a token was issued to counts as the agent."""
    url = os.environ["OIDC_ISSUER"]
    endpoints = f"{url}/protocol/openid-connect"
    return Issuer(url, f"{endpoints}/certs", f"{endpoints}/token", actors=False, agent_claims=("azp",))


def serve(name: str) -> None:
    """Take the identity, say so, serve until SIGTERM."""
    identity = SPIREProvider(spiffe_id=principal_of(name), timeout=PATIENCE)
    identity.open()
    with X509Source(timeout_in_seconds=PATIENCE) as bundle, tracing.exported(name):
        store = believe(bundle)  # the live one: a new authority counts as soon as the agent tells of it
        configure(
            engine=OPAPolicyEngine(os.environ["OPA_URL"]),
            identity=identity,
            cache=RedisCache(os.environ["REDIS_URL"]),
            trust_store=store,
            audit=JsonLines(Path(os.environ["RECORDS"], f"{name}.jsonl")),
        )
        peers = dict(peer.split("=", 1) for peer in os.environ.get("PEERS", "").split())
        hooks = {"request": [tracing.continue_there]}
        app = start(name, store, issuer(), os.environ["OIDC_CLIENT_SECRET"], peers, event_hooks=hooks)
        app.add_middleware(tracing.Continued)
        host, _, port = os.environ["LISTEN"].rpartition(":")
        with socket.create_server((host, int(port)), backlog=128) as listening:
            print("ready", flush=True)
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2))
            asyncio.run(server.serve([listening]))
    identity.close()


def main() -> None:
    """Serve, or say in one line why not."""
    if len(sys.argv) != 2 or sys.argv[1] not in SERVICES:
        sys.exit(f"usage: service.py {'|'.join(SERVICES)}")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        serve(sys.argv[1])
    except (KestError, PySpiffeError, KeyError, OSError) as error:
        sys.exit(f"{sys.argv[1]} does not start: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
