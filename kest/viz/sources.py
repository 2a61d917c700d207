"""Where records come from. To draw another kind of file, add a `Loader` to `LOADERS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kest.errors import AuditError, KestError, TelemetryError
from kest.viz.logs import is_log, log_source
from kest.viz.records import Source, SourceRecord
from kest.viz.spans import is_spans, telemetry_source

__all__ = ["LOADERS", "Loader", "SourceError", "read"]

MAX_BYTES = 1 << 30
JWS_MEMBERS = ("jws", "entry", "record", "kest.signature", "signature")
"""Members of an object on a line under which a signed record may stand."""


class SourceError(KestError):
    """A source cannot be read, or is of no known kind."""


class Loader(NamedTuple):
    """One kind of source.

    Attributes:
        name: of the kind, for messages.
        recognises: whether a path is one, given its first bytes (none for a folder).
        read: its records; raises `SourceError`.
    """

    name: str
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path], Source]


def read(name: str | Path, log_key: Any = None, keys: Any = None) -> Source:
    """The records of a file, database or log; ``-`` is standard input (a passport or JSON lines).

    Args:
        name: its path.
        log_key: of an audit log, its verifier key: then the log is verified, and judges signatures by the lives of keys.
        keys: for that, of those who signed: a `TrustStore`, or a mapping of principals to keys.

    Raises:
        SourceError: it cannot be read, is of no known kind, or is not the log of this key.
    """
    if name == "-":
        return _of_text(_decoded(_stdin()))
    path = Path(name)
    try:
        if not path.is_dir() and not path.is_file() and path.exists():  # a pipe can be read once
            return _read_text(path)
        head = b"" if path.is_dir() else _head(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise SourceError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if log_key is not None and is_log(path):
        return _read_log(path, log_key, keys)
    for loader in LOADERS:
        if loader.recognises(path, head):
            return loader.read(path)
    what = "is a folder that holds no log" if path.is_dir() else "holds nothing that can be drawn"
    raise SourceError(f"{path} {what}; known are {', '.join(loader.name for loader in LOADERS)}")


def _head(path: Path) -> bytes:
    from kest.telemetry.reader import HEAD

    with path.open("rb") as file:
        return file.read(HEAD)


def _stdin() -> bytes:
    if sys.stdin is None:
        raise SourceError("there is no standard input to read")
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _decoded(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise SourceError(f"more than {MAX_BYTES >> 20} MiB, more than can be drawn")
    return data.decode("utf-8-sig", "replace")


# --- passports and JSON lines ---


def _is_text(path: Path, head: bytes) -> bool:
    return not path.is_dir() and b"\0" not in head


def _read_text(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            return _of_text(_decoded(file.read(MAX_BYTES + 1)))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None


def _of_text(text: str) -> Source:
    """A passport (a JSON array), what ``kest inspect --json`` prints, or one record a line."""
    start = text.lstrip()[:1]
    if start in ("[", "{"):
        document = _whole(text)
        if isinstance(document, list):
            return Source([_of_value(value, f"entry {index}") for index, value in enumerate(document)])
        if isinstance(document, dict) and isinstance(document.get("entries"), list):
            entries = document["entries"]
            return Source([_of_value(value, f"entry {index}") for index, value in enumerate(entries)])
        if start == "[":
            raise SourceError("it begins like a passport (a JSON array of strings), but is not JSON")
    return Source(list(_lines(text)))


def _whole(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _lines(text: str) -> Iterator[SourceRecord]:
    for number, line in enumerate(text.split("\n"), 1):
        if not (line := line.strip()):
            continue
        origin = f"line {number}"
        if line[0] not in '"{[':
            yield _of_value(line, origin)  # a bare JWS
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield SourceRecord(origin=origin, broken="not JSON")
            continue
        yield _of_value(value, origin)


def _of_value(value: Any, origin: str) -> SourceRecord:
    if isinstance(value, str):
        return SourceRecord(value, origin=origin) if value else SourceRecord(origin=origin, broken="an empty string")
    if not isinstance(value, dict):
        return SourceRecord(origin=origin, broken="neither a signed record (a string) nor an object")
    attributes = value.get("attributes")
    for holder in (value, attributes if isinstance(attributes, dict) else {}):
        for name in JWS_MEMBERS:
            found = holder.get(name)
            if isinstance(found, str) and found.count(".") == 2:
                return SourceRecord(found, origin=origin)
    payload = value.get("payload", value)
    if isinstance(payload, dict) and "parent_ids" in payload:
        return SourceRecord(payload=payload, origin=origin)
    why = value.get("broken")
    return SourceRecord(origin=origin, broken=why if isinstance(why, str) else "an object that holds no record")


# --- audit logs and telemetry ---


def _read_log(path: Path, log_key: Any = None, keys: Any = None) -> Source:
    try:
        return log_source(path, log_key, keys)
    except AuditError as error:
        raise SourceError(f"audit log {path}: {error}") from None
    except OSError as error:
        raise SourceError(f"cannot read {error.filename or path}: {error.strerror or error}") from None


def _read_telemetry(path: Path) -> Source:
    try:
        return telemetry_source(path)
    except TelemetryError as error:
        raise SourceError(str(error)) from None


LOADERS: list[Loader] = [
    Loader("audit logs", is_log, _read_log),
    Loader("telemetry", is_spans, _read_telemetry),
    Loader("passports and JSON lines of records", _is_text, _read_text),
]
"""In the order in which they are asked."""
