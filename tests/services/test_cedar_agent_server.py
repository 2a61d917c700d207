"""cedar-agent as a server: it decides, by policies and entities that are put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
from kest_services.cedar_agent import CedarAgent
from kest_services.processes import Processes

POLICIES = {
    "staff": 'permit(principal in Group::"staff", action == Action::"read", resource);',
    "tainted": "forbid(principal, action, resource) when { context.tainted };",
}
ENTITIES = [
    {"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
    {"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": []},
]


def test_cedar_agent_decides(processes: Processes, tmp_path: Path, built: Callable[[str], Path]) -> None:
    built("cedar-agent")
    with CedarAgent(processes, tmp_path / "cedar") as agent:

        def decision(user: str, tainted: bool) -> str:
            question = {
                "principal": f'User::"{user}"',
                "action": 'Action::"read"',
                "resource": 'File::"report"',
                "context": {"tainted": tainted},
            }
            answer: str = (
                httpx.post(f"{agent.url}/v1/is_authorized", json=question).raise_for_status().json()["decision"]
            )
            return answer

        assert decision("alice", False) == "Deny"  # it starts empty
        agent.put_entities(ENTITIES)
        agent.put_policies(POLICIES)
        assert [decision("alice", False), decision("alice", True), decision("bob", False)] == ["Allow", "Deny", "Deny"]
        agent.restart()
        assert decision("alice", False) == "Deny"
