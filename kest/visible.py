"""Text that others wrote, made harmless to look at: what could move, reorder or hide other text is shown as an escape."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["escape", "visible"]

MAX_STACKED = 2  # combining marks on one character; more of them climb over the lines above

# Control, format (bidirectional overrides, zero width), surrogate, private use, unassigned, line and paragraph ends.
_HARMFUL = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_ASCII = re.compile(r"[ -~]*")


def visible(text: str) -> str:
    """``text`` on one line, with everything that is not plainly visible as an escape. Twice changes nothing."""
    if _ASCII.fullmatch(text):
        return text
    out: list[str] = []
    stacked = MAX_STACKED  # a mark with nothing before it would attach to what stands before the text
    for char in text:
        category = unicodedata.category(char)
        if category in ("Mn", "Me"):
            stacked += 1
            harmful = stacked > MAX_STACKED or _selects_variation(char)
        else:
            stacked = 0
            harmful = category in _HARMFUL or (category == "Zs" and char != " ")
        out.append(escape(char) if harmful else char)
    return "".join(out)


def _selects_variation(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"  # changes the width of what precedes it


def escape(char: str) -> str:
    """The escape that stands for a character."""
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
