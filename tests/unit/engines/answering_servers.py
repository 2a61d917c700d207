"""TCP servers that answer a policy engine as badly as the test wants."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kest.core.engine import CedarPolicyEngine, OPAPolicyEngine, PolicyEngine


class Server:
    """A TCP server that does to each connection what the test says; counts connections and requests."""

    def __init__(self, behave: Callable[[Server, socket.socket, bytes], None], family: int = socket.AF_INET) -> None:
        self.behave = behave
        self.connections = 0
        self.open = 0
        self.tls: ssl.SSLContext | None = None
        self.requests: list[bytes] = []
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.stopped = threading.Event()

    def start(self, address: Any = ("127.0.0.1", 0)) -> Server:
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(address)
        self.listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def settles_at(self, count: int) -> bool:
        """Whether the number of open connections becomes ``count``."""
        end = time.monotonic() + 2
        while self.open != count and time.monotonic() < end:
            time.sleep(0.01)
        return self.open == count

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.open += 1
        try:
            self._converse(connection)
        finally:
            self.open -= 1

    def _converse(self, connection: socket.socket) -> None:
        if self.tls is not None:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError:  # which ssl has closed
                return
        with connection:
            try:
                while not self.stopped.is_set():
                    request = self._read(connection)
                    if not request:
                        return
                    self.requests.append(request)
                    self.behave(self, connection, request)
            except OSError:
                pass

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def stop(self) -> None:
        self.stopped.set()
        self.listener.close()


@contextmanager
def serving(
    behave: Callable[[Server, socket.socket, bytes], None], tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    server = Server(behave)
    server.tls = tls
    server.start()
    try:
        yield server
    finally:
        server.stop()


def response(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status,
        headers,
        len(body),
        body,
    )


def saying(data: bytes) -> Callable[[Server, socket.socket, bytes], None]:
    return lambda _, connection, __: connection.sendall(data)


def closing(data: bytes) -> Callable[[Server, socket.socket, bytes], None]:
    def behave(_: Server, connection: socket.socket, __: bytes) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


def stall(server: Server, _: socket.socket, __: bytes) -> None:
    server.stopped.wait(10)


def reset(_: Server, connection: socket.socket, __: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def drip(start: bytes, piece: bytes) -> Callable[[Server, socket.socket, bytes], None]:
    def behave(server: Server, connection: socket.socket, _: bytes) -> None:
        connection.sendall(start)
        while not server.stopped.wait(0.05):
            connection.sendall(piece)

    return behave


def endless(server: Server, connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while not server.stopped.is_set():
        connection.sendall(b"1," * 32_768)


def endless_chunks(server: Server, connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not server.stopped.is_set():
        connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")


OPA_ALLOW = b'{"result": {"allow": true}}'
AGENT_ALLOW = b'{"decision": "Allow", "diagnostics": {"reason": ["p1"], "errors": []}}'

WIRE_FAULTS: dict[str, Callable[[Server, socket.socket, bytes], None]] = {
    "500": saying(response(b"ALLOW", b"500 Internal Server Error")),
    "404": saying(response(b"ALLOW", b"404 Not Found")),
    "201": saying(response(b"ALLOW", b"201 Created")),
    "204": saying(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "redirect": saying(response(b"", b"307 Temporary Redirect", b"Location: /elsewhere\r\n")),
    "html": saying(response(b"<html>true</html>")),
    "no json": saying(response(b"")),
    "two documents": saying(response(b"ALLOW ALLOW")),
    "bad utf-8": saying(response(b'{"result": {"allow": true}, "x": "\xff"}')),
    "nesting": saying(response(b"[" * 200_000)),
    "truncated body": closing(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nALLOW"),
    "truncated head": closing(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "truncated chunk": closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nALLOW"),
    "closed": closing(b""),
    "reset": reset,
    "stall": stall,
    "stall in body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "stall in head": drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "endless": endless,
    "endless chunks": endless_chunks,
    "endless head": saying(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000),
    "announced too large": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
    "not http": saying(b"SSH-2.0-OpenSSH_9\r\n\r\n"),
    "old http": saying(b"HTTP/0.9 200 OK\r\n\r\nALLOW"),
    "two lengths": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 27\r\n\r\nALLOW"),
    "length and chunked": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\nTransfer-Encoding: chunked\r\n\r\nALLOW"),
    "negative length": saying(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nALLOW"),
    "longer than announced": saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nALLOW!!!"),
    "gzip": saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nALLOW"),
    "bad chunk": saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "folded header": saying(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nALLOW"),
}

ENGINES: dict[str, tuple[Callable[..., PolicyEngine], bytes]] = {
    "opa": (OPAPolicyEngine, OPA_ALLOW),
    "agent": (CedarPolicyEngine, AGENT_ALLOW),
}


def with_allow(behave: Callable[[Server, socket.socket, bytes], None], allow: bytes) -> Any:
    """``behave``, with ALLOW in what it sends replaced by a body that would allow."""

    class Replacing:
        def __init__(self, connection: socket.socket) -> None:
            self.connection = connection

        def sendall(self, data: bytes) -> None:
            self.connection.sendall(data.replace(b"ALLOW", allow))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.connection, name)

    return lambda server, connection, request: behave(server, Replacing(connection), request)  # type: ignore[arg-type]
