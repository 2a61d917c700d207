"""One HTTP/1.1 response (RFC 9112), read strictly and without IO: h11 reads it, and what it leaves open is decided here.

A policy server's answer is short, and nothing about it may be ambiguous: a response whose framing two readers could
understand differently, or that comes with more bytes than it announces, is refused.

Nearly every answer is one piece of a few hundred bytes, and could not be plainer; `plain_body` knows those at a
glance. It refuses nothing and keeps nothing: whatever it does not know, h11 reads, from the first byte.
"""

from __future__ import annotations

import re
from typing import NoReturn

from h11 import (
    CLIENT,
    DONE,
    NEED_DATA,
    Connection,
    Data,
    EndOfMessage,
    InformationalResponse,
    RemoteProtocolError,
    Request,
    Response,
)

__all__ = ["MAX_BODY_BYTES", "ResponseReader", "WireError", "plain_body"]

MAX_BODY_BYTES = 1_048_576
MAX_HEAD_BYTES = 65_536
"""Of all heads of one response (interim ones included), and of everything in a chunked body that is not its content."""

# h11 reads a response as one to the request that it has seen sent. What matters of ours is that it is a complete POST
# over HTTP/1.1 that does not ask for the connection to be closed, so that is all that h11 gets to see. The bytes that
# are sent are `PolicyServer`'s: constants, checked once, and a length. h11 would check every header again for each
# decision, and take half as long again for the exchange as for reading the response (68 µs instead of 45).
_REQUEST = Request(method=b"POST", target=b"/", headers=[(b"Host", b"-"), (b"Content-Length", b"0")])
_SENT = EndOfMessage()

_LENIENT = re.compile(rb"(?<!\r)\n|\n[\t ]")
"""What h11 takes in a head and others read otherwise: lines that end without CR, and lines that continue others."""

_FIELDS = (
    rb"(?:(?!(?i:connection|content-encoding|content-length|transfer-encoding):)"
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*\r\n)*"
)
_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 200 [\t -~]*\r\n" + _FIELDS + rb"(?i:content-length):[\t ]*([0-9]{1,5})[\t ]*\r\n" + _FIELDS + rb"\r\n"
)
"""The heads about which there is nothing to decide: a 200 whose one length is a number, and no field that changes how a
body is read or what becomes of the connection. No character can be matched in two ways, so a match takes linear time."""


class WireError(Exception):
    """The server's response cannot be a decision. Its text says why, to follow the server's name; it quotes nothing."""


def _distrust(fault: str) -> NoReturn:
    raise WireError(f"sent a response that cannot be trusted: {fault}") from None  # h11's errors quote what it read


def _no_http() -> NoReturn:
    raise WireError("ended the connection early or does not speak HTTP/1.1") from None


def plain_body(data: bytes) -> bytes | None:
    """The body of a response that is all of ``data`` and could not be plainer; None for every other.

    What it answers is what h11 would, and the connection may be used again: test_http_wire_differential.py compares them.
    """
    head = _PLAIN_HEAD.match(data, 0, MAX_HEAD_BYTES)
    if head is None or len(data) - head.end() != int(head[1]):
        return None
    return data[head.end() :]


class ResponseReader:
    """Reads one response from the pieces in which it arrives.

    Attributes:
        keep: whether the connection may carry another request; meaningful once the body is there.
    """

    __slots__ = ("_body", "_head", "_http", "_received", "keep")

    def __init__(self) -> None:
        self.keep = False
        self._http: Connection | None = None
        self._head: bytearray | None = bytearray()  # of the response and of interim ones, until h11 has read it
        self._received = 0
        self._body = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """The body, once it is complete. ``data`` is not empty.

        Raises:
            WireError: the response is not a 200 with one unambiguous body of at most 1 MiB.
        """
        http = self._http
        if http is None:
            body = plain_body(data)
            if body is not None:
                self.keep = True
                return body
            http = self._http = Connection(CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
            http.send(_REQUEST)
            http.send(_SENT)
        self._received += len(data)
        if self._head is not None:
            self._head += data
        body = self._read(http, data)
        self.keep = body is not None and http.their_state is DONE
        return body

    def end(self) -> bytes:
        """The body, if the end of the connection is what ends it.

        Raises:
            WireError: it is not.
        """
        body = None if self._http is None else self._read(self._http, b"")
        return _no_http() if body is None else body

    def _read(self, http: Connection, data: bytes) -> bytes | None:
        body = self._body
        http.receive_data(data)
        complete = False
        try:
            while not complete and (event := http.next_event()) is not NEED_DATA:
                if isinstance(event, Data):
                    body += event.data
                    if len(body) > MAX_BODY_BYTES:
                        _distrust("the body is too large")
                elif isinstance(event, Response):
                    self._check(event, http.trailing_data[0])
                elif isinstance(event, EndOfMessage):
                    complete = True
                elif not isinstance(event, InformationalResponse):  # after those the response itself follows
                    _no_http()
        except RemoteProtocolError as error:
            if error.error_status_hint == 431:
                _distrust("the head is too large")
            _no_http()
        if complete and http.trailing_data[0]:
            _distrust("more than it announced")
        # h11 hands out a body as it comes, so what it still holds is the beginning of a line.
        if self._received - len(body) > MAX_HEAD_BYTES:
            _distrust("the head is too large")
        return bytes(body) if complete else None

    def _check(self, response: Response, following: bytes) -> None:
        code = response.status_code
        if code != 200:
            redirect = "; redirects are not followed, configure the final URL" if 300 <= code < 400 else ""
            raise WireError(f"answered HTTP {code}, not 200{redirect}")
        received, self._head = self._head or b"", None
        head = received[: len(received) - len(following)]
        if response.http_version not in (b"1.1", b"1.0") or _LENIENT.search(head):
            _no_http()
        framings = 0
        for name, value in response.headers:
            if name == b"content-length":  # one number, also where h11 has read it several times
                framings += 1
                if int(value) > MAX_BODY_BYTES:
                    _distrust("the body is too large")
            elif name == b"transfer-encoding":  # chunked
                framings += 1
            elif name == b"content-encoding" and value.lower() != b"identity":
                _distrust("a Content-Encoding that was not asked for")
        if framings > 1:
            _distrust("both Content-Length and Transfer-Encoding")
