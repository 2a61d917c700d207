"""The lifecycle of one call: decide, sign, link. Written once, driven by thin sync and async shells.

`Call.authorise` is a generator. Whatever may wait for somebody else (a policy engine, a signer in another process) it
yields as a `Question` (`kest.core.questions`). With cached decisions and a local key it yields nothing, and
the sync and the async path are the same code at the same cost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kest._kestcore import Passport, Signer, canonicalize, digest, stamp
from kest.core import config, context, metering, spans
from kest.core.binding import argument_hash
from kest.core.call_input import policy_input
from kest.core.decisions import decisions
from kest.core.engine.base import Decision
from kest.core.labels import identity_labels
from kest.core.questions import Asking, Decide, Principal, Question, Settle, Sign
from kest.errors import CanonicalizationError, KestError, PolicyDeniedError, PolicyEngineError

if TYPE_CHECKING:
    from kest.core.audit import Settling
    from kest.core.plan import CallPlan
    from kest.core.tiers import Tier

__all__ = ["Call"]

log = logging.getLogger("kest")

MAX_IDS, MAX_ID = 64, 256
"""How many of the ids that an engine gives with a decision are recorded, and up to how many characters each."""


class Call:
    """One call of a decorated function, from its arguments to its signed entry."""

    __slots__ = (
        "answers",
        "args",
        "caller",
        "entry_id",
        "identity",
        "input_hash",
        "kwargs",
        "labels",
        "parents",
        "passport",
        "plan",
        "principal",
        "raised",
        "sealed",
        "settings",
        "span",
        "started_ns",
        "taints",
        "tiers",
        "timestamp_ms",
        "trust",
    )

    def __init__(self, plan: CallPlan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.plan = plan
        self.args = args
        self.kwargs = kwargs
        self.span: spans.CallSpan | None = None
        self.answers: list[Decision] | None = None
        self.sealed: Passport | None = None

    def authorise(self) -> Asking:
        """Steps 1 to 9: nothing has run and nothing has changed if this raises."""
        plan = self.plan
        self.settings = settings = config.settings()
        self.tiers = plan.tiers(settings)
        engine = plan.engine if plan.engine is not None else settings.engine
        if engine is None:
            engine = config.get_active_engine()  # raises, and says what to do
        identity = plan.identity if plan.identity is not None else settings.identity
        if identity is None:
            identity = config.get_active_identity()
        arguments = plan.binder.bind(self.args, self.kwargs)

        current = context.passport_var.get()
        passport = Passport() if current is None else current
        self.parents = _verified_principals(passport)
        if len(passport) >= settings.max_entries:
            passport = passport.roll_over()
        self.passport = passport
        self.started_ns = time.monotonic_ns()
        self.span = spans.start_span(plan.operation)

        self.identity = identity
        signer = getattr(identity, "signer", None)
        if type(signer) is not Signer:
            signer = None
        self.principal = signer.principal if signer is not None else (yield Principal(identity))
        caller = context.caller_var.get()
        self.caller = caller if plan.user is plan.agent is plan.task is None else _resolved(plan, caller, arguments)
        resource_id = None if plan.resource_id is None else plan.resource_id(arguments)
        attributes = None if plan.resource_attr is None else _attributes(plan, arguments)
        self._propagate()
        self.input_hash, opaque = argument_hash(arguments, plan.secret)
        self.entry_id, self.timestamp_ms = stamp()
        self.labels = self._labels(identity, current, resource_id, attributes, opaque)

        yield from self._decide(engine, arguments, resource_id, attributes)

        policy_context = self.tiers.policy_context
        fields = (
            plan.operation,
            plan.classification,
            self.trust,
            self.raised,
            self.labels,
            plan.added_taints,
            plan.removed_taints,
            policy_context,
            self.input_hash,
            self.entry_id,
            self.timestamp_ms,
        )
        if signer is not None:
            sealed = passport.seal(signer, *fields)
        else:
            jws = yield Sign(identity, passport.draft(self.principal, *fields), self.principal)
            sealed = passport.adopt(jws, True)
        if settings.audit is not None:
            settling = settings.audit.record("entry", _tip(sealed))
            self.sealed = sealed
            if settling is not None:
                yield from self._settle(settling)
        self.sealed = sealed
        context.passport_var.set(sealed)
        if metering.active is not None:
            metering.active.authorised((time.monotonic_ns() - self.started_ns) / 1e9)
        if self.span is not None:
            self._annotate(allowed=True)

    # --- trust and taints ---

    def _propagate(self) -> None:
        plan, passport = self.plan, self.passport
        parents = passport.trust_score
        root = not passport and passport.continues is None
        # Behind an edge that could not verify, even a root has a ceiling.
        limit = min(plan.self_score, parents) if root else parents
        if plan.trust_evaluator is not None:
            self.trust = (
                plan.evaluated_trust(limit, ()) if root else plan.evaluated_trust(plan.self_score, passport.tip_scores)
            )
        elif root:
            self.trust = limit
        else:
            self.trust = parents * plan.self_score // 100
        if plan.trust_override is not None:
            self.trust = plan.trust_override
        self.raised = self.trust > limit
        self.taints = passport.taints_after(plan.added_taints, plan.removed_taints)

    # --- labels ---

    def _labels(
        self, identity: Any, current: Passport | None, resource_id: str | None, attributes: Any, opaque: tuple[str, ...]
    ) -> dict[str, str]:
        labels = dict(self.caller.labels(self.settings.user_salt))
        if self.span is not None and self.span.trace_id is not None:
            labels["trace_id"] = self.span.trace_id
        if resource_id is not None:
            labels["kest.resource_id"] = resource_id
        if attributes:
            labels["kest.resource_attr"] = canonicalize(attributes).decode()
        if opaque:
            labels["kest.opaque_args"] = ",".join(opaque)
        if current is None and (note := context.origin_note(current)) is not None:
            labels["kest.root"] = note
        if (own := getattr(identity, "labels", None)) is not None:
            labels.update(identity_labels(own))
        return labels

    # --- policy ---

    def _decide(self, engine: Any, arguments: dict[str, Any], resource_id: str | None, attributes: Any) -> Asking:
        plan = self.plan
        mapped = plan.mapped(arguments) if plan.context_map else {}
        remember = decisions.ttl > 0 and getattr(engine, "stateful", False) is not True
        question = None  # the canonical digest of everything a policy can see, worked out once
        for tier in self.tiers.tiers:
            key = None
            generation = decisions.generation
            if question is None and (remember or mapped or attributes):
                question = self._digest(mapped, resource_id, attributes)  # also refuses what policy cannot be given
            if remember and question is not None:
                key = (id(engine), tier.name, tier.policies, tier.deviations, question)
                known = decisions.get(key)
                if known is not None:
                    if known.ids:
                        self._note(known)
                    if metering.active is not None:
                        metering.active.remembered(tier, known)
                    if not known.allowed:
                        yield from self._deny(tier, known)
                    continue
            given = policy_input(self, tier, mapped, resource_id, attributes)
            asking = metering.ask(engine)
            try:
                decision = yield Decide(engine, self.entry_id, tier.policies, given)
            except PolicyEngineError as error:
                if asking is not None:
                    asking.failed(tier)
                yield from self._deny(tier, Decision(False, f"the policy engine failed: {error}"), error)
                raise AssertionError("unreachable") from error
            if asking is not None:
                asking.decided(tier, decision)
            if key is not None:
                decisions.put(key, engine, decision, generation)
            if decision.ids:
                self._note(decision)
            if decision.allowed is not True:
                yield from self._deny(tier, decision)

    def _note(self, decision: Decision) -> None:
        """Keep what the engine named: for the span and a denial; what leads to its own records also for the entry.

        A remembered decision names the one time that the engine was asked: that is what this call rests on.
        """
        if self.answers is None:
            self.answers = []
        self.answers.append(decision)
        if decision.evidence and (evidence := _short(decision.evidence)):
            known = self.labels.get("kest.decision")
            names = (
                *(known.split(" ") if known else ()),
                *(text.replace(" ", "_") for text in evidence),
            )
            self.labels["kest.decision"] = " ".join(dict.fromkeys(names))

    @property
    def decided_by(self) -> list[str]:
        """What the engine named as deciding, for all tiers, each once."""
        return list(dict.fromkeys(name for answer in self.answers or () for name in _short(answer.ids)))

    def _digest(self, mapped: dict[str, Any], resource_id: str | None, attributes: Any) -> bytes:
        try:
            return digest(
                (
                    self.plan.operation,
                    self.principal,
                    self.caller.digest(),
                    self.trust,
                    self.taints,
                    self.parents,
                    resource_id,
                    attributes,
                    self.is_root(),
                    self.plan.source_type,
                    mapped,
                )
            )
        except CanonicalizationError as error:
            raise CanonicalizationError(
                f"a mapped argument or resource attribute of {self.plan.operation!r} cannot go to policy: {error}",
                error.path,
            ) from error

    def is_root(self) -> bool:
        """Whether nothing comes before this call."""
        return not self.passport and self.passport.continues is None

    def _deny(self, tier: Tier, decision: Decision, cause: BaseException | None = None) -> Asking:
        policy = decision.policy or ", ".join(tier.policies)
        reason = decision.reason or "denied by policy"
        log.warning(
            "denied: operation=%s entry_id=%s policy=%s tier=%s workload=%s reason=%s",
            self.plan.operation,
            self.entry_id,
            policy,
            tier.name,
            self.principal,
            reason,
        )
        if self.span is not None:
            self._annotate(allowed=False)
        denied = PolicyDeniedError(
            policy,
            reason,
            tier=tier.name,
            entry_id=self.entry_id,
            operation=self.plan.operation,
            code=decision.code,
        )
        if self.settings.audit is not None:
            yield from self._record_denial(policy, tier.name, reason, denied)
        raise denied from cause

    def _record_denial(self, policy: str, tier: str, reason: str, denied: PolicyDeniedError) -> Asking:
        from kest.core.audit import DENIAL_TYP, denial_payload

        try:
            yield from self.record("denial", DENIAL_TYP, denial_payload(self, policy, tier, reason))
        except Exception as error:
            raise denied from error  # the call is denied either way; that it went unrecorded stays visible as the cause

    def _settle(self, settling: Settling) -> Asking:
        """Wait until the entry is recorded. If that ends otherwise the call does not run, and the log does not say it did."""
        try:
            yield Settle(settling)
        except BaseException as error:
            if not settling.withdraw():
                from kest.core.outcome import Outcome

                yield from Outcome(self).not_run(error)
            raise

    def record(self, kind: str, typ: str, payload: bytes) -> Asking:
        """Give a record that is not an entry to the audit log, which may sign it itself."""
        audit = self.settings.audit
        signer = getattr(self.identity, "signer", None)
        unsigned = getattr(audit, "record_unsigned", None)
        if unsigned is not None and type(signer) is Signer:
            settling = unsigned(kind, signer, typ, payload)
        else:
            jws = yield from self.signed_record(payload, typ)
            settling = audit.record(kind, jws)  # type: ignore[union-attr]
        if settling is not None:
            yield Settle(settling)

    def signed_record(self, payload: bytes, typ: str) -> Generator[Question, Any, str]:
        """A record that is not an entry, signed by the identity of this call.

        A signer elsewhere that returns whole JWS objects writes its own header; there the payload's member ``record``
        tells records from entries, which never have it.
        """
        identity = self.identity
        if type(signer := getattr(identity, "signer", None)) is Signer:
            return signer.sign_jws(payload, typ)
        jws: str = yield Sign(identity, payload, self.principal)
        return jws

    # --- telemetry ---

    def _annotate(self, allowed: bool) -> None:
        span = self.span
        assert span is not None
        attributes: dict[str, Any] = {
            "kest.operation": self.plan.operation,
            "kest.entry_id": self.entry_id,
            "kest.workload_id": self.principal,
            "kest.trust_score": self.trust,
            "kest.taints": list(self.taints),
            "kest.allowed": allowed,
            "kest.policy_ids": list(self.tiers.policy_ids),
            "kest.parent_hash": self.passport.chain_tip or "0",
        }
        if self.answers and span.recording:
            attributes["kest.decision_ids"] = self.decided_by
        if span.recording and self.sealed is not None:
            entry = _tip(self.sealed)
            attributes["kest.signature"] = entry
            attributes["kest.chain_tip"] = self.sealed.chain_tip
            if len(self.sealed) * len(entry) <= spans.MAX_PASSPORT_ATTRIBUTE:
                attributes["kest.passport"] = self.sealed.serialize()
        span.annotate(attributes)


def _tip(passport: Passport) -> str:
    entry = passport.tip_entry
    if entry is None:
        raise KestError("a sealed passport has one tip")  # cannot happen: sealing makes exactly one
    return entry


UNVERIFIED_PARENT = "kest.unverified"
"""Stands in ``parent_principals`` for every parent of which nobody here knows who signed it. No policy names it."""


def _verified_principals(passport: Passport) -> tuple[str, ...]:
    """Who signed what this call continues from, ascending, each once."""
    signers = passport.tip_principals
    if len(signers) == 1:  # nearly always
        return signers if signers[0] is not None else (UNVERIFIED_PARENT,)  # type: ignore[return-value]
    return tuple(sorted({UNVERIFIED_PARENT if signer is None else signer for signer in signers}))


def _short(ids: Any) -> tuple[str, ...]:
    """The texts among ``ids``, as far as they are of a reasonable number and length: an engine of the user's made them."""
    if not isinstance(ids, (tuple, list)):
        return ()
    return tuple(i for i in ids[:MAX_IDS] if isinstance(i, str) and 0 < len(i) <= MAX_ID and i.isprintable())


def _resolved(plan: CallPlan, caller: context.Caller, arguments: dict[str, Any]) -> context.Caller:
    """Explicit value or callable first, then what the enclosing call or the verified request carried."""
    user = caller.user if plan.user is None else plan.user(arguments)
    agent = caller.agent if plan.agent is None else plan.agent(arguments)
    task = caller.task if plan.task is None else plan.task(arguments)
    return context.Caller(user, agent, task, caller.jwt, caller.actors, caller.claims)


def _attributes(plan: CallPlan, arguments: dict[str, Any]) -> dict[str, Any]:
    from kest.errors import ResolverError

    assert plan.resource_attr is not None
    value = plan.resource_attr(arguments)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ResolverError(f"resource_attr must be a dict, not {type(value).__name__}")
    return value
