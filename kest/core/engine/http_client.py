"""A small HTTP client for policy servers: kept connections, one deadline for everything, no retries, no redirects.

Why not a general client: their timeouts are per socket operation, so that a server that sends a byte now and then
holds a synchronous caller for ever; they may follow redirects and proxies from the environment; and their connections
belong to one event loop. Here every wait ends at the same deadline, and a connection is a plain socket that any thread
and any event loop may use next, one at a time.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import math
import os
import re
import select
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from kest.core.engine.base import run_in_thread
from kest.core.engine.http_wire import ProtocolError, ResponseReader
from kest.errors import ConfigurationError, PolicyEngineError

if TYPE_CHECKING:
    import asyncio
    import ssl

__all__ = ["PolicyServer", "call_with_deadline", "check_timeout", "json_document"]

T = TypeVar("T")

MAX_BODY_BYTES = 1_048_576
MAX_IDLE_CONNECTIONS = 32
MAX_ASYNC_REQUESTS = 64
"""Requests in flight per event loop; more wait, within their deadline."""

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
        self._uds = uds
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
        self._host = host
        self._port = port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self.name = f"{label} at {'unix:' + uds if uds else f'{parts.scheme}://{parts.netloc}'}"
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            import ssl

            self._tls = context or ssl.create_default_context()
        lines = [f"Host: {parts.netloc}", "Content-Type: application/json", "Accept: application/json"]
        lines += ["Accept-Encoding: identity", "User-Agent: kest"]
        for key, value in (headers or {}).items():
            if not _TOKEN.fullmatch(key) or not _VALUE.fullmatch(value) or key.lower() in _OURS:
                raise ConfigurationError(
                    f"header {key!r} for {label} cannot be sent: bad characters, or set by Kest itself"
                )
            lines.append(f"{key}: {value}")
        self._headers = "\r\n".join(lines)
        self._pid = os.getpid()
        self._idle: collections.deque[socket.socket] = collections.deque()
        self._slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def deadline(self) -> float:
        """When a decision that starts now must be over, on the monotonic clock."""
        return time.monotonic() + self.timeout

    def post(self, path: str, body: bytes, deadline: float) -> bytes:
        """POST ``body`` and return the body of the 200 response.

        Raises:
            PolicyEngineError: no such response before ``deadline``.
        """
        connection: socket.socket | None = None
        keep = False
        try:
            connection = self._take() or self._connect(deadline)
            self._send(connection, self._request(path, body), deadline)
            reader = ResponseReader(MAX_BODY_BYTES)
            while not reader.complete:
                connection.settimeout(self._left(deadline))
                data = connection.recv(65536)
                if data:
                    reader.feed(data)
                else:
                    reader.end()
            keep = reader.keep
        except (OSError, ProtocolError) as error:
            self._fail(error)
        finally:
            if connection is not None:
                self._release(connection, keep)
        return self._answer(reader)

    async def apost(self, path: str, body: bytes, deadline: float) -> bytes:
        """:meth:`post` on an event loop. Over TLS it runs in a thread: event loops do TLS only over their own
        streams."""
        import asyncio

        if self._tls is not None:
            return await run_in_thread(self.post, path, body, deadline)
        try:
            if sys.version_info >= (3, 11):
                async with asyncio.timeout(self._left(deadline)):
                    reader = await self._exchange(path, body)
            else:
                reader = await asyncio.wait_for(self._exchange(path, body), self._left(deadline))
        except (asyncio.TimeoutError, OSError, ProtocolError) as error:
            self._fail(error)
        return self._answer(reader)

    async def _exchange(self, path: str, body: bytes) -> ResponseReader:
        import asyncio

        loop = asyncio.get_running_loop()
        slots = self._slots.get(loop)
        if slots is None:
            slots = self._slots[loop] = asyncio.Semaphore(MAX_ASYNC_REQUESTS)
        async with slots:
            connection: socket.socket | None = None
            keep = False
            try:
                connection = self._take() or await self._aconnect(loop)
                connection.setblocking(False)
                await loop.sock_sendall(connection, self._request(path, body))
                reader = ResponseReader(MAX_BODY_BYTES)
                while not reader.complete:
                    data = await loop.sock_recv(connection, 65536)
                    if data:
                        reader.feed(data)
                    else:
                        reader.end()
                keep = reader.keep
                return reader
            finally:
                if connection is not None:
                    self._release(connection, keep)

    def close(self) -> None:
        """Close the idle connections; those in use are closed as soon as they are free."""
        while self._idle:
            _close(self._idle.pop())

    def __del__(self) -> None:
        idle: collections.deque[socket.socket] = getattr(self, "_idle", collections.deque())
        while idle:
            _close(idle.pop())

    def __repr__(self) -> str:
        return f"<PolicyServer {self.name}>"

    def _request(self, path: str, body: bytes) -> bytes:
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body

    def _send(self, connection: socket.socket, data: bytes, deadline: float) -> None:
        if self._tls is None:
            connection.settimeout(self._left(deadline))
            connection.sendall(data)  # its timeout is for the whole of it
            return
        view = memoryview(data)
        while view:
            connection.settimeout(self._left(deadline))
            view = view[connection.send(view) :]

    def _answer(self, reader: ResponseReader) -> bytes:
        if reader.status != 200:
            redirect = "; redirects are not followed, configure the final URL" if 300 <= reader.status < 400 else ""
            raise PolicyEngineError(f"{self.name} answered HTTP {reader.status}, not 200{redirect}")
        return reader.body

    def _fail(self, error: Exception) -> NoReturn:
        import asyncio

        if isinstance(error, (TimeoutError, socket.timeout, asyncio.TimeoutError)):
            text = f"{self.name} did not answer within {self.timeout:g} s"
        elif isinstance(error, ProtocolError):
            text = f"{self.name} sent a response that cannot be trusted: {error}"
        else:
            code = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
            kind = f"{type(error).__name__} {code}".rstrip()
            text = f"{self.name} cannot be reached ({kind}); is it running there?"
        raise PolicyEngineError(text) from error

    @staticmethod
    def _left(deadline: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _take(self) -> socket.socket | None:
        """An idle connection that the server has not closed, the most recently used first."""
        if self._pid != os.getpid():  # after a fork the sockets are the parent's: close our copies, say nothing on them
            self._pid = os.getpid()
            self._slots = weakref.WeakKeyDictionary()
            self.close()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _readable(connection):
                return connection
            _close(connection)  # ended, or talking out of turn

    def _release(self, connection: socket.socket, keep: bool) -> None:
        if keep and len(self._idle) < MAX_IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            _close(connection)

    def _connect(self, deadline: float) -> socket.socket:
        if self._uds is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(self._left(deadline))
                connection.connect(self._uds)
            except BaseException:
                connection.close()
                raise
            return connection
        addresses = self._resolve(deadline)
        for index, (family, kind, protocol, _, address) in enumerate(addresses):
            connection = socket.socket(family, kind, protocol)
            try:
                # A share of the time each, so that an address that swallows packets does not hide the next one.
                connection.settimeout(self._left(deadline) / (len(addresses) - index))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is None:
                    return connection
                connection.settimeout(self._left(deadline))
                return self._tls.wrap_socket(connection, server_hostname=self._host)
            except OSError:
                connection.close()
                if index == len(addresses) - 1:
                    raise
            except BaseException:
                connection.close()
                raise
        raise OSError("no address")

    def _resolve(self, deadline: float) -> list[Any]:
        arguments = (self._host, self._port, socket.AF_UNSPEC, socket.SOCK_STREAM)
        try:
            return socket.getaddrinfo(*arguments, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            return call_with_deadline(lambda: socket.getaddrinfo(*arguments), self._left(deadline))

    async def _aconnect(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        import asyncio

        if self._uds is not None:
            targets: list[Any] = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", self._uds)]
        else:
            targets = list(await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
        for index, (family, kind, protocol, _, address) in enumerate(targets):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.setblocking(False)
                share = self.timeout / len(targets)
                await asyncio.wait_for(loop.sock_connect(connection, address), share)
                if self._uds is None:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            except (OSError, asyncio.TimeoutError):
                connection.close()
                if index == len(targets) - 1:
                    raise
            except BaseException:
                connection.close()
                raise
        raise OSError("no address")


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is gone either way
        connection.close()


def _readable(connection: socket.socket) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([connection], [], [], 0)[0])


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
