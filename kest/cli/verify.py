"""``kest verify``: is a passport what it says, by keys that the reader trusts?"""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from kest.cli.logs import add_key_arguments, holds_proof
from kest.cli.source import UsageError, add_bundles, holds_log, holds_telemetry, payload_of, read_entries, read_trust
from kest.cli.terminal import Paint, clean, json_text, pad
from kest.errors import PassportError, VerificationError

if TYPE_CHECKING:
    from kest.core.passport import VerifiedPassport
    from kest.core.truststore import TrustStore

__all__ = ["add_trust_arguments", "register", "trust_store"]

UNKNOWN_PRINCIPAL = "no key is known for the principal"  # KEST_E_PRINCIPAL in the core
_TIP = re.compile(r"[0-9a-f]{64}(,[0-9a-f]{64})*")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "verify",
        help="check every signature, link, trust score and taint of a passport, telemetry, an audit log, or a proof",
        description="Check every signature, link, trust score and taint of a passport, or of all entries in a file or "
        "database of telemetry; everything in an audit log; or a proof of one of its records. Offline.",
        epilog="Exit status: 0 verified, 1 not verified (with the index and reason of the first bad entry), "
        "2 wrong usage. Without --trust and --spiffe-bundle, the trust_store of the file that KEST_CONFIG names is used. "
        "Certificates in entries are judged as of the time in the entry, however long ago that is.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a passport, a JSON array of signed entries (- is standard input), or telemetry: "
        "OTLP JSON lines, or a database that KestTelemetry wrote; or an audit log's folder, or a proof from one, "
        "with --log-key",
    )
    add_trust_arguments(parser)
    add_key_arguments(parser)
    parser.add_argument(
        "--chain-tip",
        metavar="TIP",
        help="hash of the last entry, as kest.chain_tip carries it; without it, cut-off last entries go unnoticed",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.set_defaults(run=_run)


def add_trust_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say whose keys are believed; `trust_store` reads them."""
    parser.add_argument(
        "--trust",
        metavar="KEYS",
        action="append",
        default=[],
        help="public keys to believe: a JWK set whose kids are principals, or PEM with --principal; may be repeated",
    )
    parser.add_argument(
        "--principal",
        metavar="NAME",
        action="append",
        default=[],
        help="whose key a PEM file holds; with several PEM files, one for each, in order",
    )
    parser.add_argument(
        "--spiffe-bundle",
        metavar="FILE",
        action="append",
        default=[],
        help="X.509 authorities to believe for a SPIFFE trust domain, as spire-server bundle show -format spiffe (or pem) "
        "prints them; may be repeated",
    )
    parser.add_argument(
        "--trust-domain",
        metavar="NAME",
        action="append",
        default=[],
        help="whose authorities a bundle holds, such as example.org; one for each, in order",
    )


def _run(arguments: argparse.Namespace) -> int:
    tip = _tip(arguments.chain_tip)
    store = trust_store(arguments)
    if (log := holds_log(arguments.file)) or holds_proof(arguments.file):
        return _verify_log(arguments, store, tip, log)
    if arguments.log_key or arguments.witness or arguments.quorum is not None:
        raise UsageError("--log-key, --witness and --quorum are for audit logs and proofs; this is neither")
    if holds_telemetry(arguments.file):
        from kest.cli.telemetry import verify_telemetry

        if tip is not None:
            raise UsageError("--chain-tip is for a passport: telemetry has the tips of many")
        return verify_telemetry(arguments.file, store, arguments.json)
    entries = read_entries(arguments.file)
    try:
        verified = _verified(entries, store, tip)
    except PassportError as error:
        return _refused(error, entries, arguments.json)
    if arguments.json:
        print(json_text(_facts(verified, tip)))
    else:
        _show(verified, tip)
    return 0


def _verify_log(arguments: argparse.Namespace, store: TrustStore, tip: str | None, log: bool) -> int:
    from kest.cli.log_verify import verify_audit_log, verify_proof_file

    if tip is not None:
        raise UsageError(
            "--chain-tip is for a passport; of an audit log, kest log verify --checkpoint shows what was cut off"
        )
    if not log:
        return verify_proof_file(arguments, store, arguments.file)
    return verify_audit_log(arguments, store, arguments.file)


def _tip(given: str | None) -> str | None:
    if given is None:
        return None
    if not _TIP.fullmatch(given):
        raise UsageError("--chain-tip is 64 lower-case hexadecimal digits, several comma-joined")
    return ",".join(sorted(given.split(",")))


def trust_store(arguments: argparse.Namespace) -> TrustStore:
    """Of the keys that the options name, or else of those of the file that ``KEST_CONFIG`` names."""
    from kest.core.truststore import TrustStore

    bundles, domains = arguments.spiffe_bundle, arguments.trust_domain
    if arguments.trust or arguments.principal or bundles or domains:
        store = read_trust(arguments.trust, arguments.principal)
        add_bundles(store, bundles, domains)
        return store
    from kest.core.config import settings
    from kest.errors import ConfigurationError

    try:
        return settings().trust_store or TrustStore()
    except ConfigurationError as error:
        raise UsageError(str(error)) from None


def _verified(entries: list[Any], store: TrustStore, tip: str | None) -> VerifiedPassport:
    from kest.core.passport import PassportVerifier

    for index, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise VerificationError("not a passport", index=index, reason=f"a string is expected, not {_kind(entry)}")
    if not entries:
        # True of every entry it has; but whoever asks wants to know whether something happened.
        raise VerificationError("the passport is empty", reason="the passport is empty: it proves nothing")
    return PassportVerifier.verify(entries, store, chain_tip=tip)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {dict: "an object", list: "an array", bool: "a boolean"}.get(type(value), "a number")


def _refused(error: PassportError, entries: list[Any], as_json: bool) -> int:
    index = getattr(error, "index", None)
    reason = str(getattr(error, "reason", "") or error)
    principal = _principal(entries, index)
    if reason == UNKNOWN_PRINCIPAL:
        reason = f"no key for principal {clean(principal or '?', 300)}; pass --trust KEYS"
        if _has_chain(entries[index] if index is not None else None):
            reason += ", or --spiffe-bundle FILE --trust-domain NAME: the entry carries a certificate chain"
    if as_json:
        print(json_text({"verified": False, "index": index, "principal": principal, "reason": reason}))
    else:
        where = "passport" if index is None else f"entry {index}"
        print(f"{Paint(sys.stderr).bad('not verified')}: {where}: {clean(reason, 600)}", file=sys.stderr)
    return 1


def _has_chain(entry: Any) -> bool:
    from kest._kestcore import b64url_decode, parse
    from kest.errors import KestError

    try:
        header = parse(b64url_decode(entry.partition(".")[0])) if isinstance(entry, str) else None
    except (KestError, ValueError):
        return False
    return isinstance(header, dict) and "x5c" in header


def _principal(entries: list[Any], index: int | None) -> str | None:
    """Who the entry says has signed it."""
    payload = None if index is None else payload_of(entries[index])[0]
    return None if payload is None else str(payload["labels"]["principal"])


def _facts(verified: VerifiedPassport, tip: str | None) -> dict[str, Any]:
    return {
        "verified": True,
        "entries": len(verified),
        "principals": sorted(verified.principals),
        "trust_score": verified.trust_score,
        "taints": list(verified.taints),
        "tips": list(verified.tips),
        "chain_tip_checked": tip is not None,
    }


def _show(verified: VerifiedPassport, tip: str | None) -> None:
    paint = Paint()
    count = len(verified)
    what = "entry" if count == 1 else "entries"
    print(f"{paint.good('verified')}: {count} {what}, every signature, link, trust score and taint")
    lines = [("principals", clean(principal, 500)) for principal in sorted(verified.principals)]
    lines.append(("trust", paint.trust(verified.trust_score, str(verified.trust_score))))
    lines.append(("taints", paint.warn(", ".join(clean(t, 300) for t in verified.taints)) or "none"))
    lines += [("tips" if len(verified.tips) > 1 else "tip", hash_) for hash_ in verified.tips]
    before = ""
    for name, value in lines:
        title = pad("" if name == before else name, 10)
        print(f"  {paint.dim(title)}  {value}")
        before = name
    if tip is None:
        print(paint.dim("  The tip is what the file says; to notice entries cut off its end, pass --chain-tip."))
