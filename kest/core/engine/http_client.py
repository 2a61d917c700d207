"""The connections to a policy server: httpcore's, with one deadline for everything, no retries, no redirects, no
proxies.

Idle connections are kept on a stack for all threads of the process, and on one for each running event loop. One that
the server has closed is replaced before anything is sent; once a request may have left, it is never sent again.
httpcore's pools are not used, since they examine every connection several times for each request: with 32 of them, most
of the time of a decision.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import SplitResult, urlsplit

from kest.errors import ConfigurationError, PolicyEngineError

if TYPE_CHECKING:
    import asyncio
    import ssl

    import anyio
    import httpcore

__all__ = ["PolicyServer", "call_with_deadline", "check_timeout", "json_document"]

T = TypeVar("T")

MAX_BODY_BYTES = 1_048_576
MAX_CONNECTIONS = 32
"""Idle connections that are kept, and requests in flight per event loop; more wait, within their deadline. Threads
limit themselves."""
MAX_IDLE_SECONDS = 4.0
"""Less than the 5 s after which common servers (Rocket under cedar-agent, uvicorn) close an idle connection, so that
requests seldom meet one that is being closed."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")
_HOST = re.compile(r"[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\]")
_OUR_HEADERS = [
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"kest"),
]
_RESERVED = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "accept")
)


def check_timeout(timeout: float) -> float:
    """``timeout`` in seconds as a float.

    Raises:
        ConfigurationError: not a finite number greater than zero.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise ConfigurationError("timeout must be a number of seconds greater than 0")
    return float(timeout)


def json_document(body: bytes, label: str) -> Any:
    """A JSON document, read strictly: UTF-8, no duplicate members, no NaN.

    Raises:
        PolicyEngineError: it is none.
    """
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise PolicyEngineError(f"{label} answered with something that is not JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _parse(label: str, url: str) -> tuple[SplitResult, int | None]:
    """A server's URL in parts, and its port if it names one."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(f"the URL of {label} cannot be parsed; use http://host:port") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"the URL of {label} contains a user name; pass headers={{'Authorization': …}} instead"
        )
    netloc = parts.netloc.rsplit(":", 1)[0] if port is not None else parts.netloc
    if parts.scheme not in ("http", "https") or not host or not _HOST.fullmatch(netloc):
        raise ConfigurationError(f"the URL of {label} must look like http://host:port")
    if parts.query or parts.fragment or not _PATH.fullmatch(parts.path):
        raise ConfigurationError(f"the URL of {label} may have a plain path, but no query or fragment")
    return parts, port


def _checked(label: str, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    for key, value in headers.items():
        if not _TOKEN.fullmatch(key) or not _VALUE.fullmatch(value) or key.lower() in _RESERVED:
            raise ConfigurationError(
                f"header {key!r} for {label} cannot be sent: bad characters, or set by Kest itself"
            )
    return [(key.encode(), value.encode()) for key, value in headers.items()]


class _Loop(NamedTuple):
    """What one event loop uses. ``keeper`` closes the idle connections: asyncio ends a suspended asynchronous generator
    with its loop (``loop.shutdown_asyncgens``), or on the loop as soon as nothing refers to it any more."""

    idle: list[httpcore.AsyncHTTPConnection]
    slots: anyio.Semaphore
    keeper: AsyncGenerator[None, None]


async def _keep(idle: list[httpcore.AsyncHTTPConnection]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        while idle:
            await idle.pop().aclose()


def _close_all(idle: list[httpcore.HTTPConnection]) -> None:
    with suppress(IndexError):  # other threads take from it too
        while True:
            idle.pop().close()


class PolicyServer:
    """POSTs JSON to one server.

    Args:
        label: what errors call it, such as ``OPA``.
        url: ``http://`` or ``https://``, with an optional path prefix; no user, query or fragment.
        timeout: seconds for one decision, from its first byte to its last, connecting included.
        uds: path of a Unix socket to connect to instead of the URL's host.
        headers: sent with each request, an ``Authorization`` for example; never shown in errors or ``repr``.
        context: TLS settings; default: the system's certificate authorities.

    Raises:
        ConfigurationError: the URL, a header or the timeout cannot be used.
    """

    def __init__(
        self,
        label: str,
        url: str,
        *,
        timeout: float,
        uds: str | None = None,
        headers: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.timeout = check_timeout(timeout)
        parts, port = _parse(label, url)
        self._prefix = parts.path.rstrip("/")
        self._headers = [(b"Host", parts.netloc.encode()), *_OUR_HEADERS, *_checked(label, headers or {})]
        self.name = f"{label} at {'unix:' + uds if uds else f'{parts.scheme}://{parts.netloc}'}"
        if parts.scheme == "https" and context is None:
            import ssl

            context = ssl.create_default_context()
        import httpcore

        from kest.core.engine.http_backend import AsyncDeadlineBackend, DeadlineBackend

        self._url = partial(httpcore.URL, scheme=parts.scheme, host=parts.hostname or "", port=port)
        settings: dict[str, Any] = {"origin": self._url().origin, "ssl_context": context, "uds": uds}
        settings["keepalive_expiry"] = MAX_IDLE_SECONDS
        self._connect = partial(httpcore.HTTPConnection, network_backend=DeadlineBackend(), **settings)
        self._aconnect = partial(httpcore.AsyncHTTPConnection, network_backend=AsyncDeadlineBackend(), **settings)
        self._threads: tuple[int, list[httpcore.HTTPConnection]] = os.getpid(), []
        self._loops: dict[tuple[int, asyncio.AbstractEventLoop], _Loop] = {}

    def deadline(self) -> float:
        """When a decision that starts now must be over, on the monotonic clock."""
        return time.monotonic() + self.timeout

    def post(self, path: str, body: bytes, deadline: float) -> bytes:
        """POST ``body`` and return the body of the 200 response.

        Raises:
            PolicyEngineError: no such response before ``deadline``.
        """
        content = bytearray()
        idle = self._idle()
        connection = self._take(idle)
        try:
            with connection.stream("POST", **self._request(path, body, deadline)) as response:
                self._check(response)
                for part in response.iter_stream():
                    self._append(content, part)
            return bytes(content)
        except PolicyEngineError:
            raise
        except Exception as error:
            text, cause = self._explain(error)
        finally:
            if connection.is_available() and len(idle) < MAX_CONNECTIONS and idle is self._threads[1]:
                idle.append(connection)
            else:
                connection.close()
        raise PolicyEngineError(text) from cause

    async def apost(self, path: str, body: bytes, deadline: float) -> bytes:
        """:meth:`post` on an event loop."""
        import anyio

        content = bytearray()
        connection = None
        loop = await self._loop()
        try:
            with anyio.fail_after(deadline - time.monotonic()):
                await loop.slots.acquire()
            try:
                connection = await self._atake(loop.idle)
                async with connection.stream("POST", **self._request(path, body, deadline)) as response:
                    self._check(response)
                    async for part in response.aiter_stream():
                        self._append(content, part)
            finally:
                loop.slots.release()
                if connection is not None:
                    if connection.is_available():
                        loop.idle.append(connection)
                    else:
                        await connection.aclose()
            return bytes(content)
        except PolicyEngineError:
            raise
        except Exception as error:
            text, cause = self._explain(error)
        raise PolicyEngineError(text) from cause

    def close(self) -> None:
        """Let go of the connections: idle ones are closed, those in use as soon as they are free."""
        _, idle = self._threads
        self._threads = os.getpid(), []
        self._loops = {}
        _close_all(idle)

    def __del__(self) -> None:
        if hasattr(self, "_loops"):  # not so when a constructor refused its arguments
            self.close()

    def __repr__(self) -> str:
        return f"<PolicyServer {self.name}>"

    def _idle(self) -> list[httpcore.HTTPConnection]:
        pid, idle = self._threads
        if pid != os.getpid():  # after a fork the sockets are the parent's: close our copies, say nothing on them
            self._threads = os.getpid(), []
            _close_all(idle)
            _, idle = self._threads
        return idle

    def _take(self, idle: list[httpcore.HTTPConnection]) -> httpcore.HTTPConnection:
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return self._connect()
            if not connection.has_expired():
                return connection
            connection.close()  # too old, ended, or talking out of turn

    async def _atake(self, idle: list[httpcore.AsyncHTTPConnection]) -> httpcore.AsyncHTTPConnection:
        while idle:
            connection = idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return self._aconnect()

    async def _loop(self) -> _Loop:
        import asyncio

        # A loop that a child process inherited has the parent's connections, hence the process id.
        key = os.getpid(), asyncio.get_running_loop()
        loop = self._loops.get(key)
        if loop is None:
            import anyio

            for other in list(self._loops):
                if other[1].is_closed():
                    self._loops.pop(other, None)
            idle: list[httpcore.AsyncHTTPConnection] = []
            loop = self._loops[key] = _Loop(idle, anyio.Semaphore(MAX_CONNECTIONS), _keep(idle))
            await loop.keeper.__anext__()
        return loop

    def _request(self, path: str, body: bytes, deadline: float) -> dict[str, Any]:
        limits = {"connect": deadline, "read": deadline, "write": deadline}  # see http_backend
        url = self._url(target=self._prefix + path)
        return {"url": url, "headers": self._headers, "content": body, "extensions": {"timeout": limits}}

    def _check(self, response: httpcore.Response) -> None:
        """Refuse what cannot be a decision before its body is read, which also ends the connection."""
        if response.status != 200:
            redirect = "; redirects are not followed, configure the final URL" if 300 <= response.status < 400 else ""
            raise PolicyEngineError(f"{self.name} answered HTTP {response.status}, not 200{redirect}")
        headers = {name.lower(): value.lower() for name, value in response.headers}
        if response.extensions["network_stream"].unheard:
            self._distrust("it was sent before the request")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            self._distrust("a Content-Encoding that was not asked for")
        if b"content-length" in headers and b"transfer-encoding" in headers:
            self._distrust("both Content-Length and Transfer-Encoding")

    def _append(self, content: bytearray, part: bytes) -> None:
        content += part
        if len(content) > MAX_BODY_BYTES:
            self._distrust("the body is too large")

    def _distrust(self, fault: str) -> NoReturn:
        raise PolicyEngineError(f"{self.name} sent a response that cannot be trusted: {fault}")

    def _explain(self, error: Exception) -> tuple[str, OSError | None]:
        """What to say about ``error``, and what to show as its cause: errors of the system and of TLS, but not those of
        the protocol, which quote what was received."""
        import httpcore

        if isinstance(error, (httpcore.TimeoutException, TimeoutError)):
            return f"{self.name} did not answer within {self.timeout:g} s", None
        if isinstance(error, httpcore.ProtocolError):
            return f"{self.name} ended the connection early or does not speak HTTP/1.1", None
        root: BaseException = error
        while not isinstance(root, OSError) and (inner := root.__cause__ or root.__context__) is not None:
            root = inner
        cause = root.with_traceback(None) if isinstance(root, OSError) else None  # which would keep sockets alive
        code = errno.errorcode.get(cause.errno or 0, "") if cause is not None else ""
        kind = f"{type(root).__name__} {code}".rstrip()
        return f"{self.name} cannot be reached ({kind}); is it running there?", cause


def call_with_deadline(function: Callable[[], T], seconds: float) -> T:
    """Run a call that cannot be interrupted in a thread of its own and give up on it after ``seconds``.

    Raises:
        TimeoutError: it was not done in time; it goes on, and its result is dropped.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="kest-engine-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    if errors:
        raise errors[0]
    raise TimeoutError
