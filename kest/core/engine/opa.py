"""Decisions from an Open Policy Agent server, through its Data API (``POST /v1/data/<path>``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kest.core.engine.base import Decision
from kest.core.engine.http_engine import HTTPEngine
from kest.core.engine.policy_input import input_json, utf8
from kest.core.engine.reasons import REASON_RULES, stated_reasons
from kest.errors import ConfigurationError, PolicyEngineError

if TYPE_CHECKING:
    import ssl

__all__ = ["OPAPolicyEngine"]

_NAME = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*")
_MAX_ID = 256


class OPAPolicyEngine(HTTPEngine):
    """Asks OPA at ``/v1/data/<policy name>``, body ``{"input": <policy input>}``; all names must allow.

    Dots and slashes in a name mean the same: ``kest.allow_trusted`` and ``kest/allow_trusted`` are
    ``/v1/data/kest/allow_trusted``. With the default ``decision_path`` a name addresses a package and its rule
    ``allow`` decides, as in ``{"result": {"allow": true}}``; where names address the rule itself, use
    ``decision_path="result"``. Only JSON ``true`` allows. Undefined (``{}``) denies. Nothing is retried, no redirect
    is followed.

    Args:
        url: ``http://host:port`` of the server, with a path prefix if it has one, or ``unix:///path`` for OPA's
            Unix socket (``opa run --server --addr unix:///path``). Either this or ``host``.
        host, port: the same in parts.
        timeout: seconds for a whole decision (all its policy names, connecting and reading included).
        decision_path: where in the response the decision is, dot-separated.
        uds: path of a Unix socket to connect to instead; the URL then gives the Host header and the path prefix.
        headers: extra request headers, such as ``{"Authorization": "Bearer …"}``.
        tls: an ``ssl.SSLContext`` for https, used for nothing else (its ALPN protocols are set); default: the system's
            authorities.
        provenance: also ask which bundle revisions were active, and record them.

    Raises:
        ConfigurationError: an argument cannot be used.

    The ``ids`` of a decision are ``decision_id=…`` where OPA keeps decision logs (each answer then has one) and, with
    ``provenance``, ``revision=<bundle>@<revision>``. Both are its ``evidence`` too, so they stand in the signed entry.
    The reason of a denial is what the package says in its rule ``reasons``, ``reason`` or ``deny``, if it has one.
    """

    label = "OPA"
    ids_are_evidence = True

    def __init__(
        self,
        url: str | None = None,
        *,
        host: str | None = None,
        port: int = 8181,
        timeout: float = 1.0,
        decision_path: str = "result.allow",
        uds: str | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        provenance: bool = False,
    ) -> None:
        super().__init__(url, host, port, timeout, headers, tls, uds)
        self._decision_path = tuple(decision_path.split(".")) if isinstance(decision_path, str) else ()
        if not all(self._decision_path) or not self._decision_path:
            raise ConfigurationError("decision_path must be member names joined by dots, such as 'result.allow'")
        self._query = "?provenance=true" if provenance else ""

    def _requests(self, policy_names: Sequence[str], context: Mapping[str, Any]) -> list[tuple[str, bytes]]:
        paths: list[str] = []
        for name in policy_names:
            if not _NAME.fullmatch(name):  # before it becomes part of a URL
                raise PolicyEngineError(
                    f"policy name {name!r} cannot be an OPA path: letters, digits, _ and - in segments joined by / or ."
                )
            paths.append(f"/v1/data/{name.replace('.', '/')}{self._query}")
        body = utf8(f'{{"input":{input_json(context)}}}')
        return [(path, body) for path in paths]

    def _read(self, name: str, document: Any, ids: list[str]) -> Decision | None:
        _collect_ids(document, ids)
        value, beside = document, None
        for member in self._decision_path:
            if not isinstance(value, dict) or member not in value:
                where = ".".join(self._decision_path)
                reason = _stated(value) or f"OPA has no decision at {where} (undefined)"
                return Decision(False, reason, name, tuple(ids), tuple(ids))
            value, beside = value[member], value
        if value is True:
            return None
        reason = "OPA denied" if value is False else f"OPA's decision is {type(value).__name__}, not true"
        return Decision(False, _stated(beside) or reason, name, tuple(ids), tuple(ids))


def _stated(package: object) -> str:
    """What the rules beside the deciding one say."""
    if isinstance(package, dict):
        for rule in REASON_RULES:
            if stated := stated_reasons(package.get(rule)):
                return stated
    return ""


def _collect_ids(document: object, ids: list[str]) -> None:
    if not isinstance(document, dict):
        return
    decision_id = document.get("decision_id")
    if isinstance(decision_id, str) and len(decision_id) <= _MAX_ID:
        ids.append(f"decision_id={decision_id}")
    provenance = document.get("provenance")
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    if isinstance(bundles, dict):
        for bundle, details in list(bundles.items())[:32]:
            revision = details.get("revision") if isinstance(details, dict) else None
            if isinstance(revision, str) and len(bundle) + len(revision) <= _MAX_ID:
                mark = f"revision={bundle}@{revision}"
                if mark not in ids:
                    ids.append(mark)
