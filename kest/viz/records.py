"""What a source is made of: records as they were found, unverified, and what each says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kest.core.audit import DENIAL_TYP, OUTCOME_TYP

__all__ = ["Read", "Source", "SourceRecord", "read_record"]

KINDS = {OUTCOME_TYP: "outcome", DENIAL_TYP: "denial"}
ELEMENTS = ("parent_ids", "added_taints", "removed_taints", "taints")


@dataclass(frozen=True)
class SourceRecord:
    """One record of a source.

    Attributes:
        jws: as it was signed; "" where only a decoded form was found.
        payload: that decoded form, where there is no JWS.
        verdict: what the source itself knows of the signature (a log knows the lives of keys), as (state, reason) with a
            state of `Verdict`; None: it is worked out from the keys that the reader gives.
        origin: where in the source it stood, such as ``line 7``.
        broken: why it is no record at all, where that is so.
    """

    jws: str = ""
    payload: Mapping[str, Any] | None = None
    verdict: tuple[str, str] | None = None
    origin: str = ""
    broken: str = ""


@dataclass
class Source:
    """The records of one file, database or log, in the order in which they stand there.

    Attributes:
        records: any iterable; it is read once.
        outcomes: whether outcomes are kept there, so that an entry without one is a call of which nobody knows how it ended.
            None: yes, if there is any outcome.
    """

    records: Iterable[SourceRecord]
    outcomes: bool | None = None


class Read(NamedTuple):
    """A record as far as it can be read: ``kind`` is entry, denial, outcome, other or broken."""

    kind: str
    header: dict[str, Any]
    payload: dict[str, Any]
    why: str = ""


def read_record(record: SourceRecord) -> Read:
    """What a record says of itself; broken, with the reason, if it says nothing that could be drawn."""
    if record.broken:
        return Read("broken", {}, {}, record.broken)
    if not record.jws:
        if record.payload is None:
            return Read("broken", {}, {}, "neither a signed record nor a decoded one")
        payload = dict(record.payload)
        return _kind_of({}, payload, payload.get("record"))
    return _read_jws(record.jws)


def _read_jws(jws: str) -> Read:
    from kest._kestcore import b64url_decode, parse
    from kest.errors import KestError

    parts = jws.split(".")
    if len(parts) != 3:
        return Read("broken", {}, {}, "not a compact JWS: three parts are expected")
    try:
        header, payload = parse(b64url_decode(parts[0])), parse(b64url_decode(parts[1]))
    except (KestError, ValueError) as error:
        return Read("broken", {}, {}, str(error)[:300])
    if not isinstance(header, dict) or not isinstance(payload, dict):
        return Read("broken", {}, {}, "header and payload of a record are JSON objects")
    return _kind_of(header, payload, KINDS.get(str(header.get("typ")), payload.get("record")))


def _kind_of(header: dict[str, Any], payload: dict[str, Any], said: object) -> Read:
    if said == "outcome":
        good = isinstance(payload.get("entry_hash"), str)
        return Read("outcome" if good else "broken", header, payload, "" if good else "an outcome of no entry")
    if said not in (None, "denial", "intent"):
        return Read("other", header, payload)
    if said == "intent" and isinstance(payload.get("entry"), dict):
        # The entry with commitments in place of personal fields, and beside it the hash of the one that it stands for.
        own = {name: value for name, value in payload.items() if name in ("record", "entry_hash", "_sd", "_sd_alg")}
        payload = {**payload["entry"], **own}
    for name in ELEMENTS:
        value = payload.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            return Read("broken", header, payload, f"{name} is not a list of strings")
    if not isinstance(payload.get("operation"), str) or "parent_ids" not in payload:
        return Read("broken", header, payload, "no entry: operation and parent_ids are missing")
    return Read("denial" if said == "denial" else "entry", header, payload)
