"""Fetching a document of bounded size from a URL, within one deadline: key sets and trust bundles.

Nothing is followed (a redirect is an error), nothing is decompressed, and the deadline covers everything from resolving the
name to the last byte: a server that sends a byte now and then does not hold the caller up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from kest.errors import ConfigurationError, KestError

__all__ = ["FetchError", "Fetched", "check_url", "fetch", "is_url", "shown"]

_MAX_AGE = re.compile(r"(?:^|,)\s*max-age\s*=\s*\"?(\d{1,10})\"?\s*(?:,|$)", re.IGNORECASE)
_NEVER_FRESH = re.compile(r"(?:^|,)\s*(?:no-store|no-cache)\b", re.IGNORECASE)


class FetchError(KestError):
    """A document could not be fetched; the message says why, without credentials or query of the URL."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document, and for how many seconds its server calls it fresh (RFC 9111, section 5.2.2); None: it does not say."""

    body: bytes
    max_age: float | None = None
    status: int = 200


def is_url(place: str) -> bool:
    """Whether this text names a URL rather than a file."""
    return place.lower().startswith(("http://", "https://"))


def shown(url: str) -> str:
    """A URL for messages: without user, query and fragment, any of which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_url(url: str, setting: str, *, allow_http: bool = False) -> SplitResult:
    """The parts of a URL from which keys may come: https, or http to this machine.

    Raises:
        ConfigurationError: another scheme, no host, or a user name in it.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigurationError(f"{setting}: the URL cannot be parsed; use https://host/path") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{setting}: the URL must look like https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{setting}: the URL {shown(url)} contains a user name; keys are public, leave it out")
    if parts.scheme == "http" and not allow_http and not _loopback(parts.hostname):
        raise ConfigurationError(
            f"{setting}: {shown(url)} is not https, so that anybody on the way could exchange the keys (http is for this "
            "machine only)"
        )
    return parts


def _loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def fetch(
    url: str, *, timeout: float, max_bytes: int, send: bytes | None = None, statuses: Collection[int] = (200,)
) -> Fetched:
    """GET a document, or POST one. The environment's proxies are used, except for this machine's own addresses.

    Args:
        url: as `check_url` passed it.
        timeout: seconds for everything.
        max_bytes: the largest body that is read.
        send: what to POST.
        statuses: answers that are none of these are errors.

    Raises:
        FetchError: no such answer of that size in that time.
    """
    import httpcore

    deadline = time.monotonic() + timeout
    body = bytearray()
    try:
        with _pool(urlsplit(url)) as pool:
            limits = {"connect": deadline, "read": deadline, "write": deadline}  # see fetch_backend
            headers = {
                "Host": urlsplit(url).netloc,
                "Accept": "application/json" if send is None else "*/*",
                "Accept-Encoding": "identity",
                "User-Agent": "kest",
                "Connection": "close",
            }
            if send is not None:
                headers["Content-Length"] = str(len(send))
            method, extensions = "GET" if send is None else "POST", {"timeout": limits}
            with pool.stream(method, _target(url), headers=headers, content=send, extensions=extensions) as response:
                answered = _checked(response, statuses)
                for part in response.iter_stream():
                    body += part
                    if len(body) > max_bytes:
                        raise FetchError(f"the answer is longer than {max_bytes} bytes")
        return Fetched(bytes(body), _freshness(answered.get("cache-control")), response.status)
    except FetchError:
        raise
    except (httpcore.TimeoutException, TimeoutError):
        reason = f"no complete answer within {timeout:g} s"
    except Exception as error:  # messages of libraries may quote what they received
        reason = f"the request failed ({type(error).__name__})"
    raise FetchError(reason)


def _target(url: str) -> str:
    return url.partition("#")[0]


def _pool(parts: SplitResult) -> Any:
    import ssl

    import httpcore

    from kest.core.fetch_backend import DeadlineBackend

    settings: dict[str, Any] = {
        "ssl_context": ssl.create_default_context() if parts.scheme == "https" else None,
        "network_backend": DeadlineBackend(),
        "max_connections": 1,
    }
    proxy = _proxy(parts)
    if proxy is None:
        return httpcore.ConnectionPool(**settings)
    auth = None if proxy.username is None else (unquote(proxy.username), unquote(proxy.password or ""))
    address = f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}"
    return httpcore.HTTPProxy(address, proxy_auth=auth, **settings)


def _proxy(parts: SplitResult) -> SplitResult | None:
    from urllib.request import getproxies, proxy_bypass

    host = parts.hostname or ""
    if _loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named:
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme not in ("http", "https"):
        raise FetchError(
            f"the environment names a proxy of kind {proxy.scheme}; only http and https proxies are used here"
        )
    return proxy


def _checked(response: Any, statuses: Collection[int]) -> dict[str, str]:
    if response.status not in statuses:
        redirect = "; redirects are not followed, configure the final URL" if 300 <= response.status < 400 else ""
        raise FetchError(f"it answered HTTP {response.status}, not 200{redirect}")
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchError("it answered with a Content-Encoding that was not asked for")
    return headers


def _freshness(cache_control: str | None) -> float | None:
    if cache_control is None:
        return None
    if _NEVER_FRESH.search(cache_control):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return None if found is None else float(found[1])
