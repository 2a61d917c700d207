"""What a gate is asked about: `ActionContext` (in C), places, devices, and contexts as records."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from kest._kestcore import ActionContext
from kest.errors import GateInputError

__all__ = ["ActionContext", "DeviceFingerprint", "GeoLocation", "context_from_record", "context_to_record"]

EARTH_RADIUS_KM = 6371.0
MAX_TEXT = 256
_COUNTRY = re.compile(r"[A-Za-z]{2}", re.ASCII)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise GateInputError(f"{what} is longer than {MAX_TEXT} characters")
    return str(value)


def _degrees(value: object, what: str, most: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of degrees, not {type(value).__name__}")
    if not -most <= value <= most:  # NaN neither
        raise GateInputError(f"{what} {value!r} is not from {-most:.0f} to {most:.0f} degrees")
    return float(value)


@final
@dataclass(frozen=True, slots=True, repr=False)
class GeoLocation:
    """A place: ISO 3166-1 country code (two letters, any case), and perhaps coordinates in degrees."""

    country_code: str
    region: str | None = None
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None

    def __post_init__(self) -> None:
        if not _COUNTRY.fullmatch(_text(self.country_code, "country_code")):
            raise GateInputError(f"country_code {self.country_code!r:.60} is not two letters (ISO 3166-1 alpha-2)")
        put = object.__setattr__
        put(self, "country_code", self.country_code.upper())
        for name in ("region", "city"):
            value = getattr(self, name)
            put(self, name, None if value is None else _text(value, name))
        put(self, "latitude", _degrees(self.latitude, "latitude", 90.0))
        put(self, "longitude", _degrees(self.longitude, "longitude", 180.0))

    def distance_km(self, other: GeoLocation) -> float | None:
        """Kilometres along the great circle (haversine, radius 6371.0); None when a coordinate is missing."""
        if self.latitude is None or self.longitude is None or other.latitude is None or other.longitude is None:
            return None
        here, there = math.radians(self.latitude), math.radians(other.latitude)
        east = math.sin(math.radians(other.longitude - self.longitude) / 2)
        north = math.sin((there - here) / 2)
        return (
            2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, north**2 + math.cos(here) * math.cos(there) * east**2)))
        )

    @property
    def label(self) -> str:
        """``IN`` or ``IN/Bangalore``."""
        return f"{self.country_code}/{self.city}" if self.city else self.country_code

    def __repr__(self) -> str:
        placed = self.latitude is not None and self.longitude is not None
        return f"GeoLocation({self.label}{f', {self.latitude:.4f},{self.longitude:.4f}' if placed else ''})"


@final
@dataclass(frozen=True, slots=True, repr=False)
class DeviceFingerprint:
    """A device: ``hash`` identifies it, ``description`` is for people."""

    hash: str
    description: str | None = None

    def __post_init__(self) -> None:
        if not _text(self.hash, "hash"):
            raise GateInputError("the hash of a device is empty")
        if self.description is not None:
            _text(self.description, "description")

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, DeviceFingerprint) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        described = f", description={self.description}" if self.description else ""
        return f"DeviceFingerprint(hash={self.hash}{described})"


# --- records ---

_PLAIN = (
    "principal_id", "principal_kind", "action_name", "resource", "ip", "session_id", "origin_ip", "session_started_at",
    "action_count", "trust",
)  # fmt: skip
_PLACES = ("current_geo", "origin_geo")
_DEVICES = ("device", "origin_device")


def context_to_record(context: ActionContext) -> dict[str, Any]:
    """A context as plain data, for ``kest gate replay``; `context_from_record` reads it back."""
    record: dict[str, Any] = {name: getattr(context, name) for name in _PLAIN}
    record["roles"] = list(context.roles)
    record["params"] = {name: list(v) if isinstance(v, tuple) else v for name, v in context.params.items()}
    record["taints"] = None if context.taints is None else list(context.taints)
    for name in _PLACES:
        place: GeoLocation | None = getattr(context, name)
        record[name] = None if place is None else {field: getattr(place, field) for field in GeoLocation.__slots__}
    for name in _DEVICES:
        device: DeviceFingerprint | None = getattr(context, name)
        record[name] = None if device is None else {"hash": device.hash, "description": device.description}
    return {name: value for name, value in record.items() if value not in (None, [], {}, 0) or name in _PLAIN[:3]}


def context_from_record(record: Mapping[str, Any]) -> ActionContext:
    """The context that a record describes. TypeError and GateInputError say what is wrong with it."""
    if not isinstance(record, Mapping):
        raise TypeError(f"a context is an object, not {type(record).__name__}")
    known = {*_PLAIN, *_PLACES, *_DEVICES, "roles", "params", "taints"}
    unknown = sorted(str(name) for name in record if name not in known)
    if unknown:
        raise GateInputError(f"unknown field {unknown[0]!r:.100} in a context; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = dict(record)
    for name in (*_PLACES, *_DEVICES):
        given = values.get(name)
        if given is not None:
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} is an object, not {type(given).__name__}")
            values[name] = (GeoLocation if name in _PLACES else DeviceFingerprint)(**given)
    return ActionContext(**values)
