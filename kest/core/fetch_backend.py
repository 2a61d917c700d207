"""An httpcore network backend whose timeouts are deadlines.

httpcore hands the ``timeout`` extension of a request unchanged to each operation on the network, so that a server that
sends a byte now and then is never late. Here the extension holds a point on the monotonic clock instead of a duration,
and each operation gets the time that is left until then: connecting, TLS, sending and receiving share one limit.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from kest.core.engine.resolve import addresses_of

__all__ = ["DeadlineBackend"]

WRITE_BYTES = 4096
"""Most bytes per write: few enough for a socket that accepts any to accept all, so that no write waits twice."""


def time_left(deadline: float | None) -> float:
    """Seconds until ``deadline``; a request without one is late from the start.

    Raises:
        httpcore.TimeoutException: none are left.
    """
    left = (deadline or 0.0) - time.monotonic()
    if left <= 0:
        raise httpcore.TimeoutException("the deadline has passed")
    return left


class DeadlineStream(httpcore.NetworkStream):
    """A connection."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, time_left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):
            self._stream.write(buffer[start : start + WRITE_BYTES], time_left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, time_left(timeout)))
        except BaseException:  # httpcore lets go of the connection without closing it
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore.SyncBackend):
    """Blocking connections. Host names are resolved within the deadline too, and their addresses share it."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = addresses_of(host, port, time_left(timeout))
        for remaining in range(len(addresses), 0, -1):
            # A share of the time each, so that an address that swallows packets does not hide the next one.
            share = time_left(timeout) / remaining
            try:
                stream = super().connect_tcp(addresses[-remaining], port, share, local_address, socket_options)
                return DeadlineStream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if remaining == 1:
                    raise
        raise httpcore.ConnectError("the host has no address")
