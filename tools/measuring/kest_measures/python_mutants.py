"""Faults in Python, made on the syntax tree: nothing in annotations, docstrings or ``__all__``."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from .mutant import Mutant, distinct

__all__ = ["python_mutants"]

_COMPARISONS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "//"), ast.FloorDiv: ("//", "*"), ast.Div: ("/", "*"),
    ast.Mod: ("%", "*"), ast.BitOr: ("|", "&"), ast.BitAnd: ("&", "|"),
}  # fmt: skip
_Change = tuple[int, int, bytes, str]


def python_mutants(path: Path, source: bytes) -> list[Mutant]:
    """Every mutant of a file."""
    maker = _Maker(source)
    maker.visit(ast.parse(source))
    return distinct(Mutant(path, start, end, new, kind, source) for start, end, new, kind in maker.changes)


class _Maker(ast.NodeVisitor):
    def __init__(self, source: bytes) -> None:
        self.source = source
        self.changes: list[_Change] = []
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Offsets in the file; the tree counts columns in bytes."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[end_line - 1] + end_column

    def replace(self, node: ast.expr | ast.stmt, new: str, kind: str) -> None:
        self.changes.append((*self.span(node), new.encode(), kind))

    def between(self, left: ast.expr, right: ast.expr, was: str, new: str, kind: str) -> None:
        start, end = self.span(left)[1], self.span(right)[0]
        pattern = r"\s+".join(map(re.escape, was.split()))
        found = re.search((rf"\b{pattern}\b" if was[0].isalpha() else pattern).encode(), self.source[start:end])
        if found:
            self.changes.append((start + found.start(), start + found.end(), new.encode(), kind))

    def negate(self, test: ast.expr) -> None:
        start, end = self.span(test)
        self.changes.append((start, end, b"not (" + self.source[start:end] + b")", "negation"))

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            self.between(left, right, *_COMPARISONS[type(operator)], "relation")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        was, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between(left, right, was, new, "and/or")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _ARITHMETIC:
            self.between(node.left, node.right, *_ARITHMETIC[type(node.op)], "arithmetic")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.changes.append((self.span(node)[0], self.span(node.operand)[0], b"", "negation"))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.negate(node.test)
            self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace(node, str(not node.value), "constant")
        elif isinstance(node.value, int):
            self.replace(node, str(node.value + 1), "constant")
            if node.value == 1:
                self.replace(node, "0", "constant")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return  # a message's wording; and until 3.12 the tree does not say where its parts are

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.replace(node, "pass", "dropped statement")
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.replace(node, "pass", "dropped error")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.replace(node, "pass", "dropped statement")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self.replace(node, "pass", "dropped statement")
        if ast.unparse(node.targets[0]) != "__all__":
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.replace(node, "pass", "dropped statement")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.replace(node, "pass", "dropped statement")

    def visit_Break(self, node: ast.Break) -> None:
        self.replace(node, "pass", "dropped statement")

    def visit_arg(self, node: ast.arg) -> None:
        return  # annotations

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.function(node)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(default)
        for statement in node.body:
            self.visit(statement)
