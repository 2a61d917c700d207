"""OpenTelemetry baggage that always holds the current passport, serialised only when somebody reads it.

The standard baggage propagator sends what `opentelemetry.baggage.get_all` returns: a view of the dict in the current context.
`LiveBaggage` is such a dict. Its Kest members are worked out from the flow at the moment of reading, so they are never stale,
and one generation replaces the other as a whole. It survives `set_baggage` and `remove_baggage`, which copy it.
"""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from kest._kestcore import Passport
from kest.core import otel_context
from kest.core.context import passport_var
from kest.http.baggage_header import format_member
from kest.http.egress import EgressGuard
from kest.http.outgoing import Packer

__all__ = ["LiveBaggage", "attach", "detach", "live_context"]

KEST = "kest."


class LiveBaggage(dict[str, object]):
    """Other vendors' baggage, and the Kest members of the flow that is current when it is read.

    Args:
        plain: baggage to start with; Kest members in it are of an older generation and are left out.
        passport: the flow for readers whose context has none (threads that carry OpenTelemetry's context only).
        packer, guard: how to pack, and whether the members may leave at all.
    """

    __slots__ = ("_guard", "_packer", "fallback")

    def __init__(self, plain: dict[str, object], passport: Passport | None, packer: Packer, guard: EgressGuard) -> None:
        if plain:
            super().__init__((key, value) for key, value in plain.items() if not key.startswith(KEST))
        self.fallback, self._packer, self._guard = passport, packer, guard

    def now(self) -> dict[str, object]:
        """Everything as an ordinary dict, Kest's members first: who limits baggage drops the end of it."""
        foreign = {key: value for key, value in dict.items(self) if not key.startswith(KEST)}
        current = passport_var.get()
        passport = self.fallback if current is None else current
        if not passport or not self._guard.allows(None):
            return foreign
        members = [format_member(key, str(value)) for key, value in foreign.items()]
        values, claims = self._packer.values(members, passport)
        self._packer.store(claims)
        return {**values, **foreign}

    def copy(self) -> LiveBaggage:
        """Another live one."""
        return LiveBaggage(dict(dict.items(self)), self.fallback, self._packer, self._guard)

    def items(self) -> ItemsView[str, object]:  # type: ignore[override]
        return self.now().items()

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return self.now().keys()

    def values(self) -> ValuesView[object]:  # type: ignore[override]
        return self.now().values()

    def __iter__(self) -> Iterator[str]:
        return iter(self.now())

    def __len__(self) -> int:
        return len(self.now())

    def __bool__(self) -> bool:
        return True  # what is in it is known when it is read

    def __contains__(self, key: object) -> bool:
        return key in (self.now() if isinstance(key, str) and key.startswith(KEST) else dict.keys(self))

    def __getitem__(self, key: str) -> object:
        return self.now()[key] if key.startswith(KEST) else dict.__getitem__(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        return self.now().get(key, default) if key.startswith(KEST) else dict.get(self, key, default)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, dict) and self.now() == dict(other.items()))

    __hash__ = None

    def __repr__(self) -> str:
        return f"<LiveBaggage of {dict.__len__(self)} members and the current passport>"


_api: Any = None
_key: str | None = None
_packer: Packer | None = None
_guard: EgressGuard | None = None


def _otel() -> Any:
    """``opentelemetry.context``, imported when it is needed first: an import statement in each call costs each call."""
    global _api
    if _api is None:
        from opentelemetry import context

        _api = context
    return _api


def _baggage_key() -> str:
    """The context key under which OpenTelemetry keeps baggage; it has no public name, but this way of showing it."""
    global _key
    if _key is None:
        from opentelemetry.baggage import set_baggage
        from opentelemetry.context import Context

        _key = next(iter(set_baggage("k", "v", Context())))
    return _key


def live_context(context: Any = None, packer: Packer | None = None, guard: EgressGuard | None = None) -> Any:
    """An OpenTelemetry context like ``context`` (the current one) whose baggage is live."""
    if context is None:
        context = _otel().get_current()
    passport = passport_var.get()
    baggage = context.get(_baggage_key())
    if isinstance(baggage, LiveBaggage) and baggage.fallback is passport and packer is None and guard is None:
        return context
    return _made_live(context, passport, packer, guard)


def scoped(context: Any) -> Any:
    """A context like this one with live baggage, for as long as one call or one `lineage` lasts.

    Unlike `live_context` it holds on to no passport, so that the commonest one, on top of an empty context, is made once.
    """
    global _alone
    if context:
        return context if _is_live(context) else _made_live(context, None)
    alone = _alone
    if alone is None or alone[0] is not _guard:
        made = _made_live(context, None)
        alone = _alone = _guard, made
    return alone[1]


_alone: tuple[EgressGuard | None, Any] | None = None


def _is_live(context: Any) -> bool:
    return isinstance(_otel().get_value(_baggage_key(), context), LiveBaggage)


def _made_live(
    context: Any, passport: Passport | None, packer: Packer | None = None, guard: EgressGuard | None = None
) -> Any:
    global _packer, _guard
    key = _baggage_key()
    baggage = _otel().get_value(key, context)
    if packer is None:
        packer = _packer = _packer or Packer()
    if guard is None:
        guard = _guard = _guard or EgressGuard()
    plain = dict(dict.items(baggage)) if isinstance(baggage, dict) else {}
    return _otel().set_value(key, LiveBaggage(plain, passport, packer, guard), context)


def attach(given: Any = None) -> Any:
    """Make a context (the current one) current with live baggage, where the application uses OpenTelemetry baggage at all.

    Returns:
        A token for `detach`; None when there is nothing to do.
    """
    if given is not None:
        return otel_context.current_context().set(live_context(given))
    if "opentelemetry.baggage" not in sys.modules:
        return None
    current = otel_context.current_context()
    context = current.get()
    if context and _is_live(context):
        return None
    return current.set(_made_live(context, passport_var.get()))


def detach(token: Any) -> None:
    """Undo `attach`, in the same context."""
    if token is not None:
        otel_context.detach(token)
