"""What the gate's tests share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kest.gate import ActionContext, Gate

sys.path.append(str(Path(__file__).resolve().parents[1] / "http"))  # wire: servers on real sockets

SECOND = 1_000_000_000


@pytest.fixture
def context() -> Callable[..., ActionContext]:
    """A context with defaults for what does not matter."""

    def make(action: str = "pay", **given: Any) -> ActionContext:
        return ActionContext(**{"principal_id": "alice", "principal_kind": "user", "action_name": action, **given})

    return make


@pytest.fixture
def permitting() -> Callable[..., Gate]:
    """A gate with one policy: permit what these conditions say."""

    def make(*conditions: dict[str, Any], **options: Any) -> Gate:
        return Gate.from_dict(
            {"policies": [{"name": "p", "effect": "permit", "conditions": list(conditions)}]}, **options
        )

    return make


@pytest.fixture
def at() -> Callable[..., None]:
    """Stops a gate's clocks: seconds of Unix time, and of the steady clock (the same unless said otherwise)."""

    def stop(gate: Gate, wall: float, steady: float | None = None) -> None:
        gate._core.set_clock(round(wall * SECOND), round((wall if steady is None else steady) * SECOND))

    return stop


@pytest.fixture(autouse=True)
def _warnings_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings that come once come once per test."""
    from kest.http import egress

    monkeypatch.setattr(egress, "_warned", set())


@pytest.fixture
def login(tmp_path: Path, run_python: Callable[..., Any]) -> Path:
    """A folder with the keys of a login."""
    code = "import sys; from kest.cli.main import main; sys.exit(main(sys.argv[1:]))"
    key, public = str(tmp_path / "login.key"), str(tmp_path / "login.jwks.json")
    run_python(code, "keygen", "--principal", "https://login.example", "--out", key, "--jwks", public)
    return tmp_path


@pytest.fixture
def bearer(login: Path) -> Callable[..., str]:
    """Bearer tokens of that login: for Ann, with these roles."""
    import jwt
    from cryptography.hazmat.primitives import serialization

    key: Any = serialization.load_pem_private_key((login / "login.key").read_bytes(), None)
    kid = json.loads((login / "login.jwks.json").read_text())["keys"][0]["kid"]

    def token(*roles: str) -> str:
        claims = {"sub": "ann", "iss": "https://login.example", "aud": "shop", "exp": int(time.time()) + 600}
        return jwt.encode({**claims, "roles": [*roles]}, key, "EdDSA", {"kid": kid, "typ": "at+jwt"})

    return token
