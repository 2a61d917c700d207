"""A relay in front of an HTTP server that holds requests back, answers for the server, or cuts the line: faults on order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Answer", "Relay", "Request", "relaying"]


class Request(NamedTuple):
    """One request: the operation in AWS's terms, if it is one, such as ``TrentService.Sign``, and the path."""

    operation: str
    path: str
    body: bytes


class Answer(NamedTuple):
    """What is answered instead of the server."""

    status: int
    body: bytes
    type: str = "application/x-amz-json-1.1"


Rule = Callable[[Request], Answer | None]


class Cut(Exception):
    """Raised by a rule: the connection is closed without an answer."""


class Relay:
    """The relay's address, what passed through it, and the rule that it follows: None as its answer forwards."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[str] = []
        self.rule: Rule = lambda request: None

    def count(self, operation: str) -> int:
        return sum(operation in one for one in self.seen)


class Gate:
    """A rule that holds requests of one operation until it is opened, and says how many there are."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._open = threading.Event()
        self._changed = threading.Condition()
        self.held = 0

    def __call__(self, request: Request) -> None:
        if self._operation in request.operation:
            with self._changed:
                self.held += 1
                self._changed.notify_all()
            self._open.wait(60)

    def wait_for(self, count: int, seconds: float = 30.0) -> bool:
        """Whether so many are held in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.held >= count, seconds)

    def open(self) -> None:
        self._open.set()


@contextmanager
def relaying(upstream: str) -> Iterator[Relay]:
    """A relay to a server at this URL, on a free port."""
    parts = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def relay_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self._operation(body), self.path, body)
            relay.seen.append(request.operation)
            try:
                answer = relay.rule(request)
            except Cut:
                self.close_connection = True
                return
            self._reply(answer or self._forward(body))

        do_GET = do_POST = relay_request

        def _operation(self, body: bytes) -> str:
            return self.headers.get("X-Amz-Target") or body.partition(b"&")[0].decode("latin-1")

        def _forward(self, body: bytes) -> Answer:
            connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                connection.request(self.command, self.path, body, headers)
                with connection.getresponse() as reply:
                    return Answer(reply.status, reply.read(), reply.headers.get("Content-Type", ""))
            finally:
                connection.close()

        def _reply(self, answer: Answer) -> None:
            try:
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.type)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
            except ConnectionError:
                self.close_connection = True  # whoever asked has given up

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", 0), Handler)
    relay = Relay(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
