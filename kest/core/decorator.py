"""`kest_verified`: the lifecycle around functions, coroutine functions, generators and async generators."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from kest.core import context
from kest.core.lifecycle import Call, answer, answer_async
from kest.core.outcome import Outcome
from kest.core.plan import CallPlan

__all__ = ["kest_verified"]

P = ParamSpec("P")
R = TypeVar("R")


def kest_verified(
    policy: str | Iterable[str],
    *,
    engine: Any = None,
    identity: Any = None,
    source_type: str | None = None,
    origin: str | None = None,
    trust_override: int | None = None,
    trust_evaluator: Any = None,
    added_taints: Iterable[str] | None = None,
    removed_taints: Iterable[str] | None = None,
    user: Any = None,
    agent: Any = None,
    task: Any = None,
    resource_id: Any = None,
    resource_attr: Any = None,
    context_map: Mapping[str, Any] | None = None,
    operation_name: str | None = None,
    classification: str = "system",
    secret: Iterable[str] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Govern a function: each call is decided by policy, signed and linked into the current passport before it runs.

    The function keeps its signature, name, docstring and kind (sync, async, generator, async generator).

    Args:
        policy: one or several policy names; all must allow, after those of the configured tiers.
        engine, identity: override the configured ones for this function.
        source_type: where the data comes from (``origin`` is the same thing): ``internal`` by default; see
            `ORIGIN_TRUST_MAP`. It decides the trust of a root, and weighs on that of every other entry.
        trust_override: sets the trust score, 0..100: for sanitisers. A rise is recorded in the entry.
        trust_evaluator: replaces the weakest-link rule; an object with ``calculate(self_score, parent_scores)``.
        added_taints, removed_taints: taints that begin and end here.
        user, agent, task, resource_id: a str, a zero-argument callable, or a callable taking the call's arguments by
            name. Without one, what the enclosing call or the verified request carried.
        resource_attr: a dict (or a callable as above) of attributes of what is acted on; signed, and seen by policy.
        context_map: name under ``args`` of the policy input → parameter name, or a callable as above.
        operation_name: what the operation is called in entries; the qualified name by default.
        classification: system, data, critic, snapshot or sanitizer.
        secret: parameters that are left out of the input hash, because they are short enough to be guessed from it.

    Raises:
        TypeError, ValueError: when the decorator is applied, naming the argument that is wrong.
        PolicyDeniedError: when a call is denied; the body has not run.
        KestError: any other reason why a call could not be decided and signed; the body has not run.
    """
    if origin is not None and source_type is not None and origin != source_type:
        raise ValueError("origin and source_type are the same thing; give one")
    settings: dict[str, Any] = {
        "engine": engine, "identity": identity, "source_type": source_type or origin or "internal",
        "trust_override": trust_override, "trust_evaluator": trust_evaluator, "added_taints": added_taints,
        "removed_taints": removed_taints, "user": user, "agent": agent, "task": task, "resource_id": resource_id,
        "resource_attr": resource_attr, "context_map": context_map, "operation_name": operation_name,
        "classification": classification, "secret": secret,
    }
    if source_type == "" or origin == "":
        raise ValueError("source_type is empty; leave it out, or name an origin")

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if isinstance(fn, (staticmethod, classmethod)):
            return cast("Callable[P, R]", type(fn)(decorate(fn.__func__)))
        if isinstance(fn, type) or not callable(fn):
            raise TypeError(f"kest_verified decorates functions and callables, not {fn!r:.80}")
        return _wrapped(fn, CallPlan(fn, policy, **settings))

    return decorate


def _wrapped(fn: Any, plan: CallPlan) -> Any:
    code = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
    if inspect.isasyncgenfunction(code):
        wrapper: Any = _async_generator(fn, plan)
    elif inspect.iscoroutinefunction(code) or asyncio.iscoroutinefunction(fn):
        wrapper = _coroutine(fn, plan)
    elif inspect.isgeneratorfunction(code):
        wrapper = _generator(fn, plan)
    else:
        wrapper = _function(fn, plan)
    wrapper = functools.wraps(fn)(wrapper)
    for name in ("__name__", "__qualname__"):  # partials and callable objects have none
        if not hasattr(fn, name):
            setattr(wrapper, name, plan.operation)
    return wrapper


class _Scope:
    """The caller's identity, the span and the outcome around the function's own code."""

    __slots__ = ("_caller", "call", "outcome")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.outcome = Outcome(call) if call.settings.audit is not None else None

    def enter(self) -> None:
        call = self.call
        self._caller = context.caller_var.get()
        if call.caller is not self._caller:
            context.caller_var.set(call.caller)
        if call.span is not None:
            call.span.enter()

    def leave(self) -> None:
        call = self.call
        if call.span is not None:
            call.span.leave()
        if call.caller is not self._caller:
            context.caller_var.set(self._caller)

    def bare(self) -> bool:
        """True when there is nothing to set up or record: the usual case without telemetry and audit."""
        call = self.call
        return call.span is None and self.outcome is None and call.caller is context.caller_var.get()

    def finish(self, error: BaseException | None) -> None:
        if self.call.span is not None:
            self.call.span.finish(error)


def _abandon(call: Call, error: BaseException) -> None:
    if call.span is not None:
        call.span.finish(error)


def _function(fn: Any, plan: CallPlan) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Call(plan, args, kwargs)
        try:
            answer(call.authorise())
        except BaseException as error:
            _abandon(call, error)
            raise
        scope = _Scope(call)
        if scope.bare():
            return fn(*args, **kwargs)
        error: BaseException | None = None
        scope.enter()
        try:
            result = fn(*args, **kwargs)
            if scope.outcome is not None:
                answer(scope.outcome.returned(result))
            return result
        except BaseException as caught:
            error = caught
            if scope.outcome is not None:
                answer(scope.outcome.raised(caught))
            raise
        finally:
            scope.leave()
            scope.finish(error)

    return wrapper


def _coroutine(fn: Any, plan: CallPlan) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Call(plan, args, kwargs)
        try:
            await answer_async(call.authorise())
        except BaseException as error:
            _abandon(call, error)
            raise
        scope = _Scope(call)
        if scope.bare():
            return await fn(*args, **kwargs)
        error: BaseException | None = None
        scope.enter()
        try:
            result = await fn(*args, **kwargs)
            if scope.outcome is not None:
                await answer_async(scope.outcome.returned(result))
            return result
        except BaseException as caught:
            error = caught
            if scope.outcome is not None:
                await answer_async(scope.outcome.raised(caught))
            raise
        finally:
            scope.leave()
            scope.finish(error)

    return wrapper


class _Stream:
    """The flow of a generator between its steps.

    A step continues from the generator's last entry and from what its consumer did since; what it adds, the consumer
    continues from. Closing runs in whatever context happens to close it, so it continues from the generator's own last entry
    unless that context has seen it, and leaves other flows alone.
    """

    __slots__ = ("_before", "flow", "scope")

    def __init__(self, scope: _Scope) -> None:
        self.scope = scope
        self.flow = context.get_current_passport()
        self._before: Any = None

    def enter(self) -> None:
        current = context.passport_var.get()
        if current is not self.flow:
            context.passport_var.set(context.continue_from(self.flow, current))
        self.scope.enter()

    def leave(self) -> None:
        self.scope.leave()
        self.flow = context.get_current_passport()

    def enter_closing(self) -> None:
        self._before = context.passport_var.get()
        if self._before is not None and context.has_seen(self._before, self.flow):
            self.flow = self._before
            self._before = None
        else:
            self._before = (self._before,)
            context.passport_var.set(self.flow)
        self.scope.enter()

    def leave_closing(self) -> None:
        self.scope.leave()
        if self._before is not None:
            context.passport_var.set(self._before[0])


def _generator(fn: Any, plan: CallPlan) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call = Call(plan, args, kwargs)
        try:
            answer(call.authorise())
        except BaseException as error:
            _abandon(call, error)
            raise
        return (yield from _steps(_Scope(call), fn(*args, **kwargs)))

    return wrapper


def _steps(scope: _Scope, inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    stream, outcome = _Stream(scope), scope.outcome
    error: BaseException | None = None
    resume: Callable[[], Any] = functools.partial(next, inner)
    try:
        while True:
            stream.enter()
            try:
                item = resume()
                if outcome is not None:
                    outcome.item(item)
            except StopIteration as stop:
                if outcome is not None:
                    answer(outcome.returned(stop.value))
                return stop.value
            finally:
                stream.leave()
            try:
                sent = yield item
            except GeneratorExit:
                stream.enter_closing()
                try:
                    inner.close()
                finally:
                    stream.leave_closing()
                raise
            except BaseException as thrown:
                resume = functools.partial(inner.throw, thrown)
            else:
                resume = functools.partial(inner.send, sent)
    except BaseException as caught:
        error = caught
        if outcome is not None:
            answer(outcome.raised(caught))
        raise
    finally:
        scope.finish(error)


def _async_generator(fn: Any, plan: CallPlan) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call = Call(plan, args, kwargs)
        try:
            await answer_async(call.authorise())
        except BaseException as error:
            _abandon(call, error)
            raise
        scope = _Scope(call)
        stream, outcome = _Stream(scope), scope.outcome
        inner: AsyncGenerator[Any, Any] = fn(*args, **kwargs)
        error: BaseException | None = None
        resume: Callable[[], Any] = inner.__anext__
        try:
            while True:
                stream.enter()
                try:
                    item = await resume()
                    if outcome is not None:
                        outcome.item(item)
                except StopAsyncIteration:
                    if outcome is not None:
                        await answer_async(outcome.returned(None))
                    return
                finally:
                    stream.leave()
                try:
                    sent = yield item
                except GeneratorExit:
                    stream.enter_closing()
                    try:
                        await inner.aclose()
                    finally:
                        stream.leave_closing()
                    raise
                except BaseException as thrown:
                    resume = functools.partial(inner.athrow, thrown)
                else:
                    resume = functools.partial(inner.asend, sent)
        except BaseException as caught:
            error = caught
            if outcome is not None:
                await answer_async(outcome.raised(caught))
            raise
        finally:
            scope.finish(error)

    return wrapper
