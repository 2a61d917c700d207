"""A clock that stands still until it is told to go on."""

from __future__ import annotations

from types import ModuleType
from unittest.mock import patch


class Clock:
    """What `time.monotonic` says, in a module that calls it as that; `stop` gives the module its own back."""

    def __init__(self, *modules: ModuleType) -> None:
        self.now = 1_000_000.0
        self._patches = [patch.object(module, "time", self) for module in modules]
        for one in self._patches:
            one.start()

    def monotonic(self) -> float:
        return self.now

    def stop(self) -> None:
        for one in self._patches:
            one.stop()
