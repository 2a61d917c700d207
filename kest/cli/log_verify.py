"""``kest log verify``, and ``kest verify`` of logs and proofs: is all as it was signed, and nothing left out?"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from kest.cli.logs import earlier_checkpoint, key_of, open_log, read_proof, reading, witnesses_of
from kest.cli.terminal import Paint, clean, json_text, pad
from kest.errors import AuditCorruptError, AuditProofError

if TYPE_CHECKING:
    from kest.audit import AuditReader, Checkpoint, KeyLife, LogReport, VerifiedProof
    from kest.core.truststore import TrustStore

__all__ = ["verify_audit_log", "verify_proof_file"]

SHOWN = 20
"""How many problems, and calls without outcome, are printed; ``--json`` has a thousand of each."""
UNKNOWN = "unknown key"
HINT = (
    "kest does not know the keys of all who signed: pass --trust KEYS, or --spiffe-bundle FILE --trust-domain NAME where "
    "records carry certificate chains"
)


def verify_audit_log(arguments: argparse.Namespace, store: TrustStore, name: str) -> int:
    """Verify and print the verdict; the exit status."""
    key, file, earlier = key_of(arguments.log_key), getattr(arguments, "checkpoint", None), None
    if file is not None:
        earlier = earlier_checkpoint(file, key, witnesses_of(arguments)[0])
    try:
        reader = open_log(name, arguments)
        rolled_back = None if earlier is None else _rolled_back(reader, earlier)
        with reading(name):
            report = reader.verify(store)
    except (AuditProofError, AuditCorruptError) as error:
        return _refused(str(error), arguments.json, getattr(error, "reason", None))
    strict = bool(getattr(arguments, "strict", False)) and report.missing_count > 0
    good = report.ok and rolled_back is None and not strict
    if arguments.json:
        print(json_text({"verified": good, **_facts(report), "checkpoint_checked": _checked(earlier, rolled_back)}))
    else:
        _show(report, good, rolled_back, earlier)
    return 0 if good else 1


def _rolled_back(reader: AuditReader, earlier: Checkpoint) -> str | None:
    """Why the log does not extend an earlier state of it; None if it does."""
    from kest.audit import verify_consistency

    now = reader.checkpoint
    if now.size < earlier.size:
        return f"rolled back: it had {earlier.size} records when the earlier checkpoint was signed, now {now.size}"
    try:
        if earlier.size:
            verify_consistency(earlier, now, reader.consistency(earlier.size))
    except AuditProofError as error:
        return f"history was rewritten: {error}"
    except AuditCorruptError as error:
        return f"that it extends the earlier checkpoint cannot be shown: {error}"
    return None


def _checked(earlier: Checkpoint | None, rolled_back: str | None) -> dict[str, Any] | None:
    if earlier is None:
        return None
    return {"size": earlier.size, "consistent": rolled_back is None, "reason": rolled_back}


def _refused(reason: str, as_json: bool, kind: str | None = None) -> int:
    if as_json:
        print(json_text({"verified": False, "kind": kind, "reason": reason}))
    else:
        print(f"{Paint(sys.stderr).bad('not verified')}: {clean(reason, 1000)}", file=sys.stderr)
    return 1


# --- a log ---


def _facts(report: LogReport) -> dict[str, Any]:
    checkpoint = report.checkpoint
    return {
        "origin": checkpoint.origin,
        "records": checkpoint.size,
        "root": checkpoint.root.hex(),
        "witnesses": [{"name": name, "time": time} for name, time in checkpoint.witnesses],
        "kinds": report.kinds,
        "verdicts": {verdict.value: count for verdict, count in report.verdicts.items()},
        "problem_count": report.problem_count,
        "problems": [{"kind": one.kind, "index": one.index, "reason": one.reason} for one in report.problems],
        "missing_count": report.missing_count,
        "missing": [
            {"index": one.index, "entry_id": one.entry_id, "operation": one.operation, "lost": one.lost}
            for one in report.missing
        ],
        "keys": [_key(life) for life in report.keys],
        "opened": report.opened,
        "torn": report.torn,
        "journal_bytes": report.journal_bytes,
    }


def _key(life: KeyLife) -> dict[str, Any]:
    from kest.audit.keys import NEVER

    ends = {"rotated": life.rotated, "revoked": life.revoked, "expired": life.expired, "not_after": life.not_after}
    return {
        "principal": life.principal,
        "thumbprint": life.thumbprint,
        "added": None if life.added < 0 else life.added,
        **{name: None if value >= NEVER else value for name, value in ends.items()},
        "used": life.used,
        "misused": life.misused,
    }


def _show(report: LogReport, good: bool, rolled_back: str | None, earlier: Checkpoint | None) -> None:
    stream = sys.stdout if good else sys.stderr
    paint, checkpoint = Paint(stream), report.checkpoint
    word = paint.good("verified") if good else paint.bad("not verified")
    print(f"{word}: {checkpoint.size} records of {clean(checkpoint.origin, 300)}", file=stream)
    lines = [("records", ", ".join(f"{count} {kind}" for kind, count in report.kinds.items()) or "none")]
    lines += [
        ("signatures", f"{count} {(paint.good if verdict.good else paint.bad)(verdict.value)}")
        for verdict, count in sorted(report.verdicts.items(), key=lambda item: (not item[0].good, item[0].value))
    ]
    lines += [("witness", f"{clean(name, 200)} at {time} s since 1970") for name, time in checkpoint.witnesses]
    if earlier is not None and rolled_back is None:
        lines.append(("consistent", f"with the earlier checkpoint of {earlier.size} records"))
    lines.append(("opened", f"{report.opened} times" + (f", {report.torn} torn writes" if report.torn else "")))
    if report.journal_bytes:
        lines.append(("journal", paint.warn(f"{report.journal_bytes} bytes that no checkpoint covers yet")))
    for name, value in lines:
        print(f"  {paint.dim(pad(name, 10))}  {value}", file=stream)
    if rolled_back is not None:
        print(f"  {paint.bad(clean(rolled_back, 600))}", file=stream)
    _show_problems(report, paint, stream)
    _show_missing(report, paint, stream)
    if good and earlier is None and not checkpoint.witnesses:
        print(paint.dim("  To notice a log that was rolled back: --witness VKEY, or --checkpoint with an earlier one."))


def _show_problems(report: LogReport, paint: Paint, stream: Any) -> None:
    for problem in report.problems[:SHOWN]:
        where = problem.kind if problem.index is None else f"record {problem.index}"
        print(f"  {paint.bad(where)}: {clean(problem.reason, 600)}", file=stream)
    if report.problem_count > SHOWN:
        print(f"  and {report.problem_count - SHOWN} more problems: see --json", file=stream)
    if any(verdict.value == UNKNOWN for verdict in report.verdicts):
        print(f"  {HINT}", file=stream)


def _show_missing(report: LogReport, paint: Paint, stream: Any) -> None:
    for missing in report.missing[:SHOWN]:
        why = "its process has ended since" if missing.lost else "it may still be running"
        call = f"{clean(missing.operation, 120)} ({clean(missing.entry_id, 60)})"
        print(f"  {paint.warn('no outcome')}: record {missing.index}: {call}: {why}", file=stream)
    if report.missing_count > SHOWN:
        print(f"  and {report.missing_count - SHOWN} more calls without an outcome: see --json", file=stream)


# --- a proof ---


def verify_proof_file(arguments: argparse.Namespace, store: TrustStore, name: str) -> int:
    """Verify a proof file and print what it proves; the exit status."""
    from kest.audit import verify_proof

    key = key_of(arguments.log_key)
    witnesses, quorum = witnesses_of(arguments)
    data = read_proof(name)
    try:
        proved = verify_proof(data, key, store, witnesses=witnesses, quorum=quorum)
    except AuditProofError as error:
        return _refused(str(error), arguments.json, error.reason)
    good = proved.verdict.good
    if arguments.json:
        print(json_text({"verified": good, **_proved(proved)}))
    else:
        _show_proof(proved, good)
    return 0 if good else 1


def _proved(proved: VerifiedProof) -> dict[str, Any]:
    record, checkpoint = proved.record, proved.checkpoint
    return {
        "verdict": proved.verdict.value,
        "origin": checkpoint.origin,
        "records": checkpoint.size,
        "witnesses": [{"name": name, "time": time} for name, time in checkpoint.witnesses],
        "index": record.index,
        "kind": record.kind,
        "leaf_hash": record.leaf_hash.hex(),
        "payload": record.payload if record.readable else None,
    }


def _show_proof(proved: VerifiedProof, good: bool) -> None:
    from kest.cli.log_records import show_record

    stream = sys.stdout if good else sys.stderr
    paint, record, checkpoint = Paint(stream), proved.record, proved.checkpoint
    word = paint.good("verified") if good else paint.bad("not verified")
    place = f"record {record.index} of {checkpoint.size} in {clean(checkpoint.origin, 300)}"
    print(f"{word}: {place}; its signature: {proved.verdict.value}", file=stream)
    for line in show_record(record, paint, full=True):
        print(line, file=stream)
    if proved.verdict.value == UNKNOWN:
        print(f"  {HINT}", file=stream)
