"""`guarded` and `guarded_tool`: functions that run only when a gate permits the call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Any, ParamSpec, TypeVar

from kest.core.binding import Binder
from kest.core.context import caller_var, passport_var
from kest.core.plan import operation_of
from kest.core.wrappers import dressed, kind_of
from kest.gate.context import ActionContext
from kest.gate.current import enter, leave
from kest.gate.gate import Gate
from kest.gate.params import gate_params
from kest.gate.principal import UNKNOWN, Principal, acting, lineage_facts

__all__ = ["guarded", "guarded_tool"]

P = ParamSpec("P")
R = TypeVar("R")

_TAKEN = {
    "_principal_id", "_principal_kind", "_roles", "_session_id", "_resource", "_ip", "_current_geo", "_device",
}  # fmt: skip


def guarded(
    gate: Gate, *, action: str | None = None, param_fields: Mapping[str, str] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Ask a gate before each call of a function; what it does not permit does not run.

    The function keeps its signature, name, docstring and kind: sync, async, generator, async generator, methods,
    classmethods, staticmethods, partials. Generators are decided when their first step is asked for. Coroutine functions do
    not hold up the event loop while a gate waits for its stores.

    Calls say on whose behalf they are with ``_principal_id``, ``_principal_kind`` (user), ``_roles``, ``_session_id``,
    ``_resource``, ``_ip``, ``_current_geo`` and ``_device``, which the function does not see. Without ``_principal_id`` it
    is whom the request's verified token or lineage names, and where there is none, "unknown" of kind "external". Trust and
    taints are those of the current passport.

    Args:
        gate: what decides. It owns the sessions that ``_session_id`` names: their age, origin, device and number of actions.
        action: the action's name; the function's by default.
        param_fields: parameter of the gate → parameter of the function. Without it the gate sees no parameters. One that is
            missing, not finite or of another type than a policy or invariant asks for counts against the call.

    Raises:
        TypeError, ValueError: when the decorator is applied, naming what is wrong.
        Refused, Invalidated: when a call is not permitted; the function has not run.
    """
    fields = dict(param_fields or {})

    def decorate(fn: Any) -> Any:
        return _guard(fn, gate, action, lambda named: _Named(named, fields), decorate)

    return decorate


def guarded_tool(gate: Gate, *, action: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`guarded` for functions that take their arguments in one mapping, as the tools of agents do: ``fn(params)``.

    Everything in ``params`` is a parameter of the action and ``params["resource"]``, when it is a str, its resource.
    The function gets no keyword argument whose name begins with an underscore. ``_principal_kind`` is agent by default.
    """

    def decorate(fn: Any) -> Any:
        return _guard(fn, gate, action, _Tool, decorate)

    return decorate


def _guard(fn: Any, gate: Gate, action: str | None, reader: Callable[[Any], _Named], decorate: Any) -> Any:
    if isinstance(fn, (staticmethod, classmethod)):
        kind: Any = type(fn)
        return kind(decorate(fn.__func__))
    if isinstance(fn, type) or not callable(fn):
        raise TypeError(f"guarded decorates functions and callables, not {fn!r:.80}")
    if not isinstance(gate, Gate):
        raise TypeError(f"guarded takes a Gate, not {type(gate).__name__}")
    operation = operation_of(fn)
    name = operation.rpartition(".")[2] if action is None else action
    return dressed(_AROUND[kind_of(fn)](fn, _Guard(gate, name, reader(fn))), fn, operation)


# --- from a call to a context ---


class _Named:
    """Takes the parameters of the gate from a call's arguments by name."""

    kind = "user"

    def __init__(self, fn: Any, fields: Mapping[str, str]) -> None:
        self.fields = fields
        # What a partial has bound counts like what a call brings.
        self.args, self.kwargs = (fn.args, fn.keywords) if isinstance(fn, functools.partial) else ((), {})
        fn = fn.func if isinstance(fn, functools.partial) else fn
        try:
            signature = inspect.signature(fn)
        except (ValueError, TypeError) as error:
            raise TypeError(f"{operation_of(fn)} has no signature; wrap it in a function that has one") from error
        self.parameters = signature.parameters
        self.binder = Binder(signature, False)
        taken = sorted(_TAKEN & set(self.parameters))
        if taken:
            raise TypeError(
                f"{operation_of(fn)} has a parameter {taken[0]}, which a guarded function does not get to see"
            )
        rest = [one.name for one in self.parameters.values() if one.kind is inspect.Parameter.VAR_KEYWORD]
        self.rest = rest[0] if rest else None
        for field in fields.values():
            if field not in self.parameters and self.rest is None:
                raise ValueError(f"param_fields names {field!r}, which is no parameter of {operation_of(fn)}")

    def kept(self, name: str) -> bool:
        """Whether the function gets a keyword argument that is none of ours."""
        return True

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name. TypeError where the function could not be called with them."""
        if self.args or self.kwargs:
            args, kwargs = (*self.args, *args), {**self.kwargs, **kwargs}
        return self.binder.bind(args, kwargs)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Parameters and resource."""
        there = self.bind(args, kwargs)
        if not self.fields:
            return {}, None
        if self.rest is not None:
            there.update(there.pop(self.rest))
        return gate_params({name: there[field] for name, field in self.fields.items() if field in there}), None


class _Tool(_Named):
    """Takes every parameter of the gate from the one mapping that a tool is called with."""

    kind = "agent"

    def __init__(self, fn: Any) -> None:
        super().__init__(fn, {})
        names = [name for name in self.parameters if name not in ("self", "cls")]
        if not names:
            raise TypeError(f"{operation_of(fn)} takes no params: a guarded_tool is called with one mapping")
        self.params = "params" if "params" in names else names[0]

    def kept(self, name: str) -> bool:
        return not name.startswith("_")

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        params = self.bind(args, kwargs)[self.params]
        if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
            raise TypeError(f"{self.params} of a guarded tool is a mapping with str keys, not {type(params).__name__}")
        resource = params.get("resource")
        return gate_params(params), resource if isinstance(resource, str) else None


class _Guard:
    """One guarded function: asks its gate about each call."""

    def __init__(self, gate: Gate, action: str, reader: _Named) -> None:
        if not isinstance(action, str) or not action:
            raise TypeError(f"the action of a guarded function is a str that is not empty, not {action!r:.60}")
        self.gate, self.action, self.reader = gate, action, reader

    def asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ActionContext, dict[str, Any]]:
        """What the gate is asked, and the keyword arguments that the function gets."""
        given: dict[str, Any] = {}
        kept: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in _TAKEN:
                given[name] = value
            elif self.reader.kept(name):
                kept[name] = value
        params, resource = self.reader.read(args, kept)
        if "_principal_id" in given:  # nothing of one principal is ever mixed with another's
            who = Principal(given.pop("_principal_id"), self.reader.kind)
        else:
            who = acting(caller_var.get()) or UNKNOWN
        context = ActionContext(
            who[0],
            given.pop("_principal_kind", who[1]),
            self.action,
            given.pop("_roles", who[2]),
            given.pop("_resource", resource),
            params,
            session_id=given.pop("_session_id", who[3]),
            **{name[1:]: value for name, value in given.items()},
            **lineage_facts(passport_var.get()),
        )
        return context, kept


# --- the kinds of function ---


def _around_function(fn: Any, guard: _Guard) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        context, kwargs = guard.asked(args, kwargs)
        before = enter(guard.gate._permitted(guard.gate.evaluate(context)))
        try:
            return fn(*args, **kwargs)
        finally:
            leave(before)

    return wrapper


def _around_coroutine(fn: Any, guard: _Guard) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        context, kwargs = guard.asked(args, kwargs)
        before = enter(guard.gate._permitted(await guard.gate.evaluate_async(context)))
        try:
            return await fn(*args, **kwargs)
        finally:
            leave(before)

    return wrapper


def _around_generator(fn: Any, guard: _Guard) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        context, kwargs = guard.asked(args, kwargs)
        guard.gate.check(context)
        return (yield from fn(*args, **kwargs))

    return wrapper


def _around_async_generator(fn: Any, guard: _Guard) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        context, kwargs = guard.asked(args, kwargs)
        await guard.gate.check_async(context)
        inner: AsyncGenerator[Any, Any] = fn(*args, **kwargs)
        step: Awaitable[Any] = inner.__anext__()
        while True:
            try:
                item = await step
            except StopAsyncIteration:
                return
            try:
                step = inner.asend((yield item))
            except GeneratorExit:
                await inner.aclose()
                raise
            except BaseException as thrown:
                step = inner.athrow(thrown)

    return wrapper


_AROUND = {
    "async generator": _around_async_generator,
    "coroutine": _around_coroutine,
    "generator": _around_generator,
    "function": _around_function,
}
