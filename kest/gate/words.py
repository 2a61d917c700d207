"""How names, numbers and durations are written in what a gate says."""

from __future__ import annotations

__all__ = ["plain_number", "shown", "span"]

MAX_SHOWN = 120


def shown(text: str) -> str:
    """A name from outside, in quotes, on one line and bounded."""
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return f"'{cut}'" if cut.isprintable() else ascii(cut)


def span(seconds: int) -> str:
    """Seconds as a duration in a policy is written: 90s, 15m, 24h, 7d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0 and seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def plain_number(value: float) -> str:
    """Decimal digits without an exponent: 50000, 0.5."""
    return str(int(value)) if value == int(value) else repr(value)
