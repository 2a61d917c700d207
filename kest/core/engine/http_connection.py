"""Connections to a policy server: blocking ones, and ones of an event loop. Every operation gets what is left of one
deadline, a point on the monotonic clock: a server that sends a byte now and then is late all the same.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from kest.core.engine.http_wire import ResponseReader, WireError
from kest.core.engine.resolve import addresses_of, distinct, is_address

if TYPE_CHECKING:
    import ssl

__all__ = ["AsyncConnection", "Connection", "Target", "time_left"]

RECEIVE_BYTES = 65_536


class Target(NamedTuple):
    """Where a server listens: a host and a port, or the path of a Unix socket; with or without TLS."""

    host: str
    port: int
    uds: str | None
    tls: ssl.SSLContext | None


def time_left(deadline: float) -> float:
    """Seconds until ``deadline``.

    Raises:
        TimeoutError: none are left.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Connection:
    """A blocking connection, for one request at a time."""

    __slots__ = ("_poll", "_sock", "keep", "since")

    def __init__(self, target: Target, deadline: float) -> None:
        self._sock = _connected(target, deadline)
        self.keep = False
        self.since = 0.0
        """When its last response was complete, on the monotonic clock."""
        self._poll: Any = None

    def exchange(self, request: bytes, deadline: float) -> bytes:
        """Send ``request`` and return the body of the response; afterwards `keep` says whether there can be another.

        Raises:
            WireError, OSError, TimeoutError: there is no such response before ``deadline``; close the connection.
        """
        self.keep = False
        sock = self._sock
        left = time_left(deadline)
        sock.settimeout(left)
        if len(request) <= RECEIVE_BYTES:
            sock.sendall(request)
        else:
            # A TLS socket applies its timeout to every piece, so each piece gets what is left.
            view = memoryview(request)
            while view:
                sock.settimeout(time_left(deadline))
                view = view[sock.send(view[:RECEIVE_BYTES]) :]
        reader = ResponseReader()
        while True:
            sock.settimeout(time_left(deadline))
            data = sock.recv(RECEIVE_BYTES)
            body = reader.feed(data) if data else reader.end()
            if body is not None:
                self.keep = reader.keep and bool(data)
                self.since = time.monotonic()
                return body

    def usable(self, max_idle: float) -> bool:
        """Whether the server has neither closed it nor said anything since its last response."""
        if time.monotonic() - self.since > max_idle:
            return False
        pending = getattr(self._sock, "pending", None)
        if pending is not None and pending():
            return False
        if self._poll is None:
            self._poll = _readable(self._sock)
        return not self._poll()

    def close(self) -> None:
        self._sock.close()


def _readable(sock: Any) -> Any:
    """A function that tells whether ``sock`` has something to read, its end included."""
    if not hasattr(select, "poll"):
        return lambda: select.select([sock], [], [], 0)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda: poll.poll(0)


def _connected(target: Target, deadline: float) -> socket.socket:
    sock = _plain(target, deadline)
    try:
        if target.tls is not None:
            sock.settimeout(time_left(deadline))
            # Its timeout is one for the whole handshake. On failure it closes what it was given.
            return target.tls.wrap_socket(sock, server_hostname=target.host)
        return sock
    except BaseException:
        sock.close()
        raise


def _plain(target: Target, deadline: float) -> socket.socket:
    if target.uds is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(time_left(deadline))
            sock.connect(target.uds)
        except BaseException:
            sock.close()
            raise
        return sock
    addresses = addresses_of(target.host, target.port, time_left(deadline))
    for remaining in range(len(addresses), 0, -1):
        # A share of the time each, so that an address that swallows packets does not hide the next one.
        share = time_left(deadline) / remaining
        try:
            sock = socket.create_connection((addresses[-remaining], target.port), share)
        except OSError:
            if remaining == 1:
                raise
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise OSError("the host has no address")


class AsyncConnection(asyncio.Protocol):
    """A connection of the running event loop, for one request at a time. Made by `open`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader: ResponseReader | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._ended = loop.create_future()
        self._poll: Any = None
        self.keep = False
        self.since = 0.0

    @classmethod
    async def open(cls, target: Target, deadline: float) -> AsyncConnection:
        """Connect.

        Raises:
            OSError, TimeoutError: it is not connected before ``deadline``.
        """
        loop = asyncio.get_running_loop()
        if target.uds is not None:
            return await cls._open(
                lambda protocol, options: loop.create_unix_connection(lambda: protocol, target.uds, **options),
                target,
                time_left(deadline),
            )
        host, port = target.host, target.port
        addresses = [host]
        if not is_address(host):
            looking = loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = distinct(await _within(looking, time_left(deadline)))
        for remaining in range(len(addresses), 0, -1):
            address = addresses[-remaining]
            try:
                return await cls._open(
                    lambda protocol, options, address=address: loop.create_connection(
                        lambda: protocol, address, port, **options
                    ),
                    target,
                    time_left(deadline) / remaining,
                )
            except OSError:
                if remaining == 1:
                    raise
        raise OSError("the host has no address")

    @classmethod
    async def _open(cls, connect: Any, target: Target, seconds: float) -> AsyncConnection:
        protocol = cls(asyncio.get_running_loop())
        options: dict[str, Any] = {}
        if target.tls is not None:
            # asyncio ends a handshake that nobody waits for any more at the latest then.
            options = {"ssl": target.tls, "server_hostname": target.host, "ssl_handshake_timeout": seconds}
        try:
            await _within(connect(protocol, options), seconds)
        except BaseException:
            if protocol._transport is not None:
                protocol._transport.abort()
            raise
        return protocol

    async def exchange(self, request: bytes, deadline: float) -> bytes:
        """`Connection.exchange` without blocking the loop."""
        self.keep = False
        transport = self._transport
        if transport is None or self._ended.done():
            raise ConnectionResetError
        loop = self._loop
        left = time_left(deadline)
        self._reader = ResponseReader()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(left, self._late)
        try:
            transport.write(request)
            body: bytes = await waiter
        finally:
            timer.cancel()
            self._waiter = None
        self.keep = self._reader.keep and not self._ended.done()
        self.since = time.monotonic()
        return body

    def usable(self, max_idle: float) -> bool:
        """See `Connection.usable`."""
        transport = self._transport
        if self._ended.done() or transport is None or transport.is_closing():
            return False
        if time.monotonic() - self.since > max_idle:
            return False
        if self._poll is None:
            self._poll = _readable(transport.get_extra_info("socket"))
        return not self._poll()  # the loop may not have come to it yet

    async def close(self) -> None:
        """Close it and wait until it is closed."""
        if self._transport is not None:
            self._transport.abort()
            await self._ended

    def abort(self) -> None:
        """Close it, soon."""
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        waiter, reader = self._waiter, self._reader
        if waiter is None or waiter.done() or reader is None:
            self.abort()  # it talks out of turn
            return
        try:
            body = reader.feed(data)
        except WireError as error:
            waiter.set_exception(error)
            return
        if body is None:
            return
        if self._transport is not None and self._transport.get_write_buffer_size():
            waiter.set_exception(WireError("sent a response that cannot be trusted: it was sent before the request"))
        else:
            waiter.set_result(body)

    def eof_received(self) -> None:
        waiter, reader = self._waiter, self._reader
        if waiter is not None and not waiter.done() and reader is not None:
            try:
                waiter.set_result(reader.end())
            except WireError as error:
                waiter.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(exc if exc is not None else ConnectionResetError())

    def _late(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(TimeoutError())


async def _within(waiting: Any, seconds: float) -> Any:
    try:
        return await asyncio.wait_for(waiting, seconds)
    except asyncio.TimeoutError:
        raise TimeoutError from None
