"""Decisions from a cedar-agent server (Cedar over HTTP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kest.core.engine.base import Decision
from kest.core.engine.http_engine import HTTPEngine
from kest.core.engine.policy_input import cedar_context_json, cedar_uid, input_json, resource_id, utf8, workload_id
from kest.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

__all__ = ["CedarPolicyEngine"]

_PATHS = ("/v1/is_authorized", "/is_authorized")


class CedarPolicyEngine(HTTPEngine):
    """Asks a cedar-agent once per policy name, as principal ``Workload::"<workload id>"``, action
    ``Action::"<policy name>"``, resource ``Resource::"<resource id or operation>"``; the context is flattened for Cedar
    (see `kest.core.engine.policy_input`). All names must allow, and an evaluation error in any policy denies.

    Only ``"decision": "Allow"`` with no ``diagnostics.errors`` allows. Nothing is retried, no redirect is followed.

    Args:
        url: ``http://host:port`` of the agent. Either this or ``host``.
        host, port: the same in parts.
        timeout: seconds for a whole decision (all its policy names, connecting and reading included).
        path: ``/v1/is_authorized``, or ``/is_authorized`` for servers without a version in their paths.
        headers: extra request headers, such as ``{"Authorization": "…"}``.
        tls: an ``ssl.SSLContext`` for https, used for nothing else (its ALPN protocols are set); default: the system's
            authorities.

    Raises:
        ConfigurationError: an argument cannot be used.

    The ``ids`` of a decision are the Cedar policies that determined it.
    """

    label = "Cedar agent"

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
        super().__init__(url, host, port, timeout, headers, tls)
        self._path = path

    def _requests(self, policy_names: Sequence[str], context: Mapping[str, Any]) -> list[tuple[str, bytes]]:
        principal = input_json({"principal": cedar_uid("Workload", workload_id(context))})[1:-1]
        resource = input_json({"resource": cedar_uid("Resource", resource_id(context))})[1:-1]
        shared = f'{principal},{resource},"context":{cedar_context_json(context)}}}'
        actions = [input_json({"action": cedar_uid("Action", name)})[:-1] for name in policy_names]
        return [(self._path, utf8(f"{action},{shared}")) for action in actions]

    def _read(self, name: str, document: Any, ids: list[str]) -> Decision | None:
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
