"""A search for variables in a Rego module that nothing can ever give a value: misspelt names, above all.

OPA refuses such a module ("var is unsafe") and so does Regorus. rego-cpp takes the variable for undefined, which turns
``allow if not denyed.x`` into a rule that always allows. This check stands in for theirs: it reads tokens, not a syntax
tree, and reports a name only if it appears nowhere in the module where Rego could bind it. It therefore misses some
unsafe variables that OPA finds, and finds none that OPA would not.
"""

from __future__ import annotations

import re

from kest.core.engine.rego_source import masked

__all__ = ["unbound_variable"]

_TOKEN = re.compile(r'[A-Za-z_]\w*|"[^"\n]*"|`[^`]*`|[0-9][\w.]*|:=|==|!=|<=|>=|\n|[^\s\w]')
_NAME = re.compile(r"[A-Za-z_]\w*\Z")
# fmt: off
_WORDS = frozenset((
    "_", "as", "contains", "data", "default", "else", "every", "false", "if", "import", "in", "input", "not", "null",
    "package", "set", "some", "true", "with",
))
# fmt: on
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


def unbound_variable(source: str) -> tuple[str, int, int] | None:
    """The first name that is used and never bound, with its line and column (from 1); None if there is none."""
    tokens = [(match.group(), match.start()) for match in _TOKEN.finditer(_without_text(source))]
    texts = [text for text, _ in tokens]
    bound = _bound(texts)
    for index, (text, start) in enumerate(tokens):
        if _NAME.match(text) is None or text in _WORDS or text in bound:
            continue
        if _before(texts, index) == "." or _is_call(texts, index):
            continue  # a member, or a function, whose absence rego-cpp does notice
        return text, source.count("\n", 0, start) + 1, start - source.rfind("\n", 0, start)
    return None


def _without_text(source: str) -> str:
    """``source`` without comments and with strings emptied of names; same length."""
    return masked(source, strings=True)


def _before(texts: list[str], index: int) -> str:
    return texts[index - 1] if index else "\n"


def _after(texts: list[str], index: int) -> str:
    return texts[index + 1] if index + 1 < len(texts) else "\n"


def _is_call(texts: list[str], index: int) -> bool:
    """Whether a call such as ``f(…)`` or ``io.jwt.decode(…)`` begins here."""
    index += 1
    while index + 1 < len(texts) and texts[index] == "." and _NAME.match(texts[index + 1]):
        index += 2
    return index < len(texts) and texts[index] == "("


def _bound(texts: list[str]) -> set[str]:
    """Every name that stands somewhere where Rego could bind it, or is a rule, an argument, an import or a package."""
    bound: set[str] = set()
    nesting: list[str] = []
    statement = True  # at the start of a line outside all brackets: where rules have their heads
    head = False  # within such a head
    line_word = ""  # the word that the current line or literal began with
    for index, text in enumerate(texts):
        before, after = _before(texts, index), _after(texts, index)
        if text in _OPENING:
            nesting.append(text)
            if text == "{":
                head = False
                line_word = ""
        elif text in _CLOSING and nesting:
            nesting.pop()
        elif text in ("\n", ";"):
            line_word = ""
            if not nesting:
                statement, head = True, False
            continue
        if _NAME.match(text) is not None:
            if not line_word:
                line_word = text
            if text in ("some", "every", "in"):
                line_word = text  # what follows 'some' and 'every' is declared, up to 'in'
            if statement and text != "default":
                head = text not in ("import", "package")
                if head:
                    bound.add(text)
                statement = False
            elif line_word in ("import", "package", "default", "some", "every") or (head and nesting):
                bound.add(text)
            elif before == "=" or after in (":=", "="):
                bound.add(text)  # either side of a unification, the left one of an assignment
            elif nesting and nesting[-1] == "[" and (before in "[," and after in ("]", ",", "|")):
                bound.add(text)  # an index, or a part of an array pattern
            elif nesting and nesting[-1] == "{" and before == ":" and after in ("}", ","):
                bound.add(text)  # a part of an object pattern
            elif nesting and nesting[-1] == "(" and before == "," and after == ")":
                bound.add(text)  # the output argument of a v0 call
            if text in ("if", "else") and not nesting:
                head = False
                line_word = ""
        elif text not in _OPENING and text not in _CLOSING and not nesting:
            statement = False
    return bound
