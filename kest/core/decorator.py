"""`kest_verified`: the lifecycle around functions, coroutine functions, generators and async generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from kest.core.plan import CallPlan
from kest.core.wrappers import (
    around_async_generator,
    around_coroutine,
    around_function,
    around_generator,
    dressed,
    kind_of,
)

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
        "engine": engine,
        "identity": identity,
        "source_type": source_type or origin or "internal",
        "trust_override": trust_override,
        "trust_evaluator": trust_evaluator,
        "added_taints": added_taints,
        "removed_taints": removed_taints,
        "user": user,
        "agent": agent,
        "task": task,
        "resource_id": resource_id,
        "resource_attr": resource_attr,
        "context_map": context_map,
        "operation_name": operation_name,
        "classification": classification,
        "secret": secret,
    }
    if source_type == "" or origin == "":
        raise ValueError("source_type is empty; leave it out, or name an origin")

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if isinstance(fn, (staticmethod, classmethod)):
            kind: Any = type(fn)
            return cast("Callable[P, R]", kind(decorate(fn.__func__)))
        if isinstance(fn, type) or not callable(fn):
            raise TypeError(f"kest_verified decorates functions and callables, not {fn!r:.80}")
        wrapper: Callable[P, R] = _wrapped(fn, CallPlan(fn, policy, **settings))
        return wrapper

    return decorate


_AROUND = {
    "async generator": around_async_generator,
    "coroutine": around_coroutine,
    "generator": around_generator,
    "function": around_function,
}


def _wrapped(fn: Any, plan: CallPlan) -> Any:
    return dressed(_AROUND[kind_of(fn)](fn, plan), fn, plan.operation)
