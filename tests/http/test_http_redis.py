"""RedisCache against a real redis-server: sync and async, expiry, bounds, and what happens when Redis does not answer."""

from __future__ import annotations

import asyncio
import gc
import pickle
import shutil
import socket
import threading
import time
import uuid
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from kest_services.processes import Processes
from kest_services.redis import Redis as RedisServer

redis = pytest.importorskip("redis", reason="redis-py is not installed")

from wire import grown, keys, service, serving  # noqa: E402

from kest.core import BaggageManager, configure  # noqa: E402
from kest.core.cache import CacheProvider  # noqa: E402
from kest.core.context import lineage  # noqa: E402
from kest.core.redis_cache import RedisCache  # noqa: E402
from kest.errors import ClaimCheckError, ConfigurationError, PassportTooLargeError  # noqa: E402
from kest.http import KestHttpxInterceptor  # noqa: E402


@pytest.fixture
def cache(redis_server: SimpleNamespace) -> Any:
    one = RedisCache(redis_server.url, prefix=f"t:{uuid.uuid4()}:")
    yield one
    one.close()


def test_keeps_and_forgets(cache: RedisCache) -> None:
    assert isinstance(cache, CacheProvider)
    assert cache.get("a") is None
    cache.set("a", "wert ü")
    assert cache.get("a") == "wert ü"
    cache.delete("a")
    assert cache.get("a") is None


async def test_keeps_and_forgets_async(cache: RedisCache) -> None:
    assert await cache.get_async("a") is None
    await cache.set_async("a", "wert ü")
    assert await cache.get_async("a") == "wert ü"
    assert cache.get("a") == "wert ü"
    await cache.aclose()


def test_records_expire(redis_server: SimpleNamespace, cache: RedisCache) -> None:
    client = redis.Redis(port=redis_server.port)
    cache.set("a", "x")
    key = next(k for k in client.scan_iter("t:*") if k.endswith(b":a") and k.startswith(cache._prefix.encode()))
    assert 299_000 < client.pttl(key) <= 300_000
    cache.set("a", "x", 1000)  # never longer than the cache's own time
    assert client.pttl(key) <= 300_000
    cache.set("b", "x", 0.05)
    assert cache.get("b") == "x"
    time.sleep(0.08)
    assert cache.get("b") is None
    client.close()


def test_each_way_to_say_where(redis_server: SimpleNamespace) -> None:
    given = redis.Redis(port=redis_server.port)
    for one in (RedisCache(host="127.0.0.1", port=redis_server.port), RedisCache(client=given)):
        one.set("k", "v")
        assert one.get("k") == "v"
        one.close()
    assert given.ping()  # what was passed in stays open
    decoding = redis.Redis(port=redis_server.port, decode_responses=True)
    assert RedisCache(client=decoding).get("k") == "v"
    decoding.close()
    given.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"ttl": 0},
        {"timeout": -1},
        {"max_bytes": 0},
        {"prefix": ""},
        {"url": "http://x"},
        {"url": "redis://x", "host": "y"},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RedisCache(**settings)


def test_large_records_are_neither_written_nor_read(redis_server: SimpleNamespace) -> None:
    small = RedisCache(redis_server.url, max_bytes=100, prefix="s:")
    with pytest.raises(PassportTooLargeError):
        small.set("a", "x" * 101)
    client = redis.Redis(port=redis_server.port)
    client.set("s:a", "x" * (10 << 20))
    with pytest.raises(ClaimCheckError, match="100"):
        small.get("a")
    client.lpush("s:list", "x")
    client.set("s:bytes", b"\xff\xfe")
    for key in ("list", "bytes"):
        with pytest.raises(ClaimCheckError):
            small.get(key)
    client.delete("s:a", "s:list", "s:bytes")
    client.close()
    small.close()


def test_no_redis_is_an_error_and_not_an_empty_passport(cache: RedisCache) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = RedisCache(f"redis://:hunter2@127.0.0.1:{free.getsockname()[1]}/0", timeout=0.3)
    with pytest.raises(ClaimCheckError) as error:
        gone.get("a")
    assert "hunter2" not in f"{error.value!r} {error.value.__cause__!r} {gone!r}"
    with pytest.raises(ClaimCheckError):
        gone.set("a", "b")
    with pytest.raises(ClaimCheckError):
        asyncio.run(gone.get_async("a"))
    assert "hunter2" not in repr(cache)
    with pytest.raises(TypeError):
        pickle.dumps(gone)


def test_a_redis_that_hangs_costs_the_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        slow = RedisCache(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", timeout=0.2)
        begun = time.monotonic()
        with pytest.raises(ClaimCheckError):
            slow.get("a")
        with pytest.raises(ClaimCheckError):
            asyncio.run(slow.get_async("a"))
        assert time.monotonic() - begun < 2


def test_a_restart_is_survived(tmp_path: Any) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with Processes(tmp_path) as processes, RedisServer(processes, tmp_path / "data") as server:
        one = RedisCache(host="127.0.0.1", port=server.port)
        one.set("a", "x")
        server.stop()
        with pytest.raises(ClaimCheckError):
            one.get("a")
        server.start()
        one.set("a", "y")  # over a connection that died meanwhile
        assert one.get("a") == "y"


def test_a_swapped_record_is_refused(redis_server: SimpleNamespace, cache: RedisCache) -> None:
    """Whoever can write to Redis cannot exchange one passport for another."""
    mine, other = grown(2), grown(2)
    packed = BaggageManager.pack(mine, cache, limit=100)
    claim = packed["kest.claim_check"]
    assert BaggageManager.unpack(packed, cache).entries == mine.entries
    for record in (
        f"{other.chain_tip}\n{other.serialize()}",
        f"{mine.chain_tip}\n{other.serialize()}",
        mine.serialize(),
        "x",
    ):
        cache.set(claim, record)
        with pytest.raises(ValueError):
            BaggageManager.unpack(packed, cache)


async def test_over_http(cache: RedisCache) -> None:
    configure(cache=cache)
    with serving(service(trust_store=keys())) as url:
        passport = grown(40)
        with lineage(passport):
            async with httpx.AsyncClient(transport=KestHttpxInterceptor()) as client:
                for _ in range(3):
                    answer = await client.post(f"{url}/work")
                    assert answer.json()["entries"][:-1] == passport.entries
    await cache.aclose()


def test_over_http_sync(cache: RedisCache) -> None:
    configure(cache=cache)
    passport = grown(40)
    site, client = serving(service(trust_store=keys())), httpx.Client(transport=KestHttpxInterceptor())
    with site as url, lineage(passport), client:
        assert client.post(f"{url}/work").json()["entries"][:-1] == passport.entries


def test_redis_down_at_either_end(redis_server: SimpleNamespace) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = RedisCache(f"redis://127.0.0.1:{free.getsockname()[1]}/0", timeout=0.3)
    there = RedisCache(redis_server.url)
    ran: list[Any] = []
    with serving(service(ran, trust_store=keys(), cache=gone)) as url, lineage(grown(40)):
        with httpx.Client(transport=KestHttpxInterceptor(cache=gone)) as client, pytest.raises(ClaimCheckError):
            client.post(f"{url}/work")
        with httpx.Client(transport=KestHttpxInterceptor(cache=there)) as client:
            assert client.post(f"{url}/work").status_code == 424
    assert not ran
    there.close()


def test_loops_and_threads_share_one_cache(redis_server: SimpleNamespace) -> None:
    cache = RedisCache(redis_server.url, prefix="threads:")
    failures: list[BaseException] = []

    async def some(n: int) -> None:
        for i in range(20):
            await cache.set_async(f"{n}-{i}", "x")
            assert await cache.get_async(f"{n}-{i}") == "x"
        await cache.aclose()

    def work(n: int) -> None:
        try:
            asyncio.run(some(n))
            cache.set(f"{n}", "x")
            assert cache.get(f"{n}") == "x"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    del threads
    gc.collect()
    assert len(cache._loops) == 0
    cache.close()


async def test_a_sync_client_serves_async_callers(redis_server: SimpleNamespace) -> None:
    with redis.Redis(port=redis_server.port) as client:
        one = RedisCache(client=client, prefix="sync:")
        await one.set_async("a", "x")
        assert await one.get_async("a") == "x"
    from redis.asyncio import Redis

    async with Redis(port=redis_server.port) as client:
        one = RedisCache(async_client=client, prefix="sync:")
        assert await one.get_async("a") == "x"
        with pytest.raises(ConfigurationError, match="client="):
            one.get("a")
