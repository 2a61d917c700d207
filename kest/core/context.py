"""What flows with control: the current passport, and on whose behalf it runs.

After a decorated call returns, its entry is what the next call in the same context continues from; nested calls continue
from their caller. Tasks and threads that copy the context branch from the last shared entry and never see each other's;
`join` brings branches together again. Everything lives in `contextvars`, so asyncio tasks, ``asyncio.to_thread`` and
frameworks that copy contexts need nothing; a bare thread or thread pool needs `wrap`.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from kest._kestcore import Passport, canonicalize, digest
from kest.core.claims import Claims
from kest.core.otel_context import otel_context
from kest.core.users import hashed_user
from kest.errors import PassportError

if TYPE_CHECKING:
    from kest.core.passport import VerifiedPassport

__all__ = [
    "Caller",
    "continue_with",
    "get_current_actors",
    "get_current_agent",
    "get_current_claims",
    "get_current_jwt",
    "get_current_passport",
    "get_current_task",
    "get_current_user",
    "join",
    "lineage",
    "wrap",
]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf the flow runs: what a verified request, or an enclosing decorated call, says.

    Attributes:
        user, agent, task: their ids; the user as it is, whether or not `configure` asks for hashed ids.
        jwt: the verified bearer token: never in a repr, a pickle, a log or an entry.
        actors: who acts for the user, the current actor first, as the token's ``act`` says (RFC 8693, section 4.1). Never
            inferred from anything else.
        claims: the verified claims of that token.
    """

    user: str | None = None
    agent: str | None = None
    task: str | None = None
    jwt: str | None = field(default=None, repr=False)
    actors: tuple[str, ...] = ()
    claims: Claims | None = field(default=None, repr=False)
    # Worked out once per caller, not once per call.
    _signed: tuple[bytes | None, dict[str, str]] | None = field(default=None, init=False, repr=False, compare=False)
    _digest: str | None = field(default=None, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Caller], tuple[Any, ...]]:
        return Caller, (self.user, self.agent, self.task, None, self.actors, self.claims)

    def labels(self, salt: bytes | None) -> dict[str, str]:
        """What entries say of this caller, with the user hashed where there is a salt. Not to be changed."""
        known = self._signed
        if known is None or known[0] is not salt:
            known = salt, self._labels(salt)
            object.__setattr__(self, "_signed", known)
        return known[1]

    def _labels(self, salt: bytes | None) -> dict[str, str]:
        if self.user is None and self.agent is None and self.task is None:
            return {}
        user = self.user if self.user is None or salt is None else hashed_user(self.user, salt)
        who = {"agent": self.agent, "task": self.task, "user": user}
        labels = {"kest.identity": canonicalize(who).decode()}
        if len(self.actors) > 1:
            labels["kest.actors"] = canonicalize(self.actors).decode()
        return labels

    def digest(self) -> str:
        """SHA-256 (hex) of everything that policy is told of this caller."""
        known = self._digest
        if known is None:
            claims = None if self.claims is None else self.claims.digest
            known = digest((self.user, self.agent, self.task, self.actors, claims)).hex()
            object.__setattr__(self, "_digest", known)
        return known


NOBODY = Caller()
passport_var: contextvars.ContextVar[Passport | None] = contextvars.ContextVar("kest.passport", default=None)
caller_var: contextvars.ContextVar[Caller] = contextvars.ContextVar("kest.caller", default=NOBODY)


def get_current_passport() -> Passport:
    """The passport of this context; an empty one where nothing has run yet."""
    passport = passport_var.get()
    return Passport() if passport is None else passport


def get_current_user() -> str | None:
    """The user on whose behalf this call runs, or None."""
    return caller_var.get().user


def get_current_agent() -> str | None:
    """The agent that acts (of a token with ``act``, the current actor), or None."""
    return caller_var.get().agent


def get_current_task() -> str | None:
    """The task or scope, or None."""
    return caller_var.get().task


def get_current_actors() -> tuple[str, ...]:
    """Who acts for the user, the current actor first, prior ones after it; empty where a token's ``act`` names nobody.

    Only the current actor is for deciding with; prior actors are history (RFC 8693, section 4.1).
    """
    return caller_var.get().actors


def get_current_claims() -> dict[str, Any]:
    """The verified claims of this request's bearer token, in a dict of the caller's own; empty without a token."""
    claims = caller_var.get().claims
    return {} if claims is None else claims.all()


def get_current_jwt() -> str | None:
    """The bearer token of the request, once verified; None outside a request. Handle with care: it is a credential."""
    return caller_var.get().jwt


@contextmanager
def lineage(passport: Passport | None = None) -> Iterator[Passport]:
    """A fresh root for one item of work; or, given a passport, a flow that continues from it.

    The flow that was current before is current again afterwards, without the entries made inside. Where the application
    uses OpenTelemetry's baggage, that holds the flow's passport inside, too.
    """
    fresh = Passport() if passport is None else passport
    token = passport_var.set(fresh)
    otel = otel_context()
    if otel is not None:
        otel.enter()
    try:
        yield fresh
    finally:
        if otel is not None:
            otel.leave()
        # ValueError: an async generator that somebody else's context closes; that flow is not ours to reset.
        with suppress(ValueError):
            passport_var.reset(token)


def join(*passports: Passport) -> Passport:
    """Make the next entry of this context continue from all these passports as well as from its own; returns the union.

    Use it where the results of concurrent tasks come together: have each task return `get_current_passport()`.
    """
    merged = Passport.merge(get_current_passport(), *passports)
    passport_var.set(merged)
    return merged


def continue_with(passport: VerifiedPassport | Passport) -> Passport:
    """Continue this flow from lineage that somebody brought back: a response, a message, another task. Returns the flow.

    ``continue_with(PassportVerifier.verify(text, store, chain_tip=tip))``. Entries that go on from this flow's own are
    what the next call continues from; where they do not, it continues from both, so that nothing of either is lost.

    Args:
        passport: a `VerifiedPassport`, or a `Passport` whose last entries were signed by this process or verified in it.

    Raises:
        PassportError: it was not verified.
    """
    from kest.core.passport import VerifiedPassport

    inner = passport.passport if isinstance(passport, VerifiedPassport) else passport
    if not isinstance(inner, Passport) or None in inner.tip_principals:
        raise PassportError(
            f"continue_with() takes verified lineage only, and this {type(passport).__name__} is not: pass what "
            "PassportVerifier.verify(passport, trust_store, chain_tip=...) returns"
        )
    return join(inner)


def wrap(fn: Callable[P, R]) -> Callable[P, R]:
    """``fn`` bound to the flow of here and now, for a thread or pool that does not copy contexts.

    Every call starts from the entry that is the tip now; calls do not see each other's entries. Works for functions and
    coroutine functions.
    """
    if inspect.iscoroutinefunction(fn):
        passport, caller = passport_var.get(), caller_var.get()

        @functools.wraps(fn)
        async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            tokens = passport_var.set(passport), caller_var.set(caller)
            try:
                return await fn(*args, **kwargs)
            finally:
                caller_var.reset(tokens[1])
                passport_var.reset(tokens[0])

        return cast("Callable[P, R]", run_async)
    context = contextvars.copy_context()

    @functools.wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(fn, *args, **kwargs)

    return run


def origin_note(passport: Passport | None) -> str | None:
    """What a new root should say about itself: a thread that began without its creator's context is easily an oversight."""
    if passport is None and threading.current_thread() is not threading.main_thread():
        return "thread-without-context"
    return None


def continue_from(own: Passport, current: Passport | None) -> Passport:
    """Where one step of a generator continues from: its own last entry, and what its consumer did since."""
    if current is None or current is own or not current:
        return own
    return Passport.merge(own, current) if own else current


def has_seen(current: Passport, own: Passport) -> bool:
    """Whether ``current`` contains everything that ``own`` ends in."""
    return current is own or Passport.merge(current, own).tips == current.tips
