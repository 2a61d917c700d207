"""Each row of the list of attacks has tests that are named after it: ``test_a1_…`` for row A1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROWS = [
    f"{section}{number}"
    for section, count in (("a", 7), ("b", 6), ("c", 6), ("d", 6), ("e", 5))
    for number in range(1, count + 1)
]
NAMED = re.compile(r"^ *(?:async )?def test_([a-e][1-9])_", re.MULTILINE)


@pytest.fixture(scope="module")
def named() -> set[str]:
    tests = Path(__file__).resolve().parents[1]
    return {row for path in tests.rglob("test_*.py") for row in NAMED.findall(path.read_text("utf-8"))}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_tests(row: str, named: set[str]) -> None:
    assert row in named


def test_tests_are_named_after_rows_that_exist(named: set[str]) -> None:
    assert named <= set(ROWS)
