"""Audit logs, in use or in a folder: who could change them, whose key signs, how far they are, and what is unfinished.

Nothing is locked and nothing is written: a log may be in use elsewhere meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest.doctor.files import check_ancestors, check_readers, check_room, check_writers, mode_of
from kest.doctor.findings import Report
from kest.errors import AuditCorruptError, AuditError, KestError

if TYPE_CHECKING:
    from kest.audit import AuditLog, AuditReader, Checkpoint, NoteKey
    from kest.audit.layout import Layout

__all__ = ["check_log", "check_open_log"]

LOOKED_AT = 20_000
"""Records at the end in which calls without an outcome are counted; ``kest log verify`` looks at all."""
LATE = 60.0
"""Seconds after which records should long be under a checkpoint; the default is one."""
MOST_JOURNAL = 256 << 20
REWRITE = "whoever can, can cut records off its end, or keep it from being continued"


def check_open_log(report: Report, sink: AuditLog) -> None:
    """Add what is known of a log that this process writes."""
    from kest.audit.layout import Layout

    section = subject = f"audit log {sink.path}"
    report.fact(section, "on failure", f"calls {'wait' if sink.on_failure == 'block' else 'fail'}")
    report.fact(
        section, "intents", "durable before calls run" if sink.durable_intents else "durable within milliseconds"
    )
    report.fact(section, "queue", f"{sink.pending} of {sink.max_pending} records")
    if sink.failure is not None:
        then = "calls wait" if sink.on_failure == "block" else "calls fail"
        report.find("danger", subject, f"it cannot be written to now, and {then}: {sink.failure}", "see the reason")
    if sink.on_failure == "block":
        report.find(
            "note",
            subject,
            'on_failure="block": while the disk is full or gone, every call waits, for as long as that lasts',
            'watch the disk, or on_failure="fail"',
        )
    if sink.recovery.torn:
        report.find(
            "note",
            subject,
            f"{len(sink.recovery.torn)} writes before this process opened it did not come to their end",
            "nothing: none of it was acknowledged; kest log verify names calls without an outcome",
        )
    _signer(report, subject, sink.signer_kind)
    _redaction(report, sink)
    _folder(report, section, Layout(sink.path), sink.key, in_use=True)


def check_log(report: Report, path: Path, key: NoteKey | None = None) -> None:
    """Add what the files of a log in a folder say. ``key``: the log's; None: its checkpoint is not verified."""
    from kest.audit.layout import Layout

    _folder(report, f"audit log {path}", Layout(path), key, in_use=False)


def _signer(report: Report, subject: str, kind: str) -> None:
    report.fact(subject, "signer", f"{kind}, Ed25519")
    if kind == "LocalEd25519Provider":
        report.find(
            "warning",
            subject,
            "unless its seed is kept, the log's key ends with this process: no other can continue the log",
            "StaticIdentity(principal, key_file=...) as the log's signer",
        )


def _redaction(report: Report, sink: AuditLog) -> None:
    redaction = sink.redaction
    report.fact(f"audit log {sink.path}", "redaction", "none" if redaction is None else str(redaction.path))
    if redaction is not None:
        subject = f"disclosures {redaction.path}"
        check_writers(report, subject, [redaction.path], "whoever can, can destroy what records were over")
        check_readers(report, subject, redaction.path, "danger", "it holds everything personal that the log does not")


# --- what the files say ---


def _folder(report: Report, section: str, layout: Layout, key: NoteKey | None, *, in_use: bool) -> None:
    subject, root = section, layout.root
    report.fact(section, "folder", mode_of(root))
    parts = (root, layout.checkpoint, layout.journal, root / "tile", layout.large_folder, layout.index, layout.lock)
    check_writers(report, subject, parts, REWRITE)
    check_ancestors(report, subject, root)
    check_readers(report, subject, root, "note", "records say who did what on whose behalf")
    check_room(report, section, subject, root, "no record can be written, and calls fail or wait")
    held = in_use or _is_held(layout.lock)
    report.fact(section, "writer", "this process" if in_use else "a process has it open" if held else "none")
    _journal(report, section, layout, held)
    reader = _reader(report, section, layout, key, in_use)
    if reader is not None:
        _signatures(report, section, reader.checkpoint, key)
        _calls(report, section, reader, held)


def _reader(report: Report, section: str, layout: Layout, key: NoteKey | None, in_use: bool) -> AuditReader | None:
    from kest.audit import AuditReader
    from kest.audit.reader import UnverifiedReader

    if not layout.checkpoint.exists():
        report.fact(section, "checkpoint", "none yet")
        if not in_use:
            report.find(
                "warning", section, "nothing in it is under a checkpoint", "open it with AuditLog, and close it"
            )
        return None
    try:
        reader = UnverifiedReader(layout.root) if key is None else AuditReader(layout.root, key)
        age = max(0.0, time.time() - layout.checkpoint.stat().st_mtime)
    except (KestError, OSError) as error:
        report.fact(section, "checkpoint", "not to be read")
        report.find("danger", section, f"its checkpoint does not hold: {error}", "kest log verify; restore a copy")
        return None
    report.fact(section, "checkpoint", f"{reader.size} records of {reader.checkpoint.origin}, {_span(age)} old")
    if age > LATE and _journal_bytes(layout):
        report.find(
            "warning",
            section,
            f"there are newer records than the last checkpoint, which is {_span(age)} old: nobody can verify them, and who "
            "can delete files can cut them off unseen",
            "open the log again if its writer has ended; otherwise look for its errors (logger kest.audit)",
        )
    return reader


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _signatures(report: Report, section: str, checkpoint: Checkpoint, key: NoteKey | None) -> None:
    from kest.audit.note import NoteKey, SignedNote

    signatures = SignedNote.parse(checkpoint.note).signatures
    origin = checkpoint.origin
    report.fact(section, "log key", "Ed25519, verified" if key is not None else "not given: nothing is verified")
    for principal in (origin, f"spiffe://{origin}"):
        try:
            mock = NoteKey(origin, _mock_key(principal))
        except KestError:
            continue
        if any(name == origin and id_ == mock.id for name, id_, _ in signatures):
            report.find(
                "danger",
                section,
                "it is signed with the key of a MockIdentityProvider: anybody can compute it, and write another log",
                "begin a new log, with StaticIdentity(principal, key_file=...) as its signer",
            )
            break
    others = sorted({name for name, _, _ in signatures if name != origin})
    report.fact(section, "witnesses", f"{', '.join(others)} (not verified here)" if others else "none")
    if not others:
        report.find(
            "warning",
            section,
            "no witness has cosigned the checkpoint: whoever has the log's key can write another history, unseen",
            "Cosigner(log, [WitnessClient(url, vkey)]), and --witness when it is verified; see kest witness",
        )


def _mock_key(principal: str) -> bytes:
    from kest.audit.note import signer_of
    from kest.core.identity.mock import MockIdentityProvider

    return signer_of(MockIdentityProvider(principal)).public_key


def _calls(report: Report, section: str, reader: AuditReader, held: bool) -> None:
    """The calls at the end of the log of which the outcome is not there."""
    start = max(0, reader.size - LOOKED_AT)
    running: dict[str, int] = {}
    ended = -1
    try:
        for record in reader.records(start):
            if record.kind in ("entry", "intent"):
                running[record.entry_hash] = record.index
            elif record.kind == "outcome":
                running.pop(record.entry_hash, None)
            elif record.kind == "log" and record.payload.get("event") in ("opened", "closed"):
                ended = record.index
    except (AuditCorruptError, AuditError, OSError) as error:
        report.find("danger", section, f"it cannot be read: {error}", "kest log verify; restore a copy")
        return
    lost = len(running) if not held else sum(index < ended for index in running.values())
    looked = f"of the last {reader.size - start} records"
    report.fact(section, "without outcome", f"{len(running)} calls {looked}, {lost} of them by processes that ended")
    if lost:
        report.find(
            "warning",
            section,
            f"{lost} calls {looked} have no outcome, and their processes have ended: what they did is not known",
            "kest log verify names them; find out what became of each",
        )


# --- the journal, and who has it ---


def _journal_bytes(layout: Layout) -> int:
    total = 0
    for _, path in layout.segments():
        try:
            total += path.stat().st_size
        except OSError:  # retired meanwhile
            continue
    return total


def _journal(report: Report, section: str, layout: Layout, held: bool) -> None:
    try:
        size = _journal_bytes(layout)
    except OSError as error:
        report.find("danger", section, f"its journal cannot be read: {error}", "run kest doctor as the log's owner")
        return
    report.fact(section, "journal", f"{size} bytes under no checkpoint yet" if size else "empty")
    if not size or held or size > MOST_JOURNAL:  # the end of a journal in use is a write under way
        return
    torn: Any = ()
    try:
        from kest.audit.journal import recover

        torn = recover(layout, _published(layout)).torn
    except AuditCorruptError as error:
        report.find("danger", section, f"its journal is damaged: {error}", "restore the folder from a copy")
        return
    except (KestError, OSError):
        pass  # the checkpoint's fault, which is said where it is read
    report.find(
        "warning",
        section,
        f"its writer ended without closing it: {size} bytes of records are under no checkpoint",
        "open it with AuditLog: that brings them under one",
    )
    for tail in torn:
        report.find(
            "note",
            section,
            f"a write did not come to its end: {tail.size} bytes of journal segment {tail.segment} are no record "
            f"({tail.reason}); nothing in them was acknowledged",
            "nothing: the next writer records it",
        )


def _published(layout: Layout) -> int:
    from kest.audit import Checkpoint

    try:
        return Checkpoint.unverified(layout.checkpoint.read_bytes()).size
    except FileNotFoundError:
        return 0


def _is_held(lock: Path) -> bool:
    """Whether a process holds the lock, as far as the kernel shows it (``/proc/locks``, proc(5)). It is not tried: a
    writer that starts at that moment would be refused."""
    try:
        inode = str(lock.stat().st_ino)
        return any(inode == held for held in _flocks())
    except OSError:
        return False


def _flocks() -> Iterator[str]:
    with open("/proc/locks", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if "FLOCK" in fields and len(fields) >= 6:
                yield fields[5].rpartition(":")[2]
