"""The connection to a policy server: httpcore pools with one deadline for everything, no retries, no redirects, no
proxies.

Each process has one pool for all its threads, and one per running event loop. A kept connection that the server has
closed is replaced before anything is sent; once a request may have left, it is never sent again.
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
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlsplit

from kest.errors import ConfigurationError, PolicyEngineError

if TYPE_CHECKING:
    import asyncio
    import ssl

    import anyio
    import httpcore

    from kest.core.engine.http_backend import DeadlinePool

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
_OURS = frozenset(
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


class _LoopPool(NamedTuple):
    """What one event loop uses. ``keeper`` closes the pool: asyncio closes a suspended asynchronous generator with its
    loop (``loop.shutdown_asyncgens``), or on the loop as soon as nothing refers to it any more."""

    pool: httpcore.AsyncConnectionPool
    slots: anyio.Semaphore
    keeper: AsyncGenerator[None, None]


async def _keep(pool: httpcore.AsyncConnectionPool) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await pool.aclose()


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
        self.label = label
        self.timeout = check_timeout(timeout)
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
        self._origin = parts.scheme, host, port
        self._prefix = parts.path.rstrip("/")
        self.name = f"{label} at {'unix:' + uds if uds else f'{parts.scheme}://{parts.netloc}'}"
        if parts.scheme == "https" and context is None:
            import ssl

            context = ssl.create_default_context()
        sent = {"Host": parts.netloc, "Content-Type": "application/json", "Accept": "application/json"}
        sent |= {"Accept-Encoding": "identity", "User-Agent": "kest"}
        for key, value in (headers or {}).items():
            if not _TOKEN.fullmatch(key) or not _VALUE.fullmatch(value) or key.lower() in _OURS:
                raise ConfigurationError(
                    f"header {key!r} for {label} cannot be sent: bad characters, or set by Kest itself"
                )
            sent[key] = value
        self._headers = [(key.encode(), value.encode()) for key, value in sent.items()]
        self._settings: dict[str, Any] = {
            "ssl_context": context,
            "uds": uds,
            "max_connections": None,
            "max_keepalive_connections": MAX_CONNECTIONS,
            "keepalive_expiry": MAX_IDLE_SECONDS,
        }
        self.close()

    def deadline(self) -> float:
        """When a decision that starts now must be over, on the monotonic clock."""
        return time.monotonic() + self.timeout

    def post(self, path: str, body: bytes, deadline: float) -> bytes:
        """POST ``body`` and return the body of the 200 response.

        Raises:
            PolicyEngineError: no such response before ``deadline``.
        """
        content = bytearray()
        try:
            with self._pool().stream("POST", self._url(path), **self._request(body, deadline)) as response:
                self._check(response)
                for part in response.iter_stream():
                    self._append(content, part)
            return bytes(content)
        except PolicyEngineError:
            raise
        except Exception as error:
            failure = self._failure(error)
        raise failure

    async def apost(self, path: str, body: bytes, deadline: float) -> bytes:
        """:meth:`post` on an event loop."""
        import anyio

        content = bytearray()
        try:
            shared = await self._loop_pool()
            with anyio.fail_after(deadline - time.monotonic()):
                await shared.slots.acquire()
            try:
                async with shared.pool.stream("POST", self._url(path), **self._request(body, deadline)) as response:
                    self._check(response)
                    async for part in response.aiter_stream():
                        self._append(content, part)
            finally:
                shared.slots.release()
            return bytes(content)
        except PolicyEngineError:
            raise
        except Exception as error:
            failure = self._failure(error)
        raise failure

    def close(self) -> None:
        """Let go of the connections: idle ones are closed, those in use as soon as they are free."""
        from kest.core.engine.http_backend import DeadlinePool

        self._threads: tuple[int, DeadlinePool] = os.getpid(), DeadlinePool(**self._settings)
        self._loops: dict[tuple[int, asyncio.AbstractEventLoop], _LoopPool] = {}

    def __repr__(self) -> str:
        return f"<PolicyServer {self.name}>"

    def _pool(self) -> DeadlinePool:
        pid, pool = self._threads
        if pid != os.getpid():  # after a fork the sockets are the parent's: close our copies, say nothing on them
            pool.close_unlocked()
            pool = type(pool)(**self._settings)
            self._threads = os.getpid(), pool
        return pool

    async def _loop_pool(self) -> _LoopPool:
        import asyncio

        # A loop that a child process inherited has the parent's connections, hence the process id.
        key = os.getpid(), asyncio.get_running_loop()
        shared = self._loops.get(key)
        if shared is None:
            import anyio
            import httpcore

            from kest.core.engine.http_backend import AsyncDeadlineBackend

            for other in list(self._loops):
                if other[1].is_closed():
                    self._loops.pop(other, None)
            pool = httpcore.AsyncConnectionPool(network_backend=AsyncDeadlineBackend(), **self._settings)
            shared = self._loops[key] = _LoopPool(pool, anyio.Semaphore(MAX_CONNECTIONS), _keep(pool))
            await shared.keeper.__anext__()
        return shared

    def _url(self, path: str) -> httpcore.URL:
        import httpcore

        scheme, host, port = self._origin
        return httpcore.URL(scheme=scheme, host=host, port=port, target=self._prefix + path)

    def _request(self, body: bytes, deadline: float) -> dict[str, Any]:
        limits = {"connect": deadline, "read": deadline, "write": deadline}  # see http_backend
        return {"headers": self._headers, "content": body, "extensions": {"timeout": limits}}

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

    def _failure(self, error: Exception) -> PolicyEngineError:
        """What to raise for ``error``; only errors of the operating system and of TLS are shown as its cause, since
        those of the protocol quote what was received."""
        import httpcore

        if isinstance(error, (httpcore.TimeoutException, TimeoutError)):
            return PolicyEngineError(f"{self.name} did not answer within {self.timeout:g} s")
        if isinstance(error, httpcore.ProtocolError):
            return PolicyEngineError(f"{self.name} ended the connection early or does not speak HTTP/1.1")
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        code = errno.errorcode.get(cause.errno or 0, "") if isinstance(cause, OSError) else ""
        kind = f"{type(cause or error).__name__} {code}".rstrip()
        failure = PolicyEngineError(f"{self.name} cannot be reached ({kind}); is it running there?")
        failure.__cause__ = cause
        return failure


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
