"""Fields that can be erased later, with everything still verifying.

In the log stands, instead of such a field, SHA-256 over a disclosure with a salt of 128 bits (as in SD-JWT, RFC 9901,
section 4.2): the log commits to it and tells nothing of it. The disclosure, and the entry as it was signed, are kept in a
database beside the log. Erasing a person deletes theirs; the records and hashes stay, and what they were over is gone.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kest._kestcore import Signer, b64url_decode, b64url_encode, canonicalize, parse, sha256
from kest.audit.records import TYPES, Record, event_payload
from kest.errors import AuditError, ConfigurationError, KestError
from kest.locks import Lock

__all__ = ["PERSONAL", "Redaction", "Revealed"]

PERSONAL = ("kest.identity", "kest.actors", "kest.resource_id", "kest.resource_attr")
"""Labels that name people, or what belongs to them."""

_SCHEMA = """
create table if not exists disclosures (
    digest text primary key,     -- base64url of SHA-256 of the disclosure; stands in the log
    subject text not null,       -- the user whom the record is about
    entry_hash text not null,    -- of the entry, or of nothing for a denial
    disclosure text not null     -- base64url of the JSON array [salt, name, value]
) without rowid;
create index if not exists by_subject on disclosures (subject);
create index if not exists by_entry on disclosures (entry_hash);
"""


@dataclass(frozen=True, slots=True)
class Revealed:
    """What is still known of a record with commitments.

    Attributes:
        payload: of the entry or denial, with the fields that are known.
        erased: how many commitments nothing is known of.
        entry: the entry as it was signed; None when it was erased.
    """

    payload: dict[str, Any]
    erased: int
    entry: str | None


class Redaction:
    """Which fields are committed to instead of written, and where their disclosures are kept.

    Args:
        path: an SQLite database (made if it is not there). Everything personal is in it, and in no other file of the log.
        labels: the labels of entries and denials concerned.
        reasons: whether the reasons of denials are, too.
    """

    def __init__(self, path: str | Path, *, labels: Iterable[str] = PERSONAL, reasons: bool = False) -> None:
        self.labels = frozenset(labels)
        if "principal" in self.labels:
            raise ConfigurationError("the principal says who signed; it cannot be erased")
        self.path = Path(path)
        self.reasons = reasons
        self._fresh: deque[tuple[str, str, str, str]] = deque()
        self._lock = Lock()
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("pragma secure_delete = on")
        self._database.execute("pragma synchronous = full")
        self._database.executescript(_SCHEMA)

    # --- writing ---

    def intent(self, jws: str, signer: Signer) -> tuple[Signer, str, bytes]:
        """The record for an entry: signed by the log, which thereby says that it saw the entry with this hash."""
        entry = parse(b64url_decode(jws.split(".")[1]))
        entry_hash = sha256(jws.encode()).hex()
        subject = _subject(entry["labels"])
        self._withhold(entry, subject, entry_hash)
        whole = self._commit_to("", jws, subject, entry_hash)
        payload = {
            "_sd": [whole],
            "_sd_alg": "sha-256",
            "entry": entry,
            "entry_hash": entry_hash,
            "entry_id": entry["entry_id"],
            "operation": entry["operation"],
            "timestamp_ms": entry["timestamp_ms"],
        }
        return signer, TYPES["intent"], event_payload("intent", payload)

    def denial(self, payload: bytes) -> bytes:
        """The payload of a denial with commitments."""
        denial = parse(payload)
        subject = _subject(denial["labels"])
        self._withhold(denial, subject, "")
        if self.reasons:
            denial["_sd"] = [self._commit_to("reason", denial.pop("reason"), subject, "")]
        denial["_sd_alg"] = "sha-256"
        return canonicalize(denial)

    def _withhold(self, payload: dict[str, Any], subject: str, entry_hash: str) -> None:
        labels = payload["labels"]
        digests = [self._commit_to(n, labels.pop(n), subject, entry_hash) for n in sorted(self.labels & labels.keys())]
        if digests:
            labels["_sd"] = sorted(digests)  # their order tells nothing of their names

    def _commit_to(self, name: str, value: str, subject: str, entry_hash: str) -> str:
        disclosure = b64url_encode(canonicalize([b64url_encode(os.urandom(16)), name, value]))
        digest = b64url_encode(sha256(disclosure.encode()))
        self._fresh.append((digest, subject, entry_hash, disclosure))
        return digest

    def commit(self) -> None:
        """Disclosures are on the disk; before the records that commit to them are.

        Raises:
            OSError: they are not; they are kept for the next time.
        """
        if not self._fresh:
            return
        with self._lock:
            rows = [self._fresh.popleft() for _ in range(len(self._fresh))]
            try:
                self._database.execute("begin")
                self._database.executemany("insert or ignore into disclosures values (?, ?, ?, ?)", rows)
                self._database.execute("commit")
            except sqlite3.Error as error:
                self._fresh.extendleft(reversed(rows))
                if self._database.in_transaction:
                    self._database.execute("rollback")
                raise OSError(f"the database of disclosures cannot be written to: {error}") from error

    def erase(self, subject: str) -> int:
        """Delete what identifies a person: how many records it was in."""
        self.commit()
        with self._lock:
            where = "from disclosures where subject = ?"
            count = self._database.execute(f"select count(*) {where}", (subject,)).fetchone()[0]
            self._database.execute(f"delete {where}", (subject,))
        return int(count)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # --- reading ---

    def reveal(self, record: Record) -> Revealed:
        """Fill in what is known. What does not match its commitment is not believed.

        Raises:
            AuditError: a disclosure does not match, or the record has no commitments.
        """
        if record.kind not in ("intent", "denial"):
            raise AuditError(f"record {record.index} is no intent and no denial: nothing in it is committed to")
        payload = record.payload
        inner = payload["entry"] if record.kind == "intent" else payload
        known = self._known([*_digests(payload), *_digests(inner.get("labels", {}))])
        labels, whole = {**inner.get("labels", {})}, known.get("")
        erased = len(labels.pop("_sd", ())) + len(payload.get("_sd", ())) - len(known)
        for name, value in known.items():
            if name and name != "reason":
                labels[name] = value
        filled = {**inner, "labels": labels}
        if "reason" in known:
            filled["reason"] = known["reason"]
        for name in ("_sd", "_sd_alg"):
            filled.pop(name, None)
        if whole is not None and sha256(whole.encode()).hex() != record.entry_hash:
            raise AuditError(f"the entry that is kept for record {record.index} is not the one that was logged")
        return Revealed(filled, erased, whole)

    def _known(self, digests: list[str]) -> dict[str, str]:
        known: dict[str, str] = {}
        with self._lock:
            for digest in digests:
                row = self._database.execute(
                    "select disclosure from disclosures where digest = ?", (digest,)
                ).fetchone()
                if row is None:
                    continue
                if b64url_encode(sha256(row[0].encode())) != digest:
                    raise AuditError("a disclosure does not match its commitment: the database was changed")
                _, name, value = parse(b64url_decode(row[0]))
                known[name] = value
        return known


def _digests(members: Mapping[str, Any]) -> list[str]:
    found = members.get("_sd", ())
    return [digest for digest in found if isinstance(digest, str)] if isinstance(found, list) else []


def _subject(labels: Mapping[str, str]) -> str:
    """The user whom a record is about: "" when there is none."""
    try:
        user = parse(labels.get("kest.identity", "{}")).get("user")
    except (KestError, ValueError, AttributeError):
        return ""
    return user if isinstance(user, str) else ""
