"""Rego policies evaluated in this process, by Regorus or by rego-cpp.

Both speak Rego v0 (``allow { … }``) and v1 (``allow if { … }``), with or without ``import future.keywords`` or
``import rego.v1``. They agree with OPA on what the contract suite covers; known differences are in the docstrings of
`kest.core.engine.rego_regorus` and `kest.core.engine.rego_cpp`. Check modules with ``opa check --strict``
before
relying on them here: an embedded interpreter tells less about a mistake than OPA does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kest.core.engine.base import DecidingEngine, Decision, refuse_names, run_in_thread
from kest.core.engine.policy_input import input_json
from kest.core.engine.reasons import stated_reasons
from kest.core.engine.rego_source import package_path, reason_rules, validate_rule
from kest.errors import ConfigurationError, MissingExtraError, PolicyEngineError

__all__ = ["RegoLocalEngine"]

INLINE_BYTES = 16_384
"""rego-cpp reads about 1 kB of input in 0.4 ms; async callers with more than this are served in a thread."""


class _Backend(Protocol):
    name: str

    def ask(self, package: tuple[str, ...], document: str, rule: str) -> object: ...

    def close(self) -> None: ...


class RegoLocalEngine(DecidingEngine):
    """Decides with Rego modules held in memory: a policy allows when its rule is exactly ``true``.

    A policy name selects the module stored under it (dots and slashes mean the same), whatever that module's own
    package is called; a name that is no key selects the module of that package; any other name denies. What is asked
    is the rule ``query_rule`` of the module's package. Undefined denies. All names must allow.

    The reason of a denial is what the module says in its rule ``reasons``, ``reason`` or ``deny`` (a string, or a set or
    list of strings or of objects with a member ``msg``), if it has one; these rules explain, and do not decide.

    Args:
        policies: Rego modules by name, such as ``{"kest/allow": "package kest.allow\\n…"}``. They are loaded together,
            so one may refer to another through ``data``; two must not share a package, since Rego would merge their
            rules.
        query_rule: the rule that decides.
        backend: ``"regorus"``, ``"regopy"``, or None for the faster installed one that loads all modules.

    Raises:
        ConfigurationError: a module does not load; names it, with line and column where they are known.
        MissingExtraError: no backend is installed.
    """

    def __init__(self, policies: Mapping[str, str], query_rule: str = "allow", backend: str | None = None) -> None:
        if not isinstance(policies, Mapping) or not policies:
            raise ConfigurationError("RegoLocalEngine needs policies={name: Rego text} with at least one module")
        rule = validate_rule(query_rule)
        modules: list[tuple[str, str, tuple[str, ...]]] = []
        self._by_name: dict[str, tuple[str, ...]] = {}
        owners: dict[tuple[str, ...], str] = {}
        for name, source in policies.items():
            if not isinstance(name, str) or not isinstance(source, str):
                raise ConfigurationError("RegoLocalEngine policies must map names to Rego text, both strings")
            if "\0" in source:
                raise ConfigurationError(f"Rego module {name!r} contains a NUL character")
            package = package_path(name, source)
            if package in owners:
                raise ConfigurationError(
                    f"Rego modules {owners[package]!r} and {name!r} both declare package {'.'.join(package)}; Rego "
                    "would merge their rules: give each its own package, or join them in one module"
                )
            key = _normal(name)
            if key in self._by_name:
                raise ConfigurationError(f"two Rego modules are named {key!r} (dots and slashes mean the same)")
            owners[package] = name
            self._by_name[key] = package
            modules.append((name, source, package))
        for package in owners:
            self._by_name.setdefault("/".join(package), package)
        self._rule = rule
        self._reasons = {
            package: tuple(name for name in reason_rules(source) if name != rule) for _, source, package in modules
        }
        self._backend = _load(modules, rule, backend)
        self.backend = self._backend.name
        self.in_process = self.backend == "regorus"

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Evaluate the rule of each policy; ``ids`` is empty, Rego has no policy ids.

        Raises:
            PolicyEngineError: the input has no JSON form, or evaluation failed.
        """
        return refuse_names(policy_names) or self._decide(policy_names, input_json(context))

    async def async_decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """`decide`, inline unless the input is so large that reading it would hold up the event loop."""
        refused = refuse_names(policy_names)
        if refused is not None:
            return refused
        document = input_json(context)
        if self.in_process or len(document) <= INLINE_BYTES:
            return self._decide(policy_names, document)
        return await run_in_thread(self._decide, policy_names, document)

    def _decide(self, policy_names: Sequence[str], document: str) -> Decision:
        for name in policy_names:
            package = self._by_name.get(name) or self._by_name.get(_normal(name))
            if package is None:
                return Decision(False, f"no Rego policy is named {name!r}", name)
            value = self._backend.ask(package, document, self._rule)
            if value is not True:
                return Decision(False, self._why(package, document, value), name)
        return _ALLOWED

    def _why(self, package: tuple[str, ...], document: str, value: object) -> str:
        """The policy's own reasons, else what its rule was instead of true."""
        for rule in self._reasons.get(package, ()):
            try:
                stated = stated_reasons(self._backend.ask(package, document, rule))
            except PolicyEngineError:  # it denies in any case
                continue
            if stated:
                return stated
        where = f"{'.'.join(package)}.{self._rule}"
        if value is False:
            return f"{where} is false"
        kind = type(value).__name__.lstrip("_").lower()
        return f"{where} is {kind}, not true"

    def close(self) -> None:
        """Free the interpreters. Those of other threads go when the thread next builds one, or ends."""
        self._backend.close()

    def __repr__(self) -> str:
        return f"<RegoLocalEngine on {self.backend} with {len(self._by_name)} policies>"


_ALLOWED = Decision(True)


def _normal(name: str) -> str:
    return name.replace(".", "/")


def _load(modules: list[tuple[str, str, tuple[str, ...]]], rule: str, backend: str | None) -> _Backend:
    from kest.core.engine.rego_cpp import RegoCppBackend
    from kest.core.engine.rego_regorus import RegorusBackend, is_unsafe

    if backend == "regorus":
        return RegorusBackend(modules, rule)
    if backend == "regopy":
        return RegoCppBackend(modules, rule)
    if backend is not None:
        raise ConfigurationError(f'backend must be "regorus", "regopy" or None, not {backend!r}')
    problem: ConfigurationError | None = None
    for candidate in (RegorusBackend, RegoCppBackend):
        try:
            return candidate(modules, rule)
        except MissingExtraError:
            continue
        except ConfigurationError as error:
            if is_unsafe(error):
                raise
            problem = problem or error  # the faster backend's complaint has the better position
    raise problem or MissingExtraError('RegoLocalEngine needs lakera-regorus or regopy: pip install "kest[rego]"')
