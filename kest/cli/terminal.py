"""Showing text that others wrote on a terminal: made harmless, measured in columns, coloured only where that is wanted.

An entry's operation or principal may hold anything. What could move a cursor, reorder or hide text, or become markup
where the output is pasted, is shown as an escape instead.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from kest.visible import escape, visible

__all__ = ["Column", "Paint", "clean", "clip", "fold", "json_text", "pad", "table", "terminal_width", "width"]

MIN_WIDTH = 80

_PLAIN = re.compile(r"[ -%'-;=?-\[\]-~]*")  # printable ASCII that is never escaped: all but & < > and the backslash
# Where HTML would see a tag, a comment or a character reference. Python's own <lambda> has no meaning there and stays.
_MARKUP = re.compile(r"<(?!lambda>)(?=[A-Za-z/!?])|&(?=[A-Za-z#][A-Za-z0-9]*;)")


def clean(text: object, limit: int | None = None) -> str:
    """``text`` on one line, with everything that is not plainly visible as an escape. Cleaning twice changes nothing.

    Only the first ``limit`` characters are looked at: a string of megabytes costs no more than what is shown of it.
    """
    string = str(text)
    if limit is not None and len(string) > limit:
        string = string[:limit]
    if _PLAIN.fullmatch(string):
        return string
    shown = _MARKUP.sub(lambda found: escape(found[0]), visible(string))
    encoding = (
        getattr(sys.stdout, "encoding", None) or "ascii"
    )  # what it cannot say is escaped here, where it is measured
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _char_width(char: str) -> int:
    if unicodedata.east_asian_width(char) in ("W", "F"):
        return 2
    if unicodedata.category(char) in ("Mn", "Me") or "\u1160" <= char <= "\u11ff":  # Hangul vowels and finals
        return 0
    return 1


def width(text: str) -> int:
    """Columns that ``text``, already clean, takes on a terminal (Unicode Standard Annex 11)."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def clip(text: str, columns: int, more: str = "…") -> str:
    """``text`` cut to ``columns``, with ``more`` where something is missing."""
    if width(text) <= columns:
        return text
    room, kept = columns - width(more), 0
    for index, char in enumerate(text):
        kept += _char_width(char)
        if kept > room:
            return text[:index] + more
    return text


def pad(text: str, columns: int, right: bool = False) -> str:
    """``text`` filled up with spaces to ``columns``; ``right``: on its left side."""
    space = " " * max(0, columns - width(text))
    return space + text if right else text + space


def fold(text: str, columns: int) -> list[str]:
    """``text`` in lines of at most ``columns``, broken at spaces where there are any."""
    if text.isascii():
        return list(_slices(text, columns))
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width(joined) <= columns:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = _chop(word, columns)
        lines += full
    return [*lines, line]


def _slices(text: str, columns: int) -> Iterator[str]:
    """The same for ASCII, where a character is a column: megabytes are cut, not taken apart."""
    at = 0
    while len(text) - at > columns:
        space = text.rfind(" ", at, at + columns + 1)
        end = space if space > at else at + columns
        yield text[at:end]
        at = end + (space > at)
    yield text[at:]


def _chop(word: str, columns: int) -> list[str]:
    parts, start, taken = [], 0, 0
    for index, char in enumerate(word):
        taken += _char_width(char)
        if taken > columns:
            parts.append(word[start:index])
            start, taken = index, _char_width(char)
    return [*parts, word[start:]]


def json_text(value: Any) -> str:
    """``value`` as indented JSON in ASCII, with what means something in HTML escaped: the same value to any reader."""
    text = json.dumps(value, indent=2)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def terminal_width() -> int:
    """Columns to fill: those of the terminal (or ``COLUMNS``), and never fewer than 80."""
    return max(MIN_WIDTH, shutil.get_terminal_size((MIN_WIDTH, 24)).columns)


class Paint:
    """Colours for one stream: real ones on a terminal, none elsewhere or where ``NO_COLOR`` is set (no-color.org)."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        stream = sys.stdout if stream is None else stream
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.on = wanted and stream is not None and stream.isatty()
        try:
            "…".encode(getattr(stream, "encoding", None) or "ascii")
            self.more = "…"
        except (UnicodeEncodeError, LookupError):
            self.more = "..."

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on and text else text

    def bold(self, text: str) -> str:
        """For headings."""
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        """For what matters less."""
        return self._paint("2", text)

    def good(self, text: str) -> str:
        """Green."""
        return self._paint("32", text)

    def warn(self, text: str) -> str:
        """Yellow."""
        return self._paint("33", text)

    def bad(self, text: str) -> str:
        """Red."""
        return self._paint("31", text)

    def trust(self, score: int, text: str) -> str:
        """Green from 80, yellow from 40, red below."""
        return (self.good if score >= 80 else self.warn if score >= 40 else self.bad)(text)


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading, the columns it may not go below, and whether it is set right."""

    title: str
    least: int = 4
    right: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], available: int, more: str = "…") -> list[list[str]]:
    """Clean cells, padded to equal width per column, the heading first; gaps of two make it ``available`` columns.

    What does not fit is taken from the widest columns, never below their least.
    """
    body = [list(row) for row in rows]
    widths = [max([width(c.title), *(width(row[i]) for row in body)]) for i, c in enumerate(columns)]
    excess = sum(widths) + 2 * (len(columns) - 1) - available
    while excess > 0:
        spare = [w - max(c.least, width(c.title)) for w, c in zip(widths, columns, strict=True)]
        candidates = [i for i, s in enumerate(spare) if s > 0]
        if not candidates:
            break
        widest = max(candidates, key=lambda i: widths[i])
        widths[widest] -= 1
        excess -= 1
    lines = [[c.title for c in columns], *body]
    return [
        [pad(clip(cell, w, more), w, c.right) for cell, w, c in zip(line, widths, columns, strict=True)]
        for line in lines
    ]
