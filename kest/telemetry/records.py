"""One finished span as plain data, and its form as OTLP/JSON (OpenTelemetry Protocol 1.x, JSON Protobuf encoding).

What is written here can be read by whatever reads OTLP JSON lines, such as a collector's ``otlpjsonfile`` receiver; what a
collector's file exporter writes can be read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from kest.errors import TelemetryError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from kest._kestcore import Passport

__all__ = ["SCOPE", "SpanRecord", "otlp_line", "record_of", "records_of_otlp"]

SCOPE = "kest.core"
"""The instrumentation scope of Kest's own spans."""

STATUSES = ("UNSET", "OK", "ERROR")  # by OTLP's numbers
KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A span that was written, whoever's it is. Nothing in it is verified: `kest.telemetry.flows` and a key do that.

    Attributes:
        trace_id, span_id: lower-case hexadecimal, 32 and 16 digits.
        parent_span_id: empty for a root span.
        scope: instrumentation scope; Kest's own spans have ``kest.core``.
        start_ns, end_ns: nanoseconds since 1970 (UTC).
        status: ``UNSET``, ``OK`` or ``ERROR``.
        attributes, resource: values are str, bool, int, float, or lists of these.
        where: where it was read, such as ``line 7``.
    """

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str = ""
    scope: str = ""
    scope_version: str = ""
    kind: str = "INTERNAL"
    start_ns: int = 0
    end_ns: int = 0
    status: str = "UNSET"
    status_description: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def service(self) -> str:
        """``service.name`` of its resource, or nothing."""
        return self._text("service.name", self.resource)

    @property
    def is_kest(self) -> bool:
        """Whether a decorated call made it."""
        return self.scope == SCOPE

    @property
    def signature(self) -> str:
        """The signed entry of the call, a compact JWS; empty for a call that was denied or failed before it was signed."""
        return self._text("kest.signature")

    @property
    def chain_tip(self) -> str:
        """SHA-256 of `signature`, as the span says it."""
        return self._text("kest.chain_tip")

    @property
    def entry_id(self) -> str:
        return self._text("kest.entry_id")

    @property
    def operation(self) -> str:
        return self._text("kest.operation")

    @property
    def allowed(self) -> bool | None:
        """What was decided; None when the call did not come that far."""
        value = self.attributes.get("kest.allowed")
        return value if isinstance(value, bool) else None

    @property
    def passport(self) -> Passport | None:
        """``kest.passport``, unverified: the whole passport after the call, where it was short enough.

        Raises:
            PassportError: there is one, and it is none.
        """
        from kest._kestcore import Passport

        text = self._text("kest.passport")
        return Passport.deserialize(text) if text else None

    def _text(self, name: str, where: Mapping[str, Any] | None = None) -> str:
        value = (self.attributes if where is None else where).get(name)
        return value if isinstance(value, str) else ""


def record_of(span: ReadableSpan, service_name: str | None = None) -> SpanRecord:
    """What OpenTelemetry's SDK has of a finished span; ``service_name`` replaces that of its resource."""
    context, scope, parent = span.get_span_context(), span.instrumentation_scope, span.parent
    resource = {_clean(name): _plain(value) for name, value in span.resource.attributes.items()}
    if service_name is not None:
        resource["service.name"] = service_name
    return SpanRecord(
        name=_clean(span.name),
        trace_id=f"{context.trace_id if context else 0:032x}",
        span_id=f"{context.span_id if context else 0:016x}",
        parent_span_id="" if parent is None else f"{parent.span_id:016x}",
        scope="" if scope is None else scope.name,
        scope_version="" if scope is None else scope.version or "",
        kind=span.kind.name,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        status=span.status.status_code.name,
        status_description=_clean(span.status.description or ""),
        attributes={_clean(name): _plain(value) for name, value in (span.attributes or {}).items()},
        resource=resource,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and isfinite(value)):
        return value
    return _clean(str(value))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # lone surrogates have no UTF-8


def otlp_line(record: SpanRecord) -> bytes:
    """One line of JSON: a ``TracesData`` with one span. ASCII, and therefore never split by other line separators."""
    status: dict[str, Any] = {}
    if record.status != "UNSET":
        status["code"] = STATUSES.index(record.status)
    if record.status_description:
        status["message"] = record.status_description
    span: dict[str, Any] = {
        "traceId": record.trace_id,
        "spanId": record.span_id,
        "name": record.name,
        "kind": KINDS.index(record.kind),
        "startTimeUnixNano": str(record.start_ns),
        "endTimeUnixNano": str(record.end_ns),
        "attributes": _keyed(record.attributes),
        "status": status,
    }
    if record.parent_span_id:
        span["parentSpanId"] = record.parent_span_id
    scope = {"name": record.scope, "version": record.scope_version}
    one = {"resource": {"attributes": _keyed(record.resource)}, "scopeSpans": [{"scope": scope, "spans": [span]}]}
    return json.dumps({"resourceSpans": [one]}, separators=(",", ":")).encode() + b"\n"


def _keyed(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _wrapped(value)} for name, value in attributes.items()]


def _wrapped(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_wrapped(item) for item in value]}}
    return {} if value is None else {"stringValue": str(value)}


def records_of_otlp(document: Any, where: str) -> Iterator[SpanRecord]:
    """The spans of a ``TracesData`` object; none for one of metrics or logs.

    Raises:
        TelemetryError: it is neither.
    """
    if not isinstance(document, dict) or not ({"resourceSpans", "resourceMetrics", "resourceLogs"} & set(document)):
        raise TelemetryError("not an OTLP JSON object (resourceSpans)")
    try:
        for group in document.get("resourceSpans", ()):
            resource = _unkeyed(group.get("resource", {}).get("attributes", ()))
            for scoped in group.get("scopeSpans", ()):
                scope = scoped.get("scope", {})
                for span in scoped.get("spans", ()):
                    yield _record(span, resource, scope, where)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise TelemetryError(f"not a span as OTLP has it ({type(error).__name__})") from error


def _record(span: dict[str, Any], resource: dict[str, Any], scope: dict[str, Any], where: str) -> SpanRecord:
    status = span.get("status", {})
    return SpanRecord(
        name=_str(span.get("name", "")),
        trace_id=_hex(span["traceId"], 32),
        span_id=_hex(span["spanId"], 16),
        parent_span_id=_hex(span.get("parentSpanId") or "", 16),
        scope=_str(scope.get("name", "")),
        scope_version=_str(scope.get("version", "")),
        kind=KINDS[_number(span.get("kind", 0))],
        start_ns=_number(span.get("startTimeUnixNano", 0)),
        end_ns=_number(span.get("endTimeUnixNano", 0)),
        status=STATUSES[_number(status.get("code", 0))],
        status_description=_str(status.get("message", "")),
        attributes=_unkeyed(span.get("attributes", ())),
        resource=resource,
        where=where,
    )


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a string is expected")
    return value


def _hex(value: Any, digits: int) -> str:
    text = _str(value).lower()
    if text and (len(text) != digits or not set(text) <= set("0123456789abcdef")):
        raise ValueError("an id in hexadecimal is expected")
    return text


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError("an integer is expected")
    if isinstance(value, str) and not (value.isascii() and value.lstrip("-").isdigit() and len(value) <= 20):
        raise ValueError("an integer is expected")
    number = int(value)
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError("an integer of 64 bits is expected")
    return number


def _unkeyed(pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name = _str(pair["key"])
        if name in found:
            raise ValueError("an attribute is there twice")  # one reader would take the first, another the last
        found[name] = _unwrapped(pair.get("value", {}), 0)
    return found


def _unwrapped(value: dict[str, Any], depth: int) -> Any:
    if depth > 8 or len(value) > 1:
        raise ValueError("a value of an attribute has one kind, and is not nested deeply")
    for kind, held in value.items():
        if kind == "stringValue":
            return _str(held)
        if kind == "boolValue" and isinstance(held, bool):
            return held
        if kind == "intValue":
            return _number(held)
        if kind == "doubleValue":
            return float(held)
        if kind == "arrayValue":
            return [_unwrapped(item, depth + 1) for item in held.get("values", ())]
        if kind in ("kvlistValue", "bytesValue"):
            return str(held)  # nothing of Kest's is of these kinds
        raise ValueError("a value of an unknown kind")
    return None
