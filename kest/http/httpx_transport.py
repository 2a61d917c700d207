"""`KestHttpxInterceptor`: sends the current passport with every request of an httpx client."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any

from kest.core.cache import CLAIM_TTL
from kest.errors import ConfigurationError
from kest.http.baggage_header import HEADER
from kest.http.interceptor import Interceptor

if TYPE_CHECKING:
    import httpx

    class _Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
        pass

else:
    _Transport = object  # httpx asks for the methods only, and importing this module must not need httpx

__all__ = ["KestHttpxInterceptor"]

_TOKEN = "kest.token"


class _Done:
    """What both a sync and an async client can be given as the result of a hook: awaiting it does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_DONE = _Done()


class KestHttpxInterceptor(_Transport):
    """Attaches the current passport to outgoing requests.

    One class, three ways: ``httpx.AsyncClient(transport=KestHttpxInterceptor())``, ``httpx.Client(transport=
    KestHttpxInterceptor())``, and ``event_hooks={"request": [KestHttpxInterceptor()]}``. Prefer the transport: only it can
    store a claim check without holding up an event loop.

    Kest members that a request carries already are replaced, all of one generation together; other vendors' members are
    kept byte for byte. Hosts that are not allowed get no Kest member. Redirects are judged by the host they lead to.

    Args:
        wrapped: the transport that really sends; by default `httpx.HTTPTransport` or `httpx.AsyncHTTPTransport`.
        allowed_hosts: patterns of hosts that get the passport (see `EgressGuard`).
        token_hosts: patterns of hosts that get the caller's verified bearer token as ``Authorization``. Nobody by default.
        user_salt: send ``kest.user`` as a hash with this salt. By default as configured (see `kest.core.configure`).
        cache, dense, max_header: see `Packer`.
        claim_ttl: seconds for which a claim check can be redeemed.
        transport_options: for the default transport (``verify=``, ``http2=``, ``retries=``, ...).

    Raises:
        PassportTooLargeError: before anything is sent, when no form of the passport fits and no cache is configured.
        ClaimCheckError: before anything is sent, when the cache does not take the record.
    """

    def __init__(
        self,
        wrapped: Any = None,
        *,
        allowed_hosts: Iterable[str] | None = None,
        token_hosts: Iterable[str] | None = None,
        user_salt: str | bytes | None = None,
        cache: Any = None,
        dense: bool | None = None,
        max_header: int = 8192,
        claim_ttl: float = CLAIM_TTL,
        **transport_options: Any,
    ) -> None:
        if wrapped is not None and transport_options:
            raise ConfigurationError(
                f"{next(iter(transport_options))!r} is for the default transport; set it on the wrapped one instead"
            )
        self._sync = self._async = wrapped
        self._options = transport_options
        self._kest = Interceptor(allowed_hosts, token_hosts, user_salt, cache, dense, max_header, claim_ttl)

    # --- as a transport ---

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send with the passport (called by `httpx.Client`)."""
        self._kest.packer.store(self._prepare(request))
        response: httpx.Response = self._sync_transport().handle_request(request)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send with the passport (called by `httpx.AsyncClient`)."""
        await self._kest.packer.store_async(self._prepare(request))
        response: httpx.Response = await self._async_transport().handle_async_request(request)
        return response

    def close(self) -> None:
        """Close the transport beneath."""
        if self._sync is not None:
            self._sync.close()

    async def aclose(self) -> None:
        """Close the transport beneath."""
        if self._async is not None:
            await self._async.aclose()

    def __enter__(self) -> KestHttpxInterceptor:
        self._sync_transport().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._sync_transport().__exit__(*details)

    async def __aenter__(self) -> KestHttpxInterceptor:
        await self._async_transport().__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> None:
        await self._async_transport().__aexit__(*details)

    def _sync_transport(self) -> Any:
        if self._sync is None:
            import httpx

            self._sync = httpx.HTTPTransport(**self._options)
        return self._sync

    def _async_transport(self) -> Any:
        if self._async is None:
            import httpx

            self._async = httpx.AsyncHTTPTransport(**self._options)
        return self._async

    # --- as an event hook ---

    def __call__(self, request: httpx.Request) -> _Done:
        """Prepare a request (called by either kind of client)."""
        self._kest.packer.store(self._prepare(request))
        return _DONE

    # --- the work ---

    def _prepare(self, request: httpx.Request) -> dict[str, str]:
        """Set the headers; returns the claims to store before the request leaves."""
        url = request.url
        lines = [value for name, value in request.headers.raw if name.lower() == HEADER_BYTES]
        prepared = self._kest.prepare(url.scheme, url.raw_host.decode("ascii"), url.port, lines)
        if prepared.baggage or lines:
            _replace(request, prepared.baggage)
        if prepared.token is not None and "authorization" not in request.headers:
            request.headers["authorization"] = f"Bearer {prepared.token}"
            request.extensions = {**request.extensions, _TOKEN: True}
        elif not prepared.token_host and request.extensions.get(_TOKEN):
            request.headers.pop("authorization", None)  # a redirect of a request that we gave the token to
        return prepared.claims


HEADER_BYTES = HEADER.encode()


def _replace(request: httpx.Request, value: bytes) -> None:
    """One ``baggage`` line in place of all there were; other headers keep their bytes and order."""
    headers = [(name, old) for name, old in request.headers.raw if name.lower() != HEADER_BYTES]
    if value:
        headers.append((HEADER_BYTES, value))
    request.headers = type(request.headers)(headers)
