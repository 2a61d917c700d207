"""Connections of the gate to one Redis: short timeouts, nothing sent twice, scripts by their digest, whole after a fork."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from kest.errors import ConfigurationError, GateInputError, GateStoreError, MissingExtraError
from kest.locks import Lock

__all__ = ["CONNECT_TIMEOUT", "TIMEOUT", "RedisLink", "Script", "as_text", "key_digest"]

log = logging.getLogger("kest.gate")

TIMEOUT = 0.5
CONNECT_TIMEOUT = 5.0
DRIFT = 10_000  # clocks differ by less than one part in so many
SET_BACK = 10_000_000  # microseconds: a clock that is this far behind was set back

# Redis's own clock decides: those of its clients may be wrong, and differ. ARGV[1] is the time (in microseconds of that
# clock) after which nobody waits for the answer any more: what would be done then is not done. A Redis that was paused
# would otherwise count calls that were refused long ago.
PRELUDE = """\
local seconds = redis.call('TIME')
local now = seconds[1] * 1000000 + seconds[2]
if ARGV[1] ~= '' and now > tonumber(ARGV[1]) then return {now} end
local function whole(number) return string.format('%.0f', number) end
"""


class Script:
    """A Lua script. Its ARGV[1] is a deadline; it answers a list that begins with Redis's time in microseconds."""

    __slots__ = ("digest", "text")

    def __init__(self, body: str) -> None:
        self.text = PRELUDE + body
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()  # as EVALSHA wants it


def as_text(value: Any) -> str | None:
    """What Redis answered, whether or not the URL asks for decoded answers. UnicodeDecodeError for what is no text."""
    return None if value is None else value if isinstance(value, str) else bytes(value).decode()


def key_digest(*parts: bytes) -> str:
    """A key of fixed length for names of any: base64url of the SHA-256 of the parts, each preceded by its length."""
    from kest._kestcore import b64url_encode, sha256

    return b64url_encode(sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)))


class RedisLink:
    """One Redis, as a store of the gate uses it. Thread-safe; waiting for an answer holds up no other thread.

    Args:
        what: the store, for messages.
        url: as redis-py takes it (redis://, rediss://, unix://).
        timeout: seconds for connecting and for each answer.
        connect_timeout: seconds that Redis has to answer now; None: it is asked when it is first needed.
        options: further arguments of `redis.Redis`.

    Raises:
        GateInputError: (a ValueError) the URL is none, or Redis does not answer.
        MissingExtraError: redis-py is not installed.
    """

    def __init__(self, what: str, url: str, *, timeout: float, connect_timeout: float | None, **options: Any) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError(f'{what} needs redis-py: pip install "kest[redis]"') from error
        if not timeout > 0 or (connect_timeout is not None and not connect_timeout > 0):
            raise ConfigurationError(f"{what} needs a positive timeout and connect_timeout")
        self.what, self.timeout = what, float(timeout)
        self._url, self._options = url, options
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._lock = Lock()
        self._client: Any = None
        self._pid = 0
        # Microseconds by which Redis's clock is ahead of our monotonic one, and when that was learned.
        self._ahead: tuple[int, int] | None = None
        try:
            self._make(self.timeout).close()
        except (ValueError, TypeError, AttributeError) as error:
            kind = type(error).__name__
            raise GateInputError(f"{what}: the URL or the options are none that redis-py takes ({kind})") from None
        if connect_timeout is not None:
            self._connect(connect_timeout)

    def _make(self, timeout: float) -> Any:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # No retries: what Redis did although its answer got lost would be done twice. A connection from the pool that
        # has died meanwhile is noticed before anything is sent, which needs the second version of the protocol.
        options = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2, **self._options}
        return redis.Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **options)

    def _connect(self, seconds: float) -> None:
        import redis

        with self._make(seconds) as client:
            try:
                self._learn(_microseconds(client.time()))
            except redis.TimeoutError:
                raise GateInputError(f"redis connect timed out after {seconds:g}s ({self.what})") from None
            except self._errors as error:
                raise GateInputError(f"redis connect failed: {_named(error)} ({self.what})") from None
            try:
                memory = client.info("memory")
            except self._errors:  # an ACL may forbid it
                return
        policy = as_text(memory.get("maxmemory_policy")) or "noeviction"
        if policy != "noeviction" and memory.get("maxmemory"):
            log.warning(
                "%s: this Redis forgets keys when its memory is full (maxmemory-policy %s), counters and invalidations "
                "among them; set noeviction, which refuses actions instead",
                self.what,
                policy,
            )

    # --- asking ---

    def run(self, script: Script, keys: Sequence[str], *arguments: Any, late: bool = False) -> list[Any]:
        """What the script answers, without the time. GateStoreError when Redis does not answer in time.

        Args:
            late: the script is good whenever it runs; otherwise Redis does nothing once nobody waits any more.
        """
        for _ in range(2):
            deadline = "" if late else self._deadline()
            answer = self.call(lambda client, d=deadline: self._eval(client, script, keys, (d, *arguments)))
            self._learn(int(answer[0]))
            if len(answer) > 1:
                return list(answer[1:])
        raise GateStoreError(f"{self.what}: Redis was asked in time and answered too late")

    @staticmethod
    def _eval(client: Any, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return client.evalsha(script.digest, len(keys), *keys, *arguments)
        except NoScriptError:  # it restarted, or forgot its scripts; nothing was done
            return client.eval(script.text, len(keys), *keys, *arguments)

    def call(self, function: Any, client: Any = None) -> Any:
        """``function(client)``; GateStoreError for whatever goes wrong at Redis or on the way."""
        try:
            return function(self.client() if client is None else client)
        except self._errors as error:
            self.failed(error)

    def failed(self, error: Exception) -> NoReturn:
        """Raise what an error of redis-py means here. Its message could quote what was sent (AUTH among it)."""
        raise GateStoreError(f"{self.what}: Redis did not do what was asked: {_named(error)}") from None

    def _deadline(self) -> int | str:
        """When nobody waits any more, by Redis's clock; "" as long as that is unknown."""
        if self._ahead is None:
            return ""
        return time.monotonic_ns() // 1000 + self._ahead[0] + round(self.timeout * 1e6)

    def _learn(self, redis_time: int) -> None:
        """An answer was on its way for a while: of several estimates the highest is the best. Clocks drift a little, and
        are set back at times."""
        now = time.monotonic_ns() // 1000
        ahead = redis_time - now
        if self._ahead is not None:
            known = self._ahead[0] - (now - self._ahead[1]) // DRIFT
            ahead = known if known - SET_BACK < ahead < known else ahead
        self._ahead = ahead, now

    # --- connections ---

    def client(self) -> Any:
        """The client of this process."""
        if self._client is None or self._pid != os.getpid():
            with self._lock:
                if self._client is None or self._pid != os.getpid():
                    self._client, self._pid = self._make(self.timeout), os.getpid()
        return self._client

    def waiting_client(self, seconds: float) -> Any:
        """A client of its own for commands that block for so long; whoever asked for it closes it."""
        return self._make(self.timeout + seconds)

    def close(self) -> None:
        """Close the connections of this process; they open again when they are needed."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _microseconds(pair: Any) -> int:
    return int(pair[0]) * 1_000_000 + int(pair[1])


def _named(error: Exception) -> str:
    """The type of an error, and Redis's own word for it (OOM, NOAUTH, WRONGTYPE)."""
    word = str(error).partition(" ")[0]
    named = type(error).__name__
    return f"{named} ({word})" if word.isupper() and word.isalpha() and len(word) < 20 else named
