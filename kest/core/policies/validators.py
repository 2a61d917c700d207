"""Checks of policy texts before they are deployed: what is wrong, with line and column.

Both validators run the parser of an engine that Kest evaluates with, so that a text without problems here loads there.
"""

from __future__ import annotations

import bisect
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kest.errors import ConfigurationError, MissingExtraError

__all__ = ["CedarValidator", "Problem", "RegoValidator"]


class Problem(NamedTuple):
    """One thing that is wrong with a policy text; line and column count from 1, columns in characters."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


def _located(text: str, offset: int, message: str) -> Problem:
    offset = max(0, min(offset, len(text)))
    return Problem(text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1, message)


def _optional(module: str) -> Any:
    """The module of an extra, or None. The bindings ship no types."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _refuse(language: str, problems: list[Problem]) -> None:
    if problems:
        listed = "; ".join(str(problem) for problem in problems)
        raise ConfigurationError(f"the {language} policy does not load (line:column): {listed}")


# --- Rego -------------------------------------------------------------------------------------------------------------

# A comment, a quoted string or a raw string: what the scans below must not look into.
_REGO_OPAQUE = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\\n])*\"|`[^`]*`")
_REGO_PACKAGE = re.compile(r"^[ \t]*package[ \t]+[A-Za-z_][^\s;]*", re.MULTILINE)
_REGO_KEYWORDS = re.compile(r"^[ \t]*import[ \t]+(?:rego\.v1|future\.keywords)\b", re.MULTILINE)
# Keywords of Rego v1 that v0 knows only by import (`contains(` is the builtin of both).
_REGO_V1 = re.compile(r"\b(?:if|contains)\b(?!\s*\()")
_REGORUS_ERROR = re.compile(r"-->\s*[^\n]*?:(\d+):(\d+)\n.*?\nerror:\s*([^\n]*)", re.DOTALL)
_REGOPY_ERROR = re.compile(r"\(error \d+:[^|]*\|(\d+)\|\d+\s*\(errormsg \d+:(.*?)\)\s*\(error", re.DOTALL)

# What regorus finds only when it evaluates although it is wrong for every input.
_REGO_COMPILE_ERRORS = ("unsafe", "could not find function", "recursion", "cyclic", "conflicts", "expects", "shadow")


class RegoValidator:
    """Validates Rego modules, v1 (with or without ``import rego.v1``) and v0 (``import future.keywords`` or none).

    ``backend`` is ``"regorus"``, ``"regopy"`` or None: regorus, which reports more, where it is installed.
    """

    def __init__(self, backend: str | None = None) -> None:
        if backend not in (None, "regorus", "regopy"):
            raise ConfigurationError(f"no Rego backend {backend!r}; use 'regorus' or 'regopy'")
        self._backend = backend

    def validate(self, text: str) -> list[Problem]:
        """The problems of ``text``; empty when it loads. Each backend stops at its first error.

        Raises:
            MissingExtraError: no Rego backend is installed.
        """
        run = self._runner()
        visible = _REGO_OPAQUE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
        package = _REGO_PACKAGE.search(visible)
        if package is None:
            start = len(visible) - len(visible.lstrip())
            return [_located(text, start if visible.strip() else 0, "the module has no package declaration")]
        implicit_v1 = _REGO_V1.search(visible) is not None and _REGO_KEYWORDS.search(visible) is None
        return run(text, package.end() if implicit_v1 else None)

    def check(self, text: str) -> None:
        """Raise ConfigurationError, listing every problem, when ``text`` does not load."""
        _refuse("Rego", self.validate(text))

    def _runner(self) -> Callable[[str, int | None], list[Problem]]:
        if self._backend in (None, "regorus"):
            regorus = _optional("lakera_regorus")
            if regorus is not None:
                return lambda text, implicit_v1: _regorus_problems(regorus, text, implicit_v1)
        if self._backend in (None, "regopy"):
            regopy = _optional("regopy")
            if regopy is not None:
                return lambda text, _: _regopy_problems(regopy, text)
        raise MissingExtraError('Rego validation needs a Rego engine: pip install "kest[rego]"')


_V1_IMPORT = " import rego.v1 "


def _regorus_problems(regorus: Any, text: str, implicit_v1: int | None) -> list[Problem]:
    """``implicit_v1``: where the package declaration of a v1 module without its import ends."""
    engine = regorus.Engine()
    source = text
    if implicit_v1 is not None:
        # This regorus predates OPA 1.0: it would read `allow if {…}` as the unconditional rule `allow`, and say so on
        # stdout. On the package's own line the import moves no line.
        source = text[:implicit_v1] + _V1_IMPORT + text[implicit_v1:]
    try:
        engine.add_policy("policy.rego", source)
        engine.set_input_json("{}")
    except RuntimeError as error:
        return [_unshifted(text, implicit_v1, _regorus_problem(source, str(error)))]
    try:
        engine.eval_query("data")
    except RuntimeError as error:
        # Evaluation with an empty input also fails for reasons that are the input's, not the text's.
        problem = _unshifted(text, implicit_v1, _regorus_problem(source, str(error)))
        return [problem] if any(word in problem.message for word in _REGO_COMPILE_ERRORS) else []
    return []


def _unshifted(text: str, implicit_v1: int | None, problem: Problem) -> Problem:
    if implicit_v1 is None:
        return problem
    end = _located(text, implicit_v1, "")
    if problem.line != end.line or problem.column <= end.column:
        return problem
    return problem._replace(column=max(end.column, problem.column - len(_V1_IMPORT)))


def _regorus_problem(text: str, report: str) -> Problem:
    found = _REGORUS_ERROR.search(report)
    if found is None:
        first = next((line for line in report.splitlines() if line.strip()), "the module does not load")
        return Problem(1, 1, first.strip())
    line, column, message = int(found[1]), int(found[2]), found[3].strip()
    source = text.splitlines()[line - 1] if 0 < line <= len(text.splitlines()) else ""
    # regorus counts bytes
    characters = len(source.encode("utf-8")[: column - 1].decode("utf-8", "ignore")) + 1
    return Problem(line, characters, message)


def _regopy_problems(regopy: Any, text: str) -> list[Problem]:
    interpreter = regopy.Interpreter()
    interpreter.log_level = regopy.LogLevel.NONE  # rego-cpp writes its errors to stdout otherwise
    try:
        interpreter.add_module("policy", text)
    except regopy.RegoError as error:
        report = str(error)
        raw = text.encode("utf-8")
        problems = [
            _located(text, len(raw[: int(found[1])].decode("utf-8", "ignore")), found[2].strip())
            for found in _REGOPY_ERROR.finditer(report)
        ]
        return problems or [Problem(1, 1, report.splitlines()[0] if report else "the module does not load")]
    return []


# --- Cedar ------------------------------------------------------------------------------------------------------------

_CEDAR_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
      | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<word>[A-Za-z_]\w*|\d+)
      | (?P<operator>::|==|!=|<=|>=|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_NAMED = re.compile(r"`([^`]+)`|: (\w+)$")
_INCOMPLETE = "unexpected end of input"


class _Token(NamedTuple):
    start: int
    end: int
    text: str


class CedarValidator:
    """Validates Cedar policy sets with current Cedar; with ``schema`` (Cedar or JSON schema) also their types."""

    def __init__(self, schema: str | Mapping[str, Any] | None = None) -> None:
        self._schema = schema if schema is None or isinstance(schema, str) else json.dumps(dict(schema))

    def validate(self, text: str) -> list[Problem]:
        """The problems of ``text``, at most one for each policy while it does not parse; empty when it loads.

        Raises:
            MissingExtraError: cedarpy is not installed.
            ConfigurationError: the schema itself is not valid.
        """
        cedarpy = _optional("cedarpy")
        if cedarpy is None:
            raise MissingExtraError('Cedar validation needs cedarpy: pip install "kest[cedar]"')

        def refusal(source: str) -> str | None:
            try:
                cedarpy.PolicySet.from_str(source)
            except ValueError as error:
                return str(error).strip() or "the policy does not parse"
            return None

        whole = refusal(text)
        policies = list(_cedar_policies(text))
        if whole is not None:
            located = (_cedar_problem(text, policy, refusal) for policy in policies)
            return [problem for problem in located if problem is not None] or [_located(text, 0, whole)]
        if not policies:
            return [_located(text, 0, "the text contains no policy")]
        return self._schema_problems(cedarpy, text, policies)

    def check(self, text: str) -> None:
        """Raise ConfigurationError, listing every problem, when ``text`` does not load."""
        _refuse("Cedar", self.validate(text))

    def _schema_problems(self, cedarpy: Any, text: str, policies: list[list[_Token]]) -> list[Problem]:
        if self._schema is None:
            return []
        try:
            cedarpy.Schema.from_str(self._schema)
        except ValueError as error:
            raise ConfigurationError(f"the Cedar schema is not valid: {error}") from None
        problems: list[Problem] = []
        for found in cedarpy.validate_policies(text, self._schema).errors:
            # Cedar names policies by position: policy0, policy1, …
            number = found.policy_id.removeprefix("policy")
            index = int(number) if number.isdigit() else -1
            start = policies[index][0].start if 0 <= index < len(policies) else 0
            problems.append(_located(text, start, str(found.error)))
        return sorted(problems)


def _cedar_policies(text: str) -> Iterator[list[_Token]]:
    """The tokens of each policy: what lies between top-level semicolons (Cedar has no others)."""
    policy: list[_Token] = []
    for match in _CEDAR_TOKEN.finditer(text):
        if match.lastgroup == "skip":
            continue
        policy.append(_Token(match.start(), match.end(), match.group()))
        if policy[-1].text == ";":
            yield policy
            policy = []
    if policy:
        yield policy


def _cedar_problem(text: str, policy: list[_Token], refusal: Callable[[str], str | None]) -> Problem | None:
    """Where one policy fails. cedarpy says what is wrong but not where."""
    start, end = policy[0].start, policy[-1].end
    message = refusal(text[start:end])
    if message is None:
        return None
    if message == _INCOMPLETE:
        return _located(text, end, message)

    # Up to the offending token every prefix is merely incomplete, from there on it is wrong: bisect for it.
    def wrong(count: int) -> bool:
        prefix = refusal(text[start : policy[count - 1].end])
        return prefix is not None and prefix != _INCOMPLETE

    first = min(bisect.bisect_left(range(1, len(policy) + 1), True, key=wrong), len(policy) - 1)
    message = refusal(text[start : policy[first].end]) or message
    # Where the grammar holds but a name does not, that shows only later, and the message names it.
    name = _NAMED.search(message)
    named = [token for token in policy[: first + 1] if name and token.text == (name[1] or name[2])]
    return _located(text, (named[-1] if named else policy[first]).start, message)
