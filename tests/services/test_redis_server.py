"""Redis: it answers only who knows the password, and is empty after a restart on the same port."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import redis
from kest_services.processes import Processes
from kest_services.redis import Redis


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_redis_remembers_until_it_is_restarted(processes: Processes, tmp_path: Path) -> None:
    server = Redis(processes, tmp_path / "redis", password="open-sesame")
    server.start()
    with redis.Redis(port=server.port) as stranger, redis.Redis.from_url(server.url) as client:
        with pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        client.set("a", "x")
        assert client.get("a") == b"x"
        url = server.url
        server.restart()
        assert server.url == url
        assert client.get("a") is None
