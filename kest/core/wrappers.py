"""The four kinds of function that `kest_verified` wraps, around one lifecycle.

Each authorises the call, then runs the function's own code inside a `_Scope`; generators run each step inside one, because
their steps can happen in different contexts.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import CoroutineType
from typing import Any, Literal

from kest.core import context
from kest.core.lifecycle import Call
from kest.core.otel_context import OTelContext, attach_live, detach, otel_context
from kest.core.outcome import Outcome
from kest.core.plan import CallPlan
from kest.core.questions import answer, answer_async

__all__ = ["around_async_generator", "around_coroutine", "around_function", "around_generator", "dressed", "kind_of"]

Kind = Literal["async generator", "coroutine", "generator", "function"]


def kind_of(fn: Any) -> Kind:
    """What calling it begins; a callable object and a partial are of the kind of what they call."""
    code = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
    if inspect.isasyncgenfunction(code):
        return "async generator"
    if inspect.iscoroutinefunction(code) or asyncio.iscoroutinefunction(fn):
        return "coroutine"
    return "generator" if inspect.isgeneratorfunction(code) else "function"


def dressed(wrapper: Any, fn: Any, name: str) -> Any:
    """The wrapper with the name, docstring, annotations and signature of what it wraps, which may have no name."""
    wrapper = functools.wraps(fn)(wrapper)
    for attribute in ("__name__", "__qualname__"):  # partials and callable objects have none
        if not hasattr(fn, attribute):
            setattr(wrapper, attribute, name)
    return wrapper


class _Scope:
    """The caller's identity, OpenTelemetry's context and the outcome around the function's own code."""

    __slots__ = ("_caller", "_otel", "call", "outcome")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.outcome = Outcome(call) if call.settings.audit is not None else None
        self._otel: OTelContext | None = None

    def bare(self) -> bool:
        """True when there is nothing to set up or record: the usual case without telemetry and audit."""
        call = self.call
        return call.span is None and self.outcome is None and call.caller is context.caller_var.get()

    def enter(self) -> None:
        """Before the function's code runs; once for each step of a generator."""
        call = self.call
        self._caller = context.caller_var.get()
        if call.caller is not self._caller:
            context.caller_var.set(call.caller)
        if self._otel is None:
            self._otel = otel_context(call.span)
        if self._otel is not None:
            self._otel.enter()

    def leave(self) -> None:
        """After it ran. A coroutine can be closed from a context that it never entered: that one stays as it is."""
        call = self.call
        if self._otel is not None:
            self._otel.leave()
        if call.caller is not self._caller and context.caller_var.get() is call.caller:
            context.caller_var.set(self._caller)

    def finish(self, error: BaseException | None) -> None:
        """When the call is over."""
        if self.call.span is not None:
            self.call.span.finish(error)

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.leave()
        self.finish(error)


def _abandon(call: Call, error: BaseException) -> None:
    if call.span is not None:
        call.span.finish(error)


def around_function(fn: Any, plan: CallPlan) -> Any:
    """A plain function, or one that returns a coroutine."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Call(plan, args, kwargs)
        try:
            answer(call.authorise())
        except BaseException as refused:
            _abandon(call, refused)
            raise
        scope = _Scope(call)
        if scope.bare():
            if "opentelemetry.baggage" not in sys.modules:
                return fn(*args, **kwargs)
            token = attach_live()
            try:
                result = fn(*args, **kwargs)
            finally:
                detach(token)
            return _awaited(scope, result) if type(result) is CoroutineType else result
        scope.enter()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            if scope.outcome is not None:
                answer(scope.outcome.raised(error))
            scope.finish(error)
            raise
        finally:
            scope.leave()
        if inspect.iscoroutine(result):  # the body runs when the coroutine does
            return _awaited(scope, result)
        if scope.outcome is not None:
            answer(scope.outcome.returned(result))
        scope.finish(None)
        return result

    return wrapper


def around_coroutine(fn: Any, plan: CallPlan) -> Any:
    """A coroutine function."""

    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        call = Call(plan, args, kwargs)
        try:
            await answer_async(call.authorise())
        except BaseException as refused:
            _abandon(call, refused)
            raise
        scope = _Scope(call)
        if scope.bare():
            if "opentelemetry.baggage" not in sys.modules:
                return await fn(*args, **kwargs)
            token = attach_live()
            try:
                return await fn(*args, **kwargs)
            finally:
                detach(token)
        return await _awaited(scope, fn(*args, **kwargs))

    return wrapper


async def _awaited(scope: _Scope, body: Awaitable[Any]) -> Any:
    with scope:
        try:
            result = await body
        except BaseException as error:
            if scope.outcome is not None:
                await answer_async(scope.outcome.raised(error))
            raise
        if scope.outcome is not None:
            await answer_async(scope.outcome.returned(result))
        return result


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


def around_generator(fn: Any, plan: CallPlan) -> Any:
    """A generator function: decided and signed at its first step."""

    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call = Call(plan, args, kwargs)
        try:
            answer(call.authorise())
        except BaseException as refused:
            _abandon(call, refused)
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


def around_async_generator(fn: Any, plan: CallPlan) -> Any:
    """An async generator function: decided and signed at its first step."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call = Call(plan, args, kwargs)
        try:
            await answer_async(call.authorise())
        except BaseException as refused:
            _abandon(call, refused)
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
