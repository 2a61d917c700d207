"""examples/identities: those that need no server run as they are; tests/services runs the others."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "identities"


def test_there_is_one_for_each_identity() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {"aws", "bedrock", "custom", "local", "oidc", "shipping", "spire", "static"}


def test_local(run_example: Any) -> None:
    done = run_example("identities/local.py")
    assert done.stdout.splitlines() == ["order 7 is on its way", "verified: spiffe://example.org/notebook"]
    assert "an ephemeral Ed25519 key signs as spiffe://example.org/notebook" in done.stderr


def test_static(tmp_path: Path, run_example: Any) -> None:
    for _ in range(2):
        done = run_example("identities/static.py", "shop.key")
        assert done.stdout.splitlines() == ["order 7 is on its way", "verified: spiffe://example.org/shop"]
        assert done.stderr == ""
        key = (tmp_path / "shop.key").read_bytes()
    assert stat.S_IMODE((tmp_path / "shop.key").stat().st_mode) == 0o600
    assert (tmp_path / "shop.key").read_bytes() == key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the command openssl is not installed")
def test_custom(run_example: Any) -> None:
    for _ in range(2):
        done = run_example("identities/custom.py", "signer.pem")
        assert done.stdout.splitlines() == ["order 7 is on its way", "verified: spiffe://example.org/vault"]
        assert done.stderr == ""
