"""Claim checks in Redis: shared by the processes of a deployment, expiring by themselves."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, cast

from kest.core.cache import CLAIM_TTL
from kest.errors import ClaimCheckError, ConfigurationError, MissingExtraError, PassportTooLargeError
from kest.locks import Lock

__all__ = ["RedisCache"]

MAX_RECORD = 4 * 1024 * 1024


class RedisCache:
    """A `CacheProvider` over redis-py, for sync and for async callers. Fails closed: whatever Redis does not answer in time
    is a `ClaimCheckError`, never a missing passport.

    ``RedisCache("redis://redis:6379/0")``, ``RedisCache(host="redis", port=6379)``, ``RedisCache(client=Redis(...))``. A
    record holds its passport's tip and is refused when that is not the one that the request names, so that whoever can
    write to Redis cannot exchange one passport for another. Use TLS (``rediss://``) and a password on a shared network.
    `close` and `aclose` belong where the application shuts down; an async client's connections belong to their event loop.

    Args:
        url: as redis-py takes it (redis://, rediss://, unix://).
        host, port, db, username, password: instead of `url`.
        client, async_client: redis-py clients that exist already; theirs are then the timeouts.
        ttl: seconds for which a record lives.
        prefix: of every key; applications that share a Redis use different ones.
        max_bytes: the largest record that is written or read.
        timeout: seconds for connecting and for each answer.
        options: further arguments of `redis.Redis`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        host: str | None = None,
        port: int = 6379,
        db: int = 0,
        username: str | None = None,
        password: str | None = None,
        client: Any = None,
        async_client: Any = None,
        ttl: float = CLAIM_TTL,
        prefix: str = "kest:claim:",
        max_bytes: int = MAX_RECORD,
        timeout: float = 1.0,
        **options: Any,
    ) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError('RedisCache needs redis-py: pip install "kest[redis]"') from error
        if not ttl > 0 or max_bytes < 1 or not timeout > 0:
            raise ConfigurationError("RedisCache needs a positive ttl, max_bytes and timeout")
        if not isinstance(prefix, str) or not prefix:
            raise ConfigurationError("RedisCache needs a key prefix, so that its records are told from others")
        if sum(given is not None for given in (url, host, client or async_client)) > 1:
            raise ConfigurationError("RedisCache: give one of url, host and client")
        self._ttl, self._prefix, self._max_bytes = float(ttl), prefix, max_bytes
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._given, self._given_async = client, async_client
        self._owns = client is None and async_client is None
        target: dict[str, Any] = {"host": host or "localhost", "port": port, "db": db}
        if username is not None:
            target["username"] = username
        if password is not None:
            target["password"] = password
        self._url = url
        self._options = {
            **({} if url is not None else target),
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            **options,
        }
        self._lock = Lock()
        self._sync: Any = None
        # An async client's connections belong to the event loop that opened them.
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
        if self._owns:
            self._client()  # a malformed URL is an error here and now; nothing connects yet

    def __repr__(self) -> str:
        return f"<RedisCache prefix={self._prefix!r} ttl={self._ttl:g}>"  # a URL may hold a password

    # --- sync ---

    def get(self, key: str) -> str | None:
        """The record, or None when it is missing or has expired; ClaimCheckError when Redis does not say."""
        client = self._client()
        try:
            # One byte more than allowed shows that a record is too large without reading all of it.
            return self._text(client.getrange(self._prefix + key, 0, self._max_bytes))
        except self._errors as error:
            self._failed(error)

    def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """Keep a record for ``ttl`` seconds; ClaimCheckError when Redis does not take it."""
        record, milliseconds = self._record(value, ttl)
        client = self._client()
        try:
            client.set(self._prefix + key, record, px=milliseconds)
        except self._errors as error:
            self._failed(error)

    def delete(self, key: str) -> None:
        """Forget a record, if it is there."""
        client = self._client()
        try:
            client.delete(self._prefix + key)
        except self._errors as error:
            self._failed(error)

    # --- async ---

    async def get_async(self, key: str) -> str | None:
        """`get` for callers on an event loop."""
        if not self._has_async:
            return await asyncio.to_thread(self.get, key)
        try:
            return self._text(await self._async_client().getrange(self._prefix + key, 0, self._max_bytes))
        except self._errors as error:
            self._failed(error)

    async def set_async(self, key: str, value: str, ttl: float | None = None) -> None:
        """`set` for callers on an event loop."""
        if not self._has_async:
            await asyncio.to_thread(self.set, key, value, ttl)
            return
        record, milliseconds = self._record(value, ttl)
        try:
            await self._async_client().set(self._prefix + key, record, px=milliseconds)
        except self._errors as error:
            self._failed(error)

    def close(self) -> None:
        """Close the connections of sync callers; a client that was passed in stays open."""
        with self._lock:
            client, self._sync = self._sync, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a client that was passed in stays open."""
        with self._lock:
            client = self._loops.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await cast("Callable[[], Awaitable[None]]", getattr(client, "aclose", None) or client.close)()

    # --- inside ---

    @property
    def _has_async(self) -> bool:
        return self._owns or self._given_async is not None

    def _client(self) -> Any:
        if self._given is not None:
            return self._given
        if not self._owns:
            raise ConfigurationError(
                "this RedisCache has an async client only, and a sync caller needs it: pass client="
            )
        client = self._sync
        if client is None:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            client = self._make(redis.Redis, Retry(NoBackoff(), 1, (redis.ConnectionError,)))
            with self._lock:
                client = self._sync = self._sync or client
        return client

    def _async_client(self) -> Any:
        if self._given_async is not None:
            return self._given_async
        loop = asyncio.get_running_loop()
        client = self._loops.get(loop)
        if client is None:
            import redis
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            client = self._make(Redis, Retry(NoBackoff(), 1, (redis.ConnectionError,)))
            with self._lock:
                client = self._loops.setdefault(loop, client)
        return client

    def _make(self, kind: Any, retry: Any) -> Any:
        # One retry, and only where a pooled connection turns out to be dead; a slow Redis is not asked twice.
        options = {"retry": retry, **self._options}
        try:
            return kind(**options) if self._url is None else kind.from_url(self._url, **options)
        except ValueError as error:
            raise ConfigurationError(
                f"RedisCache: the URL is not one that redis-py takes ({type(error).__name__})"
            ) from None

    def _record(self, value: str, ttl: float | None) -> tuple[bytes, int]:
        record = value.encode()
        if len(record) > self._max_bytes:
            raise PassportTooLargeError(
                f"a claim-check record of {len(record)} bytes exceeds this RedisCache's max_bytes of {self._max_bytes}"
            )
        seconds = self._ttl if ttl is None else min(float(ttl), self._ttl)
        if not seconds > 0:
            raise ClaimCheckError("a claim check must live for some time: ttl is not positive")
        return record, max(1, int(seconds * 1000))

    def _text(self, record: Any) -> str | None:
        if not record:  # GETRANGE answers an empty string for a key that is not there
            return None
        if len(record) > self._max_bytes:
            raise ClaimCheckError(f"the record behind the claim check exceeds {self._max_bytes} bytes")
        try:
            return record if isinstance(record, str) else bytes(record).decode("utf-8")
        except UnicodeDecodeError:
            raise ClaimCheckError("the record behind the claim check is not text") from None

    def _failed(self, error: Exception) -> NoReturn:
        # The message of a Redis error can quote what was sent (AUTH among it).
        raise ClaimCheckError(f"Redis did not answer the claim check: {type(error).__name__}") from None
