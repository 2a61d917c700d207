"""A gate as the policy engine of decorated calls: ``kest_verified(policy="refunds", engine=gate)``.

The policy named by the decorator is the action that the gate is asked about. Who acts, for whom, on what, with what trust and
which taints come from the call's lineage, parameters from its mapped arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from kest._kestcore import ActionContext, Verdict
from kest.core.engine.base import DecidingEngine, Decision, refuse_names
from kest.core.engine.policy_input import input_json, utf8
from kest.errors import GateInputError, Invalidated, PolicyEngineError, Refused
from kest.gate.invalidation import InMemoryInvalidationBroadcaster
from kest.gate.params import gate_params

if TYPE_CHECKING:
    from kest.gate.gate import Gate

__all__ = ["GateEngine", "action_context"]

NESTING = 4  # of resource attributes that parameters are made of
_PLAIN = (bool, int, float, type(None))
_ABOUT_THE_CALL = ("session_id", "ip")
"""Mapped arguments that say where the call comes from; the decorated function's author decides whose word that is."""


@final
class GateEngine(DecidingEngine):
    """Asks a gate; `Gate.as_policy_engine` makes it. Every call counts: no decision of a gate is remembered.

    A permit's id and the digest of the policies stand in the signed entry (``kest.decision``). A denial has the gate's reason
    and code. With several policy names each is an action of its own, and all must be permitted.
    """

    stateful = True

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        # What waits for a Redis, or for another process that signs, does so in a thread.
        here = gate._rates is None and gate._sessions is None and gate._signer is None
        self.in_process = here and isinstance(gate._broadcaster, (InMemoryInvalidationBroadcaster, type(None)))

    @property
    def gate(self) -> Gate:
        """The gate that is asked."""
        return self._gate

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Ask the gate about each name in order, until one is not permitted."""
        refused = refuse_names(policy_names)
        if refused is not None:
            return refused
        permits: list[Verdict] = []
        for name in dict.fromkeys(policy_names):
            try:
                verdict = self._gate.evaluate(action_context(name, context))
            except (GateInputError, TypeError, ValueError) as error:
                raise PolicyEngineError(
                    f"the call cannot be put to the gate as action {name!r:.100}: {type(error).__name__}"
                ) from None
            if not verdict.is_permit:
                for permit in permits:
                    self._gate._core.take_back(permit)
                return _denial(name, verdict, self._gate)
            permits.append(verdict)
        evidence = tuple(id for verdict in permits for id in _evidence(verdict, self._gate))
        deciding = (f"policy={verdict.policy}" for verdict in permits if verdict.policy)
        return Decision(True, ids=(*dict.fromkeys(evidence), *deciding), evidence=tuple(dict.fromkeys(evidence)))

    def __repr__(self) -> str:
        return f"GateEngine({self._gate!r})"


def _evidence(verdict: Verdict, gate: Gate) -> Iterator[str]:
    permit = verdict.token_id
    yield f"permit={permit}" if permit is not None else f"evaluation={verdict.evaluation_id}"
    yield f"policy_set={_digest(verdict, gate)}"
    observed = verdict.observed
    if observed is not None and not observed.is_permit:
        yield f"observed={observed.kind}:{observed.code or observed.evaluator}"


def _digest(verdict: Verdict, gate: Gate) -> str:
    return getattr(verdict, "policy_digest", None) or gate.policy_digest


def _denial(name: str, verdict: Verdict, gate: Gate) -> Decision:
    reason, evaluator = verdict.reason or "refused", verdict.evaluator or "gate"
    code = "INVALIDATED" if verdict.is_invalidate else verdict.code or "POLICY_DENIED"
    error = Invalidated(reason, evaluator) if verdict.is_invalidate else Refused(reason, evaluator, code)
    ids = (f"evaluation={verdict.evaluation_id}", f"policy_set={_digest(verdict, gate)}")
    deciding = () if verdict.policy is None else (f"policy={verdict.policy}",)
    return Decision(False, str(error), name, (*ids, *deciding), code=code)


# --- what the gate is asked about ---


def action_context(action: str, context: Mapping[str, Any]) -> ActionContext:
    """The policy input of a decorated call as a gate's context.

    Raises:
        PolicyEngineError: a mapped argument that has no JSON form.
        GateInputError: an address, session id or trust score that is none.
    """
    subject: Mapping[str, Any] = context.get("subject") or {}
    target: Mapping[str, Any] = context.get("object") or {}
    args: Mapping[str, Any] = context.get("args") or {}
    _check(args)
    claims: Mapping[str, Any] = subject.get("claims") or {}
    who, kind = _principal(context, subject, claims)
    params = dict(_facts(context, subject, target))
    for name, value in args.items():
        if name not in _ABOUT_THE_CALL:
            params.setdefault(name, value)  # a mapped argument cannot pass for a fact
    return ActionContext(
        who,
        kind,
        action,
        roles=_roles(claims),
        resource=target.get("id"),
        params=gate_params(params),
        ip=args.get("ip"),
        session_id=args.get("session_id") or _text(claims.get("sid")),
        trust=context.get("trust_score"),
        taints=context.get("taints"),
    )


def _principal(context: Mapping[str, Any], subject: Mapping[str, Any], claims: Mapping[str, Any]) -> tuple[Any, str]:
    """Who acts: the current actor of a token (RFC 8693, section 4.1), the agent that the function names, the user, or the
    workload. The client that a user signed in with is no agent; one that is its own user is a service (RFC 9068, 2.2)."""
    actors, user, agent = subject.get("actors") or (), context.get("user"), context.get("agent")
    if actors:
        return actors[0], "agent"
    if agent and not (user and claims.get("client_id", claims.get("azp")) == agent):
        return agent, "agent"
    if user:
        return user, "service" if user == agent else "user"
    return context.get("identity") or subject.get("workload"), "service"


def _roles(claims: Mapping[str, Any]) -> tuple[str, ...]:
    listed = claims.get("roles")
    if not isinstance(listed, list):
        realm = claims.get("realm_access")
        listed = realm.get("roles") if isinstance(realm, Mapping) else None
    return tuple(role for role in listed if isinstance(role, str) and role) if isinstance(listed, list) else ()


def _facts(
    context: Mapping[str, Any], subject: Mapping[str, Any], target: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """What else policies can ask about, under dotted names; who is nobody is the empty text."""
    for name in ("user", "agent", "task"):
        yield f"subject.{name}", context.get(name) or ""
    yield "subject.workload", context.get("identity") or ""
    yield "subject.scopes", subject.get("scopes") or []
    yield "environment.source_type", context.get("source_type")
    yield "environment.is_root", context.get("is_root")
    yield from _flat("object", target.get("attributes") or {}, NESTING)


def _flat(path: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items() if depth else ():
            yield from _flat(f"{path}.{name}", item, depth - 1)
    else:
        yield path, value


def _check(args: Mapping[str, Any]) -> None:
    """PolicyEngineError for what has no JSON form: other engines cannot be asked about it either."""
    for value in args.values():
        if isinstance(value, str):
            utf8(value)
        elif type(value) not in _PLAIN:
            utf8(input_json(args))
            return


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
