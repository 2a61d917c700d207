"""The tables notice faults: each small fault put into a policy text makes some row come out otherwise."""

from __future__ import annotations

import json
import random
import re

import pytest
from reference import models
from reference.policy_tables import ROWS, Input, malformed_rows, mixed_list

from kest.core.policies import NAMES, Language, load

from .policy_deciders import cedar_context
from .policy_mutants import mutants

cedarpy = pytest.importorskip("cedarpy")

SAMPLE = 2000
# Faults that change no decision, and why.
SAME = re.compile(
    r"""'(?:well_formed|authenticated)'          # a rule whose guard is gone denies only what the attributes rule denies
      | 'deny\ contains\ "(?:attributes|initiator|E3):  # allow asks for well_formed and authenticated itself
      | '[03]'\ ->\ '(?:-1|4)' | '2'\ ->\ '3'           # the ends of an order may lie further out
      | "?'?deny\ contains\ "ss-property                # follows from the level rule and the *-property
      | '@id\("bell_lapadula/ss-property               # likewise
      | 'attributes\.sanitized\ ==\ true'\ ->\ '\\ttrue'  # unsanitised, an empty history satisfies the other body
      | 'context\.object\.attributes\.sanitized\ ==\ false'  # the rule for sanitised targets forbids more
      | 'is_number\(                                    # floor() or the comparison has no value for anything else
    """,
    re.VERBOSE,
)


# Lines in which a fault may go unnoticed, because another rule denies whatever it would let through, or lets through
# nothing that it denies: no trust below 60 pays, no amount fits a limit of 0, a period whose total is at its limit is
# full, currencies are equal, a name must be in a list of strings, and no trust below 0 reaches a classification's.
COVERED = {
    "context.trust_score < 0 || context.trust_score > 100",
    "context.args.amount <= 0 || context.args.amount > 9007199254740991",
    "context.object.attributes.limit >= 0 && context.object.attributes.limit <= 9007199254740991 &&",
    "context.object.attributes.period_limit >= 0 && context.object.attributes.period_limit <= 9007199254740991 &&",
    "context.object.attributes.period_total >= 0 && context.object.attributes.period_total <= 9007199254740991",
    'context.object.attributes.currency != "" &&',
    'context.args.currency != "" &&',
    "is_string(value)",
    "input.trust_score >= 0",
}


def covered(model: str, language: Language, line: int) -> bool:
    return load(model, language).splitlines()[line - 1].strip() in COVERED


def rows_of(model: str) -> list[tuple[Input, bool]]:
    draw = random.Random(model)
    some = list(ROWS[model]())
    some = draw.sample(some, min(SAMPLE, len(some)))
    rows = [(row, models.allows(model, row)) for row in (*some, *malformed_rows(model))]
    draw.shuffle(rows)  # most faults show soon
    return rows


@pytest.mark.parametrize("model", NAMES)
def test_faults_in_rego_are_noticed(model: str) -> None:
    regorus = pytest.importorskip("lakera_regorus")
    rows = [(json.dumps(row), allowed) for row, allowed in rows_of(model)]
    survivors, noticed = [], 0
    for fault in mutants(load(model), "rego"):
        if SAME.match(fault.what):
            continue
        engine = regorus.Engine()
        try:
            engine.add_policy("policy.rego", fault.text)
            engine.set_input_json("{}")
            engine.eval_query("true")
        except RuntimeError:
            continue  # it does not load

        def allows(document: str, engine: object = engine) -> bool:
            engine.set_input_json(document)  # type: ignore[attr-defined]
            try:
                result = engine.eval_query(f"data.kest.policies.{model}.allow")["result"]  # type: ignore[attr-defined]
            except RuntimeError:
                return False
            return bool(result) and result[0]["expressions"][0]["value"] is True

        if any(allows(document) is not allowed for document, allowed in rows):
            noticed += 1
        elif not covered(model, "rego", fault.line):
            survivors.append(f"{fault.line}: {fault.what}")
    assert not survivors, "\n".join(("unnoticed", *survivors))
    print("noticed", noticed)
    assert noticed > 10


@pytest.mark.parametrize("model", NAMES)
def test_faults_in_cedar_forbids_are_noticed(model: str) -> None:
    """Beside a broad permit, so that only the forbids decide: alone, the permit repeats the attributes rule."""
    rows = [(row, allowed) for row, allowed in rows_of(model) if not mixed_list(row)]
    requests = [
        {
            "principal": {"type": "Workload", "id": "w"},
            "action": {"type": "Action", "id": "a"},
            "resource": {"type": "Resource", "id": "r"},
            "context": cedar_context(row),
        }
        for row, _ in rows
    ]
    text = load(model, "cedar")
    start = text.index("forbid (")
    broad = "permit(principal, action, resource);"

    def answers(policies: str, part: slice) -> list[tuple[bool, bool]]:
        found = cedarpy.is_authorized_batch(requests[part], cedarpy.PolicySet.from_str(policies + broad), "[]")
        return [(answer.allowed, bool(answer.diagnostics.errors)) for answer in found]

    parts = [slice(at, at + 250) for at in range(0, len(rows), 250)]
    right = [answers(text, part) for part in parts]
    survivors, noticed = [], 0
    for fault in mutants(text, "cedar"):
        if len(text[:start].splitlines()) > fault.line or SAME.match(fault.what):
            continue
        try:
            cedarpy.PolicySet.from_str(fault.text)
        except ValueError:
            continue
        if any(answers(fault.text, part) != known for part, known in zip(parts, right, strict=True)):
            noticed += 1
        elif not covered(model, "cedar", fault.line):
            survivors.append(f"{fault.line}: {fault.what}")
    assert not survivors, "\n".join(("unnoticed", *survivors))
    print("noticed", noticed)
    assert noticed > 10
