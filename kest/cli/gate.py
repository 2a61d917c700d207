"""``kest gate``: are policies valid, why is an action decided as it is, and what would other policies change?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest.cli.source import UsageError
from kest.cli.terminal import Paint, clean, json_text
from kest.errors import GateError, GatePolicyError

if TYPE_CHECKING:
    from kest._kestcore import Verdict
    from kest.gate import Gate, Policies
    from kest.gate.replay import Record

__all__ = ["register"]

MAX_CONTEXT = 1 << 20
FILE = "a file of policies: TOML, or JSON when its name ends in .json"
RECORDS = (
    'a file of JSON lines, each a context or {"context": ..., "at": Unix seconds, "verdict": ...}; - is standard input'
)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its four parts to the parser."""
    parser = commands.add_parser(
        "gate",
        help="check policies, explain decisions, compare policies on recorded actions",
        description="Check the policies of a gate, explain its decisions, and compare policies on recorded actions.",
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=type(parser))
    check = parts.add_parser(
        "check", help="are these policies valid?", epilog="Exit status: 0 valid, 1 not, 2 wrong usage."
    )
    check.add_argument("policies", metavar="POLICIES", nargs="+", help=FILE)
    check.set_defaults(run=_check)
    explain = parts.add_parser("explain", help="why is a context decided as it is?")
    explain.add_argument("policies", metavar="POLICIES", help=FILE)
    explain.add_argument("context", metavar="CONTEXT", help="a JSON file with one context; - is standard input")
    explain.set_defaults(run=_explain)
    diff = parts.add_parser(
        "diff",
        help="which recorded contexts would other policies decide differently?",
        epilog="Exit status: 0 none, 1 some, 2 wrong usage.",
    )
    diff.add_argument("before", metavar="BEFORE", help=FILE)
    diff.add_argument("after", metavar="AFTER", help=FILE)
    diff.add_argument("records", metavar="RECORDS", help=RECORDS)
    diff.set_defaults(run=_diff)
    replay = parts.add_parser(
        "replay",
        help="decide recorded contexts again",
        epilog="Exit status: 0 all as recorded (or none recorded), 1 some decided differently, 2 wrong usage.",
    )
    replay.add_argument("policies", metavar="POLICIES", help=FILE)
    replay.add_argument("records", metavar="RECORDS", help=RECORDS)
    replay.set_defaults(run=_replay)
    for part in (explain, diff, replay):
        _settings(part)
    for part in (check, explain, diff, replay):
        part.add_argument("--json", action="store_true", help="print JSON")


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--invariant", metavar="NAME:FIELD:MAX", action="append", default=[], help="as the gate has it; may be repeated"
    )
    parser.add_argument("--max-session-actions", metavar="N", type=int, help="as the gate has it")
    parser.add_argument("--geo-drift-max-km", metavar="KM", type=float, help="as the gate has it")
    parser.add_argument("--no-drift", action="store_true", help="as a gate without drift detection")


# --- reading ---


def _load(path: str) -> Policies:
    from kest.gate.policies import load_file

    try:
        return load_file(path)
    except OSError as error:
        raise UsageError(f"cannot read {clean(path, 300)}: {error.strerror or error}") from None


def _gate(arguments: argparse.Namespace, path: str) -> Gate:
    from kest.gate import Gate

    invariants = [_invariant(text) for text in arguments.invariant]
    try:
        return Gate(
            _load(path),
            invariants=invariants,
            max_session_actions=arguments.max_session_actions,
            geo_drift_max_km=arguments.geo_drift_max_km,
            enable_drift=not arguments.no_drift,
        )
    except GatePolicyError:
        raise
    except GateError as error:
        raise UsageError(str(error)) from None


def _invariant(text: str) -> tuple[str, str, float]:
    name, _, rest = text.partition(":")
    field, _, most = rest.partition(":")
    try:
        return name, field, float(most)
    except ValueError:
        raise UsageError(f"--invariant {clean(text, 100)}: NAME:FIELD:MAX, with a number at the end") from None


def _records(path: str) -> Iterator[Record]:
    from kest.gate.replay import read_records

    try:
        if path == "-":
            yield from read_records(sys.stdin)
        else:
            with Path(path).open(encoding="utf-8") as file:
                yield from read_records(file)
    except OSError as error:
        raise UsageError(f"cannot read {clean(path, 300)}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{clean(path, 300)} is not UTF-8") from None
    except GateError as error:
        raise UsageError(f"{clean(path, 300)}: {error}") from None


def _context(path: str) -> Any:
    from kest._kestcore import parse
    from kest.errors import KestError
    from kest.gate import context_from_record

    try:
        if path == "-":
            content = sys.stdin.buffer.read(MAX_CONTEXT + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(MAX_CONTEXT + 1)
    except OSError as error:
        raise UsageError(f"cannot read {clean(path, 300)}: {error.strerror or error}") from None
    if len(content) > MAX_CONTEXT:
        raise UsageError(f"{clean(path, 300)} is larger than a context can be")
    try:
        return context_from_record(parse(content))
    except (KestError, TypeError) as error:
        raise UsageError(f"{clean(path, 300)}: {error}") from None


# --- commands ---


def _check(arguments: argparse.Namespace) -> int:
    from kest.gate.compile import compile_policies

    paint, results, failed = Paint(), [], False
    for path in arguments.policies:
        try:
            policies = _load(path)
            compile_policies(policies)
        except GatePolicyError as error:
            failed = True
            results.append({"file": path, "valid": False, "path": error.path, "error": str(error)})
            if not arguments.json:
                print(f"{Paint(sys.stderr).bad('invalid')}: {clean(error, 1000)}", file=sys.stderr)
            continue
        results.append({"file": path, "valid": True, "policies": len(policies), "digest": policies.digest})
        if not arguments.json:
            print(f"{paint.good('valid')}: {clean(path, 300)}: {len(policies)} policies, digest {policies.digest}")
            if not any(policy.permit for policy in policies.policies):
                print(paint.dim("  None of them permits anything: every action is refused."))
    if arguments.json:
        print(json_text(results))
    return 1 if failed else 0


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.kind,
        "code": verdict.code,
        "evaluator": verdict.evaluator,
        "policy": verdict.policy,
        "reason": verdict.reason,
    }


def _line(verdict: Verdict, paint: Paint) -> str:
    if verdict.is_permit:
        return f"{paint.good('permit')} by policy {clean(verdict.policy or '', 200)}"
    word = paint.bad(verdict.kind)
    return f"{word} [{verdict.code or '-'}] {verdict.evaluator}: {clean(verdict.reason or '', 600)}"


def _explain(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    gate = _gate(arguments, arguments.policies)
    context = _context(arguments.context)
    explanation = gate.explain(context)
    verdict = gate.evaluate(context)
    if arguments.json:
        print(json_text({**_told(verdict), "policies": [asdict(policy) for policy in explanation.policies]}))
        return 0
    print(_line(verdict, Paint()))
    for line in str(explanation).splitlines():
        print("  " + clean(line, 2000))
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    from kest.gate.replay import differences

    paint, total, flips = Paint(), 0, []

    def count() -> None:
        nonlocal total
        total += 1

    before, after = _gate(arguments, arguments.before), _gate(arguments, arguments.after)
    for flip in differences(before, after, _records(arguments.records), count):
        flips.append({"line": flip.record.line, "before": _told(flip.before), "after": _told(flip.after)})
        if not arguments.json:
            context = flip.record.context
            print(f"line {flip.record.line}: {clean(context.principal_id, 100)}: {clean(context.action_name, 100)}")
            print(f"  before  {_line(flip.before, paint)}")
            print(f"  after   {_line(flip.after, paint)}")
    if arguments.json:
        print(json_text({"contexts": total, "flips": flips}))
    else:
        print(f"{len(flips)} of {total} contexts are decided differently")
    return 1 if flips else 0


def _replay(arguments: argparse.Namespace) -> int:
    from kest.gate.replay import replay

    paint, results, other = Paint(), [], 0
    for replayed in replay(_gate(arguments, arguments.policies), _records(arguments.records)):
        record = replayed.record
        other += replayed.as_recorded is False
        if arguments.json:
            results.append({"line": record.line, **_told(replayed.verdict), "recorded": record.verdict})
        else:
            note = paint.warn(f" (recorded: {record.verdict})") if replayed.as_recorded is False else ""
            print(f"{record.line}: {clean(record.context.action_name, 100)}: {_line(replayed.verdict, paint)}{note}")
    if arguments.json:
        print(json_text(results))
    elif other:
        print(f"{other} decided differently than recorded")
    return 1 if other else 0
