"""Time zones as tables: from which instant which offset from UTC holds, between 1970 and 2100."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache

__all__ = ["FIRST", "LAST", "known_zone", "zone_table"]

FIRST = 0
LAST = 4_102_444_800  # 2100-01-01; beyond, a clock is not believed
_STEP = 7 * 86_400  # no zone ever changed its offset and changed it back within a week

_NAME = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*", re.ASCII)


@lru_cache(maxsize=1)
def _available() -> frozenset[str]:
    import zoneinfo

    return frozenset(zoneinfo.available_timezones())


def known_zone(name: str) -> bool:
    """Whether this is the exact name of a zone in the IANA database of this machine (or the package tzdata)."""
    return name == "UTC" or (len(name) <= 64 and _NAME.fullmatch(name) is not None and name in _available())


@lru_cache(maxsize=256)
def zone_table(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(starts, offsets): ``offsets[i]`` seconds east of UTC hold from ``starts[i]`` until ``starts[i + 1]``."""
    if name == "UTC":
        return (FIRST, LAST), (0,)
    import zoneinfo

    zone = zoneinfo.ZoneInfo(name)
    starts, offsets = [FIRST], [_offset(zone, FIRST)]
    at = FIRST
    while at < LAST:
        ahead = min(at + _STEP, LAST)
        if _offset(zone, ahead) != offsets[-1]:
            ahead = _change(zone, at, ahead)
            starts.append(ahead)
            offsets.append(_offset(zone, ahead))
        at = ahead
    if starts[-1] == LAST:
        del starts[-1], offsets[-1]
    return (*starts, LAST), tuple(offsets)


def _offset(zone: tzinfo, at: int) -> int:
    offset = datetime.fromtimestamp(at, timezone.utc).astimezone(zone).utcoffset()
    return int((offset or timedelta()).total_seconds())


def _change(zone: tzinfo, low: int, high: int) -> int:
    """The first second after ``low`` at which the offset is another one."""
    before = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high
