"""A gate before the tools of an MCP server (Model Context Protocol).

`McpGate` is a middleware of the ``mcp`` SDK, version 2 (``kest[mcp]``), and can be asked about single tool calls without it.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from kest._kestcore import InMemorySessionStore, Verdict
from kest.core.context import passport_var
from kest.errors import ConfigurationError, Invalidated, MissingExtraError, Refused
from kest.gate.addresses import TrustedProxies
from kest.gate.context import ActionContext, GeoLocation
from kest.gate.current import current_permit, enter, leave
from kest.gate.gate import Gate
from kest.gate.params import gate_params
from kest.gate.principal import ANONYMOUS, Principal, lineage_facts, roles_in, session_in
from kest.gate.stores import SessionStore
from kest.http.egress import warn_once
from kest.locks import Lock

if TYPE_CHECKING:
    from mcp.server.auth.provider import AccessToken
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
    from typing_extensions import Required, Unpack

    class ToolCall(TypedDict, total=False):
        """A call as `McpGate.check_tool_call` takes it."""

        tool_name: Required[str]
        params: Required[Mapping[str, Any]]
        caller_id: Required[str]
        caller_kind: str
        roles: Iterable[str] | None
        session_id: str | None
        ip: str | None
        current_geo: GeoLocation | None
        origin_geo: GeoLocation | None


__all__ = ["McpGate", "McpSession", "Principal", "current_permit"]

log = logging.getLogger("kest.gate")

MAX_SESSIONS = 65_536
META = "kest/"
"""What the keys of Kest in ``_meta`` begin with."""


class McpSession(NamedTuple):
    """A session as it stands: who calls in it, and how many of its tool calls were permitted in this process."""

    session_id: str
    caller_id: str
    caller_kind: str
    roles: tuple[str, ...]
    ip: str | None
    action_count: int
    invalidated: bool


class McpGate:
    """Asks a gate before each tool call: ``McpGate(gate).install(server)``, or ``MCPServer(middleware=[McpGate(gate)])``.

    The action is the tool's name, its parameters are the arguments as they come over the wire, its resource is the argument
    ``resource`` when that is a str. A call that is no permit is answered with a tool error (``isError``) that names code and
    reason, also as ``_meta["kest/code"]`` and so on; the tool does not run. While it runs, its permit is `current_permit()`.

    The caller is whom the SDK verified (its bearer token): the current actor of a token with ``act``, as an agent; else its
    subject, as a user; else its client. Over a transport without HTTP (stdio) it is ``caller_id``. Anybody else is
    "anonymous" of kind "external". What a client says of itself counts for nothing. The session is the token's; of a
    connection without HTTP, this object's; of one without a token, the transport's.

    Args:
        gate: what decides. It owns the sessions: their age, origin and number of actions.
        session_store: where to look, besides, for sessions that were invalidated; the gate's by default.
        caller_id, caller_kind, roles: who calls over stdio. ``caller_kind`` is also the kind of a token's client.
        identify: who was verified by other means; called with the SDK's request context, asked first.
        trust_meta_identity: believe ``_meta`` of a call (``kest/principal_id``, ``kest/principal_kind``, ``kest/roles``,
            ``kest/session_id``) where nothing was verified. Only behind a proxy that sets these itself.
        roles_claim, session_claim: where a token's claims say its roles (a name, or a dotted path) and its session.
        scopes_as_roles: let the token's scopes count as roles, too.
        trusted_proxies: addresses and networks whose ``X-Forwarded-For`` is believed.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        session_store: SessionStore | InMemorySessionStore | None = None,
        caller_id: str | None = None,
        caller_kind: str = "agent",
        roles: Iterable[str] = (),
        identify: Callable[[Any], Principal | None] | None = None,
        trust_meta_identity: bool = False,
        roles_claim: str = "roles",
        session_claim: str = "sid",
        scopes_as_roles: bool = False,
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        if not isinstance(gate, Gate):
            raise TypeError(f"McpGate takes a Gate, not {type(gate).__name__}")
        if isinstance(roles, str):
            raise TypeError("roles is a list of roles, not one str")
        self.gate = gate
        self._store = session_store
        self._caller_kind = caller_kind
        self._local = ANONYMOUS if caller_id is None else Principal(caller_id, caller_kind, tuple(roles))
        self._local = self._local._replace(session_id=str(uuid.uuid4()))
        ActionContext(self._local.id, caller_kind, "initialize", self._local.roles)  # raises for what no gate takes
        self._identify = identify
        self._trusts_meta = bool(trust_meta_identity)
        self._claims = roles_claim, session_claim
        self._scopes_as_roles = bool(scopes_as_roles)
        self._proxies = TrustedProxies(trusted_proxies)
        self._sessions: OrderedDict[str, McpSession] = OrderedDict()
        self._lock = Lock()
        if self._trusts_meta:
            warn_once("mcp-meta", "trust_meta_identity: callers are believed from the _meta of their own requests")

    # --- asking about one call ---

    def check_tool_call(self, **call: Unpack[ToolCall]) -> None:
        """Return when the tool may run, and count the call in its session.

        Args:
            call: ``tool_name``, ``params`` (a mapping) and ``caller_id``; ``caller_kind`` ("agent"), ``roles``,
                ``session_id``, ``ip``, ``current_geo``, ``origin_geo``.

        Raises:
            Refused: it may not.
            Invalidated: it may not, and its session is over.
        """
        self._permit(_context(**call))

    def evaluate_tool_call(self, **call: Unpack[ToolCall]) -> Verdict:
        """The gate's verdict on a call, which it counts like any other; ``session_store`` is not looked at."""
        return self.gate.evaluate(_context(**call))

    def _permit(self, context: ActionContext) -> Verdict:
        self._check_session(context.session_id)
        verdict = self.gate._permitted(self.gate.evaluate(context))
        self._count(context)
        return verdict

    # --- sessions ---

    @property
    def session_store(self) -> SessionStore | InMemorySessionStore:
        """Where invalidated sessions are looked up."""
        return self.gate.session_store if self._store is None else self._store

    def get_session(self, session_id: str) -> McpSession | None:
        """What is known of a session; None where no call of it was permitted here (or 65,536 others were since)."""
        key = _key(session_id)
        with self._lock:
            session = self._sessions.get(key)
        return None if session is None else session._replace(invalidated=self.session_store.is_invalidated(key))

    def invalidate_session(self, session_id: str) -> None:
        """End a session: here, in the stores, and wherever the gate's broadcaster reaches."""
        key = _key(session_id)
        if self._store is not None:
            self._store.invalidate(key)
        self.gate.invalidate(key, evaluator="mcp")

    def _check_session(self, session_id: str | None) -> None:
        if session_id is None or self.gate.observes:
            return
        try:
            over = self.session_store.is_invalidated(session_id)
        except Exception:
            log.exception("the session store failed")
            raise Refused("session store unavailable", "gate", "SESSION_INVALID") from None
        if over:
            raise Invalidated(f"session {session_id} invalidated by a peer node", "session_store")

    def _count(self, context: ActionContext) -> None:
        key = context.session_id
        if key is None:
            return
        with self._lock:
            before = self._sessions.pop(key, None)
            count = 1 if before is None else before.action_count + 1
            self._sessions[key] = McpSession(
                key, context.principal_id, context.principal_kind, context.roles, context.ip, count, False
            )
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    # --- as a middleware of the SDK ---

    def install(self, server: Any) -> McpGate:
        """Put this gate before the tools of an `MCPServer`, or of a low-level `Server`; returns the gate.

        It becomes the innermost middleware, so that it decides about what the tool really gets: install it last.
        """
        try:
            import mcp.server.context  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("McpGate.install needs the MCP SDK, version 2: pip install 'kest[mcp]'") from error
        chain = getattr(server, "middleware", None)
        if not isinstance(chain, list):
            raise ConfigurationError(f"{type(server).__name__} has no middleware: McpGate needs a server of mcp 2")
        if self not in chain:
            chain.append(self)
        return self

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """One message: a ``tools/call`` request runs if the gate permits it, everything else passes."""
        if ctx.method != "tools/call" or ctx.request_id is None:
            return await call_next(ctx)
        try:
            verdict = await self._admit(ctx)
        except (Refused, Invalidated) as error:
            log.info("tool call refused: %s", error)
            return _tool_error(error, ctx.protocol_version)
        before = enter(verdict)
        try:
            return await call_next(ctx)
        finally:
            leave(before)

    async def _admit(self, ctx: ServerRequestContext[Any, Any]) -> Verdict:
        from anyio import to_thread

        params = ctx.params or {}
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, (Mapping, type(None))):
            raise Refused("the call names no tool, or its arguments are no object", "gate", "POLICY_DENIED")
        request = ctx.request
        peer = getattr(getattr(request, "client", None), "host", None)
        forwarded = [] if request is None else request.headers.getlist("x-forwarded-for")
        try:
            who = self._caller(ctx)
            context = _context(
                tool_name=name,
                params=arguments or {},
                caller_id=who.id,
                caller_kind=who.kind,
                roles=who.roles,
                session_id=who.session_id,
                ip=self._proxies.client(peer, forwarded),
            )
        except ValueError as error:
            raise Refused(f"a gate cannot be asked about this call: {error}", "gate", "POLICY_DENIED") from error
        if self.gate._waits or self._store is not None:
            return await to_thread.run_sync(self._permit, context)
        return self._permit(context)

    def _caller(self, ctx: ServerRequestContext[Any, Any]) -> Principal:
        if self._identify is not None and (known := self._identify(ctx)) is not None:
            return known
        token = _access_token(ctx)
        if token is not None:
            return self._of_token(token)
        if self._trusts_meta and (claimed := _claimed(ctx.params)) is not None:
            return claimed
        if ctx.request is None:
            return self._local
        connection = getattr(ctx.session, "_connection", None)
        return ANONYMOUS._replace(session_id=getattr(connection, "session_id", None))

    def _of_token(self, token: AccessToken) -> Principal:
        claims: Mapping[str, Any] = token.claims or {}
        act = claims.get("act")
        if "act" in claims:
            who, kind = act.get("sub") if isinstance(act, Mapping) else None, "agent"
            if not isinstance(who, str) or not who:
                raise Refused("the token's act claim names no actor (RFC 8693, section 4.1)", "gate", "IDENTITY_FAILED")
        elif token.subject is None:
            who, kind = token.client_id, self._caller_kind
        else:
            who, kind = token.subject, "service" if token.subject == token.client_id else "user"
        roles = roles_in(claims, self._claims[0])
        if self._scopes_as_roles:
            roles += tuple(scope for scope in token.scopes if scope not in roles)
        return Principal(who, kind, roles, session_in(claims, token.token, self._claims[1]))


def _context(
    *,
    tool_name: str,
    params: Mapping[str, Any],
    caller_id: str,
    caller_kind: str = "agent",
    roles: Iterable[str] | None = None,
    session_id: str | None = None,
    ip: str | None = None,
    current_geo: GeoLocation | None = None,
    origin_geo: GeoLocation | None = None,
) -> ActionContext:
    if not isinstance(params, Mapping):
        raise TypeError(f"params is a mapping, not {type(params).__name__}")
    resource = params.get("resource")
    return ActionContext(
        caller_id,
        caller_kind,
        tool_name,
        () if roles is None else roles,
        resource=resource if isinstance(resource, str) else None,
        params=gate_params({name: value for name, value in params.items() if isinstance(name, str)}),
        ip=ip,
        session_id=session_id,
        current_geo=current_geo,
        origin_geo=origin_geo,
        **lineage_facts(passport_var.get()),
    )


def _key(session_id: str) -> str:
    """A session's id in the spelling that contexts use."""
    try:
        return str(uuid.UUID(session_id))
    except ValueError:
        return session_id


def _access_token(ctx: ServerRequestContext[Any, Any]) -> AccessToken | None:
    """What the SDK verified for this message: with its HTTP request, or in the context that it runs in."""
    from mcp.server.auth.middleware.auth_context import get_access_token
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

    if ctx.request is not None:
        user = getattr(ctx.request, "scope", {}).get("user")
        return user.access_token if isinstance(user, AuthenticatedUser) else None
    return get_access_token()


def _claimed(params: Mapping[str, Any] | None) -> Principal | None:
    meta = (params or {}).get("_meta")
    meta = meta if isinstance(meta, Mapping) else {}
    who, roles = meta.get(META + "principal_id"), meta.get(META + "roles")
    if not isinstance(who, str) or not who:
        return None
    kind, session = meta.get(META + "principal_kind", "agent"), meta.get(META + "session_id")
    listed = tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else ()
    return Principal(who, kind if isinstance(kind, str) else "", listed, session if isinstance(session, str) else None)


def _tool_error(error: Refused | Invalidated, protocol_version: str) -> dict[str, Any]:
    """A ``CallToolResult`` with ``isError``, in its wire form: what a middleware answers with is not shaped any further."""
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

    code = error.code if isinstance(error, Refused) else "SESSION_INVALID"
    meta: dict[str, Any] = {META + "code": code, META + "evaluator": error.evaluator, META + "reason": error.reason}
    if isinstance(error, Refused) and error.retry_after is not None:
        meta[META + "retry_after"] = error.retry_after
    text = f"[{code}] {error.evaluator}: {error.reason}"
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": True, "_meta": meta}
    if protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS:
        result["resultType"] = "complete"
    return result
