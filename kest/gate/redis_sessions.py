"""Sessions in Redis: how each began, what it did, and what is over, for all replicas."""

from __future__ import annotations

import ipaddress
import json
import logging
import secrets
from typing import Any

from kest._kestcore import ActionContext
from kest.errors import GateInputError, GateStoreError
from kest.gate.context import DeviceFingerprint, GeoLocation
from kest.gate.invalidation import KINDS
from kest.gate.redis_link import CONNECT_TIMEOUT, TIMEOUT, Script, as_text, key_digest
from kest.gate.redis_store import RedisStore
from kest.gate.stores import REVOKED, SessionState

__all__ = ["SESSION_TTL", "RedisSessionStore"]

log = logging.getLogger("kest.gate")

SESSION_TTL = 86_400
MIN_TTL = 14_400  # the age at which a session ends: forgetting it earlier would let it begin again
MAX_TTL = 1_000_000_000
REVOKED_MS = 30 * 86_400_000
MAX_KNOWN = 65_536  # invalidations that a process can give back to a Redis that lost them
AT_ONCE = 1_000

# KEYS: the epoch; what could be over, the first that is decides; the session, if there is one. ARGV: deadline, a name for a
# new epoch, how many could be over.
_LOOK = Script(
    """
redis.call('SET', KEYS[1], ARGV[2], 'NX')
local answer = {now, redis.call('GET', KEYS[1]), 0, now}
local many = tonumber(ARGV[3])
for i = 1, many do
  if redis.call('EXISTS', KEYS[i + 1]) == 1 then
    answer[3] = i
    return answer
  end
end
local session = KEYS[many + 2]
if session and redis.call('EXISTS', session) == 1 then
  for i, value in ipairs(redis.call('HMGET', session, 'started', 'seen', 'actions', 'ip', 'geo', 'device')) do
    answer[i + 4] = value
  end
end
return answer
"""
)

# KEYS: the session; what could be over. ARGV: deadline, time to live (ms), whether to count, the most that may be counted
# ('': any), when it began (Unix time) or '', address, place and device with which it begins, those of this action.
_PERMITTED = Script(
    """
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return {now, 'over'} end
end
local session = KEYS[1]
local seen = now
if redis.call('EXISTS', session) == 0 then
  local age = 0
  if ARGV[5] ~= '' then age = math.min(math.max(math.floor(now / 1000000) - tonumber(ARGV[5]), 0), 4000000000) end
  redis.call('HSET', session, 'started', whole(now - age * 1000000), 'actions', 0)
  for i, name in ipairs({'ip', 'geo', 'device'}) do
    if ARGV[5 + i] ~= '' then redis.call('HSET', session, name, ARGV[5 + i]) end
  end
else
  local state = redis.call('HMGET', session, 'started', 'seen', 'actions')
  if not (tonumber(state[1]) and tonumber(state[2]) and tonumber(state[3])) then error('not a session: ' .. session) end
  if ARGV[4] ~= '' and tonumber(state[3]) >= tonumber(ARGV[4]) then return {now, 'full'} end
  seen = math.max(now, tonumber(state[2]))
  for i, name in ipairs({'ip', 'geo', 'device'}) do
    if ARGV[8 + i] ~= '' then redis.call('HSETNX', session, name, ARGV[8 + i]) end
  end
end
redis.call('HINCRBY', session, 'actions', ARGV[3])
redis.call('HSET', session, 'seen', whole(seen))
redis.call('PEXPIRE', session, ARGV[2])
return {now, 'counted'}
"""
)

# KEYS: the epoch; what is over. ARGV: deadline, a name for a new epoch, for how long (ms).
_OVER = Script(
    """
redis.call('SET', KEYS[1], ARGV[2], 'NX')
for i = 2, #KEYS do redis.call('SET', KEYS[i], whole(now), 'PX', ARGV[3]) end
return {now, redis.call('GET', KEYS[1])}
"""
)

Over = tuple[str, str]  # kind and id


class RedisSessionStore(RedisStore):
    """Session state in Redis, for the ``session_store`` of the gates of all replicas. Any failure refuses the action.

    A session is opened by its first permitted action and forgotten when nothing was seen of it for its time to live;
    invalidations of sessions, principals and roles stand for 30 days. Times are Redis's. When Redis has lost its data, each
    store gives back the invalidations that it made or met; to keep the rest, let Redis persist (AOF). `close` belongs where
    the application shuts down.

    Args:
        url: as redis-py takes it (redis://, rediss://, unix://).
        ttl: seconds after its last action for which a session is remembered, from 14,400 (the age at which drift ends it).
        prefix: of every key; applications that share a Redis use different ones.
        timeout: seconds for connecting and for each answer.
        connect_timeout: seconds that Redis has to answer now; None: it is asked when it is first needed.
        options: further arguments of `redis.Redis`.

    Raises:
        GateInputError: (a ValueError) the URL or the ttl is none, or Redis does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl: int = SESSION_TTL,
        prefix: str = "kest:gate:",
        timeout: float = TIMEOUT,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **options: Any,
    ) -> None:
        if isinstance(ttl, bool) or not isinstance(ttl, int):
            raise TypeError(f"ttl is an int of seconds, not {type(ttl).__name__}")
        if not MIN_TTL <= ttl <= MAX_TTL:
            raise GateInputError(f"ttl is from {MIN_TTL} seconds (the age at which a session ends) to {MAX_TTL}")
        self._ttl_ms = ttl * 1000
        super().__init__(url, prefix=prefix, timeout=timeout, connect_timeout=connect_timeout, **options)
        self._epoch: str | None = None
        self._known: dict[Over, None] = {}

    @classmethod
    def from_url_with_ttl(cls, url: str, ttl: int, **options: Any) -> RedisSessionStore:
        """With this time to live in seconds."""
        return cls(url, ttl=ttl, **options)

    # --- what gates ask ---

    def look(self, context: ActionContext) -> SessionState | None:
        """The context's session, and whether its session, principal or roles were invalidated.

        Raises:
            GateStoreError: Redis does not say, or what it holds is no session.
        """
        over = _could_be_over(context)
        keys = [self._epoch_key, *(self._over_key(*one) for one in over)]
        if context.session_id is not None:
            keys.append(self._session_key(context.session_id))
        while True:
            epoch, which, now, *record = self._link.run(_LOOK, keys, secrets.token_hex(8), len(over))
            if self._is_new(epoch):
                self._give_back(epoch)
                continue
            break
        if which:
            self._remember(over[which - 1])
            return SessionState(revoked=REVOKED[over[which - 1][0]])
        return _state(int(now), record) if record else None

    def permitted(self, context: ActionContext, *, count: bool, most: int | None = None) -> bool:
        """Opens the context's session if need be, and counts the action, atomically.

        False: ``most`` have been counted already. GateStoreError: Redis does not say that it did, or the session is over.
        """
        if context.session_id is None:
            return True
        begin = (context.origin_ip or context.ip, context.origin_geo or context.current_geo)
        started = "" if context.session_started_at is None else context.session_started_at
        answer = self._link.run(
            _PERMITTED,
            [self._session_key(context.session_id), *(self._over_key(*one) for one in _could_be_over(context))],
            self._ttl_ms,
            int(count),
            "" if most is None or not count else most,
            started,
            *_origin(*begin, context.origin_device or context.device),
            *_origin(context.ip, context.current_geo, context.device),
        )
        outcome = as_text(answer[0])
        if outcome == "over":
            raise GateStoreError("RedisSessionStore: the session, its principal or a role of it was just invalidated")
        return outcome == "counted"

    def invalidate(self, id: str, kind: str = "session", /) -> None:
        """From now on, everywhere, the session, principal or role is refused. GateStoreError when Redis does not say that
        it took note."""
        one = self._checked(id, kind)
        self._remember(one)
        epoch = as_text(self._put([one])[0])
        if self._epoch is None:
            self._epoch = epoch

    def is_invalidated(self, id: str, kind: str = "session", /) -> bool:
        """Whether it was invalidated. GateStoreError when Redis does not say."""
        key = self._over_key(*self._checked(id, kind))
        return bool(self._link.call(lambda client: client.exists(key)) == 1)

    # --- a Redis that forgot ---

    def _is_new(self, epoch: Any) -> bool:
        """Whether this is not the data that was there before: flushed, or lost in a restart."""
        name = as_text(epoch)
        if self._epoch is None:
            self._epoch = name
        return name != self._epoch

    def _give_back(self, epoch: Any) -> None:
        known = list(self._known)
        log.warning("Redis has lost its data; giving back %d invalidations that are known here", len(known))
        for start in range(0, len(known), AT_ONCE):
            self._put(known[start : start + AT_ONCE])
        self._epoch = as_text(epoch)

    def _remember(self, one: Over) -> None:
        self._known[one] = None
        while len(self._known) > MAX_KNOWN:
            self._known.pop(next(iter(self._known)), None)

    def _put(self, over: list[Over]) -> list[Any]:
        keys = [self._epoch_key, *(self._over_key(*one) for one in over)]
        return self._link.run(_OVER, keys, secrets.token_hex(8), REVOKED_MS, late=True)

    # --- keys and records ---

    @property
    def _epoch_key(self) -> str:
        return f"{self._prefix}epoch"

    def _session_key(self, id: str) -> str:
        return f"{self._prefix}session:{key_digest(id.encode())}"

    def _over_key(self, kind: str, id: str) -> str:
        return f"{self._prefix}over:{kind}:{key_digest(id.encode())}"

    @staticmethod
    def _checked(id: str, kind: str) -> Over:
        if kind not in KINDS:
            raise GateInputError(f"target_kind must be session, principal or role, not {kind!r:.60}")
        if not isinstance(id, str):
            raise TypeError(f"an id is a str, not {type(id).__name__}")
        return kind, id

    def __repr__(self) -> str:
        return f"<RedisSessionStore prefix={self._prefix!r} ttl={self._ttl_ms // 1000}>"  # a URL may hold a password


def _could_be_over(context: ActionContext) -> list[Over]:
    session = [] if context.session_id is None else [("session", context.session_id)]
    return [*session, ("principal", context.principal_id), *(("role", role) for role in context.roles)]


def _origin(ip: str | None, geo: GeoLocation | None, device: DeviceFingerprint | None) -> tuple[str, str, str]:
    place = "" if geo is None else json.dumps([geo.country_code, geo.region, geo.city, geo.latitude, geo.longitude])
    return ip or "", place, "" if device is None else device.hash


def _state(now: int, record: list[Any]) -> SessionState:
    """A session as it was kept. Whatever is not as `permitted` writes it is an error, and refuses the action."""
    try:
        started, seen, actions, ip, geo, device = (as_text(value) for value in record)
        state = SessionState(
            known=True,
            age=max(max(now, int(seen or "")) - int(started or ""), 0) / 1e6,
            actions=int(actions or ""),
            ip=None if ip is None else str(ipaddress.ip_address(ip)),
            geo=None if geo is None else GeoLocation(*json.loads(geo)),
            device=None if device is None else DeviceFingerprint(device).hash,
        )
        if not 0 <= state.actions < 2**63:
            raise ValueError("the number of actions")
    except (ValueError, TypeError) as error:
        raise GateStoreError(f"RedisSessionStore: a record is no session ({type(error).__name__})") from None
    return state
