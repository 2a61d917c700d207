"""A gate as the policy engine of decorated calls: ``kest_verified(policy="refunds", engine=gate)``.

The policy named by the decorator is the action that the gate is asked about. Who acts, for whom, on what, with what trust and
which taints come from the call's lineage, parameters from its mapped arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from kest._kestcore import ActionContext, Verdict
from kest.core.engine.base import DecidingEngine, Decision, refuse_names
from kest.core.engine.policy_input import input_json, utf8
from kest.errors import GateInputError, Invalidated, PolicyEngineError, Refused
from kest.gate.invalidation import InMemoryInvalidationBroadcaster
from kest.gate.params import gate_params, gate_value

if TYPE_CHECKING:
    from kest.gate.gate import Gate
    from kest.gate.policies import Policies

__all__ = ["GateEngine", "action_context"]

FACTS = ("subject.", "environment.", "object.")
SMALL, SMALL_TEXT = 32, 512
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_PLAIN = frozenset((bool, int, float, type(None)))
_ABOUT_THE_CALL = frozenset(("session_id", "ip"))
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
        self._known: tuple[Policies, tuple[str, ...]] | None = None
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
        for name in policy_names if len(policy_names) == 1 else dict.fromkeys(policy_names):
            verdict = self._ask(name, context)
            if not verdict.is_permit:
                for permit in permits:
                    self._gate._core.take_back(permit)
                return self._denial(name, verdict)
            permits.append(verdict)
        evidence = tuple(dict.fromkeys(id for verdict in permits for id in self._evidence(verdict)))
        return Decision(True, "", None, (*evidence, *_deciding(permits)), evidence)

    def _ask(self, action: str, context: Mapping[str, Any]) -> Verdict:
        gate = self._gate
        while True:
            policies = gate.policies
            try:
                verdict = gate.evaluate(action_context(action, context, self._facts(policies)))
            except (GateInputError, TypeError, ValueError) as error:
                raise PolicyEngineError(
                    f"the call cannot be put to the gate as action {action!r:.100}: {type(error).__name__}"
                ) from None
            if verdict.is_permit or gate.policies is policies:
                return verdict
            # Reloaded meanwhile: what was refused may have been for lack of a fact that only the new policies ask about.

    def _facts(self, policies: Policies) -> tuple[str, ...]:
        known = self._known  # one reference, so that no thread sees the facts of other policies
        if known is None or known[0] is not policies:
            invariants = (invariant.field for invariant in self._gate._settings.invariants)
            asked = sorted(name for name in {*policies.fields, *invariants} if name.startswith(FACTS))
            self._known = known = (policies, tuple(asked))
        return known[1]

    def _evidence(self, verdict: Verdict) -> list[str]:
        permit, observed = verdict.token_id, verdict.observed
        named = f"evaluation={verdict.evaluation_id}" if permit is None else f"permit={permit}"
        found = [named, f"policy_set={self._digest(verdict)}"]
        if observed is not None and not observed.is_permit:
            found.append(f"observed={observed.kind}:{observed.code or observed.evaluator}")
        return found

    def _digest(self, verdict: Verdict) -> str:
        return getattr(verdict, "policy_digest", None) or self._gate.policy_digest

    def _denial(self, name: str, verdict: Verdict) -> Decision:
        reason, evaluator = verdict.reason or "refused", verdict.evaluator or "gate"
        code = "INVALIDATED" if verdict.is_invalidate else verdict.code or "POLICY_DENIED"
        error = Invalidated(reason, evaluator) if verdict.is_invalidate else Refused(reason, evaluator, code)
        ids = (f"evaluation={verdict.evaluation_id}", f"policy_set={self._digest(verdict)}")
        return Decision(False, str(error), name, (*ids, *_deciding([verdict])), code=code)

    def __repr__(self) -> str:
        return f"GateEngine({self._gate!r})"


def _deciding(verdicts: list[Verdict]) -> list[str]:
    return [f"policy={verdict.policy}" for verdict in verdicts if verdict.policy]


# --- what the gate is asked about ---


def action_context(action: str, context: Mapping[str, Any], facts: Sequence[str] = ()) -> ActionContext:
    """The policy input of a decorated call as a gate's context; ``facts`` become parameters beside its mapped arguments.

    Raises:
        PolicyEngineError: a mapped argument that has no JSON form.
        GateInputError: an address, session id or trust score that is none.
    """
    subject: Mapping[str, Any] = context.get("subject") or _NOTHING
    args: Mapping[str, Any] = context.get("args") or _NOTHING
    claims: Mapping[str, Any] = subject.get("claims") or _NOTHING
    target: Mapping[str, Any] = context.get("object") or _NOTHING
    who, kind = _principal(context, subject, claims)
    params = args if _small(args) else gate_params(args)
    if facts or not _ABOUT_THE_CALL.isdisjoint(params):
        params = {name: value for name, value in params.items() if name not in _ABOUT_THE_CALL}
        params.update((name, _fact(name, context)) for name in facts)  # a mapped argument cannot pass for a fact
    return ActionContext(
        who,
        kind,
        action,
        _roles(claims) if claims else (),
        target.get("id"),
        params,
        args.get("ip"),
        args.get("session_id") or _text(claims.get("sid")),
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


def _fact(name: str, context: Mapping[str, Any]) -> Any:
    """What policies can ask about besides arguments, under a dotted name. Who is nobody is the empty text."""
    head, _, rest = name.partition(".")
    subject: Mapping[str, Any] = context.get("subject") or _NOTHING
    if head == "object":
        value: Any = (context.get("object") or _NOTHING).get("attributes")
        for part in rest.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return gate_value(value)
    if head == "environment":
        return gate_value(context.get(rest)) if rest in ("source_type", "is_root") else None
    if rest == "scopes":
        return gate_value(subject.get("scopes") or [])
    if rest == "workload":
        return context.get("identity") or ""
    return context.get(rest) or "" if rest in ("user", "agent", "task") else None


def _small(args: Mapping[str, Any]) -> bool:
    """Whether all arguments can go to the gate as they are.

    PolicyEngineError for what has no JSON form: other engines cannot be asked about it either.
    """
    small = len(args) <= SMALL
    for value in args.values():
        if type(value) is str:
            utf8(value)
            small = small and len(value) <= SMALL_TEXT
        elif type(value) not in _PLAIN:
            utf8(input_json(args))
            return False
    return small


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
