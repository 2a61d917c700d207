"""What a policy says about its denial, and what the engine names as deciding: how far they get, and in what shape."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from kest.core import CedarLocalEngine, OPAPolicyEngine, PolicyDeniedError, RegoLocalEngine, configure, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.core.engine import Decision, decide
from kest.core.engine.base import DecidingEngine
from kest.core.engine.reasons import stated_reasons
from kest.errors import ConfigurationError

INPUT = {"identity": "w", "operation": "op", "trust_score": 10, "user": "alice"}


@pytest.fixture(params=["regorus", "regopy"])
def backend(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec({"regorus": "lakera_regorus"}.get(request.param, request.param)) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


RULES = {
    'reasons contains "not trusted" if input.trust_score < 50\nreasons contains "never" if false': "not trusted",
    'reason := sprintf("trust is %d", [input.trust_score])': "trust is 10",
    'reason := sprintf("%d, %s: %v", [input.trust_score, input.user, true])': "10, alice: true",
    'deny contains "b" if true\ndeny contains "a" if true': "a; b",
    'deny contains {"msg": "an object"} if true': "an object",
    'deny := ["listed"]': "listed",
    'reasons := []\ndeny contains "the next" if true': "the next",
    "reasons := 5": "p.allow is false",
    'reasons contains "absent" if input.trust_score > 50': "p.allow is false",
    'deny(x) := "a function" if x == 1': "p.allow is false",
    '# reasons := "a comment"\ntext := `\nreasons := "in a string"`': "p.allow is false",
    "reasons contains 1 / 0 if true": "p.allow is false",
}


@pytest.mark.parametrize("rule", RULES)
def test_rego_reasons(backend: str, rule: str) -> None:
    source = f"package p\nimport future.keywords\ndefault allow := false\nallow if input.trust_score > 50\n{rule}\n"
    with RegoLocalEngine({"p": source}, backend=backend) as engine:
        assert decide(engine, "e", ["p"], INPUT) == Decision(False, RULES[rule], "p")
        assert decide(engine, "e", ["p"], {**INPUT, "trust_score": 51}).allowed is True


@pytest.mark.parametrize("text", ['"%d days"', '"%s%s"', "`%v x`", '"%5.2f "', "input.format"])
def test_regorus_gets_no_sprintf_that_it_would_get_wrong(text: str) -> None:
    pytest.importorskip("lakera_regorus")
    source = f"package p\n\ndefault allow := false\nreason := sprintf({text}, [7, 7])\n"
    with pytest.raises(ConfigurationError, match=r"line 4: Regorus 0\.1 drops"):
        RegoLocalEngine({"p": source}, backend="regorus")
    pytest.importorskip("regopy")
    with RegoLocalEngine({"p": source}) as engine:
        assert engine.backend == "regopy"
    with pytest.raises(ConfigurationError, match="unsafe"):  # Regorus still looks for these
        RegoLocalEngine({"p": source + "allow if not denyed.x\n"})


def test_rego_v0_reasons(backend: str) -> None:
    source = "package p\ndefault allow = false\nallow { count(deny) == 0 }\n"
    source += 'deny[msg] { input.user == "alice"; msg := "no alices" }'
    with RegoLocalEngine({"p": source}, backend=backend) as engine:
        assert decide(engine, "e", ["p"], INPUT).reason == "no alices"
        assert decide(engine, "e", ["p"], {**INPUT, "user": "bob"}).allowed is True


def test_the_rule_that_decides_does_not_explain_itself(backend: str) -> None:
    with RegoLocalEngine({"p": 'package p\ndeny := "text"'}, query_rule="deny", backend=backend) as engine:
        assert decide(engine, "e", ["p"], INPUT).reason == "p.deny is str, not true"


def test_reasons_are_one_short_line() -> None:
    assert stated_reasons(["a\nERROR forged\x1b[31m\u2028x"]) == "a ERROR forged [31m x"
    assert stated_reasons(["x" * 1_000]) == "x" * 199 + "…"
    assert stated_reasons([f"r{n}" for n in range(30)]).endswith("r7; and 22 more")
    for nothing in (None, 5, True, [], {}, [None, 5, ""], {"message": "x"}, "\n"):
        assert stated_reasons(nothing) == ""


class Naming(DecidingEngine):
    """Says what decided, as OPA does."""

    in_process = True

    def __init__(self, allowed: bool, ids: Any, evidence: Any) -> None:
        self.decision, self.asked = Decision(allowed, "", None, ids, evidence), 0

    def decide(self, entry_id: str, policy_names: Any, context: Any) -> Decision:
        self.asked += 1
        return self.decision


def test_evidence_is_signed_into_the_entry_also_when_the_decision_is_remembered(identity: Any, sink: Any) -> None:
    engine = Naming(True, ("decision_id=d-1", "x"), ("decision_id=d-1", "revision=my bundle@r7"))
    configure(engine=engine, identity=identity, audit=sink, app_policies=["a"])
    f = kest_verified("p", operation_name="op")(lambda: 1)
    for _ in range(2):
        with lineage():
            f()
            labels = get_current_passport().decode()[0]["labels"]
            assert labels["kest.decision"] == "decision_id=d-1 revision=my_bundle@r7"
    assert engine.asked == 2  # once for each tier


@pytest.mark.parametrize(
    "ids",
    [None, "text", [], {"a"}, (5, None, "", "x" * 300, "\ud800", "a\nb"), object()],
    ids=lambda v: type(v).__name__,
)
def test_whatever_an_engine_calls_ids_does_no_harm(ids: Any, identity: Any) -> None:
    configure(engine=Naming(True, ids, ids), identity=identity)
    with lineage():
        kest_verified("p")(lambda: 1)()
        assert "kest.decision" not in get_current_passport().decode()[0]["labels"]


def test_a_denial_names_what_decided(identity: Any, sink: Any) -> None:
    pytest.importorskip("cedarpy")
    policy = '@id("no-alice")\nforbid(principal, action, resource) when { context.user == "alice" };'
    configure(engine=CedarLocalEngine([policy]), identity=identity, audit=sink)
    with pytest.raises(PolicyDeniedError, match="forbidden by no-alice"):
        kest_verified("p", user="alice")(lambda: 1)()
    (record,) = sink.payloads("denial")
    assert record["decided_by"] == ["no-alice"]
    assert "kest.decision" not in record["labels"]


@pytest.mark.parametrize(
    "url", ["unix:", "unix:///", "unix://opa/x", "unix:relative", "unix:///a?b", "unix:///" + "x" * 108]
)
def test_urls_of_unix_sockets(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Unix socket"):
        OPAPolicyEngine(url)
