"""What is worked out once per decorated function: names, policies, resolvers, the score of its origin."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kest.core.binding import Binder, Resolver, text_resolver
from kest.core.config import Settings
from kest.core.tiers import CONFIGURED_TIERS, TierPlan, plan_tiers, policy_names
from kest.core.trust import ORIGIN_TRUST_MAP, check_score
from kest.errors import TrustEvaluationError

__all__ = ["CLASSIFICATIONS", "CallPlan", "operation_of", "taint_tuple"]

CLASSIFICATIONS = ("system", "data", "critic", "snapshot", "sanitizer")


def taint_tuple(value: Iterable[str] | None, name: str) -> tuple[str, ...]:
    """Distinct taints in ascending order; TypeError or ValueError naming the argument."""
    if value is None:
        return ()
    if isinstance(value, str):
        raise TypeError(f"{name} is a list of taints, not one str")
    taints = tuple(value)
    for taint in taints:
        if not isinstance(taint, str):
            raise TypeError(f"{name} holds str only, not {type(taint).__name__}")
        if not taint:
            raise ValueError(f"{name} holds an empty taint")
    return tuple(sorted({str(t) for t in taints}))


def operation_of(fn: Any) -> str:
    """The qualified name without ``<locals>.``; for a callable object, its type's; for a partial, its function's."""
    while hasattr(fn, "func") and not hasattr(fn, "__qualname__"):
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return str(name).replace("<locals>.", "")


def _has_receiver(fn: Any, signature: inspect.Signature) -> bool:
    """Whether the first parameter is the object that a method is called on."""
    first = next(iter(signature.parameters), None)
    owner = str(getattr(fn, "__qualname__", "")).rpartition(".")[0]
    return first in ("self", "cls") and bool(owner) and not owner.endswith("<locals>")


class CallPlan:
    """The unchanging part of a decorated function's calls."""

    __slots__ = (
        "_tiers",
        "added_taints",
        "agent",
        "binder",
        "classification",
        "context_map",
        "engine",
        "identity",
        "operation",
        "policies",
        "removed_taints",
        "resource_attr",
        "resource_id",
        "secret",
        "self_score",
        "source_type",
        "task",
        "trust_evaluator",
        "trust_override",
        "user",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        policy: str | Iterable[str],
        *,
        engine: Any,
        identity: Any,
        source_type: str,
        trust_override: int | None,
        trust_evaluator: Any,
        added_taints: Iterable[str] | None,
        removed_taints: Iterable[str] | None,
        user: Any,
        agent: Any,
        task: Any,
        resource_id: Any,
        resource_attr: Any,
        context_map: Mapping[str, Any] | None,
        operation_name: str | None,
        classification: str,
        secret: Iterable[str],
    ) -> None:
        self.policies = policy_names(policy, "policy")
        if not self.policies:
            raise ValueError("policy is empty: name at least one policy; nothing runs undecided")
        self.engine = _with_method(engine, "evaluate", "engine")
        self.identity = _with_method(identity, "sign", "identity")
        self.trust_evaluator = _with_method(trust_evaluator, "calculate", "trust_evaluator")
        if not isinstance(source_type, str):
            raise TypeError(f"source_type must be a str, not {type(source_type).__name__}")
        if source_type not in ORIGIN_TRUST_MAP:
            raise ValueError(
                f"unknown source_type {source_type!r}; known are {', '.join(ORIGIN_TRUST_MAP)}; add others with "
                "register_origin_trust()"
            )
        self.source_type = source_type
        self.self_score = ORIGIN_TRUST_MAP[source_type]
        self.trust_override = None if trust_override is None else check_score(trust_override, "trust_override")
        self.added_taints = taint_tuple(added_taints, "added_taints")
        self.removed_taints = taint_tuple(removed_taints, "removed_taints")
        if classification not in CLASSIFICATIONS:
            raise ValueError(f"classification is one of {', '.join(CLASSIFICATIONS)}, not {classification!r}")
        self.classification = classification
        if operation_name is not None and (not isinstance(operation_name, str) or not operation_name):
            raise TypeError("operation_name must be a non-empty str")
        self.operation = operation_name or operation_of(fn)

        signature = inspect.signature(fn)
        self.binder = Binder(signature, _has_receiver(fn, signature))
        names = self.binder.names
        self.user = text_resolver(user, "user", names)
        self.agent = text_resolver(agent, "agent", names)
        self.task = text_resolver(task, "task", names)
        self.resource_id = text_resolver(resource_id, "resource_id", names)
        if resource_attr is not None and not callable(resource_attr) and not isinstance(resource_attr, Mapping):
            raise TypeError(f"resource_attr must be a dict or a callable, not {type(resource_attr).__name__}")
        fixed = dict(resource_attr) if isinstance(resource_attr, Mapping) else resource_attr
        self.resource_attr = None if fixed is None else Resolver(fixed, "resource_attr", names)
        self.context_map = _context_map(context_map, names)
        self.secret = _secrets(secret, names)
        self._tiers: tuple[Settings, TierPlan] | None = None

    def tiers(self, settings: Settings) -> TierPlan:
        """The policy questions under these settings; worked out again only when `configure` changed something."""
        known = self._tiers  # one reference, so that no thread sees the plan of other settings
        if known is not None and known[0] is settings:
            return known[1]
        configured = {name: settings.tier(name) for name in CONFIGURED_TIERS}
        tiers = plan_tiers(self.operation, configured, self.policies, settings.deviations)
        self._tiers = (settings, tiers)
        return tiers

    def evaluated_trust(self, self_score: int, parents: tuple[int, ...]) -> int:
        """What the custom evaluator says; TrustEvaluationError unless it is an int from 0 to 100."""
        assert self.trust_evaluator is not None
        try:
            return check_score(self.trust_evaluator.calculate(self_score, parents), "the result")
        except Exception as error:
            raise TrustEvaluationError(
                f"the trust evaluator of {self.operation!r} failed ({type(error).__name__}); "
                "calculate(self_score, parent_scores) must return an int from 0 to 100"
            ) from error

    def mapped(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments that policy sees, under ``args``."""
        return {name: source(arguments) for name, source in self.context_map.items()}


def _with_method(value: Any, method: str, name: str) -> Any:
    if value is not None and (isinstance(value, type) or not callable(getattr(value, method, None))):
        raise TypeError(f"{name} must be an object with {method}(), not {value!r:.80}")
    return value


class _Argument:
    """One parameter's value."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        return arguments[self.name]


def _context_map(
    given: Mapping[str, Any] | None, parameters: tuple[str, ...]
) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
    """Name under ``args`` → where its value comes from: a parameter's name, or a callable taking parameters by name."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError("context_map maps names in the policy input to parameter names or callables")
    result: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
    for name, source in given.items():
        if not isinstance(name, str) or not name:
            raise TypeError("context_map: names are non-empty str")
        if callable(source):
            result[name] = Resolver(source, f"context_map[{name!r}]", parameters)
        elif source in parameters:
            result[name] = _Argument(source)
        else:
            raise ValueError(f"context_map[{name!r}] names {source!r}, which is not a parameter of the function")
    return result


def _secrets(given: Iterable[str], parameters: tuple[str, ...]) -> frozenset[str]:
    if isinstance(given, str):
        raise TypeError("secret is a list of parameter names, not one str")
    names = frozenset(given)
    unknown = sorted(str(name) for name in names if name not in parameters)
    if unknown:
        raise ValueError(f"secret names {unknown[0]!r}, which is not a parameter of the function")
    return names
