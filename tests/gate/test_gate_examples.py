"""README.md and docs/gate.md show these examples as they are, and they do what is said there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from wire import serving

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


def test_refunds(login: Path, bearer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(login)

    def auth(*roles: str) -> dict[str, str]:
        return {"authorization": f"Bearer {bearer(*roles)}"}

    scope: dict[str, Any] = {}
    exec(compile((ROOT / "examples/gate/refunds.py").read_text("utf-8"), "refunds.py", "exec"), scope)
    with serving(scope["app"]) as url, httpx.Client(base_url=url) as client:
        assert client.post("/refunds", json={"amount": 42}).status_code == 401
        paid = client.post("/refunds", json={"amount": 42}, headers=auth("support"))
        assert (paid.status_code, paid.json()["paid"]) == (200, "42.00")
        for amount, roles in ((4200, ["support"]), ("42", ["support"]), (42, ["sales"])):
            refused = client.post("/refunds", json={"amount": amount}, headers=auth(*roles))
            assert refused.status_code == 403
            assert "no policy permits 'refunds.create'" in refused.json()["reason"]
        statuses = [client.post("/refunds", json={"amount": 1}, headers=auth("support")).status_code for _ in range(20)]
        assert statuses == [200] * 19 + [429]


def test_the_documented_gate_of_an_mcp_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/gate.md").read_text("utf-8").partition("## Before the tools of an MCP server")[2]
    text = text.partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("policies.toml").write_text((ROOT / "examples/gate/policies.toml").read_text("utf-8"), "utf-8")
    scope: dict[str, Any] = {}
    exec(code, scope)
    (gate,) = (each for each in scope["server"].middleware if isinstance(each, McpGate))
    assert isinstance(gate.gate, Gate)
