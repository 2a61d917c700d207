"""The same POST to OPA by Python's HTTP clients, each used as its documentation says: kept connection, JSON in and out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from io import BytesIO
from typing import Any

__all__ = ["async_clients", "blocking_clients"]

HEADERS = {"Content-Type": "application/json"}
Ask = Callable[[], bool]
AsyncAsk = Callable[[], Awaitable[bool]]


def _body(given: dict[str, Any]) -> bytes:
    return json.dumps({"input": given}).encode()


def blocking_clients(url: str, given: dict[str, Any], uds: str | None = None) -> dict[str, Ask]:
    """Name → one decision, over the Unix socket ``uds`` if there is one. Clients that are not installed, or cannot do
    that, are left out; httpx never is. The fastest comes first: what is compared is then asked one after the other."""
    import http.client
    import socket
    from urllib.parse import urlsplit

    import httpx

    asks: dict[str, Ask] = {}
    try:
        import pycurl  # type: ignore[import-not-found]

        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, url)
        if uds is not None:
            curl.setopt(pycurl.UNIX_SOCKET_PATH, uds)
        curl.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])

        def by_curl() -> bool:
            answer = BytesIO()
            curl.setopt(pycurl.POSTFIELDS, _body(given))
            curl.setopt(pycurl.WRITEDATA, answer)
            curl.perform()
            return bool(json.loads(answer.getvalue())["result"]["allow"])

        asks["pycurl"] = by_curl
    except ImportError:
        pass
    if uds is None:
        asks |= _only_over_tcp(url, given)
    session = httpx.Client(transport=httpx.HTTPTransport(uds=uds))
    asks["httpx"] = lambda: session.post(url, content=_body(given), headers=HEADERS).json()["result"]["allow"]
    parts = urlsplit(url)
    standard = http.client.HTTPConnection(parts.hostname or "", parts.port)
    if uds is not None:
        standard.sock = socket.socket(socket.AF_UNIX)
        standard.sock.connect(uds)

    def by_standard() -> bool:
        standard.request("POST", parts.path, _body(given), HEADERS)
        return bool(json.loads(standard.getresponse().read())["result"]["allow"])

    asks["http.client"] = by_standard
    try:
        import httpcore

        pool = httpcore.ConnectionPool(uds=uds)
        asks["httpcore"] = lambda: json.loads(pool.request("POST", url, headers=HEADERS, content=_body(given)).content)[
            "result"
        ]["allow"]
    except ImportError:
        pass
    return asks


def _only_over_tcp(url: str, given: dict[str, Any]) -> dict[str, Ask]:
    asks: dict[str, Ask] = {}
    try:
        from pyreqwest.client import SyncClientBuilder  # type: ignore[import-not-found]

        rust = SyncClientBuilder().build()
        asks["pyreqwest"] = lambda: (
            rust.post(url).headers(HEADERS).body_bytes(_body(given)).build().send().json()["result"]["allow"]
        )
    except ImportError:
        pass
    try:
        import urllib3

        manager = urllib3.PoolManager()
        asks["urllib3"] = lambda: manager.request("POST", url, body=_body(given), headers=HEADERS).json()["result"][
            "allow"
        ]
    except ImportError:
        pass
    return asks


@asynccontextmanager
async def async_clients(url: str, given: dict[str, Any], uds: str | None = None) -> AsyncIterator[dict[str, AsyncAsk]]:
    """`blocking_clients` for event loops, open meanwhile."""
    import httpx

    asks: dict[str, AsyncAsk] = {}
    async with AsyncExitStack() as opened:
        with suppress(ImportError):
            from pyreqwest.client import ClientBuilder

            rust = await opened.enter_async_context(ClientBuilder().build())

            async def by_pyreqwest() -> bool:
                answer = await rust.post(url).headers(HEADERS).body_bytes(_body(given)).build().send()
                return bool((await answer.json())["result"]["allow"])

            if uds is None:
                asks["pyreqwest"] = by_pyreqwest
        with suppress(ImportError):
            import aiohttp

            connector = None if uds is None else aiohttp.UnixConnector(uds)
            other = await opened.enter_async_context(aiohttp.ClientSession(connector=connector))

            async def by_aiohttp() -> bool:
                async with other.post(url, data=_body(given), headers=HEADERS) as answer:
                    return bool((await answer.json())["result"]["allow"])

            asks["aiohttp"] = by_aiohttp
        session = await opened.enter_async_context(httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds)))

        async def by_httpx() -> bool:
            answer = await session.post(url, content=_body(given), headers=HEADERS)
            return bool(answer.json()["result"]["allow"])

        asks["httpx"] = by_httpx
        yield asks
    await asyncio.sleep(0)
