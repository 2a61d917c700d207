"""The programs behind `make coverage` and `make mutants`: what they count, and which faults they make."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from kest_measures.coverage import Counts, report
from kest_measures.mutant import Mutant, sample
from kest_measures.python_mutants import python_mutants

PLACE = Path("kest/core/example.py")


def changes(mutants: list[Mutant]) -> set[str]:
    return {mutant.text for mutant in mutants}


def test_table_of_coverage_sums_folders_languages_and_everything() -> None:
    c = [
        ("csrc/core/a.c", Counts(10, 9, 4, 3)),
        ("csrc/core/b.c", Counts(10, 10, 4, 4)),
        ("csrc/python/c.c", Counts(20, 1, 2, 0)),
    ]
    python = [("kest/a.py", Counts(60, 60, 0, 0)), ("kest/core/engine/b.py", Counts(100, 50, 10, 5))]
    table, everything = report(c, python)
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}
    assert rows["csrc/core"] == ["20", "19", "95.0", "8", "7", "87.5", "92.9"]
    assert rows["C"] == ["40", "20", "50.0", "10", "7", "70.0", "54.0"]
    assert rows["kest"] == ["60", "60", "100.0", "0", "0", "100.0", "100.0"]
    assert rows["kest/core"] == ["100", "50", "50.0", "10", "5", "50.0", "50.0"]
    assert rows["together"] == ["200", "130", "65.0", "20", "12", "60.0", "64.5"]
    assert everything.of_lines == 65.0
    assert everything.of_branches == 60.0
    assert round(everything.of_both, 1) == 64.5


def test_faults_in_python() -> None:
    source = b'''"""Says 1 < 2."""
__all__ = ["f"]
LIMIT: int = 7
def f(a: int, b: int = 3) -> bool:
    """Is 1 == 1."""
    if not a < b and a is not None:
        raise ValueError(f"{a + 1}")
    return a * b == LIMIT
'''
    found = python_mutants(PLACE, source)
    assert changes(found) == {
        "LIMIT: int = [7 → 8]",
        "def f(a: int, b: int = [3 → 4]) -> bool:",
        "if [not a < b and a is not None → not (not a < b and a is not None)]:",
        "if [not → ]a < b and a is not None:",
        "if not a [< → <=] b and a is not None:",
        "if not a < b [and → or] a is not None:",
        "if not a < b and a [is not → is] None:",
        '[raise ValueError(f"{a + 1}") → pass]',
        "[return a * b == LIMIT → pass]",
        "return a [* → //] b == LIMIT",
        "return a * b [== → !=] LIMIT",
    }
    for mutant in found:
        ast.parse(mutant.mutated)
    assert [mutant.key for mutant in found if mutant.kind == "dropped error"] == [
        'kest/core/example.py: if not a < b and a is not None: [raise ValueError(f"{a + 1}") → pass]'
    ]
    assert {mutant.line for mutant in found} == {3, 4, 6, 7, 8}


@pytest.mark.parametrize("module", ["passport", "trust", "grants", "truststore"])
def test_every_fault_in_python_is_one_program_more(module: str) -> None:
    path = Path(__file__).resolve().parents[2] / "kest" / "core" / f"{module}.py"
    if not path.exists():
        import kest

        path = Path(kest.__file__).parent / "core" / f"{module}.py"
    found = python_mutants(path, path.read_bytes())
    original = ast.dump(ast.parse(path.read_bytes()))
    programs = [ast.dump(ast.parse(mutant.mutated)) for mutant in found]
    assert original not in programs
    assert len(found) > 15


def test_faults_in_c() -> None:
    pytest.importorskip("tree_sitter_c")
    from kest_measures.c_mutants import c_mutants

    source = b"""#define TEN (9 + 1)
static const int table[2] = {1, 2};
static int f(const char *p, int n)
{
    char room[64 + 1];

    for (int i = 0; i < n; i++)
        if (!p[i] || p[i] == 'x')
            return KEST_E_NOMEM;
    free(room);
    return n & 1 ? n + 2 : true;
}
"""
    found = c_mutants(Path("csrc/core/example.c"), source)
    assert changes(found) == {
        "for (int i = [0 → 1]; i < n; i++)",
        "for (int i = 0; i [< → <=] n; i++)",
        "if [(!p[i] || p[i] == 'x') → (!((!p[i] || p[i] == 'x')))]",
        "if ([! → ]p[i] || p[i] == 'x')",
        "if (!p[i] [|| → &&] p[i] == 'x')",
        "if (!p[i] || p[i] [== → !=] 'x')",
        "[return KEST_E_NOMEM; → return KEST_OK;]",
        "[return KEST_E_NOMEM; → ;]",
        "[free(room); → ;]",
        "return [n & 1 → (!(n & 1))] ? n + 2 : true;",
        "return n [& → |] 1 ? n + 2 : true;",
        "return n & [1 → 0] ? n + 2 : true;",
        "return n & [1 → 2] ? n + 2 : true;",
        "return n & 1 ? n [+ → -] 2 : true;",
        "return n & 1 ? n + [2 → 3] : true;",
        "return n & 1 ? n + 2 : [true → false];",
    }


def test_a_sample_stays_the_same_when_other_lines_change() -> None:
    lines = [f"    if a > {n}: return {n}" for n in range(40)]
    before = python_mutants(PLACE, "\n".join(["def f(a: int) -> int:", *lines]).encode())
    after = python_mutants(PLACE, "\n".join(["X = 5", "def f(a: int) -> int:", *lines]).encode())
    chosen = sample(before, 30)
    assert len(chosen) == 30
    assert chosen == sample(before, 30)
    assert len(changes(chosen) & changes(sample(after, 30))) >= 29
    assert changes(chosen) != changes(sample(before, 30, seed="another"))


def test_what_is_explained_is_a_fault_that_is_made() -> None:
    pytest.importorskip("tree_sitter_c")
    from kest_measures.mutation import explained, mutants_of
    from kest_measures.targets import TARGETS, Target

    made = {m.key for t in TARGETS for m in mutants_of(Target(t.name, t.files, (), (), 0), "")[0]}
    assert explained() <= made
    assert explained()
