"""Public names of a package that load on first use: importing it stays cheap, and optional libraries stay optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(namespace: dict[str, Any], homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` (PEP 562) of a package: ``__getattr__, __dir__ = lazy(globals(), {...})``.

    Args:
        namespace: the package's ``globals()``. A name that has loaded is kept there, so that it is looked for once.
        homes: for each name the module that has it, in full or from the package on (``".base"``).
    """
    package = namespace["__name__"]

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = namespace[name] = getattr(import_module(home, package), name)
        return value

    def names() -> list[str]:
        return sorted({*namespace, *homes})

    return load, names
