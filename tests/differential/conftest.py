"""Finds the specification, and the C module only when a test asks for it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

_TESTS = str(Path(__file__).resolve().parent.parent)
if _TESTS not in sys.path:
    sys.path.append(_TESTS)  # last, so that tests/threading and tests/typing never shadow the standard library


@pytest.fixture(scope="session")
def kestcore() -> ModuleType:
    """The C module. Only its absence skips; a module that is there and does not load is a failure."""
    module: ModuleType = pytest.importorskip("kest._kestcore", reason="the C module kest._kestcore is not built")
    return module


@pytest.fixture(scope="session")
def kest_core(kestcore: ModuleType) -> ModuleType:
    return importlib.import_module("kest.core")


@pytest.fixture(scope="session")
def errors(kestcore: ModuleType) -> ModuleType:
    return importlib.import_module("kest.errors")
