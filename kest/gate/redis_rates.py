"""Rate limits in Redis: sliding windows that all replicas share, one atomic script a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kest.gate.redis_link import CONNECT_TIMEOUT, TIMEOUT, Script, key_digest
from kest.gate.redis_store import RedisStore
from kest.gate.stores import LimitKey

__all__ = ["RedisRateLimitStore"]

# The same arithmetic as csrc/core/gate_rate.c. A key holds {1, time, events, time, events, ...} in order of time; below 32
# pairs they are exact, then events of one 32nd of the window become one pair, at the time of the last of them.
_COUNT = Script(
    """
local SLICES = 32
local mode = ARGV[2]

local function load(key, window)
  local raw = redis.call('GET', key)
  local kept, total, at = {}, 0, now
  if not raw then return kept, total, at end
  local all = cmsgpack.unpack(raw)
  if type(all) ~= 'table' or all[1] ~= 1 or #all % 2 == 0 then error('not a counter: ' .. key) end
  if #all > 1 and all[#all - 1] > at then at = all[#all - 1] end  -- the clock was set back: time stands still
  for i = 2, #all, 2 do
    if at - all[i] < window then
      kept[#kept + 1] = all[i]
      kept[#kept + 1] = all[i + 1]
      total = total + all[i + 1]
    end
  end
  return kept, total, at
end

local function merge(events, slice)
  local merged = {events[1], events[2]}
  for i = 3, #events, 2 do
    local last = #merged
    if math.floor(events[i] / slice) == math.floor(merged[last - 1] / slice) then
      merged[last - 1] = events[i]
      merged[last] = merged[last] + events[i + 1]
    else
      merged[last + 1] = events[i]
      merged[last + 2] = events[i + 1]
    end
  end
  return merged
end

local function add(events, at, window)
  local slice = math.max(1, math.floor(window / SLICES))
  local join = false
  if #events >= 2 * SLICES then
    events = merge(events, slice)
    join = math.floor(events[#events - 1] / slice) == math.floor(at / slice)
  end
  if join or (#events > 0 and events[#events - 1] == at) then
    events[#events - 1] = at
    events[#events] = events[#events] + 1
  else
    events[#events + 1] = at
    events[#events + 1] = 1
  end
  return events
end

local answer, counters, room = {now}, {}, true
for i, key in ipairs(KEYS) do
  local most, window = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local events, total, at = load(key, window)
  counters[i] = {events, at, window}
  answer[i + 1] = total < most and 1 or 0
  room = room and total < most
end
if mode == 'room' then return answer end
if mode == 'enforce' and not room then return {now, 0} end
for i, key in ipairs(KEYS) do
  local events, at, window = unpack(counters[i])
  events = add(events, at, window)
  table.insert(events, 1, 1)
  redis.call('SET', key, cmsgpack.pack(events), 'PX', whole(math.ceil((at - now + window) / 1000)))
end
return {now, 1}
"""
)


class RedisRateLimitStore(RedisStore):
    """Sliding windows in Redis, for the ``rate_store`` of the gates of all replicas. Any failure refuses the action.

    A call costs one round trip to look and one to record, of the same cost however hot the key; a key takes less than
    half a kilobyte and expires with its window. An event counts for the length of the window, from 32 events on for up to
    a 32nd longer, by Redis's clock. `close` belongs where the application shuts down.

    Args:
        url: as redis-py takes it (redis://, rediss://, unix://).
        prefix: of every key; applications that share a Redis use different ones.
        timeout: seconds for connecting and for each answer.
        connect_timeout: seconds that Redis has to answer now; None: it is asked when it is first needed.
        options: further arguments of `redis.Redis`.

    Raises:
        GateInputError: (a ValueError) the URL is none, or Redis does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "kest:rate:",
        timeout: float = TIMEOUT,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(url, prefix=prefix, timeout=timeout, connect_timeout=connect_timeout, **options)

    def room(self, limits: Sequence[LimitKey]) -> list[bool]:
        """For each limit whether one more event fits; records nothing. GateStoreError when Redis does not say."""
        return [one == 1 for one in self._run("room", limits)] if limits else []

    def record(self, limits: Sequence[LimitKey], *, enforce: bool) -> bool:
        """Records one event under each limit, atomically: with ``enforce`` in all of them if all have room, else in none
        (False); without it in all. GateStoreError when Redis does not say that it did."""
        return not limits or self._run("enforce" if enforce else "count", limits)[0] == 1

    def _run(self, mode: str, limits: Sequence[LimitKey]) -> list[Any]:
        keys = [
            self._prefix + key_digest(limit.key, limit.window_ns.to_bytes(8, "big", signed=True)) for limit in limits
        ]
        bounds = [number for limit in limits for number in (limit.most, limit.window_ns // 1000)]
        return self._link.run(_COUNT, keys, mode, *bounds)
