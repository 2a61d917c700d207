"""A server that publishes one document, well or badly, over a real socket."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler, threading.Event], None]


class Publisher:
    """Answers every GET with ``answer``; ``asked`` counts them, ``closing`` ends endless answers."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.closing = threading.Event()
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                with contextlib.suppress(OSError):  # the other side hung up
                    publisher.answer(self, publisher.closing)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.block_on_close = True
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys?secret=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def publishing(answer: Answer) -> Iterator[Publisher]:
    publisher = Publisher(answer)
    try:
        yield publisher
    finally:
        publisher.close()


def body(data: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler, closing: threading.Event) -> None:
        request.send_response(status)
        request.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def jwks(*identities: Any, **headers: str) -> Answer:
    return body(json.dumps({"keys": [one.public_jwk() for one in identities]}).encode(), **headers)


def endless(request: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    request.send_response(200)
    request.end_headers()
    while not closing.is_set():
        request.wfile.write(b" " * 65536)


def dripping_body(request: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    request.send_response(200)
    request.send_header("content-length", "100000")
    request.end_headers()
    while not closing.wait(0.05):
        request.wfile.write(b" ")


def dripping_header(request: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
    while not closing.wait(0.05):
        request.wfile.write(b"y")


def silent(request: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    closing.wait(30)


def declared_100_mb(request: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    request.send_response(200)
    request.send_header("content-length", str(100 << 20))
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b" " * (1 << 20))


def truncated(request: BaseHTTPRequestHandler, closing: threading.Event) -> None:
    request.send_response(200)
    request.send_header("content-length", "1000")
    request.end_headers()
    request.wfile.write(b'{"keys":[]}')


BAD: dict[str, Answer] = {
    "500": body(b"{}", 500),
    "204": body(b"", 204),
    "redirect": body(b"", 302, location="http://127.0.0.1:9/"),
    "html": body(b"<html>login</html>", content_type="text/html"),
    "empty": body(b""),
    "a list": body(b"[]"),
    "no keys": body(b'{"keys": 5}'),
    "not utf-8": body(b"\xff\xfe"),
    "nested": body(b"[" * 100_000),
    "compressed": body(b"\x1f\x8b", content_encoding="gzip"),
    "endless": endless,
    "100 MB": declared_100_mb,
    "truncated": truncated,
    "slow body": dripping_body,
    "slow header": dripping_header,
    "silent": silent,
}
