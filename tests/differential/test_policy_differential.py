"""The policy pack: Rego and Cedar decide as the published models do, on every row of their truth tables.

The tables are generated over whole small domains (``reference/policy_tables.py``) and decided by Regorus, rego-cpp, Cedar
and the independent statement of the models in ``reference/models.py``. OPA and cedar-agent decide the same tables in
``tests/services/test_policy_servers.py``.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
from collections.abc import Iterator

import pytest
from reference import models
from reference.policy_tables import ALLOWED, ROWS, UNREAD, WRONG, Input, changed, malformed_rows, mixed_list, places

from kest.core.engine import CedarLocalEngine, PolicyEngine, RegoLocalEngine
from kest.core.policies import NAMES, load
from kest.errors import PolicyEngineError

from .policy_deciders import REGO, by_cedar, by_cedar_all, by_regorus

pytest.importorskip("cedarpy")

regorus_only = pytest.mark.skipif(
    importlib.util.find_spec("lakera_regorus") is None, reason="lakera-regorus is missing"
)
regopy_only = pytest.mark.skipif(importlib.util.find_spec("regopy") is None, reason="regopy is not installed")


def table(model: str) -> list[tuple[Input, bool]]:
    rows = [(row, models.allows(model, row)) for row in ROWS[model]()]
    assert 0 < sum(allowed for _, allowed in rows) < len(rows), "a table must show both answers"
    return rows


@regorus_only
@pytest.mark.parametrize("model", NAMES)
def test_truth_table_by_regorus(model: str) -> None:
    for row, allowed in table(model):
        assert by_regorus(model, row) is allowed, row


@pytest.mark.parametrize("model", NAMES)
def test_truth_table_by_cedar(model: str) -> None:
    rows = table(model)
    for (row, allowed), cedar in zip(rows, by_cedar_all(model, (row for row, _ in rows)), strict=True):
        assert cedar is allowed, row


@regopy_only
@pytest.mark.parametrize("model", NAMES)
def test_truth_table_by_rego_cpp(model: str) -> None:
    """Through Kest's backend, which compiles the policy once: regopy alone compiles it for every decision."""
    with RegoLocalEngine({model: load(model)}, backend="regopy") as engine:
        for row, allowed in table(model):
            assert engine.evaluate("", [model], row) is allowed, row


def every_engine(model: str) -> Iterator[PolicyEngine]:
    for backend, library in (("regorus", "lakera_regorus"), ("regopy", "regopy")):
        if importlib.util.find_spec(library) is not None:
            yield RegoLocalEngine({model: load(model)}, backend=backend)
    yield CedarLocalEngine({model: load(model, "cedar")})
    yield CedarLocalEngine([load(model, "cedar")])


@pytest.mark.parametrize("model", NAMES)
def test_the_engines_say_the_same(model: str) -> None:
    draw = random.Random(model)
    rows = [ALLOWED[model], *draw.sample([row for row, _ in table(model)], 60)]
    # An input without its object or arguments is one that the lifecycle never builds.
    rows += [row for row in malformed_rows(model) if isinstance(row.get("object"), dict) and "identity" in row]
    for engine in every_engine(model):
        for row in rows:
            if mixed_list(row) or not isinstance(row["object"].get("attributes"), dict):
                continue
            try:
                answer = engine.decide("", [model], row).allowed
            except PolicyEngineError:
                answer = False
            assert answer is models.allows(model, row), (engine, row)
        engine.close()


@pytest.mark.parametrize("model", NAMES)
def test_missing_attribute(model: str) -> None:
    for place in places(model):
        given = changed(model, place)
        expected = place[0] in UNREAD[model]
        answers = [decide(model, given) for decide in (models.allows, *REGO, by_cedar)]
        assert answers == [expected] * len(answers), place


@pytest.mark.parametrize("model", NAMES)
def test_malformed_inputs(model: str) -> None:
    rows = list(malformed_rows(model))
    for row, cedar in zip(rows, by_cedar_all(model, rows), strict=True):
        allowed = models.allows(model, row)
        assert REGO[0](model, row) is allowed, row
        assert cedar is allowed or mixed_list(row), row


@pytest.mark.parametrize("model", NAMES)
def test_mistyped_attribute(model: str) -> None:
    answers = [decide(model, ALLOWED[model]) for decide in (models.allows, *REGO, by_cedar)]
    assert answers == [True] * len(answers)
    draw = random.Random(model)
    for place, value in itertools.product(places(model), WRONG):
        given = changed(model, place, value)
        allowed = models.allows(model, given)
        for decide in REGO if draw.random() < 0.2 else REGO[:1]:
            assert decide(model, given) is allowed, (place, value)
        if not mixed_list(value):
            assert by_cedar(model, given) is allowed, (place, value)


@pytest.mark.parametrize("model", ["biba", "financial", "security"])
def test_a_whole_number_with_a_point(model: str) -> None:
    """JSON does not tell 80.0 from 80, so neither does Rego; Cedar, which has no floats, denies it."""
    given = changed(model, ("trust_score",), 80.0)
    assert all(decide(model, given) for decide in REGO)
    assert not by_cedar(model, given)
