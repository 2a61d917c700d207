"""The contract, asked of every engine that needs no server. tests/services asks the others the same."""

from __future__ import annotations

from engine_cases import *  # noqa: F403
