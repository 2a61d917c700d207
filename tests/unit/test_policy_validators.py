"""The validators: what is wrong with a policy text, and where, in lines and columns that count from 1."""

from __future__ import annotations

import importlib.util

import pytest

from kest.core.engine import RegoLocalEngine
from kest.core.policies import NAMES, CedarValidator, Problem, RegoValidator, load
from kest.errors import ConfigurationError

pytest.importorskip("cedarpy")

BACKENDS = [
    backend
    for backend, library in (("regorus", "lakera_regorus"), ("regopy", "regopy"))
    if importlib.util.find_spec(library)
]
regorus_only = pytest.mark.skipif("regorus" not in BACKENDS, reason="lakera-regorus is not installed")
regopy_only = pytest.mark.skipif("regopy" not in BACKENDS, reason="regopy is not installed")


@pytest.mark.parametrize("model", NAMES)
def test_validators_accept_the_pack(model: str) -> None:
    for validator in (RegoValidator(), *map(RegoValidator, BACKENDS)):
        assert validator.validate(load(model, "rego")) == []
        validator.check(load(model, "rego"))
    assert CedarValidator().validate(load(model, "cedar")) == []
    CedarValidator().check(load(model, "cedar"))


@regorus_only
@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "package"),
        ("# package x\nallow := true\n", 2, 1, "package"),
        ("package x\nimport rego.v1\n\nallow if {\n\tinput.a ==\n}\n", 6, 1, "expression"),
        ("package x\nimport rego.v1\nallow { true }\n", 3, 7, "if"),
        ("package x\nimport rego.v1\nallow if { y }\n", 3, 12, "unsafe"),
        ("package x\nimport rego.v1\nallow if { nosuch(3) }\n", 3, 12, "nosuch"),
        ("package x\nimport rego.v1\nallow if allow\n", 3, 1, "recursion"),
        ("package x\nimport rego.v1\nallow if { \"éé\" == }\n", 3, 20, "expression"),
        ("package x\n\nallow if { \"ü\" == }\n", 3, 19, "expression"),
    ],
)  # fmt: skip
def test_rego_problems_are_located(text: str, line: int, column: int, message: str) -> None:
    (problem,) = RegoValidator("regorus").validate(text)
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    with pytest.raises(ConfigurationError, match=rf"{line}:{column}: "):
        RegoValidator().check(text)


@regopy_only
@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("package x\nallow if {\n  input.é ==\n}\n", 3),
        ("package x\nallow if input.a\nallow if input[\n", 3),
        ("hello", 1),
    ],
)
def test_regopy_problems_are_located(text: str, first: int, capfd: pytest.CaptureFixture[str]) -> None:
    problems = RegoValidator("regopy").validate(text)
    assert problems
    assert problems[0].line == first
    assert problems[0].message
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "text",
    [
        "package x\nallow if { input.a }\n",
        "package x\n\nallow if { input.a }\nrank := {\"a\": 1}\n",
        "package x\nimport future.keywords\nallow if { input.a }\n",
        "package x\nallow { input.a }\n",
        "package x\ndeny contains \"no\" if not input.a\n",
        "# if\npackage x\nallow { input.a == \"if\" }\n",
    ],
)  # fmt: skip
def test_rego_v0_and_v1_are_accepted(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    for backend in BACKENDS:
        assert RegoValidator(backend).validate(text) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(1, 1)]),
        ("// nothing\n", [(1, 1)]),
        ("permit(principal, action, resource)\nwhen { context.x = };", [(2, 20)]),
        ("permit(principal, action, resource)", [(1, 36)]),
        ("permit(principal, action, resourc);", [(1, 27)]),
        ("permit(principal, action, resource)\n\npermit(principal, action, resource);", [(3, 7)]),
        ("permit(principal, action, resource);\n// é\nforbid(principal,\n action, resource) when { foo(3) };",
         [(4, 27)]),
        ("permit(é, action, resource);\npermit(principal, action, resource);\npermit(, action, resource);",
         [(1, 8), (3, 8)]),
        ('permit(principal, action, resource) when { "a;b" == "é" + };', [(1, 59)]),
    ],
)  # fmt: skip
def test_cedar_problems_are_located(text: str, expected: list[tuple[int, int]]) -> None:
    problems = CedarValidator().validate(text)
    assert [(problem.line, problem.column) for problem in problems] == expected
    assert all(problem.message for problem in problems)
    with pytest.raises(ConfigurationError, match=f"{expected[0][0]}:{expected[0][1]}: "):
        CedarValidator().check(text)


def test_cedar_schema_problems() -> None:
    schema = 'entity W, R; action "a" appliesTo {principal: [W], resource: [R], context: {level: Long}};'
    text = (
        'permit(principal, action, resource);\n\n  permit(principal, action, resource) when { context.level == "x" };'
    )
    assert CedarValidator().validate(text) == []
    (problem,) = CedarValidator(schema).validate(text)
    assert (problem.line, problem.column) == (3, 46)
    assert str(Problem(3, 3, "wrong")) == "3:3: wrong"
    with pytest.raises(ConfigurationError, match="schema"):
        CedarValidator("entity ;;").validate(text)


def test_validator_refuses_an_unknown_backend() -> None:
    with pytest.raises(ConfigurationError, match="regorus"):
        RegoValidator("opa")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("package x\nallow if not denyed.x\n", 2, 14, "unsafe"),
        ("package x\n\nallow if y\n", 3, 10, "unsafe"),
        ("package x\nallow if nosuch(3)\n", 2, 10, "nosuch"),
        ("package x\nallow if { input.a.b == 1; object.nosuch(3) }\n", 2, 28, "object.nosuch"),
        ("package x\nb := 1\nallow if allow\n", 3, None, "ecursion"),
        ("package x\nallow if {\n  input.a ==\n}\n", None, None, ""),
        ("allow if true\n", 1, 1, "package"),
        ("package x\nallow if input.a == \"\0\"\n", 2, 22, "NUL"),
        ("package x\na := " + "[" * 13 + "]" * 13, 2, 18, "nested"),
        ("package x\na := " + "[" * 100_000, 2, 18, "nested"),
    ],
)  # fmt: skip
def test_what_every_backend_refuses(
    backend: str, text: str, line: int | None, column: int | None, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (problem, *_) = RegoValidator(backend).validate(text)
    assert line in (None, problem.line)
    assert column in (None, problem.column)
    assert message in problem.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "text",
    [
        "package x\nimport rego.v1\nimport data.lib as l\nallow if l.ok\n",
        "package x\nimport data.lib.deep\nallow if deep.ok\n",
        "package x\nx := 1 if not input.a\nx := 2 if not input.b\n",  # conflicts for an empty input, and only there
        'package x\nallow if startswith(object.get(input, "a", null), "x")\n',
        'package x.y["a-b"]\nallow if input.a\n',
    ],
)
def test_what_depends_on_input_or_other_modules_is_no_problem(backend: str, text: str) -> None:
    assert RegoValidator(backend).validate(text) == []
    RegoLocalEngine({"x": text}, backend=backend).close()


@regorus_only
def test_a_column_counts_in_the_line_as_written() -> None:
    text = 'package x\nimport data.library as l\nallow if { "é" in l.names; nope.x }\n'
    (problem,) = RegoValidator("regorus").validate(text)
    assert (problem.line, problem.column) == (3, text.split("\n")[2].index("nope") + 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_modules_may_refer_to_each_other(backend: str) -> None:
    text, other = "package x\nallow if data.lib.ok(input)\n", "package lib\nok(i) if i.a == 1\n"
    assert RegoValidator(backend).validate(text)
    assert RegoValidator(backend).validate(text, [other]) == []
    assert RegoValidator(backend).validate(
        text, [other, "package broken\nallow if {", "not rego", "package z\nq if w"]
    ) == (
        RegoValidator(backend).validate(text, [other]) if backend == "regopy" else RegoValidator(backend).validate(text)
    )


SCHEMA = 'entity W, R; action "a" appliesTo {principal: [W], resource: [R], context: {level: Long, o?: {a: Long}}};'


@pytest.mark.parametrize(
    ("condition", "at"),
    [
        ('when { context.level == 3 && context.level == "x" }', 'context.level == "x"'),
        ('when { context.level == 3 } unless { context has o && context.o.a == "x" }', 'context.o.a == "x"'),
        ("when { context.level == 3 &&\n  context.nope }", "context.nope"),
        ("when { context.o.a == 1 }", "context.o.a"),
        ("when { (context.level == 3 && context.nope) || context.level == 1 }", "(context.level"),
    ],
)
def test_cedar_schema_problems_are_located_in_the_condition(condition: str, at: str) -> None:
    text = f"permit(principal, action, resource);\n// é\nforbid(principal, action, resource) {condition};"
    (problem,) = CedarValidator(SCHEMA).validate(text)
    lines = text.split("\n")
    assert lines[problem.line - 1][problem.column - 1 :].startswith(at)


@pytest.mark.parametrize("nested", ["(" * 3000, "[" * 100_000, "(" * 101 + "true" + ")" * 101])
def test_deep_nesting_ends_no_process(nested: str) -> None:
    """cedarpy overflows the stack, which is not an exception."""
    text = f"permit(principal, action, resource) when {{{nested}}};"
    (problem,) = CedarValidator().validate(text)
    assert "nested" in problem.message
    assert (
        CedarValidator().validate("permit(principal, action, resource) when {" + "(" * 99 + "true" + ")" * 99 + "};")
        == []
    )


@pytest.mark.parametrize("text", ['permit(principal, action, resource) when { context.a == "(((((" };', "// ((((\n"])
def test_brackets_in_strings_and_comments_do_not_nest(text: str) -> None:
    assert not any("nested" in problem.message for problem in CedarValidator().validate(text * 30))
