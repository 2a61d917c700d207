"""How often, when and from where: rate limits, age of the session, time of day, country."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from kest.gate.conditions.model import Kind, Node
from kest.gate.conditions.values import boolean, by_bytes, duration, fail, integer, items, table, text
from kest.gate.words import span
from kest.gate.zones import known_zone, zone_table

if TYPE_CHECKING:
    from kest._kestcore import ActionContext

_WINDOW = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})(?:\s+(\S+))?", re.ASCII)
_COUNTRY = re.compile(r"[A-Za-z]{2}", re.ASCII)


def _rate_limit(value: object, path: str) -> dict[str, Any]:
    given = table(value, path, ("max", "window"), ("count_refused",))
    return {
        "max": integer(given["max"], f"{path}.max", 0, 2**32 - 1),
        "window": duration(given["window"], f"{path}.window"),
        "count_refused": boolean(given.get("count_refused", False), f"{path}.count_refused"),
    }


def _time_window(value: object, path: str) -> dict[str, Any]:
    found = _WINDOW.fullmatch(text(value, path))
    if not found:
        raise fail(
            f"{value!r:.60} is no window: write HH:MM-HH:MM, and perhaps a time zone (09:00-17:30 Asia/Tokyo)", path
        )
    hours = (int(found[1]), int(found[3]))
    minutes = (int(found[2]), int(found[4]))
    if max(hours) > 23 or max(minutes) > 59:
        raise fail(f"{value!r:.60}: times are from 00:00 to 23:59", path)
    start, end = (hour * 3600 + minute * 60 for hour, minute in zip(hours, minutes, strict=True))
    if start == end:
        raise fail(f"{value!r:.60} is one instant; for the whole day leave the condition out", path)
    zone = found[5] or "UTC"
    if not known_zone(zone):
        raise fail(
            f"unknown time zone {zone!r:.60}: use an IANA name such as Europe/Berlin, in its exact spelling", path
        )
    return {"start": start, "end": end, "zone": zone}


def _countries(value: object, path: str) -> dict[str, Any]:
    listed = [value] if isinstance(value, str) else items(value, path)
    for index, item in enumerate(listed):
        if not isinstance(item, str) or not _COUNTRY.fullmatch(item):
            raise fail(f"{item!r:.60} is no country code: two letters (ISO 3166-1 alpha-2)", f"{path}[{index}]")
    return {"texts": by_bytes({item.upper() for item in listed})}


def _limit_node(given: Mapping[str, Any]) -> Node:
    window_ns = given["window"] * 1_000_000_000
    return Node(mode=int(given["count_refused"]), integer=given["max"], until=window_ns)


def _local_time(zone: str, wall_ns: int) -> str:
    starts, offsets = zone_table(zone)
    seconds = wall_ns // 1_000_000_000
    index = max((i for i, start in enumerate(starts[:-1]) if start <= seconds), default=0)
    local = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds + offsets[index])
    return f"{local:%H:%M:%S} {zone}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}"


def _why_limit(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    return f"at most {given['max']} per {span(given['window'])}, this call included"


def _why_window(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    window = f"{_clock(given['start'])}-{_clock(given['end'])}"
    return f"it is {_local_time(given['zone'], wall_ns)}; asked for is {window}"


def _why_country(given: Mapping[str, Any], context: ActionContext, wall_ns: int) -> str:
    place = context.current_geo
    where = "the place is not known" if place is None else f"the place is in {place.country_code}"
    return f"{where}; allowed: {', '.join(given['texts'][:20])}"


CONDITIONS = {
    "rate_limit": Kind("rate_limit", _rate_limit, _limit_node, _why_limit),
    "session_age_max": Kind(
        "session_age_max",
        lambda value, path: {"seconds": duration(value, path)},
        lambda given: Node(integer=given["seconds"]),
        lambda given, context, wall_ns: f"the session may be {span(given['seconds'])} old",
    ),
    "time_window": Kind(
        "time_window",
        _time_window,
        lambda given: Node(integer=given["start"], until=given["end"], zone=given["zone"]),
        _why_window,
    ),
    "geo_country": Kind("geo_country", _countries, lambda given: Node(texts=given["texts"]), _why_country),
}
