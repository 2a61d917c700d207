"""The gate: permit, refuse or invalidate one action at a time. Decisions are made in C; this is what surrounds them."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from kest._kestcore import ActionContext, GateCore, InMemoryRateLimitStore, InMemorySessionStore, Verdict
from kest.errors import GateInputError
from kest.gate.compile import compile_policies
from kest.gate.conditions import Pattern
from kest.gate.invalidation import InvalidationBroadcaster, InvalidationScope, attach_weakly, checked_scope
from kest.gate.invariants import Invariant, parse_invariants
from kest.gate.policies import Policies, load_dict, load_file, load_json, load_policies, load_toml
from kest.gate.reasons import GateSettings, refusal
from kest.gate.stores import RateLimitStore, SessionStore, evaluate_elsewhere
from kest.locks import Lock

if TYPE_CHECKING:
    from kest.gate.as_engine import GateEngine
    from kest.gate.explain import Explanation
    from kest.gate.permit import PermitToken
    from kest.gate.watch import PolicyWatch

__all__ = ["DEFAULT_PERMIT_TTL", "Gate", "PermitSigner"]

log = logging.getLogger("kest.gate")

DEFAULT_PERMIT_TTL = 30
MAX_PERMIT_TTL = 86_400


class PermitSigner(Protocol):
    """Signs permits; any exception turns the permit into a refusal.

    A signer that has a method ``sign_claims(claims: PermitClaims) -> bytes`` as well, like `PqTokenSigner`, is handed
    everything that the permit binds in place of the bare token.
    """

    def sign(self, token: PermitToken, /) -> bytes:
        """The signature over the permit."""
        ...


class Gate:
    """Decides whether an action may run: session state, then policy, drift and invariants; the first objection counts.

    What no policy permits is refused. Safe to use from several threads.

    Args:
        policies: a mapping, TOML or JSON text, a Path, or checked `Policies`. The factories say which one they take.
        invariants: (name, field, max), or mappings with name, field, max, min and action. They hold whatever policy says:
            a parameter that is missing or not a finite number violates its invariant.
        observe_only: permit everything; ``verdict.observed`` is what would have been. Nothing is counted or broadcast.
        max_session_actions: how many actions of a session are permitted.
        enable_drift: whether changes of address, place, device and behaviour, and age, end a session.
        token_signer: signs each permit; when that fails the action is refused (IDENTITY_FAILED).
        geo_drift_max_km: tolerate a new address within this distance of where the session began (kilometres).
        rate_store, session_store: where counters and sessions are kept; in memory by default.
        broadcaster: tells other gates and listeners when a session is invalidated, and this gate what they tell.
        permit_ttl: seconds that a permit is good for, 1 to 86,400.
        permit_audience: who is to honour signed permits; they then hold for nobody else.

    Raises:
        GatePolicyError, GateInputError: (ValueErrors) naming what is wrong.
    """

    def __init__(
        self,
        policies: Policies | Mapping[str, Any] | str | Path,
        *,
        invariants: Iterable[object] | None = None,
        observe_only: bool = False,
        max_session_actions: int | None = None,
        enable_drift: bool = True,
        token_signer: PermitSigner | None = None,
        geo_drift_max_km: float | None = None,
        rate_store: RateLimitStore | InMemoryRateLimitStore | None = None,
        broadcaster: InvalidationBroadcaster | None = None,
        session_store: SessionStore | InMemorySessionStore | None = None,
        permit_ttl: int = DEFAULT_PERMIT_TTL,
        permit_audience: str | None = None,
    ) -> None:
        self._policies = load_policies(policies)
        self._settings = GateSettings(
            parse_invariants(invariants), _count(max_session_actions), _kilometres(geo_drift_max_km)
        )
        self._signer = _with_methods(token_signer, "token_signer", ("sign",))
        self._audience = _text(permit_audience)
        self._observing = bool(observe_only)
        self._drift = bool(enable_drift)
        self._broadcaster = _with_methods(broadcaster, "broadcaster", ("publish", "attach"))
        self._rates = None if isinstance(rate_store, InMemoryRateLimitStore) else rate_store
        self._sessions = None if isinstance(session_store, InMemorySessionStore) else session_store
        _with_methods(self._rates, "rate_store", ("room", "record"))
        _with_methods(self._sessions, "session_store", ("look", "permitted", "invalidate", "is_invalidated"))
        self._local_sessions = (
            session_store if isinstance(session_store, InMemorySessionStore) else InMemorySessionStore()
        )
        self._local_rates = rate_store if isinstance(rate_store, InMemoryRateLimitStore) else InMemoryRateLimitStore()
        self._core = GateCore(
            compile_policies(self._policies),
            self._local_rates,
            self._local_sessions,
            tuple(_flat(one) for one in self._settings.invariants),
            self._drift,
            -1.0 if self._settings.geo_drift_max_km is None else self._settings.geo_drift_max_km,
            self._settings.max_session_actions,
            self._observing,
            _ttl(permit_ttl),
            self._settings,
        )
        self._lock = Lock()
        self._last_error: Exception | None = None
        self._waits = bool(self._signer or self._broadcaster or self._rates or self._sessions)
        self._decide: Callable[[ActionContext], Verdict] = (
            self._decide_at_length if self._waits or self._observing else self._core.evaluate
        )
        self._engine: GateEngine | None = None
        if self._broadcaster is not None:
            attach_weakly(self._broadcaster, self, "_heard")

    @classmethod
    def from_dict(cls, policies: Mapping[str, Any], **options: Any) -> Gate:
        """A gate from a dict of policies; options as for `Gate`."""
        return cls(load_dict(policies), **options)

    @classmethod
    def from_json_string(cls, text: str, **options: Any) -> Gate:
        """A gate from JSON text."""
        return cls(load_json(text), **options)

    @classmethod
    def from_json_file(cls, path: str | Path, **options: Any) -> Gate:
        """A gate from a JSON file, whatever its name ends in."""
        try:
            return cls(load_file(path, json=True), **options)
        except OSError as error:
            raise GateInputError(f"cannot read JSON policy file {str(path)!r}: {error.strerror or error}") from error

    @classmethod
    def from_toml(cls, text: str, **options: Any) -> Gate:
        """A gate from TOML text."""
        return cls(load_toml(text), **options)

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Gate:
        """A gate from a file of TOML, or of JSON when its name ends in ``.json``. OSError when it cannot be read."""
        return cls(load_file(path), **options)

    # --- deciding ---

    def evaluate(self, context: ActionContext) -> Verdict:
        """The verdict on one action. Never raises on account of what policy says."""
        return self._decide(context)

    def check(self, context: ActionContext) -> None:
        """Return when the action may run.

        Raises:
            Refused: it may not.
            Invalidated: it may not, and its session is over.
        """
        self._permitted(self._decide(context))

    async def evaluate_async(self, context: ActionContext) -> Verdict:
        """`evaluate` without holding up the event loop: in a thread when a store, signer or broadcaster may take long."""
        if self._waits:
            return await asyncio.to_thread(self._decide, context)
        return self._decide(context)

    async def check_async(self, context: ActionContext) -> None:
        """`check` without holding up the event loop."""
        self._permitted(await self.evaluate_async(context))

    def _permitted(self, verdict: Verdict) -> Verdict:
        """The verdict, if it is a permit; otherwise logs and raises."""
        if verdict.is_permit:
            return verdict
        error = refusal(verdict)
        log.warning("%s %s: %s", verdict.kind, verdict.evaluation_id, error)
        raise error

    def explain(self, context: ActionContext) -> Explanation:
        """Which policy decides and, for every other one, which condition fails and why. Changes nothing."""
        from kest.gate.explain import explain

        return explain(self._core, self._policies, context)

    stateful: ClassVar[bool] = True  # as a policy engine: see kest.core.engine.base.PolicyEngine

    def as_policy_engine(self) -> GateEngine:
        """This gate as the engine of decorated calls; ``engine=gate`` does the same."""
        if self._engine is None:
            from kest.gate.as_engine import GateEngine

            self._engine = GateEngine(self)
        return self._engine

    def _decide_at_length(self, context: ActionContext) -> Verdict:
        if self._rates is None and self._sessions is None:
            verdict = self._approved(self._core.evaluate(context))
        else:
            verdict = evaluate_elsewhere(
                self._core, context, self._rates, self._sessions, self._observing, self._approved,
                self._local_sessions, self._settings.max_session_actions,
            )  # fmt: skip
        if self._observing:
            self._log_observed(verdict)
        elif verdict.is_invalidate:
            self._publish(verdict)
        return verdict

    def _log_observed(self, verdict: Verdict) -> None:
        observed = verdict.observed
        if observed is not None and not observed.is_permit:
            what = (observed.kind, observed.code, observed.evaluator, observed.reason)
            log.info("observing %s: would %s: [%s] %s: %s", verdict.evaluation_id, *what)

    def _approved(self, verdict: Verdict) -> Verdict:
        """A permit with its signature; a refusal, which consumes no quota, when there is none to be had."""
        permit = verdict.permit_token if self._signer is not None else None
        if self._signer is None or permit is None:
            return verdict
        try:
            signed = permit.signed(self._signature(self._signer, permit, verdict))
            if not signed.signature:
                raise TypeError("the signer returned no signature")
        except Exception as error:
            log.exception("token signing failed")
            self._core.take_back(verdict)
            return verdict._refused("gate", "IDENTITY_FAILED", f"token signing failed: {type(error).__name__}")
        verdict._sign(signed)
        return verdict

    def _signature(self, signer: PermitSigner, permit: PermitToken, verdict: Verdict) -> bytes:
        sign_claims = getattr(signer, "sign_claims", None)
        if sign_claims is None:
            return signer.sign(permit)
        from kest.gate.crypto.claims import PermitClaims

        digest = verdict.policy_digest or self.policy_digest
        claims = PermitClaims.of_decision(permit, verdict.context, digest, self._audience, _passport_tip())
        signature: bytes = sign_claims(claims)
        return signature

    # --- invalidation ---

    def invalidate(
        self, id: str, kind: str = "session", *, reason: str = "invalidated", evaluator: str = "manual"
    ) -> None:
        """End a session, or refuse a principal or role from now on; here, and wherever the broadcaster reaches."""
        scope = checked_scope(kind, id, reason, evaluator)
        kind, id = scope.target
        with ExitStack() as stack:  # each, whatever becomes of the others; the last one first
            if self._broadcaster is not None:
                stack.callback(self._broadcaster.publish, kind, id, scope.reason, scope.evaluator)
            if self._sessions is not None:
                stack.callback(self._sessions.invalidate, id, kind)
            self._local_sessions.invalidate(id, kind)

    def _publish(self, verdict: Verdict) -> None:
        """Best effort: the verdict stands whether anybody hears of it or not."""
        session = verdict.context.session_id or verdict.evaluation_id
        try:
            if self._broadcaster is not None:
                self._broadcaster.publish("session", session, verdict.reason or "", verdict.evaluator or "drift")
        except Exception:
            log.exception("an invalidation could not be broadcast")

    def _heard(self, scope: InvalidationScope) -> None:
        self._local_sessions.invalidate(scope.target_id, scope.target_kind)

    def sweep(self) -> int:
        """Forget counters and sessions of the stores in memory that have expired; returns how many. Evaluations forget a
        few each, so that only a gate that is no longer asked needs this. Other threads run in between."""
        forgotten = 0
        for store in (self._local_rates, self._local_sessions):
            while gone := store.sweep():
                forgotten += gone
        return forgotten

    @property
    def session_store(self) -> SessionStore | InMemorySessionStore:
        """Where this gate keeps its sessions and what was invalidated."""
        return self._local_sessions if self._sessions is None else self._sessions

    # --- policies ---

    def reload(self, policies: Policies | Mapping[str, Any] | str | Path) -> None:
        """Put other policies in force: a mapping, TOML or JSON text, or a Path. Counters and sessions stay.

        When they are wrong nothing changes, `last_reload_error` keeps the error, and it is raised. The empty text denies
        everything.
        """
        try:
            loaded = load_policies(policies)
            compiled = compile_policies(loaded)
        except Exception as error:
            self._last_error = error
            log.error("policies were not reloaded, the last good ones stay in force: %s", error)
            raise
        with self._lock:
            self._core.replace(compiled)
            self._policies = loaded
            self._last_error = None
        log.info("policies reloaded: %d, digest %s", len(loaded), loaded.digest)

    def watch(self, path: str | Path, *, on_error: Callable[[Exception], object] | None = None) -> PolicyWatch:
        """Load a file now, and again whenever it changes, until the returned watch is stopped (needs ``kest[watch]``).

        A file that is wrong or gone leaves the last good policies in force, is logged, and handed to ``on_error``.
        """
        from kest.gate.watch import PolicyWatch

        return PolicyWatch(self, Path(path), on_error)

    @property
    def observes(self) -> bool:
        """Whether this gate permits everything, and only says what it would have done."""
        return self._observing

    @property
    def policies(self) -> Policies:
        """The policies in force."""
        return self._policies

    @property
    def policy_digest(self) -> str:
        """SHA-256 (hex) of the policies in force."""
        return self._policies.digest

    @property
    def last_reload_error(self) -> Exception | None:
        """Why the last reload failed; None when it did not."""
        return self._last_error

    @property
    def evaluator_count(self) -> int:
        """Policy, drift when enabled, invariants when there are any."""
        return 1 + self._drift + bool(self._settings.invariants or self._settings.max_session_actions is not None)

    def __repr__(self) -> str:
        return f"<Gate of {len(self._policies)} policies{', observing' if self._observing else ''}>"


# --- arguments ---


def _count(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_session_actions is an int, not {type(value).__name__}")
    if not 0 <= value < 2**63:
        raise GateInputError("max_session_actions is not negative and below 2**63")
    return value


def _kilometres(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"geo_drift_max_km is a number of kilometres, not {type(value).__name__}")
    if not (0 <= value < 1e9 and math.isfinite(value)):
        raise GateInputError(f"geo_drift_max_km {value!r} is not a distance in kilometres")
    return float(value)


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"permit_audience is a str, not {type(value).__name__}")
    return value


def _passport_tip() -> str | None:
    """The lineage that this thread or task acts in. There can be none before the module of contexts is loaded."""
    context = sys.modules.get("kest.core.context")
    return None if context is None else context.get_current_passport().chain_tip or None


def _ttl(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"permit_ttl is an int of seconds, not {type(value).__name__}")
    if not 1 <= value <= MAX_PERMIT_TTL:
        raise GateInputError(f"permit_ttl is from 1 to {MAX_PERMIT_TTL} seconds")
    return value


def _with_methods(value: Any, what: str, methods: tuple[str, ...]) -> Any:
    missing = [name for name in methods if value is not None and not callable(getattr(value, name, None))]
    if missing:
        kind = type(value).__name__
        raise GateInputError(f"{what} must be an object with {', '.join(methods)}; {kind} has no {missing[0]}")
    return value


def _flat(invariant: Invariant) -> tuple[str, float, float, int, str]:
    pattern: Pattern = invariant.action
    least = -math.inf if invariant.minimum is None else invariant.minimum
    most = math.inf if invariant.maximum is None else invariant.maximum
    return invariant.field, least, most, ("exact", "prefix", "beyond", "all").index(pattern.mode), pattern.text
