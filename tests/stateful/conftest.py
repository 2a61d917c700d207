"""Finds the specification, the strategies of the differential tests and the disk that fails."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parent.parent
for _path in (_TESTS, _TESTS / "audit"):
    if str(_path) not in sys.path:
        sys.path.append(str(_path))  # last, so that tests/threading and tests/typing never shadow the standard library


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What the machines provoke thousands of times is logged; a failure would be buried under it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
