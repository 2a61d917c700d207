"""Load on a server: a closed loop that keeps it busy, and an open one that asks at its own pace.

Plain sockets, kept alive, with requests that were made before: a client that costs a tenth of what the server does. One
request per connection is under way, as from real clients; nothing is pipelined.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from types import TracebackType

__all__ = ["Client", "WrongAnswerError"]

TIMEOUT = 30.0


class WrongAnswerError(AssertionError):
    """The server did not answer as it should."""


class Client:
    """Connections to a server on loopback.

    Args:
        port: where it listens.
        body: how every answer has to end; it has status 200.
        connections: how many requests are under way at once in a closed loop.
    """

    def __init__(self, port: int, body: bytes, connections: int = 8) -> None:
        self.port, self.body = port, body
        self._sockets = [self._connect() for _ in range(connections)]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection in self._sockets:
            connection.close()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, request: bytes) -> bytes:
        """The answer to one request on a connection of its own, whatever it is."""
        with self._connect() as connection:
            connection.sendall(request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer

    def closed(self, requests: Sequence[bytes], body: bytes | None = None) -> float:
        """Seconds until all are answered, when each connection asks again as soon as it has its answer."""
        sockets, body = self._sockets, body or self.body
        width = len(sockets)
        start = time.perf_counter()
        for connection, request in zip(sockets, requests, strict=False):
            connection.sendall(request)
        for index in range(len(requests)):
            connection = sockets[index % width]
            answer = connection.recv(65536)
            while not answer.endswith(body):
                part = connection.recv(65536)
                if not part:
                    raise WrongAnswerError(repr(answer))
                answer += part
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise WrongAnswerError(repr(answer))
            if index + width < len(requests):
                connection.sendall(requests[index + width])
        return time.perf_counter() - start

    def open(self, requests: Sequence[bytes], rate: float) -> list[float]:
        """Milliseconds from when each request was due to its whole answer; ``rate`` are due per second.

        They are sent on time whether or not earlier ones are answered, on further connections where need be. What is sent
        late, because this process was late, counts from when it was due.
        """
        free, waiting = list(self._sockets), dict[socket.socket, tuple[float, bytes]]()
        took: list[float] = []
        begin, sent = time.perf_counter() + 0.01, 0
        while sent < len(requests) or waiting:
            now = time.perf_counter()
            due = begin + sent / rate
            if sent < len(requests) and now >= due:
                if not free:
                    free.append(self._connect())
                    self._sockets.append(free[-1])
                connection = free.pop()
                connection.sendall(requests[sent])
                waiting[connection] = (due, b"")
                sent += 1
                continue
            wait = due - now if sent < len(requests) else TIMEOUT
            readable, _, _ = select.select(list(waiting), [], [], wait)
            if not readable and sent == len(requests):
                raise WrongAnswerError(f"{len(waiting)} requests unanswered after {TIMEOUT:.0f} s")
            for connection in readable:
                was_due, answer = waiting[connection]
                part = connection.recv(65536)
                answer += part
                if answer.endswith(self.body) and answer.startswith(b"HTTP/1.1 200 "):
                    took.append((time.perf_counter() - was_due) * 1e3)
                    del waiting[connection]
                    free.append(connection)
                elif not part or len(answer) > 4096:
                    raise WrongAnswerError(repr(answer))
                else:
                    waiting[connection] = (was_due, answer)
        return took
