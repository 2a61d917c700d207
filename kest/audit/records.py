"""What is written into a log, and how it reads.

A record is a compact JWS (RFC 7515), of a kind that its header's ``typ`` tells. Entries stand there as in passports.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kest._kestcore import b64url_decode, canonicalize, parse, sha256, tlog_leaf
from kest.errors import AuditError, KestError

__all__ = ["KINDS", "MAX_RECORD", "TYPES", "Record", "event_payload", "large_pointer"]

KINDS = ("unreadable", "entry", "intent", "outcome", "denial", "verdict", "key", "log", "large")
"""By the numbers that the C core gives them: an entry (an intention, signed), the same with commitments in place of personal
fields, what came of it, a denial, a gate's verdict, an event in the life of a key or of the log, a record kept beside it."""

TYPES = {kind: f"kest-{kind}+jws" for kind in KINDS[2:8]}
"""``typ`` of each kind that is not an entry."""

MAX_RECORD = 65_535
"""Bytes that fit into an entry bundle (c2sp.org/tlog-tiles)."""


def event_payload(kind: str, members: Mapping[str, Any]) -> bytes:
    """The canonical payload of a record that this process makes."""
    return canonicalize(
        {"timestamp_ms": time.time_ns() // 1_000_000, **members, "record": kind, "schema_version": "0.3.0"}
    )


def large_pointer(record: bytes) -> tuple[str, bytes]:
    """For a record that fits into no bundle: its hash, under which it is kept, and what the log says instead."""
    digest = sha256(record).hex()
    return digest, canonicalize({"kest": "large", "sha256": digest, "size": len(record)})


def _is_pointer(leaf: bytes) -> bool:
    """Whether it is what `large_pointer` makes."""
    try:
        said = parse(leaf)
        if not isinstance(said, dict):
            return False
        digest, size = said["sha256"], said["size"]
        if not isinstance(digest, str) or len(digest) != 64 or digest.strip("0123456789abcdef"):
            return False
        whole = type(size) is int and size > MAX_RECORD
        return whole and canonicalize({"kest": "large", "sha256": digest, "size": size}) == leaf
    except (KestError, ValueError, KeyError):
        return False


@dataclass(frozen=True)
class Record:
    """One record of a log. Nothing in it is verified by reading it.

    Attributes:
        index: its place, from 0.
        leaf: the bytes that the tree is over.
        body: the JWS: the leaf itself, or what a leaf of kind ``large`` names.
    """

    index: int
    leaf: bytes
    body: bytes

    @cached_property
    def _parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            header, payload, _ = self.body.decode("ascii").split(".")
            members, content = parse(b64url_decode(header)), parse(b64url_decode(payload))
            if not isinstance(members, dict) or not isinstance(content, dict):
                raise ValueError
        except (KestError, ValueError):
            raise AuditError(f"record {self.index} is not a JWS over a JSON object") from None
        return members, content

    @property
    def readable(self) -> bool:
        """Whether it is a JWS over a JSON object."""
        try:
            return bool(self._parts)
        except AuditError:
            return False

    @property
    def jws(self) -> str:
        """The record as text."""
        return self.body.decode("ascii")

    @property
    def header(self) -> dict[str, Any]:
        """AuditError: it is not readable."""
        return self._parts[0]

    @property
    def payload(self) -> dict[str, Any]:
        """AuditError: it is not readable."""
        return self._parts[1]

    @cached_property
    def kind(self) -> str:
        """One of `KINDS`; ``large`` where what the leaf names is not there."""
        if not self.readable:
            return "large" if _is_pointer(self.body) else "unreadable"
        said = self.payload.get("record")  # no entry has this member
        return said if said in TYPES else "entry" if said is None and "parent_ids" in self.payload else "unreadable"

    def _text(self, name: str) -> str:
        value = self.payload.get(name)
        return value if isinstance(value, str) else ""

    @property
    def signer(self) -> str:
        """Who says that it signed: the header's ``kid``."""
        kid = self.header.get("kid")
        return kid if isinstance(kid, str) else ""

    @property
    def entry_id(self) -> str:
        """Of the call that it is about, or ""."""
        return self._text("entry_id")

    @property
    def operation(self) -> str:
        """What was called, or ""."""
        return self._text("operation")

    @property
    def timestamp_ms(self) -> int:
        """When its signer says that it was made; Unix milliseconds."""
        value = self.payload.get("timestamp_ms")
        return value if isinstance(value, int) else 0

    @property
    def entry_hash(self) -> str:
        """Of the entry that it is or is about, or ""."""
        return sha256(self.body).hex() if self.kind == "entry" else self._text("entry_hash")

    @property
    def leaf_hash(self) -> bytes:
        """RFC 9162, section 2.1.1."""
        return tlog_leaf(self.leaf)
