"""Public names that load on first use: each is there, loads once, and brings nothing before."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from kest.lazy import lazy

PACKAGES = [
    f"kest.{name}" for name in ("core", "core.engine", "core.identity", "core.policies", "gate", "http", "telemetry")
]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there(name: str) -> None:
    package = import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for each in package.__all__:
        assert getattr(package, each) is vars(package)[each]  # kept: the next look-up asks nobody
    with pytest.raises(AttributeError, match=f"^module '{name}' has no attribute 'nothing'$"):
        _ = package.nothing


def test_a_name_is_looked_for_once_and_its_module_loads_then() -> None:
    namespace = {"__name__": "kest"}
    load, names = lazy(namespace, {"Lock": ".locks", "decoder": "json.decoder"})
    assert names() == ["Lock", "__name__", "decoder"]
    assert load("Lock") is namespace["Lock"] is import_module("kest.locks").Lock
    with pytest.raises(AttributeError, match=r"^module 'json\.decoder' has no attribute 'decoder'$"):
        load("decoder")  # a home that lacks the name says so itself
    assert "decoder" not in namespace


def test_importing_the_packages_brings_no_module_of_theirs() -> None:
    code = "import sys, kest.core.engine, kest.core.identity; print([n for n in sys.modules if n.startswith('kest.core.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['kest.core.engine', 'kest.core.identity']"
