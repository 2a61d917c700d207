"""Reading what a command is given: passports, and keys to verify them with."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kest.cli.terminal import clean
from kest.core.truststore import TrustStore
from kest.errors import ConfigurationError, KestError

__all__ = [
    "PARENT_MISSING",
    "UsageError",
    "add_bundles",
    "holds_log",
    "holds_telemetry",
    "payload_of",
    "read_entries",
    "read_text",
    "read_trust",
]

log = logging.getLogger("kest")

PARENT_MISSING = "a parent entry is missing or comes later in the passport"  # KEST_E_PARENT_MISSING in the core

MAX_PASSPORT_BYTES = 1 << 30
MAX_KEY_BYTES = 4 << 20
MAX_POLICY_BYTES = 4 << 20


class UsageError(KestError):
    """The command was called with something that it cannot work with: exit status 2."""


def _read(name: str, limit: int) -> bytes:
    shown = "standard input" if name == "-" else clean(name, 200)
    try:
        if name == "-":
            if sys.stdin is None:
                raise UsageError("there is no standard input to read")
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with open(name, "rb") as file:
                if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                    raise IsADirectoryError
                data = file.read(limit + 1)
    except IsADirectoryError:
        raise UsageError(f"{shown} is a folder, not a file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {shown}: {reason}") from None
    if len(data) > limit:
        raise UsageError(f"{shown} is larger than {limit >> 20} MiB, more than this command reads")
    return data


def holds_telemetry(name: str) -> bool:
    """Whether file ``name`` is one of telemetry: OTLP JSON lines, or an SQLite database. Standard input is not."""
    from kest.telemetry.reader import HEAD, is_telemetry

    if name == "-":
        return False
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):
            return False  # a pipe can be read once
        with open(name, "rb") as file:
            return is_telemetry(file.read(HEAD))
    except (OSError, ValueError):
        return False  # whoever reads it says why


def _telemetry_entries(name: str) -> list[Any]:
    from kest.errors import TelemetryError
    from kest.telemetry import TelemetryReader, flows

    try:
        with TelemetryReader(name) as reader:
            entries = [entry for flow in flows(reader) for entry in flow.entries]
            damaged = reader.damaged
    except TelemetryError as error:
        raise UsageError(clean(error, 500)) from None
    if damaged:
        log.warning(
            "%d places in %s are damaged, the first is %s: %s",
            len(damaged),
            clean(name, 200),
            damaged[0].where,
            clean(damaged[0].reason, 300),
        )
    return entries


def holds_log(name: str) -> bool:
    """Whether ``name`` is a folder with what every audit log has. Standard input is none."""
    try:
        return name != "-" and (Path(name) / "checkpoint").is_file()
    except (OSError, ValueError):
        return False


def _log_entries(name: str) -> list[Any]:
    """Unverified, as all that is read here: whose log it is, nobody has said."""
    from kest.audit.reader import UnverifiedReader
    from kest.errors import AuditError

    entries, redacted = [], 0
    try:
        for record in UnverifiedReader(name).records():
            if record.kind == "entry":
                entries.append(record.jws)
            redacted += record.kind == "intent"
    except AuditError as error:
        raise UsageError(f"{clean(name, 200)}: {clean(error, 500)}") from None
    except OSError as error:
        raise UsageError(f"cannot read {clean(error.filename or name, 300)}: {error.strerror or error}") from None
    if redacted:
        log.warning("%d entries stand in the log with commitments in place of personal fields: kest log show", redacted)
    return entries


def read_entries(name: str) -> list[Any]:
    """The members of the JSON array in file ``name`` (``-``: standard input); strings, if it is a passport.

    Of telemetry: all entries in it, parents before children; of an audit log: likewise, as they were recorded.

    Raises:
        UsageError: it cannot be read, or is not a JSON array.
    """
    from kest._kestcore import parse

    if holds_log(name):
        return _log_entries(name)
    if holds_telemetry(name):
        return _telemetry_entries(name)
    shown = "standard input" if name == "-" else clean(name, 200)
    data = _read(name, MAX_PASSPORT_BYTES)
    try:
        entries = parse(data)
    except KestError as error:
        raise UsageError(f"{shown} is not a passport (a JSON array of strings): {clean(error, 300)}") from None
    if not isinstance(entries, list):
        raise UsageError(f"{shown} is not a passport: it holds JSON, but not an array of strings")
    return entries


def read_text(name: str) -> str:
    """The UTF-8 text in file ``name``, such as a policy.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        return _read(name, MAX_POLICY_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{clean(name, 200)} is not UTF-8 text (byte {error.start})") from None


def payload_of(entry: Any) -> tuple[dict[str, Any] | None, str]:
    """What one entry says, whatever became of its parents; or None and the reason why that cannot be read."""
    from kest._kestcore import Passport, b64url_decode, parse
    from kest.errors import VerificationError

    if not isinstance(entry, str):
        return None, "a string is expected here"
    try:
        return Passport([entry]).decode()[0], ""
    except VerificationError as error:
        if error.reason != PARENT_MISSING:
            return None, error.reason
        # Alone it has no parents; its form was checked before they were looked for.
        payload: dict[str, Any] = parse(b64url_decode(entry.split(".")[1]))
        return payload, ""
    except KestError as error:
        return None, str(error)


def read_trust(files: Sequence[str], principals: Sequence[str]) -> TrustStore:
    """One trust store of all ``files``: JWK sets, JWKs, or PEM public keys, whose ``principals`` are given in order.

    Raises:
        UsageError: a file cannot be read or holds no usable public key, or the names do not match the files.
    """
    names = list(principals)
    jwks: list[Any] = []
    pems: list[tuple[str, str]] = []
    for file in files:
        text = _read(file, MAX_KEY_BYTES)
        try:
            if text.lstrip().startswith(b"-----BEGIN"):
                pems.append((_next(names, file), _pem(text)))
                TrustStore({pems[-1][0]: pems[-1][1]})  # for an error that names the file
            else:
                found = _jwks(text, file, names)
                TrustStore.from_jwks({"keys": found})
                jwks += found
        except UsageError:
            raise
        except KestError as error:
            raise UsageError(f"key file {clean(file, 200)}: {clean(error, 300)}") from None
    if names:
        raise UsageError(f"--principal {clean(names[0], 200)}: there is no PEM file (or JWK without kid) left for it")
    store = TrustStore.from_jwks({"keys": jwks})
    for principal, pem in pems:
        store.add(principal, pem)
    return store


def add_bundles(store: TrustStore, files: Sequence[str], domains: Sequence[str]) -> None:
    """Let ``store`` believe SPIFFE bundles (JSON documents, PEM or DER certificates) of these trust domains, in order.

    An entry is held to the validity of the certificates that it carries, not to today's date: passports are old when
    they are looked at.

    Raises:
        UsageError: a file cannot be read or holds no bundle, or the names do not match the files.
    """
    from kest._kestcore import parse
    from kest.core.trust_sources import SpiffeBundleSource

    if len(files) != len(domains):
        raise UsageError(
            f"{len(files)} --spiffe-bundle and {len(domains)} --trust-domain: a bundle does not say whose it is, so each "
            "needs one, such as --spiffe-bundle bundle.json --trust-domain example.org"
        )
    for file, domain in zip(files, domains, strict=True):
        text = _read(file, MAX_KEY_BYTES)
        try:
            is_document = text.lstrip().startswith((b"{", b"["))
            store.add_source(SpiffeBundleSource(_object(parse(text)) if is_document else text, domain, grace=None))
        except KestError as error:
            raise UsageError(f"SPIFFE bundle {clean(file, 200)}: {clean(error, 300)}") from None


def _object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ConfigurationError("a SPIFFE bundle document is a JSON object")
    return document


def _next(names: list[str], file: str) -> str:
    if not names:
        raise UsageError(f"key file {clean(file, 200)} does not say whose key it is: add --principal NAME")
    return names.pop(0)


def _pem(text: bytes) -> str:
    if b"PRIVATE KEY-----" in text:
        raise ConfigurationError(
            "this is a private key; verifying takes the public one, and this file is its owner's alone"
        )
    return text.decode("ascii", "replace").strip()


def _jwks(text: bytes, file: str, names: list[str]) -> list[Any]:
    from kest._kestcore import parse

    document = parse(text)
    if isinstance(document, dict) and "kty" in document:
        if "kid" not in document:
            document["kid"] = _next(names, file)
        return [document]
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ConfigurationError('a key file holds a JWK set ({"keys": [...]}), a JWK, or a PEM public key')
    if not document["keys"]:
        raise ConfigurationError("the JWK set is empty")
    return list(document["keys"])
