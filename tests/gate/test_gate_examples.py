"""README.md and docs/gate.md show these examples as they are, and they do what is said there."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from wire import serving

from kest.cli.main import main
from kest.gate import Gate
from kest.gate.mcp import McpGate

Make = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]
SHOWN = re.compile(r"^<!-- (examples/gate/\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/gate.md"])
def test_pages_show_the_examples_as_they_are(page: str) -> None:
    shown = SHOWN.findall((ROOT / page).read_text("utf-8"))
    assert shown
    for name, text in shown:
        assert text == (ROOT / name).read_text("utf-8"), f"{page} does not show {name} as it is"


def test_guarded(run_example: Make) -> None:
    ran, refused = run_example("gate/guarded.py").stdout.splitlines()
    assert ran == "A-1: 42.0 paid back"
    assert refused == "[NO_POLICY_MATCH] policy: no policy permits 'refund' for principal 'ann'"


def test_refunds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(["keygen", "--principal", "https://login.example", "--out", "login.key", "--jwks", "login.jwks.json"]) == 0
    )
    key: Any = serialization.load_pem_private_key(Path("login.key").read_bytes(), None)
    kid = json.loads(Path("login.jwks.json").read_text())["keys"][0]["kid"]

    def bearer(*roles: str) -> dict[str, str]:
        claims = {"sub": "ann", "iss": "https://login.example", "aud": "shop", "exp": int(time.time()) + 600}
        token = jwt.encode({**claims, "roles": [*roles]}, key, "EdDSA", {"kid": kid, "typ": "at+jwt"})
        return {"authorization": f"Bearer {token}"}

    scope: dict[str, Any] = {}
    exec(compile((ROOT / "examples/gate/refunds.py").read_text("utf-8"), "refunds.py", "exec"), scope)
    with serving(scope["app"]) as url, httpx.Client(base_url=url) as client:
        assert client.post("/refunds", json={"amount": 42}).status_code == 401
        paid = client.post("/refunds", json={"amount": 42}, headers=bearer("support"))
        assert (paid.status_code, paid.json()["paid"]) == (200, "42.00")
        for amount, roles in ((4200, ["support"]), ("42", ["support"]), (42, ["sales"])):
            refused = client.post("/refunds", json={"amount": amount}, headers=bearer(*roles))
            assert refused.status_code == 403
            assert "no policy permits 'refunds.create'" in refused.json()["reason"]
        statuses = [
            client.post("/refunds", json={"amount": 1}, headers=bearer("support")).status_code for _ in range(20)
        ]
        assert statuses == [200] * 19 + [429]


def test_the_documented_gate_of_an_mcp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/gate.md").read_text("utf-8").partition("# Before the tools of an MCP server")[2]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("policies.toml").write_text((ROOT / "examples/gate/policies.toml").read_text("utf-8"), "utf-8")
    from mcp.server import MCPServer

    server = MCPServer("shop", log_level="CRITICAL")
    exec(code, {"server": server})
    (gate,) = (each for each in server.middleware if isinstance(each, McpGate))
    assert isinstance(gate.gate, Gate)
