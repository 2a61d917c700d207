"""Kest and the reference stack at the same request: the handler's entry has to say the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benchmarks.flows import Flow
from benchmarks.reference_http import chain_var, governed, read
from benchmarks.reference_stack import ReferenceSigner, unb64
from benchmarks.serving_app import OPERATION, POLICY, PRINCIPAL, SEED
from benchmarks.serving_orders import get_order
from kest.core import LocalEd25519Provider, MockPolicyEngine, TrustStore, configure, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.http.edge import Edge

__all__ = ["same_entries"]

OWN = ("entry_id", "timestamp_ms")  # of each entry


def _by_kest(flow: Flow, header: bytes) -> tuple[list[str], str]:
    configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider(PRINCIPAL, SEED), clear=True)
    handler = kest_verified(POLICY, operation_name=OPERATION)(get_order)

    async def serve() -> list[str]:
        with lineage(Edge(TrustStore(flow.keys)).read([header]).passport):
            await handler(order=7)
            return list(get_current_passport().entries)

    entries = asyncio.run(serve())
    return entries[:-1], entries[-1]


def _by_reference(flow: Flow, header: bytes) -> tuple[list[str], str]:
    keys = {name: Ed25519PublicKey.from_public_bytes(key) for name, key in flow.keys.items()}
    handler = governed(POLICY, ReferenceSigner(PRINCIPAL, SEED), OPERATION)(get_order)

    async def serve() -> tuple[list[str], str]:
        chain_var.set(read([header], keys))
        await handler(order=7)
        chain = chain_var.get()
        return json.loads(chain.arrived), chain.added[0]

    return asyncio.run(serve())


def _content(jws: str) -> Any:
    payload = json.loads(unb64(jws.split(".")[1]))
    return jws.split(".")[0], {name: value for name, value in payload.items() if name not in OWN}


def same_entries() -> None:
    for flow in (Flow(0, 1, ""), Flow(9, 1, "_z")):
        header = flow.header()
        (came, ours), (also, theirs) = _by_kest(flow, header), _by_reference(flow, header)
        if came != also or _content(ours) != _content(theirs):
            raise AssertionError("Kest and the reference stack make different entries of the same request")
