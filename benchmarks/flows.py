"""Requests that carry lineage: HTTP/1.1 bytes, each with a passport whose last entry nobody has seen before.

Made from `Hops`, so that what is verified looks like what real services sign. A cache that remembers whole passports, or
whole headers, gains nothing here.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.hops import Hops
from kest._kestcore import Passport, Signer, b64url_decode, pack_dense, pack_z, parse
from kest.core.baggage import BaggageManager
from kest.http.baggage_header import format_member, join_header

__all__ = ["LOOKUP", "ORDER", "Flow", "Operation", "Signed", "request"]


class Operation(NamedTuple):
    """What is asked of the application, and how its answer ends."""

    method: str
    path: str
    body: bytes
    answer: bytes

    def head(self) -> bytes:
        """The request but for its ``baggage`` header and its body."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "host: 127.0.0.1", "user-agent: benchmark", "accept: */*"]
        if self.body:
            lines += ["content-type: application/json", f"content-length: {len(self.body)}"]
        return "\r\n".join([*lines, ""]).encode()


LOOKUP = Operation("GET", "/orders/7", b"", b'{"order":7}')
"""As little as an application can do: whatever stands before it weighs most here."""

ORDER = Operation(
    "POST",
    "/orders",
    json.dumps(
        {
            "customer": {"id": "c-20417", "email": "nora@example.com", "country": "NL"},
            "currency": "EUR",
            "lines": [
                {"sku": f"BK-{number:04}", "title": f"Volume {number}", "quantity": number, "price": 12.5 + number}
                for number in range(1, 6)
            ],
            "note": "please ring twice",
        }
    ).encode(),
    b'"items":15,"total":242.5,"currency":"EUR"}',
)
"""What services do: a JSON body into models, a little work, a response model."""

_flows = itertools.count()


def request(header: bytes | None, operation: Operation = LOOKUP) -> bytes:
    """This operation with this ``baggage`` header."""
    return operation.head() + (b"" if header is None else b"baggage: " + header + b"\r\n") + b"\r\n" + operation.body


class Signed:
    """One entry as the bare primitive sees it."""

    def __init__(self, jws: str, keys: Mapping[str, bytes]) -> None:
        message, _, signature = jws.rpartition(".")
        header: Any = parse(b64url_decode(message.partition(".")[0]))
        self.message, self.signature = message.encode("ascii"), b64url_decode(signature)
        self.key = keys[header["kid"]]


class Flow:
    """``known`` entries that the receiver has seen, and any number of passports that go on from there."""

    def __init__(
        self, known: int, new: int, form: str, seed: int = 30, services: int = 2, identity: bool = False
    ) -> None:
        self.hops = Hops(seed=seed, services=services)  # the same keys in every flow
        self.hops.rng = random.Random(f"{seed}/{next(_flows)}")  # and no entry that is in another
        self.prefix = self.hops.walk(known)
        self.new, self.form, self.identity = new, form, identity
        self.records: dict[str, str] = {}
        """What the claim checks of these headers stand for."""

    @property
    def keys(self) -> dict[str, bytes]:
        return self.hops.keys

    def passport(self) -> Passport:
        """A passport that has not been there before."""
        self.hops.passport = self.prefix
        return self.hops.walk(self.new)

    def forged(self) -> Passport:
        """A new root in the name of a trusted service, which did not sign it; its links and its tip are in order."""
        self.hops.passport, self.hops.at = Passport(), 0
        return self.hops.hop(Signer(self.hops.workloads[0].principal, bytes(32)))

    def header(self, passport: Passport | None = None) -> bytes:
        """The ``baggage`` header for a new passport, or for this one."""
        passport = self.passport() if passport is None else passport
        values = self._values(passport)
        if self.identity:
            who: Any = parse(self.hops.labels["kest.identity"])
            values |= {f"kest.{name}": who[name] for name in ("user", "agent", "task")}
        return join_header([], [format_member(key, value) for key, value in values.items()])

    def _values(self, passport: Passport) -> dict[str, str]:
        if self.form == "claim":
            return BaggageManager.pack(passport, self.records, limit=0)
        pack = {"": Passport.serialize, "_z": pack_z, "_d": pack_dense}[self.form]
        packed = pack(passport)
        if packed is None:
            raise AssertionError("the dense form does not exist for this passport")
        return {f"kest.passport{self.form}": packed, "kest.chain_tip": passport.chain_tip}

    def requests(self, count: int, operation: Operation = LOOKUP) -> list[bytes]:
        return [request(self.header(), operation) for _ in range(count)]

    def signed(self) -> list[Signed]:
        """The new entries of one passport."""
        return [Signed(jws, self.keys) for jws in self.passport().entries[-self.new :]]
