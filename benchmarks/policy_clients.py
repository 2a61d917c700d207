"""The same POST to OPA by Python's HTTP clients, each used as its documentation says: kept connection, JSON in and out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

__all__ = ["async_clients", "blocking_clients"]

HEADERS = {"Content-Type": "application/json"}
Ask = Callable[[], bool]


def _body(given: dict[str, Any]) -> bytes:
    return json.dumps({"input": given}).encode()


def blocking_clients(url: str, given: dict[str, Any]) -> dict[str, Ask]:
    """Name → one decision. Clients that are not installed are left out; httpx always is."""
    import http.client
    from urllib.parse import urlsplit

    import httpx

    asks: dict[str, Ask] = {}
    session = httpx.Client()
    asks["httpx"] = lambda: session.post(url, content=_body(given), headers=HEADERS).json()["result"]["allow"]
    parts = urlsplit(url)
    standard = http.client.HTTPConnection(parts.hostname or "", parts.port)

    def by_standard() -> bool:
        standard.request("POST", parts.path, _body(given), HEADERS)
        return bool(json.loads(standard.getresponse().read())["result"]["allow"])

    asks["http.client"] = by_standard
    try:
        import httpcore

        pool = httpcore.ConnectionPool()
        asks["httpcore"] = lambda: json.loads(pool.request("POST", url, headers=HEADERS, content=_body(given)).content)[
            "result"
        ]["allow"]
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
    try:
        from pyreqwest.client import SyncClientBuilder  # type: ignore[import-not-found]

        rust = SyncClientBuilder().build()
        asks["pyreqwest"] = lambda: (
            rust.post(url).headers(HEADERS).body_bytes(_body(given)).build().send().json()["result"]["allow"]
        )
    except ImportError:
        pass
    try:
        import pycurl  # type: ignore[import-not-found]

        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, url)
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
    return asks


async def async_clients(
    url: str, given: dict[str, Any], run: Callable[[dict[str, Callable[[], Awaitable[bool]]]], Awaitable[Any]]
) -> Any:
    """``run`` with name → one decision, while the clients are open."""
    import httpx

    asks: dict[str, Callable[[], Awaitable[bool]]] = {}
    opened: list[Any] = []
    session = httpx.AsyncClient()
    opened.append(session)

    async def by_httpx() -> bool:
        answer = await session.post(url, content=_body(given), headers=HEADERS)
        return bool(answer.json()["result"]["allow"])

    asks["httpx"] = by_httpx
    try:
        import aiohttp

        other = aiohttp.ClientSession()
        opened.append(other)

        async def by_aiohttp() -> bool:
            async with other.post(url, data=_body(given), headers=HEADERS) as answer:
                return bool((await answer.json())["result"]["allow"])

        asks["aiohttp"] = by_aiohttp
    except ImportError:
        pass
    try:
        from pyreqwest.client import ClientBuilder

        rust = ClientBuilder().build()
        opened.append(rust)

        async def by_pyreqwest() -> bool:
            answer = await rust.post(url).headers(HEADERS).body_bytes(_body(given)).build().send()
            return bool((await answer.json())["result"]["allow"])

        asks["pyreqwest"] = by_pyreqwest
    except ImportError:
        pass
    try:
        return await run(asks)
    finally:
        for each in opened:
            await (each.aclose() if hasattr(each, "aclose") else each.close())
        await asyncio.sleep(0)
