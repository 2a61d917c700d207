"""The channel of invalidations as it is kept in Redis: a bounded stream, and under each target its last message.

Nothing here knows what messages mean. The stream brings them to who is connected; whoever missed more than it holds reads
the messages by target instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

from kest.gate.redis_link import RedisLink, Script, as_text

__all__ = ["Entry", "RedisChannel", "State"]

RETENTION_MS = 30 * 86_400_000
MAX_TARGETS = 1_000_000
READ_AT_ONCE = 200
WAIT = 0.5  # seconds that a reader waits for news before it looks whether anything else is to be done

# KEYS: the stream; messages by target; when each came; epoch and number of messages. ARGV: deadline, target, message,
# messages that the stream is to hold, microseconds for which a target is kept, most targets, a name for a new epoch.
_PUBLISH = Script(
    """
redis.call('HSETNX', KEYS[4], 'epoch', ARGV[7])
local number = redis.call('HINCRBY', KEYS[4], 'count', 1)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 'number', number, 'message', ARGV[3])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[3], whole(now), ARGV[2])
local old = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now - ARGV[5]), 'LIMIT', 0, 16)
local more = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[6])
if more > 0 then old = redis.call('ZRANGE', KEYS[3], 0, math.min(more, 16) - 1) end
for _, target in ipairs(old) do
  redis.call('HDEL', KEYS[2], target)
  redis.call('ZREM', KEYS[3], target)
end
return {now, number}
"""
)

# KEYS: the stream; epoch and number of messages. ARGV: deadline, a name for a new epoch.
_STATE = Script(
    """
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[2])
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local about = redis.call('HMGET', KEYS[2], 'epoch', 'count')
return {now, about[1], about[2] or '0', last[1] and last[1][1] or '0-0'}
"""
)


class State(NamedTuple):
    """Where a channel stands: ``epoch`` names the data (another one: Redis lost what there was)."""

    epoch: str
    messages: int
    last: str


class Entry(NamedTuple):
    """One message in the stream: its id there, its number, its text; number 0 and "" for what is no message."""

    id: str
    number: int
    message: str


class RedisChannel:
    """The commands of one channel."""

    def __init__(self, link: RedisLink, channel: str, most: int) -> None:
        self.link, self._most = link, most
        self._stream, self._over, self._since, self._about = (
            channel, f"{channel}:over", f"{channel}:since", f"{channel}:about",
        )  # fmt: skip

    def publish(self, target: str, message: str) -> None:
        """Put a message where everybody will see it, now or later."""
        keys = (self._stream, self._over, self._since, self._about)
        arguments = (target, message, self._most, RETENTION_MS * 1000, MAX_TARGETS, secrets.token_hex(8))
        self.link.run(_PUBLISH, keys, *arguments, late=True)

    def state(self) -> State:
        """Where the channel stands now."""
        epoch, count, last = self.link.run(_STATE, (self._stream, self._about), secrets.token_hex(8), late=True)
        return State(as_text(epoch) or "", int(count), as_text(last) or "0-0")

    def read(self, client: Any, after: str) -> list[Entry]:
        """Messages after an id; waits for one up to `WAIT`. ``client`` has the patience for that."""
        options = {"count": READ_AT_ONCE, "block": round(WAIT * 1000)}
        answer = self.link.call(lambda client: client.xread({self._stream: after}, **options), client)
        if isinstance(answer, dict):  # as redis-py has it for the third version of the protocol
            answer = list(answer.items())
        return [_entry(id, fields) for _, entries in answer or () for id, fields in entries]

    def snapshot(self) -> Iterator[str]:
        """The last message for each target, in no order. Some may come twice."""
        cursor = 0
        while True:
            cursor, found = self.link.call(lambda client, at=cursor: client.hscan(self._over, at, count=500))
            yield from (_message(value) for value in found.values())
            if not int(cursor):
                return


def _entry(id: Any, fields: Any) -> Entry:
    given = {as_text(name): value for name, value in (fields or {}).items()}
    try:
        number = int(given["number"])
    except (KeyError, ValueError):
        number = 0
    return Entry(as_text(id) or "", number, _message(given.get("message")))


def _message(value: Any) -> str:
    try:
        return as_text(value) or ""
    except UnicodeDecodeError:
        return ""
