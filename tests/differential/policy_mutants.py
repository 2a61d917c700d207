"""Small faults put into a policy text, one at a time: each should make some row of its truth table come out otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS = {
    ">=": (">", "<"), "<=": ("<", ">"), "==": ("!=",), "!=": ("==",), ">": (">=", "<="), "<": ("<=", ">="),
}  # fmt: skip
_OPAQUE = re.compile(r'#[^\n]*|//[^\n]*|"[^"\n]*"')
_COMPARISON = re.compile(r"(?<= )(>=|<=|==|!=|>|<)(?= )")
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
_NEGATION = re.compile(r"\bnot (?=\w)|!(?=[\[(\w])")
_REGO_CONDITION = re.compile(r"^\t+(?!\}|default)[^\n]*[^\n{,(]$", re.MULTILINE)
_REGO_RULE = re.compile(
    r"^(?!package|import|default)[a-z_]\w*[^\n]*\bif\b(?: \{\n(?:\t[^\n]*\n|\n)*\}| [^\n{]*$)", re.MULTILINE
)
_CEDAR_CONJUNCT = re.compile(r"^  (?!context(?:\.\w+)* has \w+(?: &&)?$)(\S[^\n]*?) ?(?:&&)?$", re.MULTILINE)
_CEDAR_POLICY = re.compile(r'^@id\("[^"]*"\)\n(?:(?!^\};).*\n)*\};', re.MULTILINE)


class Mutant(NamedTuple):
    """``text`` has the fault ``what`` in line ``line``."""

    line: int
    what: str
    text: str


def mutants(text: str, language: str) -> Iterator[Mutant]:
    """Comparisons flipped or made (un)strict, thresholds one off, negations dropped, conditions and rules dropped."""
    visible = _OPAQUE.sub(lambda match: " " * len(match[0]), text)

    def made(start: int, end: int, new: str) -> Mutant:
        old = " ".join(text[start:end].split())
        line = text.count("\n", 0, start) + 1
        return Mutant(line, f"{old!r} -> {new!r}", text[:start] + new + text[end:])

    for match in _COMPARISON.finditer(visible):
        for other in COMPARISONS[match[1]]:
            yield made(*match.span(), other)
    for match in _NUMBER.finditer(visible):
        for other in (int(match[0]) - 1, int(match[0]) + 1):
            yield made(*match.span(), str(other))
    for match in _NEGATION.finditer(visible):
        yield made(*match.span(), "")
    for match in (_REGO_RULE if language == "rego" else _CEDAR_POLICY).finditer(text):
        yield made(*match.span(), "")
    condition = _REGO_CONDITION if language == "rego" else _CEDAR_CONJUNCT
    for match in condition.finditer(visible):
        whole = text[match.start() : match.end()]
        yield made(*match.span(), "\ttrue" if language == "rego" else "  true" + " &&" * whole.endswith("&&"))
