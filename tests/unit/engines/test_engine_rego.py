"""Rego in this process, by either library: samples, values, and rules that cannot be decided."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from engine_samples import CONTEXT, needs

from kest.core.engine import RegoLocalEngine, decide
from kest.errors import ConfigurationError, PolicyEngineError

HAS_REGORUS = importlib.util.find_spec("lakera_regorus") is not None
BACKENDS = [
    pytest.param("regorus", marks=needs("lakera_regorus")),
    pytest.param("regopy", marks=needs("regopy")),
]


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_document_samples_rego(backend: str | None) -> None:
    text = """
package kest.allow
import future.keywords
default allow := false
allow if {
input.trust_score >= 70 # integer, 0-100
input.is_root == false
}
"""
    engine = RegoLocalEngine(policies={"kest/allow": text}, backend=backend)
    for name in ("kest/allow", "kest.allow"):
        assert decide(engine, "e", [name], {**CONTEXT, "is_root": False}).allowed is True
        assert decide(engine, "e", [name], CONTEXT).allowed is False
    engine = RegoLocalEngine(policies={"pkg/name": "package pkg.name\ndefault allow = true"}, backend=backend)
    assert decide(engine, "e", ["pkg/name"], CONTEXT).allowed is True
    engine = RegoLocalEngine(
        policies={"kest/blp": "package models.bell_lapadula\nallow { input.trust_score > 1 }"}, backend=backend
    )
    for name in ("kest/blp", "models/bell_lapadula", "models.bell_lapadula"):
        assert decide(engine, "e", [name], CONTEXT).allowed is True
    assert decide(engine, "e", ["bell_lapadula"], CONTEXT).allowed is False


@needs("regopy")
def test_the_faster_backend_is_the_default() -> None:
    if not HAS_REGORUS:
        assert RegoLocalEngine({"a": "package a\nallow := true"}).backend == "regopy"
        return
    assert RegoLocalEngine({"a": "package a\nallow := true"}).backend == "regorus"
    # Regorus does not take both imports in one module, rego-cpp does.
    assert (
        RegoLocalEngine({"a": "package a\nimport future.keywords\nimport rego.v1\nallow if true"}).backend == "regopy"
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "rules",
    [
        "allow if input.no",
        "allow if { input.no }",
        "import rego.v1\nallow if input.no",
        "import future.keywords.in\nallow if 1 in input.no",
        "import future.keywords\nallow if { some x in input.no; x }",
        "# import rego.v1\nallow if input.no",
        "allow { input.no }",
        "allow = true { input.no }",
        "deny contains 1 if input.no\nallow if count(deny) == 1",
        "allow if every_one\nevery_one if input.no",
    ],
)
def test_a_condition_that_fails_never_allows(backend: str, rules: str) -> None:
    """An old Regorus reads 'allow if …' without an import as two rules, the first of which always allows."""
    engine = RegoLocalEngine({"a": f"package a\n{rules}\n"}, backend=backend)
    assert decide(engine, "e", ["a"], CONTEXT).allowed is False
    met = rules.replace("input.no", "[1, true]")
    allowing = RegoLocalEngine({"a": f"package a\n{met}\n"}, backend=backend)
    assert decide(allowing, "e", ["a"], CONTEXT).allowed is True


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", ['"true"', "1", "[]", "[true]", '{"allow": true}', "null", "false"])
def test_only_rego_true_allows(backend: str, value: str) -> None:
    engine = RegoLocalEngine({"a": f"package a\nallow := {value}"}, backend=backend)
    assert decide(engine, "e", ["a"], CONTEXT).allowed is False


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_rules_and_modules(backend: str) -> None:
    modules = {
        "main": "package main\nimport data.lib.util as u\nimport input.trust_score\n"
        "permit { u.enough; trust_score > 5 }",
        "lib/util": "package lib.util\nenough { input.trust_score > 10 }",
        "odd": 'package odd["with-dash"]\npermit = true',
    }
    engine = RegoLocalEngine(modules, query_rule="permit", backend=backend)
    assert decide(engine, "e", ["main"], CONTEXT).allowed is True
    assert decide(engine, "e", ["main"], {**CONTEXT, "trust_score": 7}).allowed is False
    assert decide(engine, "e", ["odd", "odd/with-dash"], CONTEXT).allowed is True
    assert decide(engine, "e", ["lib/util"], CONTEXT).allowed is False


@pytest.mark.parametrize("backend", [*BACKENDS, None])
@pytest.mark.parametrize(
    "text",
    [
        "package a\nallow {",
        "package a\n\nallow := ]",
        "allow := true",
        "",
        "package a\nallow if { no_such_function(1) }",
        "package a\nallow if { misspelt > 1 }",
        "package a\nallow if not misspelt.x",
        "package a\nallow := true\x00",
    ],
)
def test_bad_rego_is_a_configuration_error(backend: str | None, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RegoLocalEngine({"good": "package good\nallow := true", "bad/one": text}, backend=backend)
    assert "bad/one" in str(caught.value) or "package a" in str(caught.value)
    assert "Stack backtrace" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_rego_has_a_position(backend: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'m'.*line 3, column \d"):
        RegoLocalEngine({"m": "package a\n\nallow := ]"}, backend=backend)


@pytest.mark.parametrize(
    "arguments",
    [
        {"policies": {}},
        {"policies": ["package a"]},
        {"policies": {"a": "package a", "b": "package a"}},
        {"policies": {"a/b": "package a", "a.b": "package b"}},
        {"policies": {"a": "package a"}, "query_rule": "x; true"},
        {"policies": {"a": "package a"}, "backend": "opa"},
        {"policies": {"a": b"package a"}},
    ],
)
def test_bad_rego_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RegoLocalEngine(**arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rego_evaluation_errors_quote_no_input(backend: str) -> None:
    engine = RegoLocalEngine(
        {"a": "package a\nallow := input.args.secret\nallow := 1 if input.args.secret"}, backend=backend
    )
    with pytest.raises(PolicyEngineError) as caught:
        decide(engine, "e", ["a"], CONTEXT)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "value",
    [
        "",
        'q"uo\\te\n\t',
        "日本é😀",
        "a\x00b",
        "\\u0041",
        "{{x}}",
        "`",
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        0.5,
        1e300,
        True,
        False,
        None,
        [],
        {},
        [1, "a", None],
        {"k": {"é": [1]}},
    ],
    ids=repr,
)
def test_rego_values_arrive_as_they_are(backend: str, value: Any) -> None:
    literal = json.dumps(value, ensure_ascii=False)
    engine = RegoLocalEngine({"a": f"package a\nallow {{ input.args.value == {literal} }}"}, backend=backend)
    assert decide(engine, "e", ["a"], {"args": {"value": value}}).allowed is True
    assert decide(engine, "e", ["a"], {"args": {"value": [value, "other"]}}).allowed is False
    typed = RegoLocalEngine({"a": "package a\nallow { input.args.value == input.args.same }"}, backend=backend)
    assert decide(typed, "e", ["a"], {"args": {"value": value, "same": value}}).allowed is True


@needs("lakera_regorus")
def test_regorus_engines_die_with_their_threads() -> None:
    from kest.core.engine import rego_regorus

    engine = RegoLocalEngine({"a": "package a\nallow := true"}, backend="regorus")
    gc.collect()
    before = len(rego_regorus._every_thread)
    for _ in range(50):
        thread = threading.Thread(target=lambda: decide(engine, "e", ["a"], CONTEXT))
        thread.start()
        thread.join()
    assert len(rego_regorus._every_thread) <= before
    for _ in range(50):
        RegoLocalEngine({"a": "package a\nallow := true"}, backend="regorus")
    mine = rego_regorus._locals.engines
    assert mine is not None
    mine.prune()
    assert len(mine.by_token) <= len(rego_regorus._live)


@needs("lakera_regorus")
def test_regorus_is_silent_when_dropped_elsewhere(capfd: pytest.CaptureFixture[str]) -> None:
    kept: list[Exception] = []
    for text in ("allow {", "allow if x > 1", "allow if foo(1)", "allow if not x.y"):
        try:
            RegoLocalEngine({"a": f"package a\n{text}"}, backend="regorus")
        except ConfigurationError as error:
            kept.append(error)
    failing = RegoLocalEngine({"a": "package a\nallow := input.x\nallow := 1"}, backend="regorus")
    try:
        decide(failing, "e", ["a"], {"x": 2})
    except PolicyEngineError as error:
        kept.append(error)
    failing.close()
    assert len(kept) == 5
    thread = threading.Thread(target=lambda: (kept.clear(), gc.collect()))
    thread.start()
    thread.join()
    box = [RegoLocalEngine({"a": "package a\nallow := true"}, backend="regorus")]
    decide(box[0], "e", ["a"], CONTEXT)
    thread = threading.Thread(target=lambda: (box.clear(), gc.collect()))
    thread.start()
    thread.join()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("backend", BACKENDS)
def test_rego_survives_fork(backend: str) -> None:
    code = """
import os, sys, threading
from kest.core.engine import RegoLocalEngine, decide
engine = RegoLocalEngine({"a": "package a\\nallow := true"}, backend=sys.argv[1])
ask = lambda: decide(engine, "e", ["a"], {}).allowed
hold = threading.Event()
threads = [threading.Thread(target=lambda: (ask(), hold.wait()), daemon=True) for _ in range(4)]
[thread.start() for thread in threads]
ask()
pid = os.fork()
if pid == 0:
    os._exit(0 if ask() is True else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, backend], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.parametrize("backend", BACKENDS)
def test_rego_memory_is_bounded(backend: str) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    engine = RegoLocalEngine({"a": "package a\nallow { input.trust_score > 1 }"}, backend=backend)
    count = 8_000 if backend == "regorus" else 1_500
    for _ in range(count // 4):
        decide(engine, "e", ["a"], CONTEXT)
    start = resident()
    for _ in range(count):
        decide(engine, "e", ["a"], CONTEXT)
    assert resident() - start < 4_000_000


def test_rego_source_masks_what_is_no_code() -> None:
    from kest.core.engine.rego_source import for_regorus, package_path, with_plain_strings

    source = '# c\npackage a["b-c"].d\nx := `\nimport rego.v1\n` # import rego.v1\ny := "import rego.v1"'
    assert package_path("m", source) == ("a", "b-c", "d")
    assert 'package a["b-c"].d import future.keywords\n' in for_regorus("m", source)
    assert "future" not in for_regorus("m", "package a\nimport rego.v1\n")
    assert with_plain_strings(r'x := "\u00e9\/" # "\u00e9"') == 'x := "é/" # "\\u00e9"'
    assert with_plain_strings(r"x := `\u00e9`") == r"x := `\u00e9`"
    assert with_plain_strings(r'x := "\ud800"') == r'x := "\ud800"'
    aliased = for_regorus("m", 'package a\nimport data.l.u as z\nallow { z.ok; x.z; y["z"]; zz } # z')
    assert 'allow { data.l.u.ok; x.z; y["z"]; zz } # z' in aliased


@pytest.mark.parametrize(
    "rules",
    [
        "allow if not {}",
        "allow if not {}.x",
        "allow if count({}) == 0",
        "allow if {{ x := {}; x != 1 }}",
        "allow if not input.x == {}",
        "allow {{ not {}[input.x] }}",
        "allow if {{ every i in {} {{ i > 1 }} }}",
        "allow if count([x | x := {}]) == 0",
        "allow := {}.x",
    ],
)
def test_misspelt_names_are_found(rules: str) -> None:
    from kest.core.engine.rego_check import unbound_variable

    text = "package a\n" + rules.format("denied") + "\n"
    found = unbound_variable(text)
    assert found is not None
    assert (found[0], found[1]) == ("denied", 2)
    assert text.splitlines()[1][found[2] - 1 :].startswith("denied")
    assert unbound_variable(text + "denied := []\n") is None
    assert unbound_variable("package a\nimport data.lib.denied\n" + rules.format("denied")) is None


@pytest.mark.parametrize(
    "rules",
    [
        "allow { x = input.y; x > 1 }",
        "allow { input.y == x; x := 1 }",
        "f(x) = y { y := x }\nallow { f(1) }",
        "allow { input.a[i].b; i > 1 }",
        "allow { some i, j; input.a[i][j] }",
        "allow if { some k, v in input.o; v == k }",
        "allow if every x in input.l { x }",
        'deny[msg] { not input.x\n msg := sprintf("%v", [input.y])\n}',
        "deny contains msg if { msg := 1 }",
        "allow { [h, p, s] := io.jwt.decode(input.t); h.x; p; s }",
        'allow { {"a": z} = input.o; z }',
        'allow { split(input.x, ",", parts); parts[0] }',
        'f({"k": v}, [w]) = v { w }',
        "obj[k] = v { v := input.o[k] }",
        "allow = true {\n input.x\n} else = false {\n 1 == 1 }",
        "x.y.z := 1\nallow if x.y.z",
        "allow { walk(input, [path, value]); path; value }",
        'allow { x := "denied" } # denied `denied`',
    ],
)
def test_bound_names_are_not_reported(rules: str) -> None:
    from kest.core.engine.rego_check import unbound_variable

    assert unbound_variable(f"package a.b\nimport future.keywords\n{rules}\n") is None
