"""Single use for all replicas: what was used is remembered in Redis."""

from __future__ import annotations

import time
from typing import Any

from kest._kestcore import b64url_encode
from kest.errors import GateStoreError, ReplayStoreError
from kest.gate.redis_link import CONNECT_TIMEOUT, TIMEOUT, Script
from kest.gate.redis_store import RedisStore

__all__ = ["RedisReplayStore"]

MARGIN = 3_600  # seconds by which it is remembered longer: clocks differ

_USE = Script("return {now, redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[2]) and 1 or 0}\n")


class RedisReplayStore(RedisStore):
    """A `ReplayStore` in Redis: a permit that one replica has honoured, no other one honours. Any failure refuses the use.

    A Redis that lost its data has forgotten what was used; let it persist (AOF) where a permit's few seconds matter.

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
        prefix: str = "kest:used:",
        timeout: float = TIMEOUT,
        connect_timeout: float | None = CONNECT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(url, prefix=prefix, timeout=timeout, connect_timeout=connect_timeout, **options)

    def first_use(self, key: bytes, expires_at: float, /) -> bool:
        """Remember the key, and say whether this was its first use. ReplayStoreError when Redis does not say."""
        left = max(expires_at - time.time(), 0) + MARGIN
        try:
            return bool(self._link.run(_USE, [self._prefix + b64url_encode(key)], round(left * 1000))[0] == 1)
        except GateStoreError as error:
            raise ReplayStoreError(str(error)) from None
