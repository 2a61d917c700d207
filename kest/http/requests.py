"""The current passport with every request of a `requests` session."""

from __future__ import annotations

from typing import Any

from kest.errors import MissingExtraError
from kest.http.baggage_header import HEADER
from kest.http.interceptor import Interceptor, header_bytes, set_header

try:
    import requests
    from requests.adapters import BaseAdapter, HTTPAdapter
except ImportError as error:
    raise MissingExtraError("kest.http.requests needs requests: pip install requests") from error

from urllib.parse import urlsplit

__all__ = ["KestAdapter", "attach"]


class KestAdapter(BaseAdapter):
    """A transport adapter that attaches the passport and leaves the rest to another adapter. Redirects pass through it again.

    Args:
        wrapped: the adapter that really sends; `requests.adapters.HTTPAdapter` by default.
        settings: see `kest.http.KestHttpxInterceptor`.
    """

    def __init__(self, wrapped: BaseAdapter | None = None, **settings: Any) -> None:
        super().__init__()
        self._wrapped = wrapped if wrapped is not None else HTTPAdapter()
        self._kest = Interceptor(**settings)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send with the passport.

        Raises:
            PassportTooLargeError, ClaimCheckError: before anything is sent.
        """
        url = urlsplit(request.url or "")
        present = request.headers.get(HEADER)
        lines = [] if present is None else [header_bytes(present)]
        prepared = self._kest.prepare(url.scheme, url.hostname, url.port, lines)
        self._kest.packer.store(prepared.claims)
        set_header(request.headers, prepared.baggage)
        if prepared.token is not None and "Authorization" not in request.headers:
            # requests itself removes the header on a redirect to another host (Session.rebuild_auth).
            request.headers["Authorization"] = f"Bearer {prepared.token}"
        return self._wrapped.send(request, *args, **kwargs)

    def close(self) -> None:
        """Close the adapter beneath."""
        self._wrapped.close()


def attach(session: requests.Session | None = None, **settings: Any) -> requests.Session:
    """A session (a new one by default) whose requests carry the passport; ``settings`` as for `KestAdapter`."""
    session = requests.Session() if session is None else session
    for prefix, adapter in list(session.adapters.items()):
        if not isinstance(adapter, KestAdapter):
            session.mount(prefix, KestAdapter(adapter, **settings))
    return session
