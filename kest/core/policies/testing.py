"""Tests that stand beside policies, run without a server: ``test_*`` rules in Rego, and cases in JSON for Rego and Cedar.

- In any Rego module, a rule whose name begins with ``test_`` is a test, as in OPA: it passes when it is ``true``.
  ``todo_test_*`` is skipped. All modules that are given are loaded together.
- A file whose name ends in ``_test.json`` holds an array of cases ``{"name", "policy", "input", "allow"}``. ``policy`` is
  a file beside it; without extension, the case runs once for each language that is there. Several files may be listed:
  the first is asked, the others are loaded with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kest.core.engine.rego_source import for_regorus, masked, package_path, query_path
from kest.core.policies.cedar_validator import CedarValidator
from kest.core.policies.problem import Problem, located, optional
from kest.core.policies.rego_validator import RegoValidator, is_v1
from kest.errors import ConfigurationError, KestError, MissingExtraError, PolicyEngineError

__all__ = ["CASES", "EXTENSIONS", "Outcome", "check_files", "run_tests"]

EXTENSIONS = {".rego": "rego", ".cedar": "cedar"}
CASES = "_test.json"
WORKLOAD = "spiffe://kest.internal/policy-test"
"""Whose call a case is about if its input names no workload; Cedar needs one."""

_TEST = re.compile(r"^((?:todo_)?test_\w*)(?![\w(])", re.MULTILINE)
_MEMBERS = {"name": str, "policy": (str, list), "input": dict, "allow": bool, "action": str, "entities": list}
_REQUIRED = ("name", "policy", "input", "allow")
_SPACE = re.compile(r"[\s,]*")
_UNDEFINED = object()


class Outcome(NamedTuple):
    """What came of one test. ``status`` is passed, failed, error (it could not be run) or skipped."""

    file: str
    line: int
    policy: str
    name: str
    status: str
    detail: str = ""


def check_files(texts: Mapping[str, str], schema: str | None = None) -> dict[str, list[Problem]]:
    """The problems of each policy file, by name; Rego modules may refer to each other.

    Args:
        texts: policy texts by file name, which tells the language by its extension.
        schema: a Cedar schema, which the Cedar policies must fit.

    Raises:
        ConfigurationError: the schema is not valid.
        MissingExtraError: the engine that would check is not installed.
    """
    rego = [text for name, text in texts.items() if name.endswith(".rego")]
    cedar = CedarValidator(schema)
    return {
        name: RegoValidator().validate(text, rego) if name.endswith(".rego") else cedar.validate(text)
        for name, text in texts.items()
    }


def run_tests(texts: Mapping[str, str], wanted: Collection[str] | None = None) -> list[Outcome]:
    """Run every test in ``texts``: Rego modules, Cedar policy sets and case files by path.

    A policy that does not load is an outcome of its own, with its line. ``wanted`` names those of ``texts`` whose tests
    are run; the others are only loaded.

    Raises:
        MissingExtraError: no Rego engine (or no cedarpy) is installed, and a test needs one.
    """
    policies = {name: text for name, text in texts.items() if Path(name).suffix in EXTENSIONS}
    broken = {name: problems for name, problems in check_files(policies).items() if problems}
    outcomes = [
        Outcome(name, problem.line, name, "loads", "error", f"column {problem.column}: {problem.message}")
        for name, problems in broken.items()
        for problem in problems
        if wanted is None or name in wanted
    ]
    modules = {name: text for name, text in policies.items() if name.endswith(".rego") and name not in broken}
    outcomes += _rego_tests(modules, modules if wanted is None else wanted)
    for name, text in texts.items():
        if name.endswith(CASES) and (wanted is None or name in wanted):
            outcomes += _Cases(name, policies, broken).run(text)
    return outcomes


# --- test_ rules ------------------------------------------------------------------------------------------------------


def _rego_tests(modules: Mapping[str, str], wanted: Collection[str]) -> Iterable[Outcome]:
    found = [
        (file, match, ".".join(package_path(file, text)), query_path(package_path(file, text), match[1]))
        for file, text in modules.items()
        if file in wanted
        for match in _TEST.finditer(masked(text, strings=True))
    ]
    if not found:
        return
    ask = _asker(modules)
    seen: set[str] = set()
    for file, match, package, query in found:
        if query in seen:
            continue  # another rule of the same name: Rego takes them together
        seen.add(query)
        line = located(modules[file], match.start(), "").line
        if match[1].startswith("todo_"):
            yield Outcome(file, line, package, match[1], "skipped", "to do")
            continue
        try:
            value = ask(query)
        except PolicyEngineError as error:
            yield Outcome(file, line, package, match[1], "error", str(error))
            continue
        passed = value is True
        shown = (
            "" if passed else f"is {'undefined' if value is _UNDEFINED else json.dumps(value, default=str)}, not true"
        )
        yield Outcome(file, line, package, match[1], "passed" if passed else "failed", shown)


def _asker(modules: Mapping[str, str]) -> Callable[[str], object]:
    """What answers a query over ``modules``, all of which load, with a JSON value."""
    regorus = optional("lakera_regorus")
    if regorus is not None:
        return _ask_regorus(regorus, modules)
    regopy = optional("regopy")
    if regopy is not None:
        return _ask_regopy(regopy, modules)
    raise MissingExtraError('Rego tests need a Rego engine: pip install "kest[rego]"')


def _ask_regorus(regorus: Any, modules: Mapping[str, str]) -> Callable[[str], object]:
    engine = regorus.Engine()
    for name, text in modules.items():
        engine.add_policy(name, for_regorus(name, text, strict=is_v1(text)))
    engine.set_input_json("{}")

    def ask(query: str) -> object:
        try:
            results = engine.eval_query(query)["result"]
        except RuntimeError as error:
            found = re.search(r"error: ([^\n]*)", str(error))
            raise PolicyEngineError(found[1] if found else "evaluation failed") from None
        return results[0]["expressions"][0]["value"] if results else _UNDEFINED

    return ask


def _ask_regopy(regopy: Any, modules: Mapping[str, str]) -> Callable[[str], object]:
    interpreter = regopy.Interpreter()
    interpreter.log_level = regopy.LogLevel.NONE  # rego-cpp writes its errors to stdout otherwise
    for name, text in modules.items():
        interpreter.add_module(name, text)
    interpreter.set_input({})

    def ask(query: str) -> object:
        try:
            text = str(interpreter.query(query))
            return _UNDEFINED if text == "undefined" else json.loads(text)["expressions"][0]
        except (regopy.RegoError, ValueError, KeyError, IndexError, TypeError) as error:
            found = re.search(r"\(errormsg [0-9]+:([^)]*)\)", str(getattr(error, "doc", error)))
            raise PolicyEngineError(found[1] if found else "evaluation failed") from None

    return ask


# --- cases ------------------------------------------------------------------------------------------------------------


class _Cases:
    """The cases of one file, and the engines that they need, each made once."""

    def __init__(self, file: str, policies: Mapping[str, str], broken: Mapping[str, object]) -> None:
        self._file = file
        self._policies = {Path(name): text for name, text in policies.items()}
        self._broken = {Path(name) for name in broken}
        self._engines: dict[str, Any] = {}

    def run(self, text: str) -> Iterable[Outcome]:
        from kest._kestcore import parse

        try:
            cases = parse(text.encode())
        except (KestError, UnicodeEncodeError) as error:
            return [self._outcome("", "(file)", "error", f"not JSON: {error}")]
        if not isinstance(cases, list):
            return [self._outcome("", "(file)", "error", "a case file holds a JSON array of cases")]
        outcomes: list[Outcome] = []
        try:
            for index, (line, case) in enumerate(zip(_lines(text), cases, strict=True)):
                outcomes += [outcome._replace(line=line) for outcome in self._case(index, case)]
        finally:
            for engine in self._engines.values():
                engine.close()
        return outcomes

    def _outcome(self, policy: str, name: str, status: str, detail: str = "") -> Outcome:
        return Outcome(self._file, 1, policy, name, status, detail)

    def _case(self, index: int, case: object) -> Iterable[Outcome]:
        label = f"case {index}"
        try:
            checked = _checked(case)
            label = checked["name"]
            variants = self._variants(checked["policy"])
        except ConfigurationError as error:
            return [self._outcome("", label, "error", str(error))]
        return [self._decided(checked, files) for files in variants]

    def _variants(self, policy: str | list[str]) -> list[list[Path]]:
        """The files to load, for each language."""
        folder = Path(self._file).parent
        first, *others = [folder / name for name in ([policy] if isinstance(policy, str) else policy)]
        candidates = [first] if first.suffix in EXTENSIONS else [first.with_name(first.name + e) for e in EXTENSIONS]
        there = [path for path in candidates if path in self._policies]
        if not there:
            raise ConfigurationError(f"there is no policy {' or '.join(map(str, candidates))}")
        for path in others:
            if path.suffix != there[0].suffix or path not in self._policies:
                raise ConfigurationError(f"there is no {there[0].suffix} policy {path} to load with {there[0].name}")
        return [[path, *others] for path in there]

    def _decided(self, case: dict[str, Any], files: list[Path]) -> Outcome:
        policy, name = files[0].name, case["name"]
        if not self._broken.isdisjoint(files):
            return self._outcome(policy, name, "error", "the policy does not load")
        action = case.get("action", files[0].stem)
        given = dict(case["input"])
        subject = given.get("subject")
        if given.get("identity") is None and not (isinstance(subject, dict) and subject.get("workload")):
            given["identity"] = WORKLOAD
        try:
            decision = self._engine(files, action, case.get("entities", [])).decide("", [action], given)
        except MissingExtraError:
            raise
        except KestError as error:
            return self._outcome(policy, name, "error", str(error))
        if decision.allowed is case["allow"]:
            return self._outcome(policy, name, "passed")
        said = "allowed" if decision.allowed else f"denied: {decision.reason}"
        return self._outcome(policy, name, "failed", said)

    def _engine(self, files: list[Path], action: str, entities: list[Any]) -> Any:
        from kest.core.engine import CedarLocalEngine, RegoLocalEngine

        key = json.dumps([[str(file) for file in files], action, entities])
        if key not in self._engines:
            texts = [self._policies[file] for file in files]
            if files[0].suffix == ".rego":
                others = {f"module {n}": text for n, text in enumerate(texts[1:], 1)}
                self._engines[key] = RegoLocalEngine({action: texts[0], **others})
            else:
                self._engines[key] = CedarLocalEngine({action: "\n".join(texts)}, entities=entities)
        return self._engines[key]


def _lines(text: str) -> Iterable[int]:
    """The line on which each member of the JSON array begins."""
    decoder, position = json.JSONDecoder(), text.index("[") + 1
    while True:
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        if text[position] == "]":
            return
        yield located(text, position, "").line
        position = decoder.raw_decode(text, position)[1]


def _checked(case: object) -> dict[str, Any]:
    """``case`` if it has the members of one, and no others: a misspelt ``allow`` must not pass for a test."""
    if not isinstance(case, dict):
        raise ConfigurationError("a case is a JSON object")
    for member in _REQUIRED:
        if member not in case:
            raise ConfigurationError(f"the case has no {member!r}; it needs {', '.join(_REQUIRED)}")
    for member, value in case.items():
        if member not in _MEMBERS:
            raise ConfigurationError(f"a case has no member {member!r}; it may have {', '.join(_MEMBERS)}")
        if not isinstance(value, _MEMBERS[member]):  # type: ignore[arg-type]
            raise ConfigurationError(f"the case's {member!r} is a JSON {type(value).__name__}, which it cannot be")
    policy = case["policy"]
    if isinstance(policy, list) and not (policy and all(isinstance(name, str) for name in policy)):
        raise ConfigurationError("the case's 'policy' lists no file names")
    return case
