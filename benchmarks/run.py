"""``python -m benchmarks.run [subject ...] [--quick] [--json FILE] [--write]``: measures, prints, and exits 1 on a miss."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Budget, Row

SUBJECTS = (
    "sign", "calls", "engines", "verify", "lock", "packing", "edge", "serving", "latency", "memory", "startup", "gate",
    "gate_redis", "permits",
    "audit",
)  # fmt: skip
FULL, QUICK, AGAIN = 1.0, 0.2, 1.5


def _missed(rows: list[Row]) -> list[str]:
    return [row.name for row in rows if row.passed is False]


def measure(subject: str, scale: float, again: bool) -> tuple[list[Row], str | None]:
    """The rows of a subject. With ``again`` what missed a target is measured once more, longer; that is the remark."""
    module = importlib.import_module(f"benchmarks.{subject}")
    rows: list[Row] = module.measure(Budget(scale))
    missed = _missed(rows)
    if not missed or not again:
        return rows, None
    print(f"  missed: {'; '.join(missed)}: measuring again with more rounds", flush=True)
    rows = module.measure(Budget(scale * AGAIN))
    return rows, f"{subject}: measured twice, these are the second numbers; the first missed: {'; '.join(missed)}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="subject", help=f"of {', '.join(SUBJECTS)}; all by default")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a fifth of the rounds; 100,000 calls in place of 1,000,000, 5,000 requests of 100,000",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="exit 0 on a miss, and do not measure again: for a machine that others use",
    )
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.subjects) - set(SUBJECTS))
    if unknown:
        parser.error(f"unknown subject {unknown[0]!r}; known are {', '.join(SUBJECTS)}")

    about = report.machine()
    print("\n".join(f"{name:24} {value}" for name, value in about.items()))
    results: dict[str, list[Row]] = {}
    remarks: list[str] = []
    start = time.monotonic()
    for subject in options.subjects or SUBJECTS:
        print(f"\n{subject}", flush=True)
        results[subject], remark = measure(subject, QUICK if options.quick else FULL, not options.report_only)
        for row in results[subject]:
            print(report.line(row), flush=True)
        if remark:
            remarks.append(remark)
    missed = [name for rows in results.values() for name in _missed(rows)]
    targets = sum(row.passed is not None for rows in results.values() for row in rows)
    remarks.append(f"{targets - len(missed)} of {targets} targets met in {time.monotonic() - start:.0f} s")
    print("\n" + "\n".join(remarks))

    command = " ".join(["python", "-m", "benchmarks.run", *(sys.argv[1:] if arguments is None else arguments)])
    if options.json:
        content = {name: [row.as_dict() for row in rows] for name, rows in results.items()}
        document = {"machine": about, "command": command, "results": content, "remarks": remarks}
        options.json.write_text(json.dumps(document, indent=1))
    if options.write:
        Path(__file__).with_name("RESULTS.md").write_text(report.markdown(results, about, command, remarks))
    return 1 if missed and not options.report_only else 0


if __name__ == "__main__":
    sys.exit(main())
