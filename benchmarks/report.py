"""The table, on a terminal and as Markdown."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import raw
from benchmarks.measure import Row

__all__ = ["Results", "line", "machine", "markdown"]

Results = Mapping[str, Iterable[Row]]


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "libsodium": raw.sodium_version(),
        "cryptography": _version("cryptography"),
        "OpenSSL of cryptography": _openssl(),
        "rfc8785": _version("rfc8785"),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _cpu() -> str:
    try:
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _openssl() -> str:
    from cryptography.hazmat.backends.openssl.backend import backend

    return str(backend.openssl_version_text())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def number(value: float, unit: str) -> str:
    if unit == "":
        return f"{value:.0f}"
    digits = 2 if abs(value) < 100 else 0
    return f"{value:.{digits}f} {unit}" if unit != "x" else f"{value:.{digits}f}x"


def cells(row: Row) -> tuple[str, str, str, str, str, str]:
    """Name, measured, spread, target, verdict, note."""
    target = "" if row.target is None else f"{'>=' if row.at_least else '<='} {number(row.target, row.unit)}"
    verdict = {None: "", True: "PASS", False: "FAIL"}[row.passed]
    spread = "" if row.samples == 1 else f"{number(row.low, row.unit)} .. {number(row.high, row.unit)}"
    return row.name, number(row.value, row.unit), spread, target, verdict, row.note


def line(row: Row) -> str:
    name, value, spread, target, verdict, note = cells(row)
    colour = {"PASS": "\033[32m", "FAIL": "\033[31;1m"}.get(verdict, "") if sys.stdout.isatty() else ""
    shown = f"{colour}{verdict:4}{chr(27) + '[0m' if colour else ''}"
    return f"  {name:68} {value:>10}  {spread:22} {target:>11}  {shown}  {note}".rstrip()


def markdown(results: Results, about: Mapping[str, str], command: str, remarks: Iterable[str]) -> str:
    """RESULTS.md."""
    out = [
        "# Measured",
        "",
        "Medians of interleaved repeats, taken in one run; the spread is the interquartile range. The reference stack is",
        "rfc8785 + cryptography + plain Python doing the same work ([reference_stack.py](reference_stack.py)); the bare",
        "primitive is libsodium called from C ([raw.c](raw.c)). Rows without a target are for information. NOISY: other",
        "processes used the cores meanwhile, so what needs a second core is not shown at its best.",
        "",
        "```",
        command,
        "```",
        "",
    ]
    out += [f"- {name}: {value}" for name, value in about.items()]
    out += [f"- {remark}" for remark in remarks]
    for subject, rows in results.items():
        out += ["", f"## {subject}", "", "| what | measured | spread | target | | |", "|---|--:|---|--:|---|---|"]
        out += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(row)) + " |" for row in rows]
    return "\n".join(out) + "\n"
