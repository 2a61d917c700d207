"""What a policy engine is, and the one place where an engine's answer becomes a decision.

An engine answers one question: may this call run under these policies? It counts as *yes* only if the answer is exactly
``True`` (or a `Decision` whose ``allowed`` is exactly ``True``). Everything else, whatever its truth value,
denies.

Writing an engine takes one method::

    class OfficeHours(PolicyEngine):
        in_process = True                      # never waits for anything: may run on an event loop

        def evaluate(self, entry_id, policy_names, context):
            return context["trust_score"] >= 40

The lifecycle asks through `decide` and `decide_async`, which accept any object with an ``evaluate`` method.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from kest.errors import PolicyEngineError
from kest.locks import Lock

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from types import TracebackType

    from typing_extensions import Self

__all__ = [
    "ALLOWED",
    "DecidingEngine",
    "Decision",
    "PolicyEngine",
    "as_engine",
    "decide",
    "decide_async",
    "refuse_names",
    "run_in_thread",
]

T = TypeVar("T")

MAX_ENGINE_THREADS = 32
"""Upper bound on the threads that run blocking engines for async callers (a pool of their own, so that a stalled engine
cannot starve asyncio's default executor, which also resolves host names)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What an engine decided.

    Attributes:
        allowed: ``True`` only when every policy allowed.
        reason: why not, in words: the policy's own where it has any, which are the only ones that may contain values
            of the policy input.
        policy: the policy that denied, where the engine can tell; ``None`` otherwise.
        ids: what the engine says decided: Cedar policy ids, an OPA decision id, bundle revisions. In the span, and in
            the record of a denial.
        evidence: those of them that lead to records which the engine's operator keeps (OPA decision ids, bundle
            revisions). Also in the signed entry, as the label ``kest.decision``, so keep them few and short.
        code: the kind of denial, where the engine tells kinds apart (a gate's ``RATE_LIMIT_EXCEEDED``); "" otherwise.
    """

    allowed: bool
    reason: str = ""
    policy: str | None = None
    ids: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    code: str = ""


ALLOWED = Decision(True)
_DENIED = Decision(False, "denied by policy")
_NO_POLICIES = Decision(False, "no policy was named, and nothing is allowed without one")
_NAMES_ARE_TEXT = Decision(False, "policy_names is a single string; pass a list of names")


def _first_defined(cls: type, names: tuple[str, ...]) -> str:
    return next(name for base in cls.__mro__ for name in names if name in vars(base))


class PolicyEngine(ABC):
    """Base class of policy engines; a subclass needs `evaluate` and nothing else.

    Engines are used from several threads at once and must not change ``context``. They raise ``PolicyEngineError`` when
    they cannot decide; any other exception is turned into one and denies as well.
    """

    in_process: bool = False
    """True when `evaluate` never blocks on IO and may be called inline on an event loop."""

    stateful: bool = False
    """True when the answer depends on what was asked before (quotas, sessions): every call is then asked about, and no
    decision remembered."""

    _sync_route: ClassVar[str] = "evaluate"
    _async_route: ClassVar[str] = "evaluate"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # The most derived class that answers at all decides how it is asked: a subclass of a built-in engine that
        # overrides only ``evaluate`` (to add a check) must not be bypassed through the inherited ``decide``.
        cls._sync_route = _first_defined(cls, ("decide", "evaluate"))
        cls._async_route = _first_defined(cls, ("async_decide", "async_evaluate", "decide", "evaluate"))

    @abstractmethod
    def evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> bool:
        """Return exactly ``True`` if every policy in ``policy_names`` allows; anything else denies.

        Args:
            entry_id: UUIDv7 of the entry being decided; for logs, not for the decision.
            policy_names: at least one name; all must allow.
            context: the policy input (nested ``subject``, ``object``, ``environment`` and the flat names beside them);
                read-only.
        """

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Like `evaluate`, with the reason of a denial."""
        return _checked(self, self.evaluate(entry_id, policy_names, context))

    async def async_evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> bool:
        """`evaluate` for async callers; never blocks the event loop."""
        return (await self.async_decide(entry_id, policy_names, context)).allowed

    async def async_decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """`decide` for async callers: inline when `in_process`, otherwise in a bounded thread pool."""
        if self.in_process is True:
            return decide(self, entry_id, policy_names, context)
        return await run_in_thread(decide, self, entry_id, policy_names, context)

    def close(self) -> None:
        """Release connections and interpreters. Idempotent. An engine that is used again simply opens them again."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DecidingEngine(PolicyEngine):
    """An engine that explains itself: subclasses write `decide`, ``evaluate`` follows from it."""

    @abstractmethod
    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Decide, with the reason of a denial."""

    def evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> bool:
        """Return ``True`` if every policy allows. See `PolicyEngine.evaluate`."""
        return self.decide(entry_id, policy_names, context).allowed is True


def as_engine(engine: Any) -> Any:
    """The engine itself; of what is something else in the first place (a `Gate`), what its ``as_policy_engine`` makes."""
    make = None if isinstance(engine, PolicyEngine) else getattr(type(engine), "as_policy_engine", None)
    return engine if make is None else make(engine)


def _route(engine: PolicyEngine, route: str) -> str:
    """``evaluate`` if somebody replaced it on this very instance (monkeypatching), else the class's route."""
    return "evaluate" if "evaluate" in engine.__dict__ else route


def decide(engine: object, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
    """Ask any object with an ``evaluate`` method; the answer counts only if it is exactly ``True``.

    Raises:
        PolicyEngineError: the engine raised (chained). KeyboardInterrupt, SystemExit and cancellation pass through.
    """
    if not policy_names:
        return _NO_POLICIES
    if isinstance(policy_names, str):
        return _NAMES_ARE_TEXT
    try:
        engine = as_engine(engine)
        if isinstance(engine, PolicyEngine):
            answer = getattr(engine, _route(engine, engine._sync_route))(entry_id, policy_names, context)
        else:
            method = getattr(engine, "evaluate", None)
            if method is None:
                return Decision(False, f"engine {_name(engine)} has no evaluate method")
            answer = method(entry_id, policy_names, context)
    except BaseException as error:
        if _passes(error):
            raise
        raise _engine_error(engine, error) from error
    if answer is True:
        return ALLOWED
    return _checked(engine, answer)


async def decide_async(
    engine: object, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]
) -> Decision:
    """`decide` for async callers; the event loop keeps running however long the engine takes.

    An engine's own ``async_decide`` or ``async_evaluate`` is awaited; one that says ``in_process`` is called inline;
    any other runs in a bounded thread pool with the caller's context variables.
    """
    if not policy_names:
        return _NO_POLICIES
    if isinstance(policy_names, str):
        return _NAMES_ARE_TEXT
    engine = as_engine(engine)
    name = _async_method(engine)
    if not name.startswith("async_"):
        if getattr(type(engine), "in_process", False) is True or (
            isinstance(engine, PolicyEngine) and engine.in_process is True
        ):
            return decide(engine, entry_id, policy_names, context)
        return await run_in_thread(decide, engine, entry_id, policy_names, context)
    try:
        answer = getattr(engine, name)(entry_id, policy_names, context)
        if inspect.isawaitable(answer):
            answer = await answer
    except BaseException as error:
        if _passes(error):
            raise
        raise _engine_error(engine, error) from error
    return _checked(engine, answer)


def _async_method(engine: object) -> str:
    if isinstance(engine, PolicyEngine):
        return _route(engine, engine._async_route)
    # Looked up on the type, not the object: a test double answers every attribute, and none of those is a decision.
    for name in ("async_decide", "async_evaluate"):
        if hasattr(type(engine), name) or name in getattr(engine, "__dict__", ()):
            return name
    return "evaluate"


def _checked(engine: object, answer: object) -> Decision:
    """Turn an answer into a decision; only exactly ``True`` allows."""
    if isinstance(answer, Decision):
        if answer.allowed is True or answer.allowed is False:
            return answer
        return Decision(False, f"engine {_name(engine)} answered a Decision whose allowed is {_name(answer.allowed)}")
    if answer is True:
        return ALLOWED
    if answer is False:
        return _DENIED
    hint = ""
    if inspect.iscoroutine(answer):
        answer.close()  # otherwise Python warns that it was never awaited
        hint = "; an async evaluate must be called async_evaluate"
    return Decision(False, f"engine {_name(engine)} answered {_name(answer)}, not True or False{hint}")


def _name(value: object) -> str:
    return type(value).__name__


def _passes(error: BaseException) -> bool:
    """Whether ``error`` leaves as it is: Kest's own, and the ones that stop a program or a task.

    Every other BaseException is the engine's failure too: a panic in a Rust extension derives from BaseException.
    """
    if isinstance(error, (PolicyEngineError, KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    asyncio_errors = sys.modules.get("asyncio.exceptions")  # not imported: nothing can have been cancelled
    return asyncio_errors is not None and isinstance(error, asyncio_errors.CancelledError)


def _engine_error(engine: object, error: BaseException) -> PolicyEngineError:
    # The type and not the text: an engine's message may quote the input it was given.
    return PolicyEngineError(
        f"policy engine {_name(engine)} failed with {_name(error)}; calls are denied until it can decide again"
    )


def refuse_names(policy_names: Sequence[str]) -> Decision | None:
    """The denial for a list of names that cannot be asked about; ``None`` if it can."""
    if not policy_names:
        return _NO_POLICIES
    if isinstance(policy_names, str):
        return _NAMES_ARE_TEXT
    for name in policy_names:
        if not isinstance(name, str) or not name:
            return Decision(False, f"a policy name is {_name(name)}, not a non-empty string")
    return None


_pool: ThreadPoolExecutor | None = None
_pool_pid = 0
_pool_lock = Lock()


def _engine_pool() -> ThreadPoolExecutor:
    global _pool, _pool_pid
    pool = _pool
    if pool is None or _pool_pid != os.getpid():
        from concurrent.futures import ThreadPoolExecutor

        with _pool_lock:
            if _pool is None or _pool_pid != os.getpid():
                _pool = ThreadPoolExecutor(MAX_ENGINE_THREADS, thread_name_prefix="kest-engine")
                _pool_pid = os.getpid()
            pool = _pool
    return pool


def run_in_thread(function: Callable[..., T], *arguments: Any) -> Awaitable[T]:
    """Run a blocking ``function`` in the engines' own bounded pool, with the caller's context variables."""
    import asyncio

    call = functools.partial(contextvars.copy_context().run, function, *arguments)
    return asyncio.get_running_loop().run_in_executor(_engine_pool(), call)
