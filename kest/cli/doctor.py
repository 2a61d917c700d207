"""``kest doctor``: what is configured and detected, and what of it is unsafe; with ``--attack``, what gets through."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kest.cli.source import UsageError
from kest.cli.terminal import Paint, clean, fold, json_text, pad, terminal_width

if TYPE_CHECKING:
    from kest._kestcore import Signer
    from kest.audit import NoteKey
    from kest.doctor import Attack, Report, Result

__all__ = ["register"]

GROUPS = ("lineage", "caller", "token", "resource")  # those of kest.doctor.probes, which is not imported for --help


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="show what is configured and what of it is unsafe; attack an application of yours",
        description="Show what is configured and detected, and what would be unsafe in production. Connects to nothing. "
        "With --attack, send forged requests to an application that is yours, and report which it really refuses.",
        epilog="Exit status: 0 nothing dangerous (with --attack: everything was blocked or degraded), 1 something is, 2 "
        "wrong usage. Secrets are never shown.",
    )
    parser.add_argument(
        "app",
        metavar="APP",
        nargs="?",
        help="module:app to import and look at; without it, the environment alone is examined",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit status 1 for warnings, too, and for what was only degraded"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--log",
        metavar="LOG",
        action="append",
        default=[],
        help="the folder of an audit log to look at, too; may be repeated. Logs that APP has open are looked at anyway",
    )
    parser.add_argument("--log-key", metavar="VKEY", help="the verifier key of --log, or a file that holds it")
    parser.add_argument(
        "--telemetry",
        metavar="FILE",
        action="append",
        default=[],
        help="a file or database of telemetry to look at, too; may be repeated",
    )
    group = parser.add_argument_group("attack")
    group.add_argument(
        "--attack", metavar="TARGET", help="the URL of a running application, or module:app to run it here"
    )
    group.add_argument(
        "--i-own-this-target", metavar="HOST", help="attack a host that is not this machine, and is yours"
    )
    group.add_argument("--method", default="GET", help="of the requests (default: GET)")
    group.add_argument("--path", default="/", help="of the requests to module:app (default: /); a URL has its own")
    group.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="in every request; may be repeated"
    )
    group.add_argument("--token-env", metavar="VARIABLE", help="an environment variable with a valid bearer token")
    group.add_argument(
        "--key", metavar="FILE", help="a private key that the application trusts, to lie under a right signature"
    )
    group.add_argument("--principal", metavar="NAME", help="whose key that is; without --key, whom to impersonate")
    group.add_argument(
        "--only", action="append", choices=GROUPS, help="fire these probes only; may be repeated (default: all)"
    )
    group.add_argument("--skip", action="append", choices=GROUPS, default=[], help="do not fire these; may be repeated")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.attack is not None:
        if arguments.app is not None:
            raise UsageError("either APP, to look at it, or --attack TARGET")
        if arguments.log or arguments.log_key or arguments.telemetry:
            raise UsageError("--log, --log-key and --telemetry are looked at without --attack")
        return _attack(arguments)
    from kest.doctor import examine
    from kest.doctor.application import ApplicationError, load

    try:
        app = None if arguments.app is None else load(arguments.app)
    except ApplicationError as error:
        raise UsageError(str(error)) from None
    logs, key = _logs(arguments)
    report = examine(app, logs=logs, log_key=key, telemetry=[_there(name) for name in arguments.telemetry])
    if arguments.json:
        print(json_text(report.document()))
    else:
        _show(report)
    worst = report.worst()
    return int(worst == "danger" or (arguments.strict and worst == "warning"))


def _logs(arguments: argparse.Namespace) -> tuple[list[Path], NoteKey | None]:
    from kest.cli.logs import key_of

    if arguments.log_key is not None and not arguments.log:
        raise UsageError("--log-key is the key of a log that --log names")
    paths = [_there(name) for name in arguments.log]
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"--log: {clean(path, 200)} is a file, and an audit log is a folder")
    return paths, None if arguments.log_key is None else key_of(arguments.log_key)


def _there(name: str) -> Path:
    path = Path(name)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot look at {clean(name, 200)}: {reason}") from None
    return path


def _show(report: Report) -> None:
    paint, columns = Paint(), terminal_width()
    for section, facts in report.sections.items():
        print(paint.bold(section))
        for name, value in facts:
            _lines(pad(clean(name, 60), 24), clean(value, 2000), columns, paint.dim)
        print()
    print(paint.bold("findings"))
    colours = {"danger": paint.bad, "warning": paint.warn, "note": paint.dim}
    for finding in report.sorted():
        colour = colours[finding.severity]
        print(f"  {colour(pad(finding.severity, 8))}  {paint.bold(clean(finding.subject, 100))}")
        _lines(pad("", 8), clean(finding.reason, 1000), columns, str)
        _lines(pad("", 8), "-> " + clean(finding.fix, 1000), columns, str)
    if not report.findings:
        print("  none")


def _lines(name: str, text: str, columns: int, colour: object) -> None:
    for line in fold(text, columns - len(name) - 4):
        print(f"  {colour(name) if callable(colour) else name}  {line}".rstrip())
        name = " " * len(name)


# --- attack ---


def _attack(arguments: argparse.Namespace) -> int:
    from kest.doctor import TargetError, attack
    from kest.doctor.application import ApplicationError

    settings = _settings(arguments)
    paint, columns = Paint(), terminal_width()

    def done(result: Result) -> None:
        if not arguments.json:
            _show_result(result, paint, columns)

    # An application in this process logs each refusal; they are what is reported here.
    log = logging.getLogger("kest")
    log.setLevel(logging.CRITICAL)
    try:
        results = attack(settings, done)
    except (TargetError, ApplicationError) as error:
        raise UsageError(str(error)) from None
    finally:
        log.setLevel(logging.NOTSET)
    counts = {
        verdict: sum(one.verdict == verdict for one in results)
        for verdict in ("blocked", "degraded", "unclear", "NOT BLOCKED")
    }
    if arguments.json:
        print(json_text({"counts": counts, "probes": [result._asdict() for result in results]}))
    else:
        said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        print(f"\n{paint.bold(f'{len(results)} probes')}: {said}")
        if settings.honest is None and "lineage" in settings.groups:
            print(
                paint.dim(
                    "Every entry was signed by a key of kest doctor's own. With --key, lies come under a right signature."
                )
            )
    failed = counts["NOT BLOCKED"] + counts["unclear"] + (counts["degraded"] if arguments.strict else 0)
    return int(failed > 0)


def _settings(arguments: argparse.Namespace) -> Attack:
    from kest.doctor import Attack

    headers = []
    for text in arguments.header:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or not (name + value).isascii() or not (name + value).isprintable():
            raise UsageError("--header takes NAME:VALUE in printable ASCII")
        headers.append((name.strip().lower().encode(), value.strip().encode()))
    if arguments.token_env is not None:
        token = os.environ.get(arguments.token_env, "")
        if not token:
            raise UsageError(f"--token-env: the variable {clean(arguments.token_env, 100)} is not set")
        headers.append((b"authorization", b"Bearer " + token.encode()))
    groups = tuple(group for group in (arguments.only or GROUPS) if group not in arguments.skip)
    if not groups:
        raise UsageError("--only and --skip leave no probes")
    if not arguments.path.startswith("/"):
        raise UsageError("--path begins with /")
    return Attack(
        arguments.attack,
        arguments.i_own_this_target,
        arguments.method.upper(),
        arguments.path,
        tuple(headers),
        _signer(arguments),
        arguments.principal,
        groups,
    )


def _signer(arguments: argparse.Namespace) -> Signer | None:
    from kest._kestcore import Signer
    from kest.core.identity.keys import read_private_key
    from kest.errors import KestError

    if arguments.key is None:
        return None
    if arguments.principal is None:
        raise UsageError("--key needs --principal: whose key it is")
    try:
        return Signer(arguments.principal, read_private_key(arguments.key))
    except (KestError, OSError, ValueError) as error:
        raise UsageError(f"--key: {clean(error, 300)}") from None


def _show_result(result: Result, paint: Paint, columns: int) -> None:
    colours = {"blocked": paint.good, "degraded": paint.warn, "unclear": paint.warn, "NOT BLOCKED": paint.bad}
    line = f"{pad(result.row, 4)}{colours[result.verdict](pad(result.verdict, 13))}{clean(result.name, 200)}"
    print(line)
    _lines(pad("", 13), clean(f"{result.came}: {result.why}" if result.came else result.why, 400), columns, str)
