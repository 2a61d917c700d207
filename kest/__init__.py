"""Kest: zero-trust execution lineage. Calls decided by policy, signed, chained, and provable offline.

Everything in `kest.core` is importable from here as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kest.core import *  # noqa: F403

__version__ = "0.3.0"


def __getattr__(name: str) -> Any:
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import kest.core

    try:
        return getattr(kest.core, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    import kest.core

    return sorted({*globals(), *kest.core.__all__})
