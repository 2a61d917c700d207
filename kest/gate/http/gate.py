"""`HttpGate`: from a request to a verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from kest._kestcore import Verdict
from kest.errors import GateRequestError
from kest.gate.addresses import TrustedProxies
from kest.gate.context import ActionContext, DeviceFingerprint, GeoLocation
from kest.gate.gate import Gate
from kest.gate.http.naming import DEFAULT_EXCLUDED, SAFE_METHODS, Exclusions, action_name
from kest.gate.http.places import GeoResolver, Places
from kest.gate.http.request import WEBSOCKET, Asked, asked_of_environ, asked_of_scope, body_params, parsed
from kest.gate.principal import ANONYMOUS, Principal, acting, lineage_facts, lineage_principal
from kest.http.egress import warn_once

if TYPE_CHECKING:
    from typing_extensions import Required, Unpack

    from kest.gate.permit import PermitToken

    class Described(TypedDict, total=False):
        """A request as `HttpGate.evaluate` takes it."""

        method: Required[str]
        path: Required[str]
        principal_id: str
        principal_kind: str | None
        roles: Sequence[str] | None
        body: object
        ip: str | None
        session_id: str | None
        current_geo: GeoLocation | None
        origin_geo: GeoLocation | None
        device: DeviceFingerprint | None


__all__ = ["HttpGate", "Identify"]

log = logging.getLogger("kest.gate")

Identify = Callable[[Mapping[str, Any]], "Principal | None"]
"""Given ASGI's scope or WSGI's environ: who was verified by other means, or None."""

MAX_BODY = 1 << 20


class HttpGate:
    """Asks a gate about HTTP requests; what `GateMiddleware`, FastAPI and Flask have in common. Thread-safe.

    The principal is whom the request's verified token names (`KestIdentityMiddleware`), else whom its verified lineage names
    (`KestMiddleware`, `KestWSGIMiddleware`), else the workload that lineage comes from; without any of these it is
    "anonymous" of kind "external". Trust and taints are those of the lineage. The path is the resource, the members of a JSON
    object in the body are the parameters, and the session is the token's.

    Args:
        gate: what decides.
        gate_mutations_only: let GET, HEAD and OPTIONS pass. WebSockets are always gated.
        excluded_paths: paths that pass, with everything below them: /health, /ready and /metrics by default; ``[]``: none.
        principal_header, roles_header, kind_header, session_header: what ``trust_header_identity`` reads.
        geo_resolver: where a client is: called with ``method=, path=, ip=, headers=``, may be a coroutine function. If it
            raises, the place is unknown.
        trust_header_identity: believe those headers where nothing was verified. Only behind a proxy that sets them itself and
            removes what clients send.
        identify: who was verified by other means; called with ASGI's scope or WSGI's environ, asked first.
        roles_claim, session_claim: where a token says its roles (a name, or a dotted path) and its session.
        trusted_proxies: addresses and networks whose ``X-Forwarded-For`` is believed.
        action_name: names actions: called with method and path, returns None for the derived name. A derived name is chosen
            by whoever chooses the path; name actions, or have policies look at ``resource``, where that matters.
        max_body: the most bytes of a JSON body that are read; 0: bodies are not looked at, and actions have no parameters.

    Raises:
        TypeError, ValueError: naming the setting that is wrong.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        gate_mutations_only: bool = True,
        excluded_paths: Iterable[str] | None = None,
        principal_header: str = "X-Principal-Id",
        roles_header: str = "X-Roles",
        kind_header: str = "X-Principal-Kind",
        session_header: str = "X-Session-Id",
        geo_resolver: GeoResolver | None = None,
        trust_header_identity: bool = False,
        identify: Identify | None = None,
        roles_claim: str = "roles",
        session_claim: str = "sid",
        trusted_proxies: Iterable[str] = (),
        action_name: Callable[[str, str], str | None] | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        if not isinstance(gate, Gate):
            raise TypeError(f"HttpGate takes a Gate, not {type(gate).__name__}")
        if isinstance(max_body, bool) or not isinstance(max_body, int) or max_body < 0:
            raise ValueError(f"max_body is a number of bytes, 0 or more, not {max_body!r:.40}")
        self.gate = gate
        self.max_body = max_body
        self._mutations_only = bool(gate_mutations_only)
        self._excluded = Exclusions(DEFAULT_EXCLUDED if excluded_paths is None else excluded_paths)
        self._headers = tuple(name.lower() for name in (principal_header, kind_header, roles_header, session_header))
        self._places = Places(geo_resolver)
        self._identify = identify
        self._claims = roles_claim, session_claim
        self._proxies = TrustedProxies(trusted_proxies)
        self._action_name = action_name
        self._trusts_headers = bool(trust_header_identity)
        if self._trusts_headers:
            warn_once(
                "gate-headers",
                "trust_header_identity: principals are believed from request headers (%s); a proxy has to set these and to "
                "remove what clients send",
                principal_header,
            )
        self._passing = Gate({"policies": [_PASSING]}, enable_drift=False)

    # --- names ---

    def should_gate(self, method: str, path: str) -> bool:
        """Whether the gate is asked about such requests. Methods are case-sensitive (RFC 9110, section 9.1)."""
        if self._mutations_only and method in SAFE_METHODS:
            return False
        return path not in self._excluded

    def derive_action_name(self, method: str, path: str) -> str:
        """``<resource>.<verb>``: POST /api/v1/refunds/17 is ``refunds.create``; see `naming.action_name`."""
        return action_name(method, path)

    # --- asking with everything given ---

    def evaluate(self, **request: Unpack[Described]) -> Verdict:
        """The verdict on a request described by keyword arguments.

        Args:
            request: ``method`` and ``path``; ``principal_id`` ("anonymous"), ``principal_kind`` ("user", for "anonymous"
                "external"), ``roles``, ``session_id``, ``ip``, ``device``; ``body``, parsed: the members of a mapping are
                the parameters; ``current_geo`` and ``origin_geo``: the geo_resolver is asked when neither is given.
                Where `should_gate` says no, the verdict is a permit of a policy called "not gated".

        Raises:
            GateRequestError: a value is not what a gate takes.
        """
        return self.decide(*_described(**request))

    async def evaluate_async(self, **request: Unpack[Described]) -> Verdict:
        """`evaluate` without holding up the event loop; the geo_resolver may be a coroutine function."""
        return await self.decide_async(*_described(**request))

    def check(self, **request: Unpack[Described]) -> None:
        """`evaluate`, raising Refused or Invalidated for what is no permit."""
        self.gate._permitted(self.evaluate(**request))

    async def check_async(self, **request: Unpack[Described]) -> None:
        """`evaluate_async`, raising Refused or Invalidated for what is no permit."""
        self.gate._permitted(await self.evaluate_async(**request))

    # --- asking about a request of a framework ---

    async def evaluate_fastapi(self, request: Any, *, action: str | None = None) -> Verdict:
        """The verdict on a request of FastAPI or Starlette, whose body stays readable. ``action`` names it.

        Raises:
            GateRequestError: the body is not strict JSON (400), or larger than ``max_body`` (413).
        """
        asked = asked_of_scope(request.scope)
        body = None
        if self.reads_body(asked):
            self.check_length(asked.declared_length)
            body = self.read(await request.body())
        return await self.decide_async(asked, self.facts(asked, body), action)

    def evaluate_flask(self, request: Any, *, action: str | None = None) -> Verdict:
        """The verdict on a request of Flask, whose body stays readable. ``action`` and errors as for `evaluate_fastapi`."""
        asked = asked_of_environ(request.environ)
        body = None
        if self.reads_body(asked):
            self.check_length(asked.declared_length)
            body = self.read(request.get_data(cache=True))
        return self.decide(asked, self.facts(asked, body), action)

    async def check_fastapi(self, request: Any, *, action: str | None = None) -> PermitToken | None:
        """`evaluate_fastapi`, raising Refused or Invalidated; the permit is also ``request.state.kest_permit``."""
        permit = self.gate._permitted(await self.evaluate_fastapi(request, action=action)).permit_token
        request.state.kest_permit = permit
        return permit

    def check_flask(self, request: Any, *, action: str | None = None) -> PermitToken | None:
        """`evaluate_flask`, raising Refused or Invalidated; the permit is also ``request.environ["kest.permit"]``."""
        permit = self.gate._permitted(self.evaluate_flask(request, action=action)).permit_token
        request.environ[PERMIT] = permit
        return permit

    # --- steps that the middlewares share ---

    def gates(self, asked: Asked) -> bool:
        """`should_gate` of a request; one whose path is encoded in a misleading way is never excluded."""
        if asked.plain:
            return self.should_gate(asked.method, asked.path)
        return not (self._mutations_only and asked.method in SAFE_METHODS)

    def reads_body(self, asked: Asked) -> bool:
        """Whether the parameters of this request are in its body."""
        return self.max_body > 0 and asked.method != WEBSOCKET and asked.brings_json and self.gates(asked)

    def check_length(self, length: int) -> None:
        """GateRequestError (413) for more than ``max_body`` bytes."""
        if length > self.max_body:
            raise GateRequestError(f"the JSON body is larger than the {self.max_body} bytes that the gate reads", 413)

    def read(self, data: bytes) -> Any:
        """A body's JSON."""
        self.check_length(len(data))
        return parsed(data)

    def undecided(self, error: GateRequestError) -> None:
        """Raises the error again; where the gate only observes it is logged, and the request goes on without a permit."""
        if not self.gate.observes:
            raise error
        log.info("observing: would answer %d: %s", error.status, error)

    def facts(self, asked: Asked, body: object) -> dict[str, Any]:
        """What a context says of a request, but for action and places."""
        if not self.gates(asked):
            return {}
        who = self._principal(asked)
        return {
            "principal_id": who.id,
            "principal_kind": who.kind,
            "roles": who.roles,
            "session_id": who.session_id,
            "params": body_params(body, asked.query),
            "ip": self._proxies.client(asked.peer, asked.values("x-forwarded-for")),
            **lineage_facts(None if asked.arrival is None else asked.arrival.passport),
        }

    def decide(self, asked: Asked, facts: Mapping[str, Any], action: str | None = None) -> Verdict:
        """The gate's verdict on a request and what is known of it."""
        if not self.gates(asked):
            return self._passing.evaluate(_NOT_GATED)
        if self._places and not facts.keys() & _PLACES:
            facts = {**facts, **self._places.ask(asked, facts["ip"])}
        return self.gate.evaluate(self._context(asked, facts, action))

    async def decide_async(self, asked: Asked, facts: Mapping[str, Any], action: str | None = None) -> Verdict:
        """`decide` without holding up the event loop."""
        if not self.gates(asked):
            return self._passing.evaluate(_NOT_GATED)
        if self._places and not facts.keys() & _PLACES:
            facts = {**facts, **await self._places.ask_async(asked, facts["ip"])}
        return await self.gate.evaluate_async(self._context(asked, facts, action))

    def _context(self, asked: Asked, facts: Mapping[str, Any], action: str | None) -> ActionContext:
        if action is None and self._action_name is not None:
            action = self._action_name(asked.method, asked.path)
        try:
            return ActionContext(
                action_name=self.derive_action_name(asked.method, asked.path) if action is None else action,
                resource=asked.path,
                **facts,
            )
        except ValueError as error:
            raise GateRequestError(f"a gate cannot be asked about this request: {error}") from error

    def _principal(self, asked: Asked) -> Principal:
        if self._identify is not None and (known := self._identify(asked.native)) is not None:
            return known
        arrival = asked.arrival
        for caller in (asked.caller, None if arrival is None else arrival.caller):
            if caller is not None and (who := acting(caller, *self._claims)) is not None:
                return who
        if arrival is not None and arrival.verified and (workload := lineage_principal(arrival.passport)) is not None:
            return workload
        return (self._claimed(asked) if self._trusts_headers else None) or ANONYMOUS

    def _claimed(self, asked: Asked) -> Principal | None:
        who, kind, roles, session = (asked.single(name) or None for name in self._headers)
        if who is None:
            return None
        listed = tuple(role for part in (roles or "").split(",") if (role := part.strip()))
        return Principal(who, kind or "user", listed, session)


PERMIT = "kest.permit"
"""Key of the permit in ASGI's scope and WSGI's environ."""

_PLACES = {"current_geo", "origin_geo"}
_PASSING = {"name": "not gated", "effect": "permit", "conditions": []}
_NOT_GATED = ActionContext(ANONYMOUS.id, ANONYMOUS.kind, "not gated")


def _described(
    *,
    method: str,
    path: str,
    principal_id: str = ANONYMOUS.id,
    principal_kind: str | None = None,
    roles: Sequence[str] | None = None,
    body: object = None,
    ip: str | None = None,
    **more: Any,
) -> tuple[Asked, dict[str, Any]]:
    unknown = sorted(more.keys() - {"session_id", "current_geo", "origin_geo", "device"})
    if unknown:
        raise TypeError(f"evaluate() got an unexpected keyword argument {unknown[0]!r}")
    facts = {
        "principal_id": principal_id,
        "principal_kind": principal_kind or (ANONYMOUS.kind if principal_id == ANONYMOUS.id else "user"),
        "roles": roles or (),
        "params": body_params(body),
        "ip": ip,
        **{name: value for name, value in more.items() if value is not None},
    }
    return Asked(method, path, True, b"", [], ip, {}), facts
