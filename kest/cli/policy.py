"""``kest policy``: do policy files load, and do they decide as their tests say?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest.cli.source import UsageError, read_text
from kest.cli.terminal import Column, Paint, clean, json_text, table, terminal_width
from kest.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from kest.core.policies.testing import Outcome

__all__ = ["register"]

_STATUSES = ("passed", "failed", "error", "skipped")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "policy",
        help="check policy files (Rego, Cedar) and run the tests beside them",
        description="Check policy files, Rego (.rego) and Cedar (.cedar), and run the tests beside them.",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=type(parser))
    check = actions.add_parser(
        "check",
        help="say what is wrong in policy files, with line and column",
        description="Say what is wrong in policy files, as FILE:LINE:COLUMN: MESSAGE. Rego modules given together may "
        "refer to each other.",
        epilog="Exit status: 0 every policy loads, 1 one does not, 2 wrong usage.",
    )
    check.add_argument("files", metavar="FILE", nargs="+", help="a .rego or .cedar file, or a folder of them")
    check.add_argument("--schema", metavar="SCHEMA", help="a Cedar schema (Cedar or JSON) that Cedar policies must fit")
    check.add_argument("--json", action="store_true", help="print the problems as JSON")
    check.set_defaults(run=_check)
    test = actions.add_parser(
        "test",
        help="run test_ rules of Rego modules and the cases of _test.json files",
        description="Run tests beside policies: rules named test_… in Rego modules, and the cases of files named "
        "…_test.json, JSON arrays of {name, policy, input, allow}, where policy is a file beside the case file.",
        epilog="Exit status: 0 every test passed, 1 one did not, 2 wrong usage, or no tests at all.",
    )
    test.add_argument("files", metavar="FOLDER|FILE", nargs="+", help="a folder, a .rego, .cedar or _test.json file")
    test.add_argument("--json", action="store_true", help="print the results as JSON")
    test.set_defaults(run=_test)


def _check(arguments: argparse.Namespace) -> int:
    from kest.core.policies.testing import EXTENSIONS, check_files

    schema = None if arguments.schema is None else read_text(arguments.schema)
    texts = {str(path): read_text(str(path)) for path in _files(arguments.files, tuple(EXTENSIONS))}
    if not texts:
        raise UsageError("there are no .rego or .cedar files there")
    try:
        found = check_files(texts, schema)
    except (ConfigurationError, MissingExtraError) as error:  # the schema, or an engine that is not installed
        raise UsageError(str(error)) from None
    bad = sum(map(bool, found.values()))
    if arguments.json:
        files: list[dict[str, Any]] = [
            {"file": name, "problems": [problem._asdict() for problem in problems]} for name, problems in found.items()
        ]
        print(json_text({"ok": not bad, "files": files}))
        return int(bad > 0)
    paint = Paint()
    for name, problems in found.items():
        for problem in problems:
            where = f"{clean(name, 500)}:{problem.line}:{problem.column}"
            print(f"{paint.bold(where)}: {clean(problem.message, 600)}")
    print(paint.bad(f"{bad} of {_count(len(found), 'policy', 'policies')} with problems")
          if bad else f"{paint.good('ok')}: {_count(len(found), 'policy', 'policies')}")  # fmt: skip
    return int(bad > 0)


def _test(arguments: argparse.Namespace) -> int:
    from kest.core.policies.testing import CASES, EXTENSIONS, run_tests

    paths = _files(arguments.files, (*EXTENSIONS, CASES))
    texts = {str(path): read_text(str(path)) for path in dict.fromkeys([*paths, *_beside(paths)])}
    try:
        outcomes = run_tests(texts, {str(path) for path in paths})
    except MissingExtraError as error:
        raise UsageError(str(error)) from None
    if not outcomes:
        raise UsageError("there are no tests there: no test_ rule in a .rego file, and no …_test.json file with cases")
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in _STATUSES}
    ok = not counts["failed"] and not counts["error"]
    if arguments.json:
        print(json_text({"ok": ok, **counts, "tests": [outcome._asdict() for outcome in outcomes]}))
        return int(not ok)
    _show(outcomes)
    paint = Paint()
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    print((paint.good if ok else paint.bad)(said))
    return int(not ok)


def _show(outcomes: list[Outcome]) -> None:
    paint = Paint()
    colour = {"passed": paint.good, "failed": paint.bad, "error": paint.bad, "skipped": paint.warn}
    rows = [(o.status, clean(o.policy, 200), clean(o.name, 300)) for o in outcomes]
    columns = (Column("RESULT", 7), Column("POLICY", 12), Column("TEST", 16))
    heading, *lines = table(columns, rows, terminal_width(), paint.more)
    print(paint.bold("  ".join(heading).rstrip()))
    for outcome, (status, *cells) in zip(outcomes, lines, strict=True):
        print("  ".join((colour[outcome.status](status), *cells)).rstrip())
        if outcome.status != "passed":
            print(f"    {clean(outcome.file, 500)}:{outcome.line}: {clean(outcome.detail, 600)}")


def _files(names: list[str], endings: tuple[str, ...]) -> list[Path]:
    """The files named, and those with one of ``endings`` in the folders named, each once, sorted within a folder."""
    found: list[Path] = []
    for name in names:
        path = Path(name)
        try:
            folder = path.is_dir()
        except ValueError:  # a NUL
            folder = False
        if folder:
            found += sorted(file for file in path.rglob("*") if file.name.endswith(endings) and file.is_file())
        elif not path.name.endswith(endings):
            raise UsageError(f"{clean(name, 200)}: a name that ends in {', '.join(endings)} is expected, or a folder")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _beside(paths: list[Path]) -> list[Path]:
    """The policies in the folders of ``paths``, which a test among these may be about."""
    from kest.core.policies.testing import EXTENSIONS

    try:
        folders = sorted({path.parent for path in paths})
        return sorted(f for folder in folders for f in folder.iterdir() if f.suffix in EXTENSIONS and f.is_file())
    except OSError as error:
        raise UsageError(f"cannot read the folder {clean(error.filename, 200)}: {error.strerror}") from None


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
