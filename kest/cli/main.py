"""The command ``kest``: arguments, exit statuses, and what happens when something goes wrong.

Exit statuses: 0 as wished, 1 not verified (no identity to be had, a policy that fails), 2 wrong usage, 130 interrupted,
141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from kest import __version__
from kest.cli import doctor, gate, identity, inspect, keygen, log, policy, verify, viz, witness
from kest.cli.source import UsageError
from kest.cli.terminal import Paint, clean
from kest.errors import KestError

__all__ = ["main"]

COMMANDS = (verify, inspect, log, keygen, identity, policy, gate, viz, doctor, witness)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {clean(message, 500)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kest",
        description="Verify, inspect and draw passports of signed entries and audit logs, make keys, see "
        "which identity a process has, check and test policies, and find what is unsafe.",
        epilog="Exit status: 0 as wished, 1 not verified, 2 wrong usage.",
    )
    parser.add_argument("--version", action="version", version=f"kest {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in COMMANDS:
        command.register(commands)
    return parser


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"kest: {record.levelname.lower()}: {clean(record.getMessage(), 1000)}"


def _prepare() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A principal in Japanese on a terminal that knows only ASCII is shown as escapes, not as a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("kest")
    for earlier in list(logger.handlers):  # another command in this process had its own, to a stream that may be closed
        if isinstance(earlier.formatter, _OneLine):
            logger.removeHandler(earlier)
    logger.addHandler(handler)
    logger.propagate = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; ``argv`` without the program's name. Returns the exit status."""
    try:
        status = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return 141
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # the output cannot be written: a full disk
        _discard_output()
        print(f"kest: cannot write the output: {clean(error.strerror or error, 300)}", file=sys.stderr)
        return 1
    return status


def _run(argv: Sequence[str] | None) -> int:
    try:
        _prepare()
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except SystemExit as stop:  # argparse
        return stop.code if isinstance(stop.code, int) else 2
    except KestError as error:
        print(f"{Paint(sys.stderr).bad('kest')}: {clean(error, 1000)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _discard_output() -> None:
    """What could not be written is written once more when the interpreter ends: let that go nowhere."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    finally:
        os.close(devnull)
