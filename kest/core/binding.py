"""Arguments by parameter name, and values resolved from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kest._kestcore import hash_arguments
from kest.errors import ResolverError

__all__ = ["SECRET", "Binder", "Resolver", "argument_hash", "text_resolver"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

SECRET = {"$kest": "secret"}
"""Stands for a secret parameter: hashing a short secret into a public entry would let it be guessed."""


class Binder:
    """Binds call arguments to parameter names, with defaults applied, without ``self`` or ``cls``."""

    __slots__ = (
        "_any_order", "_defaults", "_names", "_plain", "_receiver", "_required", "_wanted", "names", "signature",
    )  # fmt: skip

    def __init__(self, signature: inspect.Signature, has_receiver: bool) -> None:
        self.signature = signature
        parameters = list(signature.parameters.values())
        self._receiver = parameters[0].name if has_receiver and parameters else None
        self._names = tuple(p.name for p in parameters)
        # Plain: nothing but ordinary parameters, so that zip() says the same as Signature.bind().
        self._plain = all(p.kind in _POSITIONAL for p in parameters)
        self._defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        self._required = len(parameters) - len(self._defaults)
        named = all(p.kind in _NAMED for p in parameters)
        self._any_order = {name: self._defaults.get(name) for name in self._names} if named else None
        self._wanted = frozenset(self._names) - self._defaults.keys()
        self.names = tuple(n for n in self._names if n != self._receiver)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Parameter name → value. TypeError, as the call itself would raise, when the arguments do not fit."""
        count = len(args)
        if self._plain and not kwargs and self._required <= count <= len(self._names):
            bound = dict(zip(self._names, args))  # noqa: B905 - shorter on purpose: defaults follow
            if count < len(self._names):
                for name in self._names[count:]:
                    bound[name] = self._defaults[name]
        elif not args and self._any_order is not None and self._any_order.keys() >= kwargs.keys() >= self._wanted:
            bound = {**self._any_order, **kwargs}  # how frameworks call: everything by name
        else:
            arguments = self.signature.bind(*args, **kwargs)
            arguments.apply_defaults()
            bound = dict(arguments.arguments)
        if self._receiver is not None:
            bound.pop(self._receiver, None)
        return bound


def argument_hash(arguments: dict[str, Any], secret: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """(SHA-256 of the canonical arguments, names of those whose content it could not cover)."""
    from kest.core.hashing import encode

    if secret:
        arguments = {name: _Secret() if name in secret else value for name, value in arguments.items()}
        return hash_arguments(arguments, _encode_with_secrets)
    return hash_arguments(arguments, encode)


class _Secret:
    __slots__ = ()


def _encode_with_secrets(value: object) -> tuple[object, bool]:
    from kest.core.hashing import encode

    return (SECRET, False) if type(value) is _Secret else encode(value)


class Resolver:
    """A value, a zero-argument callable, or a callable that takes some of the call's arguments by name."""

    __slots__ = ("_fn", "_takes", "_takes_all", "_value", "what")

    def __init__(self, given: Any, what: str, parameters: Collection[str]) -> None:
        self.what = what
        self._fn: Callable[..., Any] | None = None
        self._value: Any = None
        self._takes: tuple[str, ...] = ()
        self._takes_all = False
        if not callable(given):
            self._value = given
            return
        self._fn = given
        try:
            wanted = inspect.signature(given).parameters.values()
        except (TypeError, ValueError):
            return  # a builtin without a signature: called without arguments
        for parameter in wanted:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._takes_all = True
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                continue
            elif parameter.name in parameters and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
                self._takes += (parameter.name,)
            elif parameter.default is inspect.Parameter.empty:
                raise TypeError(
                    f"{what}: the resolver wants {parameter.name!r}, which is not a parameter of the decorated function"
                )

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        if self._fn is None:
            return self._value
        taken = dict(arguments) if self._takes_all else {name: arguments[name] for name in self._takes}
        try:
            value = self._fn(**taken)
        except Exception as error:
            raise ResolverError(f"the resolver of {self.what} raised {type(error).__name__}") from error
        if inspect.isawaitable(value):
            close = getattr(value, "close", None)
            if callable(close):
                close()
            raise ResolverError(f"the resolver of {self.what} returned an awaitable; resolvers are plain functions")
        return value


def text_resolver(
    given: Any, what: str, parameters: Collection[str]
) -> Callable[[Mapping[str, Any]], str | None] | None:
    """A resolver whose result must be a str or None; None when nothing is given."""
    if given is None:
        return None
    if not callable(given) and not isinstance(given, str):
        raise TypeError(f"{what} must be a str or a callable that returns one, not {type(given).__name__}")
    resolver = Resolver(given, what, parameters)

    def resolve(arguments: Mapping[str, Any]) -> str | None:
        value = resolver(arguments)
        if value is not None and type(value) is not str:
            raise ResolverError(f"the resolver of {what} must return a str or None, not {type(value).__name__}")
        return value

    return resolve
