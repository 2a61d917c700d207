"""Validation of Rego modules, by the parsers and analyses of the engines that evaluate them here."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from kest.core.engine.rego_check import unbound_variable
from kest.core.engine.rego_source import for_regorus, masked, package_path, query_path
from kest.core.policies.problem import Problem, located, optional, refuse, too_deep
from kest.errors import ConfigurationError, MissingExtraError

__all__ = ["RegoValidator", "is_v1"]

_OURS = "the policy.rego"
MAX_DEPTH = 12
"""Regorus 0.1 takes exponentially long for nested arrays, sets and objects: 0.2 s at 12 levels, 3 s at 16."""

_KEYWORDS = re.compile(r"^[ \t]*import[ \t]+(?:rego\.v1|future\.keywords)\b", re.MULTILINE)
# Keywords of Rego v1 that v0 knows only by import (`contains(` is the builtin of both).
_V1 = re.compile(r"\b(?:if|contains)\b(?!\s*\()")
_REGORUS_ERROR = re.compile(r"-->\s*[^\n]*?:(\d+):(\d+)\n.*?\nerror:\s*([^\n]*)", re.DOTALL)
_REGOPY_ERROR = re.compile(r"\(error \d+:[^|]*\|(\d+)\|\d+\s*\(errormsg \d+:(.*?)\)\s*\(error", re.DOTALL)
# rego-cpp's word for what it finds only on evaluation although it is wrong for every input. It says no position.
_REGOPY_FAULT = re.compile(r"\(errormsg [0-9]+:((?:Function not found|Recursion detected)[^)]*)\)")
_HEAD = re.compile(r"^(?!(?:package|import|default|else)\b)([A-Za-z_]\w*)(?![\w(])", re.MULTILINE)
_FUNCTION = re.compile(r"^(?:default[ \t]+)?([A-Za-z_]\w*)\(", re.MULTILINE)
_CALL = re.compile(r"(?<![\w.])([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\(")
_IMPORT = re.compile(r"^[ \t]*import[ \t]+([\w.]+)(?:[ \t]+as[ \t]+(\w+))?", re.MULTILINE)
_NO_CALLS = frozenset(("if", "in", "not", "set", "some", "every", "with", "else"))
_LAST_NAME = re.compile(r"[A-Za-z_]\w*(?=\W*\Z)")

# The same of regorus. Anything else (conflicting values, an argument's type) depends on the input.
_REGORUS_FAULT = re.compile(r"unsafe|could not find function|recursion|cyclic|expects \d+ argument|shadow")


def is_v1(text: str) -> bool:
    """Whether ``text`` uses keywords of Rego v1 without an import that would make them known to v0."""
    code = masked(text, strings=True)
    return _V1.search(code) is not None and _KEYWORDS.search(code) is None


class RegoValidator:
    """Validates Rego modules, v1 (with or without ``import rego.v1``) and v0 (``import future.keywords`` or none).

    ``backend`` is ``"regorus"``, ``"regopy"`` or None: regorus, which reports more, where it is installed.
    """

    def __init__(self, backend: str | None = None) -> None:
        if backend not in (None, "regorus", "regopy"):
            raise ConfigurationError(f"no Rego backend {backend!r}; use 'regorus' or 'regopy'")
        self._backend = backend

    def validate(self, text: str, modules: Sequence[str] = ()) -> list[Problem]:
        """The problems of ``text``; empty when it loads. Each backend stops at its first error.

        Args:
            text: the module.
            modules: others that it may refer to, through ``data``. Their problems are theirs and not listed.

        Raises:
            MissingExtraError: no Rego backend is installed.
        """
        run = self._runner()
        unreadable = self._unreadable(text)
        if unreadable is not None:
            return [unreadable]
        return run(text, [other for other in modules if other != text and not self._unreadable(other)])

    def check(self, text: str) -> None:
        """Raise ConfigurationError, listing every problem, when ``text`` does not load."""
        refuse("Rego", self.validate(text))

    @staticmethod
    def _unreadable(text: str) -> Problem | None:
        """What keeps ``text`` from being given to a parser at all."""
        if "\0" in text:
            return located(text, text.index("\0"), "a NUL character")
        code = masked(text, strings=True)
        try:
            package_path("policy", text)
        except ConfigurationError:
            start = len(code) - len(code.lstrip())
            return located(text, start if code.strip() else 0, "the module begins with no package declaration")
        deep = too_deep(code, MAX_DEPTH)
        if deep is not None:
            return located(text, deep, f"brackets nested more than {MAX_DEPTH} deep; name the inner value in a rule")
        return None

    def _runner(self) -> Callable[[str, Sequence[str]], list[Problem]]:
        if self._backend in (None, "regorus"):
            regorus = optional("lakera_regorus")
            if regorus is not None:
                return lambda text, modules: _regorus_problems(regorus, text, modules)
        if self._backend in (None, "regopy"):
            regopy = optional("regopy")
            if regopy is not None:
                return lambda text, modules: _regopy_problems(regopy, text, modules)
        raise MissingExtraError('Rego validation needs a Rego engine: pip install "kest[rego]"')


def _regorus_problems(regorus: Any, text: str, modules: Sequence[str]) -> list[Problem]:
    engine = regorus.Engine()
    source = _for_regorus(text)
    try:
        engine.add_policy(_OURS, source)
    except RuntimeError as error:
        return [_regorus_problem(text, source, str(error))]
    for number, module in enumerate(modules):
        with contextlib.suppress(RuntimeError):
            engine.add_policy(f"module {number}", _for_regorus(module))
    try:
        engine.set_input_json("{}")
        engine.eval_query("true")  # makes it analyse every module
    except RuntimeError as error:
        if _OURS in str(error) or not modules:
            return [_regorus_problem(text, source, str(error))]
        return _regorus_problems(regorus, text, ())  # another module ends the analysis: what can be said without it
    unknown = _unknown_function(text, lambda name: _regorus_knows(engine, name))
    if unknown is not None:
        return [unknown]
    try:
        engine.eval_query(query_path(package_path("policy", text), "")[:-1])
    except RuntimeError as error:
        # Evaluation with an empty input also fails for reasons that are the input's, not the text's.
        problem = _regorus_problem(text, source, str(error))
        return [problem] if _OURS in str(error) and _REGORUS_FAULT.search(problem.message) else []
    return []


def _regorus_knows(engine: Any, function: str) -> bool:
    try:
        engine.eval_query(f"{function}(1)")
    except RuntimeError as error:
        return "could not find function" not in str(error)
    return True


def _unknown_function(text: str, known: Callable[[str], bool]) -> Problem | None:
    """The first call of a function that is neither the module's own nor built in. Both engines notice one only when
    they come to it, which with an empty input they may not."""
    code = masked(text, strings=True)
    own = {match[1] for match in _FUNCTION.finditer(code)}
    imported = {alias or path.rpartition(".")[2] for path, alias in _IMPORT.findall(code)} | {"data", "input"}
    for match in _CALL.finditer(code):
        name = match[1]
        if name in own or name in _NO_CALLS or name.split(".", 1)[0] in imported:
            continue  # one of another module is found when it is evaluated
        if not known(name):
            return located(text, match.start(), f"there is no function {name}")
    return None


def _for_regorus(text: str) -> str:
    """This regorus predates OPA 1.0: it would read ``allow if {…}`` as the unconditional rule ``allow``, and say so on
    stdout. The corrections move no line."""
    return for_regorus("policy", text, strict=is_v1(text))


def _regorus_problem(text: str, source: str, report: str) -> Problem:
    found = _REGORUS_ERROR.search(report)
    if found is None:
        first = next((line for line in report.splitlines() if line.strip()), "the module does not load")
        return Problem(1, 1, first.strip())
    line, column, message = int(found[1]), int(found[2]), found[3].strip().rstrip(":")
    rewritten, written = _line(source, line), _line(text, line)
    characters = len(rewritten.encode("utf-8")[: column - 1].decode("utf-8", "ignore"))  # regorus counts bytes
    return Problem(line, _unshifted(written, rewritten, characters) + 1, message)


def _line(text: str, number: int) -> str:
    lines = text.split("\n")
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _unshifted(written: str, rewritten: str, column: int) -> int:
    """The column in the line as written that became ``column`` of the line that the parser saw, both from 0."""
    if written == rewritten:
        return column
    for tag, start, end, new_start, new_end in difflib.SequenceMatcher(
        None, written, rewritten, autojunk=False
    ).get_opcodes():
        if new_start <= column < new_end:
            return start + (column - new_start if tag == "equal" else 0)
        if column < new_start:
            return end
    return len(written)


def _regopy_problems(regopy: Any, text: str, modules: Sequence[str]) -> list[Problem]:
    interpreter = regopy.Interpreter()
    interpreter.log_level = regopy.LogLevel.NONE  # rego-cpp writes its errors to stdout otherwise
    try:
        interpreter.add_module("policy", text)
    except regopy.RegoError as error:
        report = str(error)
        raw = text.encode("utf-8")
        problems = [
            located(text, len(raw[: int(found[1])].decode("utf-8", "ignore")), found[2].strip())
            for found in _REGOPY_ERROR.finditer(report)
        ]
        return problems or [Problem(1, 1, report.splitlines()[0] if report else "the module does not load")]
    unbound = unbound_variable(text)
    if unbound is not None:
        variable, line, column = unbound
        return [Problem(line, column, f"nothing gives variable {variable!r} a value (it is unsafe)")]
    for number, module in enumerate(modules):
        with contextlib.suppress(regopy.RegoError):
            interpreter.add_module(f"module {number}", module)
    unknown = _unknown_function(text, lambda name: _regopy_knows(interpreter, name))
    if unknown is not None:
        return [unknown]
    fault = _regopy_fault(interpreter, text)
    if fault is None:
        return []
    name = _LAST_NAME.search(fault)
    at = re.search(rf"(?<![\w.]){name[0]}\b", masked(text, strings=True)) if name else None
    return [located(text, at.start() if at else 0, fault)]


def _regopy_knows(interpreter: Any, function: str) -> bool:
    try:
        interpreter.query(f"{function}(1)")
    except ValueError as error:  # regopy takes rego-cpp's report for JSON
        return "Function not found" not in str(getattr(error, "doc", ""))
    return True


def _regopy_fault(interpreter: Any, text: str) -> str | None:
    """What rego-cpp finds when it evaluates rule by rule, without input; asked for all at once, it leaves out what
    fails."""
    package = package_path("policy", text)
    interpreter.set_input({})
    for rule in dict.fromkeys(_HEAD.findall(masked(text, strings=True))):
        try:
            interpreter.query(query_path(package, rule))
        except ValueError as error:  # regopy takes rego-cpp's report for JSON
            found = _REGOPY_FAULT.search(str(getattr(error, "doc", "")))
            if found is not None:
                return found[1]
    return None
