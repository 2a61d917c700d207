"""`KestPropagator`: the passport through OpenTelemetry's propagation API.

``OTEL_PROPAGATORS=tracecontext,baggage,kest`` (Kest last: it merges its members into what ``baggage`` has written).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from opentelemetry.baggage import get_all
from opentelemetry.context import Context, create_key, get_current, get_value, set_value
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from kest._kestcore import Passport
from kest.errors import KestError
from kest.http.baggage_header import HEADER, foreign_members
from kest.http.edge import Arrival, Edge
from kest.http.egress import EgressGuard
from kest.http.entering import entered
from kest.http.interceptor import header_bytes
from kest.http.outgoing import Packer

__all__ = ["KestPropagator", "arrival_of", "continued"]

_ARRIVAL = create_key("kest.arrival")
_FAILURE = create_key("kest.failure")


class KestPropagator(TextMapPropagator):
    """Injects the current passport, and extracts and verifies one.

    Injecting merges Kest's members, as one generation, into the ``baggage`` header of the carrier; other vendors' members
    stay. Where ``allowed_hosts`` (or ``KEST_ALLOWED_HOSTS``) is set, a carrier gets Kest members only if it names an
    allowed host in a ``host`` field, because a propagator is not told where a request goes.

    Extracting never raises, as OpenTelemetry asks; what was wrong is kept, and `continued` and `arrival_of` raise it.

    Args:
        edge: how incoming lineage is judged. None: as configured.
        packer, guard: how and where it is sent.
    """

    def __init__(
        self, edge: Edge | None = None, packer: Packer | None = None, guard: EgressGuard | None = None
    ) -> None:
        self._edge = edge or Edge()
        self._packer = packer or Packer()
        self._guard = guard or EgressGuard()

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Set ``baggage`` on the carrier.

        Raises:
            PassportTooLargeError: no form fits and there is no cache; nothing may leave with half of its lineage.
        """
        written = _written(carrier, context)
        if self._allowed(carrier):
            value, claims = self._packer.header(written)
            self._packer.store(claims)
        else:
            value = b",".join(foreign_members(written))
        if value or written:
            if isinstance(carrier, MutableMapping):  # other spellings of the same header
                for key in [k for k in carrier if isinstance(k, str) and k != HEADER and k.lower() == HEADER]:
                    del carrier[key]
            setter.set(carrier, HEADER, value.decode("latin-1"))

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """A context that knows what the carrier brought; enter it with `continued`."""
        if context is None:
            context = Context()
        lines = [header_bytes(line) for line in _lines(getter, carrier)]
        try:
            arrival = self._edge.read(lines)
        except KestError as error:
            return set_value(_FAILURE, error, context)
        return set_value(_ARRIVAL, arrival, context)

    @property
    def fields(self) -> set[str]:
        """The one header that is written."""
        return {HEADER}

    def _allowed(self, carrier: Any) -> bool:
        if self._guard.open:
            return self._guard.allows(None)
        host, port = _host(carrier)
        return self._guard.allows(host, port)


def arrival_of(context: Context | None = None) -> Arrival:
    """What `KestPropagator.extract` found.

    Raises:
        KestError: why it could not be read or verified.
    """
    failure = get_value(_FAILURE, context)
    if isinstance(failure, KestError):
        raise failure
    arrival = get_value(_ARRIVAL, context)
    return arrival if isinstance(arrival, Arrival) else Arrival(Passport())


@contextmanager
def continued(context: Context | None = None) -> Iterator[Arrival]:
    """Run one item of work (a message, a request) in the lineage that was extracted into this context.

    ``with continued(propagate.extract(message.headers)): ...``

    Raises:
        KestError: why the lineage could not be read or verified; nothing runs then.
    """
    arrival = arrival_of(context)
    with entered(arrival, None, get_current() if context is None else context):
        yield arrival


def _lines(getter: Getter[Any], carrier: Any) -> Iterable[Any]:
    found = getter.get(carrier, HEADER)
    return [found] if isinstance(found, (str, bytes)) else found or ()


def _written(carrier: Any, context: Context | None) -> list[bytes]:
    """The baggage that is on the carrier already; where it cannot be read, what the context would have put there."""
    if isinstance(carrier, Mapping):
        return [header_bytes(value) for key, value in carrier.items() if isinstance(key, str) and key.lower() == HEADER]
    getter = getattr(carrier, "get", None)
    if callable(getter):
        value = getter(HEADER)
        return [] if value is None else [header_bytes(value)]
    foreign = {key: value for key, value in get_all(context).items() if not key.startswith("kest.")}
    members = (f"{quote(key, safe='')}={quote(str(value), safe='')}" for key, value in foreign.items())
    return [",".join(members).encode()] if foreign else []


def _host(carrier: Any) -> tuple[str | None, int | None]:
    if not isinstance(carrier, Mapping):
        return None, None
    for key, value in carrier.items():
        name = key.decode("latin-1") if isinstance(key, bytes) else str(key)
        if name.lower() in ("host", ":authority"):
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            try:
                parts = urlsplit(f"//{text}")
                return parts.hostname, parts.port
            except ValueError:
                return None, None
    return None, None
