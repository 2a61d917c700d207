"""Requests with real passports, good and bad ones, over a few connections; what came back is what was to come back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from figures import STEPS
from soak_server import NAME, SEED

from kest._kestcore import pack_dense, pack_z
from kest.core import KestEntry, LocalEd25519Provider, Passport, PassportVerifier, TrustStore, sign_entry

CONNECTIONS, WHOLE_EVERY, FRESH_EVERY = 8, 500, 200
ALICE = LocalEd25519Provider("spiffe://kest.test/alice", seed=b"alice".ljust(32))
SERVICE = LocalEd25519Provider(NAME, seed=SEED)
STORE = TrustStore({one.get_identity(): one for one in (ALICE, SERVICE)})
CALLERS = [f"{ALICE.get_identity()}={ALICE.signer.public_key.hex()}"]


def chained(count: int) -> Passport:
    passport = Passport()
    for _ in range(count):
        passport.add_signature(sign_entry(KestEntry("client", parent_ids=passport.tips or ("0",)), ALICE))
    return passport


def header(key: str, value: str, tip: str) -> bytes:
    return f"{key}={quote(value, safe='')},kest.chain_tip={tip}".encode()


def variants(passport: Passport) -> Iterator[tuple[bytes, int, list[str]]]:
    """Headers, the status that each is answered with, and the entries that it brings."""
    tip, entries = passport.chain_tip, passport.entries
    dense = pack_dense(passport)
    assert dense is not None
    if len(entries) < 4:
        yield header("kest.passport", passport.serialize(), tip), 200, entries
    yield header("kest.passport_z", pack_z(passport), tip), 200, entries
    yield header("kest.passport_d", dense, tip), 200, entries
    yield header("kest.passport_d", dense, "0" * 64), 400, []
    yield header("kest.passport_z", pack_z(passport)[:-9], tip), 400, []
    forged = Passport([*entries[:-1], entries[-1][:-9] + ("A" if entries[-1][-9] != "A" else "B") + entries[-1][-8:]])
    yield header("kest.passport_d", pack_dense(forged) or "", forged.chain_tip), 403, []


class Client:
    def __init__(self, port: int, count: int) -> None:
        self.port, self.count = port, count
        self.known = [one for length in (1, 2, 6, 12) for one in variants(chained(length))]
        self.accepted = self.refused = self.verified = self.sent = 0

    async def get(self, streams: Any, path: str, baggage: bytes = b"") -> tuple[int, bytes]:
        reader, writer = streams
        line = b"baggage: " + baggage + b"\r\n" if baggage else b""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode() + line + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        return int(head.split(b" ", 2)[1]), await reader.readexactly(length)

    async def one(self, streams: Any, number: int) -> None:
        if number % FRESH_EVERY == 0:  # nobody has seen this one
            baggage, status, entries = next(variants(chained(1 + number // FRESH_EVERY % 3)))
        else:
            baggage, status, entries = self.known[number % len(self.known)]
        whole = number % WHOLE_EVERY == 0
        answered, body = await self.get(streams, "/whole" if whole else "/", baggage)
        assert answered == status, (answered, status, body)
        self.accepted += status == 200
        self.refused += status != 200
        if whole and status == 200:
            passport = Passport.deserialize(body)
            assert passport.entries[:-1] == entries
            assert len(PassportVerifier.verify(passport, STORE)) == len(entries) + 1
            self.verified += 1

    async def run(self) -> dict[str, Any]:
        samples, started = [], time.monotonic()
        streams = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(CONNECTIONS)]
        for step in range(STEPS):
            first, last = self.count * step // STEPS, self.count * (step + 1) // STEPS

            async def share(which: int, first: int = first, last: int = last) -> None:
                for number in range(first + which, last, CONNECTIONS):
                    await self.one(streams[which], number)

            await asyncio.gather(*(share(which) for which in range(CONNECTIONS)))
            samples.append(json.loads((await self.get(streams[0], "/figures"))[1]))
        for _, writer in streams:
            writer.close()
            await writer.wait_closed()
        return {
            "count": self.count, "seconds": time.monotonic() - started, "verified": self.verified, "samples": samples,
            "accepted": self.accepted, "refused": self.refused,
        }  # fmt: skip
