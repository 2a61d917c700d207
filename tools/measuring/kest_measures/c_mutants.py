"""Faults in C, made on the syntax tree: nothing outside of function bodies, no sizes of arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import tree_sitter_c  # pyright: ignore[reportMissingImports]
from tree_sitter import Language, Node, Parser  # pyright: ignore[reportMissingImports]

from .mutant import Mutant, distinct

__all__ = ["c_mutants"]

_OPERATORS = {
    "<": ("<=", "relation"), "<=": ("<", "relation"), ">": (">=", "relation"), ">=": (">", "relation"),
    "==": ("!=", "relation"), "!=": ("==", "relation"), "&&": ("||", "and/or"), "||": ("&&", "and/or"),
    "+": ("-", "arithmetic"), "-": ("+", "arithmetic"), "*": ("/", "arithmetic"), "/": ("*", "arithmetic"),
    "%": ("/", "arithmetic"), "&": ("|", "bits"), "|": ("&", "bits"), "<<": (">>", "bits"), ">>": ("<<", "bits"),
    "+=": ("-=", "arithmetic"), "-=": ("+=", "arithmetic"), "|=": ("&=", "bits"), "&=": ("|=", "bits"),
    "++": ("--", "arithmetic"), "--": ("++", "arithmetic"),
}  # fmt: skip
_INTEGER = re.compile(rb"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)$")


def c_mutants(path: Path, source: bytes) -> list[Mutant]:
    """Every mutant of a file."""
    tree = Parser(Language(tree_sitter_c.language())).parse(source)
    return distinct(
        Mutant(path, start, end, new, kind, source)
        for function in _nodes(tree.root_node, "function_definition")
        for start, end, new, kind in _in_body(function.child_by_field_name("body"))
    )


def _nodes(node: Node, kind: str) -> Iterator[Node]:
    if node.type == kind:
        yield node
    else:
        for child in node.children:
            yield from _nodes(child, kind)


def _in_body(body: Node | None) -> Iterator[tuple[int, int, bytes, str]]:
    todo = [body] if body else []
    while todo:
        node = todo.pop()
        yield from _of(node, body)
        todo += [c for c in node.children if node.type != "array_declarator" or c.type == "identifier"]


def _of(node: Node, body: Node | None) -> Iterator[tuple[int, int, bytes, str]]:
    text = node.text or b""
    if node.type in ("binary_expression", "assignment_expression", "update_expression"):
        operator = node.child_by_field_name("operator")
        if node.parent is not None and node.parent.type == "for_statement" and node.type == "update_expression":
            return  # a loop that goes the other way: nothing could overlook that
        if operator is not None and operator.type in _OPERATORS:
            new, kind = _OPERATORS[operator.type]
            yield operator.start_byte, operator.end_byte, new.encode(), kind
    elif node.type in ("if_statement", "while_statement", "conditional_expression"):
        condition = node.child_by_field_name("condition")
        if condition is not None:
            yield condition.start_byte, condition.end_byte, b"(!(" + (condition.text or b"") + b"))", "negation"
    elif node.type == "unary_expression" and text.startswith(b"!"):
        yield node.start_byte, node.start_byte + 1, b"", "negation"
    elif node.type == "number_literal" and (match := _INTEGER.match(text)):
        number = int(match[1], 0)
        yield node.start_byte, node.end_byte, str(number + 1).encode() + match[2], "constant"
        if number == 1:
            yield node.start_byte, node.end_byte, b"0" + match[2], "constant"
    elif node.type in ("true", "false"):
        yield node.start_byte, node.end_byte, b"false" if node.type == "true" else b"true", "constant"
    elif node.type in ("expression_statement", "break_statement", "continue_statement"):
        yield node.start_byte, node.end_byte, b";", "dropped statement"
    elif node.type == "return_statement":
        value = text.removeprefix(b"return").strip().rstrip(b";").strip()
        if value.startswith(b"KEST_E_"):
            yield node.start_byte, node.end_byte, b"return KEST_OK;", "dropped error"
        # Without its last return, what a function returns is undefined: no fault that a test could judge.
        if node.parent != body:
            yield node.start_byte, node.end_byte, b";", "dropped statement"
