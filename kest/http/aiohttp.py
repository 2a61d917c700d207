"""The current passport with every request of an aiohttp client session (aiohttp 3.12 or later)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kest.http.baggage_header import HEADER
from kest.http.interceptor import Interceptor, header_bytes, set_header

if TYPE_CHECKING:
    import aiohttp

__all__ = ["KestClientMiddleware"]


class KestClientMiddleware:
    """``aiohttp.ClientSession(middlewares=(KestClientMiddleware(),))``. Redirects pass through it again.

    Args:
        settings: see `kest.http.KestHttpxInterceptor`.
    """

    def __init__(self, **settings: Any) -> None:
        self._kest = Interceptor(**settings)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send with the passport.

        Raises:
            PassportTooLargeError, ClaimCheckError: before anything is sent.
        """
        url = request.url
        lines = [header_bytes(value) for value in request.headers.getall(HEADER, ())]
        prepared = self._kest.prepare(url.scheme, url.raw_host, url.port, lines)
        await self._kest.packer.store_async(prepared.claims)
        request.headers.popall(HEADER, None)
        set_header(request.headers, prepared.baggage)
        if prepared.token is None or "Authorization" in request.headers:
            return await handler(request)
        request.headers["Authorization"] = f"Bearer {prepared.token}"
        try:
            return await handler(request)
        finally:
            request.headers.popall("Authorization", None)  # a redirect starts without it
