"""``kest log``: look at audit logs, verify them, prove what is in them, follow them, and take them elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kest.cli.log_records import Wanted, add_filters, json_line, locate, show_record
from kest.cli.logs import add_key_arguments, open_log, reading
from kest.cli.source import UsageError
from kest.cli.terminal import Paint, clean
from kest.cli.verify import add_trust_arguments, trust_store
from kest.errors import AuditCorruptError

if TYPE_CHECKING:
    from kest.audit import AuditReader, Record

__all__ = ["register"]

STATUSES = "Exit status: 0 as wished, 1 the log is damaged or not the one that it should be, 2 wrong usage or no log."
LOG = "the log's folder"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its five parts to the parser."""
    parser = commands.add_parser(
        "log",
        help="show, verify, prove, follow and export audit logs",
        description="Look at audit logs, verify them, prove what is in them, follow them, and take them elsewhere. "
        "A log may be read while it is written.",
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=type(parser))
    show = parts.add_parser(
        "show",
        help="what the records say",
        description="Show what records say, as far as the log's checkpoint goes. Records are not verified here: kest log "
        "verify does that; with --log-key, the checkpoint is.",
        epilog=STATUSES,
    )
    show.add_argument("log", metavar="LOG", help=LOG)
    add_filters(show)
    show.add_argument(
        "--entry", metavar="ENTRY", help="only the records about one call: its id, hash, or a record's index"
    )
    show.add_argument("--limit", metavar="N", type=_count, help="only the last N of those")
    show.add_argument("--full", action="store_true", help="all that each record says")
    show.set_defaults(run=_show)
    _add_verify(parts)
    prove = parts.add_parser(
        "prove",
        help="write a proof that a record is in the log",
        description="Write a proof file (c2sp.org/tlog-proof), which kest verify checks without the log.",
        epilog=STATUSES,
    )
    prove.add_argument("log", metavar="LOG", help=LOG)
    prove.add_argument("entry", metavar="ENTRY", help="the hash or id of an entry, or a record's index or leaf hash")
    prove.add_argument("-o", "--output", metavar="FILE", help="where to write it; default: standard output")
    prove.set_defaults(run=_prove)
    tail = parts.add_parser(
        "tail",
        help="follow a log while it is written",
        description="Show the last records, and then each new one when a checkpoint covers it, until interrupted. A log that "
        "goes back, or is not the same with more, ends it.",
        epilog=STATUSES + " 130 interrupted.",
    )
    tail.add_argument("log", metavar="LOG", help=LOG)
    add_filters(tail)
    tail.add_argument("--limit", metavar="N", type=_count, default=10, help="begin with the last N (default: 10)")
    tail.add_argument("--full", action="store_true", help="all that each record says")
    tail.add_argument(
        "--interval", metavar="SECONDS", type=_seconds, default=0.5, help="between looks at the log (default: 0.5)"
    )
    tail.set_defaults(run=_tail)
    export = parts.add_parser(
        "export",
        help="write all records as JSON lines",
        description="Write all records as JSON lines, decoded and as they were signed: what kest viz reads, too.",
        epilog=STATUSES,
    )
    export.add_argument("log", metavar="LOG", help=LOG)
    export.add_argument("-o", "--output", metavar="FILE", help="where to write it; default: standard output")
    export.set_defaults(run=_export)
    for part in (show, prove, tail, export):
        add_key_arguments(part)
    for part in (show, tail):
        part.add_argument("--json", action="store_true", help="print JSON lines")


def _add_verify(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = parts.add_parser(
        "verify",
        help="verify everything in a log",
        description="Verify a log from its files alone: the checkpoint and who cosigned it, the tree, every signature by the "
        "lives of keys, and what came of each call.",
        epilog="Exit status: 0 verified, 1 not verified, 2 wrong usage or no log. A call without an outcome is named, and no "
        "lie: see --strict.",
    )
    verify.add_argument("log", metavar="LOG", help=LOG)
    add_key_arguments(verify)
    add_trust_arguments(verify)
    verify.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="an earlier checkpoint, or proof, that the log must extend: shows a roll-back",
    )
    verify.add_argument("--strict", action="store_true", help="exit status 1 for calls without an outcome, too")
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    verify.set_defaults(run=_verify)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 9:
        raise argparse.ArgumentTypeError("a number from 0 to 999999999")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("seconds, from 0.01 to 3600")
    return seconds


# --- commands ---


def _show(arguments: argparse.Namespace) -> int:
    reader = open_log(arguments.log, arguments, unverified=True)
    wanted = Wanted.of(arguments)
    with reading(arguments.log):
        _note(reader, arguments)
        if arguments.entry is not None:
            records: Iterator[Record] = (reader.record(index) for index in locate(reader, arguments.entry))
        else:
            records = reader.records(_start(reader, arguments.limit, wanted))
        _print((record for record in _last(records, arguments.limit, wanted)), arguments)
    return 0


def _start(reader: AuditReader, limit: int | None, wanted: Wanted) -> int:
    return max(0, reader.size - limit) if limit is not None and wanted.everything else 0


def _last(records: Iterable[Record], limit: int | None, wanted: Wanted) -> Iterable[Record]:
    found = (record for record in records if record in wanted)
    return found if limit is None else deque(found, maxlen=limit)


def _print(records: Iterable[Record], arguments: argparse.Namespace) -> None:
    paint = Paint()
    for record in records:
        if arguments.json:
            print(json_line(record))
        else:
            for line in show_record(record, paint, full=arguments.full):
                print(line)


def _note(reader: AuditReader, arguments: argparse.Namespace) -> None:
    """What the reader of this has to know, on standard error."""
    if arguments.log_key is None:
        print("kest: not verified: this is what the log says of itself (kest log verify)", file=sys.stderr)
    if left := reader.journal_bytes():
        print(f"kest: {left} bytes of records are in the journal, under no checkpoint yet", file=sys.stderr)


def _verify(arguments: argparse.Namespace) -> int:
    from kest.cli.log_verify import verify_audit_log

    return verify_audit_log(arguments, trust_store(arguments), arguments.log)


def _prove(arguments: argparse.Namespace) -> int:
    reader = open_log(arguments.log, arguments, unverified=True)
    with reading(arguments.log):
        found = locate(reader, arguments.entry)
        index = next((i for i in found if reader.record(i).kind in ("entry", "intent")), found[0])
        proof = reader.prove(index)
    _check_proof(proof)
    _write([proof], arguments.output)
    if arguments.output is not None:
        print(f"proof of record {index} of {reader.size}: {clean(arguments.output, 300)}")
    return 0


def _check_proof(proof: str) -> None:
    """What leaves here should hold elsewhere: a damaged tile is noticed now, not by whoever gets the proof."""
    from kest._kestcore import parse, tlog_leaf
    from kest.audit import Checkpoint
    from kest.audit.note import decode_base64
    from kest.audit.proof import Proof

    parsed = Proof.parse(proof)
    leaf = decode_base64(parse(parsed.extra or b"{}")["record"])
    if not parsed.includes(tlog_leaf(leaf), Checkpoint.unverified(parsed.checkpoint)):
        raise AuditCorruptError(
            f"record {parsed.index} does not lead to the root that was signed: the log was changed (kest log verify)"
        )


def _tail(arguments: argparse.Namespace) -> int:
    reader = open_log(arguments.log, arguments, unverified=True)
    wanted = Wanted.of(arguments)
    with reading(arguments.log):
        if arguments.log_key is None:
            print("kest: not verified: this is what the log says of itself (kest log verify)", file=sys.stderr)
        seen = reader.size
        start = _start(reader, arguments.limit, wanted)
        _print(_last(reader.records(start, seen), arguments.limit, wanted), arguments)
        while True:
            sys.stdout.flush()
            time.sleep(arguments.interval)
            reader.refresh()
            _print((record for record in reader.records(seen) if record in wanted), arguments)
            seen = reader.size


def _export(arguments: argparse.Namespace) -> int:
    reader = open_log(arguments.log, arguments, unverified=True)
    if arguments.log_key is None:
        print("kest: not verified: this is what the log says of itself (kest log verify)", file=sys.stderr)
    with reading(arguments.log):
        _write((json_line(record, whole=True) + "\n" for record in reader.records()), arguments.output)
    return 0


def _write(parts: Iterable[str], output: str | None) -> None:
    """To standard output, or into a file of the owner's alone that is there when it is complete."""
    if output is None:
        for part in parts:
            sys.stdout.write(part)
        return
    path = Path(output)
    try:
        handle, name = tempfile.mkstemp(".tmp", f".{path.name[:100]}-", path.parent)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {clean(output, 200)}: {getattr(error, 'strerror', None) or error}") from None
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.writelines(parts)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError) and error.filename in (None, name, os.fspath(path)):
            raise UsageError(f"cannot write {clean(output, 200)}: {error.strerror or error}") from None
        raise
