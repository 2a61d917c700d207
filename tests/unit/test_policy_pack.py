"""The policy pack as package data: complete, readable by name, each denial with a reason."""

from __future__ import annotations

import itertools
import random
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from differential.policy_deciders import regorus_value
from reference import models
from reference.policy_tables import ROWS

from kest.core.policies import LANGUAGES, NAMES, load
from kest.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("model", NAMES)
def test_a_denial_has_a_reason_and_a_permission_has_none(model: str) -> None:
    pytest.importorskip("lakera_regorus")
    rows = list(ROWS[model]())
    for row in random.Random(model).sample(rows, min(400, len(rows))):
        reasons = regorus_value(model, "reasons", row)
        assert bool(reasons) is not models.allows(model, row)
        assert regorus_value(model, "deny", row) == reasons
        assert all(isinstance(reason, str) and ": " in reason for reason in reasons)


@pytest.mark.parametrize("model", NAMES)
def test_cedar_stays_in_the_2x_subset(model: str) -> None:
    text = "\n".join(line.split("//")[0] for line in load(model, "cedar").splitlines())
    words = text.replace("(", " ").replace(".", " . ").split()
    assert not {"is", "isEmpty", "hasTag", "getTag", "datetime", "duration", "decimal"} & set(words)
    for before, after in itertools.pairwise(words):
        if before == "has":  # `has a.b` is Cedar 4
            position = text.index(f"has {after}") + len(f"has {after}")
            assert text[position] != "."


@pytest.mark.parametrize("model", NAMES)
def test_rego_negates_no_call(model: str) -> None:
    """OPA takes `not f(missing)` for undefined where regorus and regopy say true: a deny rule would not fire."""
    assert not re.search(r"\bnot\s+[a-z_]+\(", load(model, "rego"))


def test_pack_is_complete_and_loads_by_name() -> None:
    shipped = {
        entry.name for entry in files("kest.core.policies").iterdir() if entry.name.endswith((".rego", ".cedar"))
    }
    assert shipped == {f"{name}.{language}" for name in NAMES for language in LANGUAGES}
    for name in NAMES:
        text = files("kest.core.policies").joinpath(f"{name}.rego").read_text(encoding="utf-8")
        assert load(name) == load(name, "rego") == text
        assert f"package kest.policies.{name}\n" in text
        assert "default allow := false" in text
        assert (ROOT / "docs" / "policies" / f"{name}.md").is_file()


def test_load_refuses_what_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="bell_lapadula, biba"):
        load("../errors")
    with pytest.raises(ConfigurationError, match="rego, cedar"):
        load("biba", "sentinel")  # type: ignore[arg-type]


def test_reading_a_policy_imports_no_engine(run_python: Any) -> None:
    code = (
        "import sys; from kest.core.policies import load; load('biba'); "
        "assert not {'cedarpy', 'regopy', 'lakera_regorus', 'kest.core.policies.validators'} & set(sys.modules)"
    )
    run_python(code)
