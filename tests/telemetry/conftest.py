"""Telemetry is of the process, and OpenTelemetry's providers can be set once: most tests here run a script of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk.trace")

CALLS = (
    "import os, sys, json\n"
    "from kest.core import *\n"
    "from kest.core.context import get_current_passport, lineage\n"
    "configure(engine=MockPolicyEngine(), identity=LocalEd25519Provider('spiffe://kest.test/unit', seed=bytes(32)))\n"
    "f = kest_verified('p', operation_name='op')(lambda n=1: n)\n"
)


@pytest.fixture
def script(run_python: Any, tmp_path: Path) -> Callable[..., Any]:
    """Run a script that begins with a configured Kest and a decorated function ``f``; ``PATH`` is this test's folder."""

    def run(code: str, **options: Any) -> Any:
        return run_python(f"{CALLS}PATH = {str(tmp_path)!r}\n{code}", **options)

    return run


@pytest.fixture
def keys() -> dict[str, Any]:
    """Of the identity that `script` configures."""
    from kest.core import LocalEd25519Provider

    return {"spiffe://kest.test/unit": LocalEd25519Provider("spiffe://kest.test/unit", seed=bytes(32))}


@pytest.fixture
def read() -> Callable[[Path], list[Any]]:
    """The spans in a file or database, none of it damaged."""
    from kest.telemetry import TelemetryReader

    def spans(path: Path) -> list[Any]:
        with TelemetryReader(path) as reader:
            found = list(reader)
            assert reader.damaged == []
        return found

    return spans


@pytest.fixture
def make_span() -> Callable[..., Any]:
    """A finished span of OpenTelemetry's SDK, in scope ``kest.core``."""
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("kest.core", "0.3.0")

    def make(name: str = "kest.verified.op", **attributes: Any) -> Any:
        span = tracer.start_span(name, attributes={key.replace("__", "."): value for key, value in attributes.items()})
        span.end()
        return span

    return make
