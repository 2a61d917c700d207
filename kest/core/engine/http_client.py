"""The connections to a policy server: one deadline for everything, no retries, no redirects, no proxies.

Idle connections are kept on a stack for all threads of the process, and on one for each running event loop. One that
the server has closed is replaced before anything is sent; once a request may have left, it is never sent again.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import SplitResult, urlsplit

from kest.core.engine.deadline import check_timeout
from kest.errors import ConfigurationError, PolicyEngineError

if TYPE_CHECKING:
    import asyncio
    import ssl

    from kest.core.engine.http_connection import AsyncConnection, Connection

__all__ = ["PolicyServer", "json_document"]

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
    ("Content-Type", "application/json"),
    ("Accept", "application/json"),
    ("Accept-Encoding", "identity"),
    ("User-Agent", "kest"),
]
_RESERVED = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding", "accept")
)


def json_document(body: bytes, label: str) -> Any:
    """A JSON document, read strictly: UTF-8, no duplicate members, no NaN.

    Raises:
        PolicyEngineError: it is none.
    """
    try:
        return _decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise PolicyEngineError(f"{label} answered with something that is not JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse).decode  # `json.loads` makes one each time


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


def _checked(label: str, headers: Mapping[str, str]) -> list[tuple[str, str]]:
    for key, value in headers.items():
        if not _TOKEN.fullmatch(key) or not _VALUE.fullmatch(value) or key.lower() in _RESERVED:
            raise ConfigurationError(
                f"header {key!r} for {label} cannot be sent: bad characters, or set by Kest itself"
            )
    return list(headers.items())


class _Loop(NamedTuple):
    """What one event loop uses. ``keeper`` closes the idle connections: asyncio ends a suspended asynchronous generator
    with its loop (``loop.shutdown_asyncgens``), or on the loop as soon as nothing refers to it any more."""

    idle: list[AsyncConnection]
    slots: asyncio.Semaphore
    keeper: AsyncGenerator[None, None]


async def _keep(idle: list[AsyncConnection]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        while idle:
            await idle.pop().close()


def _close_all(idle: list[Connection]) -> None:
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
        fields = [("Host", parts.netloc), *_OUR_HEADERS, *_checked(label, headers or {})]
        self._prefix = f"POST {parts.path.rstrip('/')}".encode()
        self._head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
        self.name = f"{label} at {'unix:' + uds if uds else f'{parts.scheme}://{parts.netloc}'}"
        if parts.scheme == "https":
            if context is None:
                import ssl

                context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
        else:
            context = None
        from kest.core.engine.http_connection import AsyncConnection, Connection, Target

        default = 443 if parts.scheme == "https" else 80
        self._target = Target(parts.hostname or "", default if port is None else port, uds, context)
        self._connect, self._aconnect = Connection, AsyncConnection.open
        self._threads: tuple[int, list[Connection]] = os.getpid(), []
        self._loops: dict[tuple[int, asyncio.AbstractEventLoop], _Loop] = {}

    def deadline(self) -> float:
        """When a decision that starts now must be over, on the monotonic clock."""
        return time.monotonic() + self.timeout

    def post(self, path: str, body: bytes, deadline: float) -> bytes:
        """POST ``body`` and return the body of the 200 response.

        Raises:
            PolicyEngineError: no such response before ``deadline``.
        """
        idle = self._idle()
        connection: Connection | None = None
        try:
            connection = self._take(idle) or self._connect(self._target, deadline)
            return connection.exchange(self._request(path, body), deadline)
        except Exception as error:
            text, cause = self._explain(error)
        finally:
            if connection is not None:
                if connection.keep and len(idle) < MAX_CONNECTIONS and idle is self._threads[1]:
                    idle.append(connection)
                else:
                    connection.close()
        raise PolicyEngineError(text) from cause

    async def apost(self, path: str, body: bytes, deadline: float) -> bytes:
        """`post` on an event loop."""
        loop = await self._loop()
        try:
            await _slot(loop.slots, deadline)
            connection: AsyncConnection | None = None
            try:
                while loop.idle and connection is None:
                    connection = loop.idle.pop()
                    if not connection.usable(MAX_IDLE_SECONDS):
                        connection.abort()
                        connection = None
                if connection is None:
                    connection = await self._aconnect(self._target, deadline)
                return await connection.exchange(self._request(path, body), deadline)
            finally:
                loop.slots.release()
                if connection is not None:
                    if connection.keep:
                        loop.idle.append(connection)
                    else:
                        await connection.close()
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

    def _idle(self) -> list[Connection]:
        pid, idle = self._threads
        if pid != os.getpid():  # after a fork the sockets are the parent's: close our copies, say nothing on them
            self._threads = os.getpid(), []
            _close_all(idle)
            _, idle = self._threads
        return idle

    @staticmethod
    def _take(idle: list[Connection]) -> Connection | None:
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if connection.usable(MAX_IDLE_SECONDS):
                return connection
            connection.close()  # too old, ended, or talking out of turn

    async def _loop(self) -> _Loop:
        import asyncio

        # A loop that a child process inherited has the parent's connections, hence the process id.
        key = os.getpid(), asyncio.get_running_loop()
        loop = self._loops.get(key)
        if loop is None:
            for other in list(self._loops):
                if other[1].is_closed():
                    self._loops.pop(other, None)
            idle: list[AsyncConnection] = []
            loop = self._loops[key] = _Loop(idle, asyncio.Semaphore(MAX_CONNECTIONS), _keep(idle))
            await loop.keeper.__anext__()
        return loop

    def _request(self, path: str, body: bytes) -> bytes:
        return b"%b%b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (
            self._prefix,
            path.encode(),
            self._head,
            len(body),
            body,
        )

    def _explain(self, error: Exception) -> tuple[str, OSError | None]:
        """What to say about ``error``, and what to show as its cause: errors of the system and of TLS."""
        from kest.core.engine.http_wire import WireError

        if isinstance(error, TimeoutError) and error.errno is None:
            return f"{self.name} did not answer within {self.timeout:g} s", None
        if isinstance(error, WireError):
            return f"{self.name} {error}", None
        cause = error.with_traceback(None) if isinstance(error, OSError) else None  # which would keep sockets alive
        code = errno.errorcode.get(cause.errno or 0, "") if cause is not None else ""
        kind = f"{type(error).__name__} {code}".rstrip()
        return f"{self.name} cannot be reached ({kind}); is it running there?", cause


async def _slot(slots: asyncio.Semaphore, deadline: float) -> None:
    """Acquire one within the deadline."""
    if not slots.locked():
        await slots.acquire()
        return
    import asyncio

    from kest.core.engine.http_connection import time_left

    acquiring = asyncio.ensure_future(slots.acquire())
    try:
        await asyncio.wait({acquiring}, timeout=time_left(deadline))
    except BaseException:
        if acquiring.done() and not acquiring.cancelled():
            slots.release()
        acquiring.cancel()
        raise
    if not acquiring.done():
        acquiring.cancel()
        raise TimeoutError
