"""``kest verify`` of telemetry: every signed entry in a file or database of spans."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kest.cli.source import UsageError
from kest.cli.terminal import Paint, clean, json_text
from kest.errors import PassportError, TelemetryError

if TYPE_CHECKING:
    from kest.core.truststore import TrustStore
    from kest.telemetry import Flow, SpanRecord

__all__ = ["verify_telemetry"]

SHOWN = 20
"""How many problems are printed; ``--json`` has all."""
MISSING = "a parent entry is nowhere in this telemetry: not sampled, lost, cut off, or another service's"


@dataclass(frozen=True)
class Problem:
    """Something that does not verify, and where it was read."""

    where: str
    reason: str
    principal: str | None = None
    entry_id: str | None = None


def verify_telemetry(name: str, store: TrustStore, as_json: bool) -> int:
    """Verify and print the verdict; the exit status."""
    from kest.telemetry import TelemetryReader, flows

    spans: list[SpanRecord] = []
    foreign = 0
    try:
        with TelemetryReader(name) as reader:
            for span in reader:
                if span.is_kest:
                    spans.append(span)
                else:
                    foreign += 1
            problems = [Problem(damage.where, damage.reason) for damage in reader.damaged]
    except TelemetryError as error:
        raise UsageError(str(error)) from None
    found = flows(spans)
    problems += _contradictions(spans)
    principals: set[str] = set()
    for flow in found:
        problems += _check(flow, store, principals)
    entries = sum(len(flow.entries) for flow in found)
    if not entries:
        problems.append(Problem("telemetry", "it holds no signed entry: it proves nothing"))
    facts: dict[str, Any] = {
        "verified": not problems,
        "spans": len(spans),
        "denied": sum(span.allowed is False for span in spans),
        "entries": entries,
        "flows": len(found),
        "principals": sorted(principals),
    }
    if as_json:
        members = [{k: v for k, v in vars(problem).items() if v is not None} for problem in problems]
        print(json_text({**facts, "other_spans": foreign, "problems": members}))
    else:
        _show(facts, problems)
    return 1 if problems else 0


def _contradictions(spans: list[SpanRecord]) -> Iterator[Problem]:
    from kest.telemetry.lineage import contradiction

    for span in spans:
        if span.signature and (reason := contradiction(span)) is not None:
            yield Problem(span.where, reason, entry_id=span.entry_id or None)
        elif span.allowed and not span.signature:
            yield Problem(span.where, "the span says that its call was allowed, and has no signed entry")


def _check(flow: Flow, store: TrustStore, principals: set[str]) -> list[Problem]:
    from kest.core.passport import PassportVerifier

    try:
        principals |= PassportVerifier.verify(flow.entries, store).principals
    except PassportError as error:
        index = getattr(error, "index", None)
        return [_problem(flow, index, str(getattr(error, "reason", "") or error))]
    return []


def _problem(flow: Flow, index: int | None, reason: str) -> Problem:
    from kest.cli.source import PARENT_MISSING
    from kest.telemetry.lineage import payload

    if index is None:
        return Problem("telemetry", reason)
    said = payload(flow.entries[index]) or {}
    labels = said.get("labels")
    principal = labels.get("principal") if isinstance(labels, dict) else None
    span = flow.spans.get(index)
    return Problem(
        "a kest.passport" if span is None else span.where,
        MISSING if reason == PARENT_MISSING else reason,
        principal if isinstance(principal, str) else None,
        entry_id if isinstance(entry_id := said.get("entry_id"), str) else None,
    )


def _show(facts: dict[str, Any], problems: list[Problem]) -> None:
    from kest.cli.verify import UNKNOWN_PRINCIPAL

    summary = "{entries} entries in {flows} flows, of {spans} spans ({denied} denied)".format_map(facts)
    if not problems:
        paint = Paint()
        print(f"{paint.good('verified')}: {summary}: every signature, link, trust score and taint")
        for principal in facts["principals"]:
            print(f"  {paint.dim('principal')}  {clean(principal, 500)}")
        print(
            paint.dim("  Spans can be missing without a trace; the audit log shows what was cut off (kest log verify).")
        )
        return
    print(f"{Paint(sys.stderr).bad('not verified')}: {summary}", file=sys.stderr)
    for problem in problems[:SHOWN]:
        reason = problem.reason
        if reason == UNKNOWN_PRINCIPAL:
            reason = f"no key for principal {problem.principal or '?'}; pass --trust KEYS"
        entry = f" (entry {clean(problem.entry_id, 60)})" if problem.entry_id else ""
        print(f"  {clean(problem.where, 100)}: {clean(reason, 600)}{entry}", file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"  and {len(problems) - SHOWN} more: --json has all", file=sys.stderr)
