"""Decisions from a cedar-agent server (Cedar over HTTP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kest.core.engine.base import DecidingEngine, Decision, refuse_names
from kest.core.engine.http_client import PolicyServer, json_document
from kest.core.engine.opa import server_url, utf8
from kest.core.engine.policy_input import cedar_context_json, cedar_uid, input_json, resource_id, workload_id
from kest.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

__all__ = ["CedarPolicyEngine"]

_PATHS = ("/v1/is_authorized", "/is_authorized")


class CedarPolicyEngine(DecidingEngine):
    """Asks a cedar-agent once per policy name, as principal ``Workload::"<workload id>"``, action
    ``Action::"<policy name>"``, resource ``Resource::"<resource id or operation>"``; the context is flattened for Cedar
    (see :mod:`kest.core.engine.policy_input`). All names must allow, and an evaluation error in any policy denies.

    Only ``"decision": "Allow"`` with no ``diagnostics.errors`` allows. Nothing is retried, no redirect is followed.

    Args:
        url: ``http://host:port`` of the agent. Either this or ``host``.
        host, port: the same in parts.
        timeout: seconds for a whole decision (all its policy names, connecting and reading included).
        path: ``/v1/is_authorized``, or ``/is_authorized`` for servers without a version in their paths.
        headers: extra request headers, such as ``{"Authorization": "…"}``.
        tls: an ``ssl.SSLContext`` for https; default: the system's authorities.

    Raises:
        ConfigurationError: an argument cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        host: str | None = None,
        port: int = 8180,
        timeout: float = 1.0,
        path: str = "/v1/is_authorized",
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if path not in _PATHS:
            raise ConfigurationError(f"path must be one of {', '.join(_PATHS)}")
        target = server_url("CedarPolicyEngine", url, host, port)
        self._server = PolicyServer("Cedar agent", target, timeout=timeout, headers=headers, context=tls)
        self._path = path

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Ask once per policy name; ``ids`` are the Cedar policies that determined the answer.

        Raises:
            PolicyEngineError: the agent cannot be reached, is late, or answers anything but 200 with JSON.
        """
        refused = refuse_names(policy_names)
        if refused is not None:
            return refused
        deadline = self._server.deadline()
        bodies = _bodies(policy_names, context)
        ids: list[str] = []
        for name, body in zip(policy_names, bodies, strict=True):
            decision = self._read(name, self._server.post(self._path, body, deadline), ids)
            if decision is not None:
                return decision
        return Decision(True, "", None, tuple(ids))

    async def async_decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """:meth:`decide` without blocking the event loop."""
        refused = refuse_names(policy_names)
        if refused is not None:
            return refused
        deadline = self._server.deadline()
        bodies = _bodies(policy_names, context)
        ids: list[str] = []
        for name, body in zip(policy_names, bodies, strict=True):
            decision = self._read(name, await self._server.apost(self._path, body, deadline), ids)
            if decision is not None:
                return decision
        return Decision(True, "", None, tuple(ids))

    def _read(self, name: str, body: bytes, ids: list[str]) -> Decision | None:
        """The denial that ``body`` means for policy ``name``, or None if it allows; adds its ids to ``ids``."""
        document = json_document(body, self._server.name)
        answer = document if isinstance(document, dict) else {}
        diagnostics = answer.get("diagnostics")
        reasons = diagnostics.get("reason") if isinstance(diagnostics, dict) else None
        determining = [text for text in reasons if isinstance(text, str)] if isinstance(reasons, list) else []
        ids += determining
        if "decision" not in answer:
            return Decision(False, "the Cedar agent's answer has no decision", name, tuple(ids))
        if diagnostics is not None and (not isinstance(diagnostics, dict) or diagnostics.get("errors", []) != []):
            return Decision(False, "Cedar could not evaluate every policy, which denies", name, tuple(ids))
        decision = answer["decision"]
        if decision == "Allow":
            return None
        if decision != "Deny":
            return Decision(
                False, f"the decision is neither Allow nor Deny but {type(decision).__name__}", name, tuple(ids)
            )
        reason = "forbidden by " + ", ".join(determining) if determining else "no Cedar policy permits it"
        return Decision(False, reason, name, tuple(ids))

    def close(self) -> None:
        """Close the idle connections."""
        self._server.close()

    def __repr__(self) -> str:
        return f"<CedarPolicyEngine asking {self._server.name}>"


def _bodies(policy_names: Sequence[str], context: Mapping[str, Any]) -> list[bytes]:
    principal = input_json({"principal": cedar_uid("Workload", workload_id(context))})[1:-1]
    resource = input_json({"resource": cedar_uid("Resource", resource_id(context))})[1:-1]
    shared = f'{principal},{resource},"context":{cedar_context_json(context)}}}'
    return [utf8(f"{input_json({'action': cedar_uid('Action', name)})[:-1]},{shared}") for name in policy_names]
