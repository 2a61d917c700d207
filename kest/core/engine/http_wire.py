"""One HTTP/1.1 response (RFC 9112), read strictly and without IO.

A policy server's answer is short, and nothing about it may be ambiguous: a response whose framing two readers could
understand differently, or that comes with more bytes than it announces, is refused. What general HTTP clients spend on
everything else (pools, cookies, redirects, header mappings) is most of the time of a decision over a kept connection.
"""

from __future__ import annotations

import re
from typing import NoReturn

__all__ = ["MAX_BODY_BYTES", "ResponseReader", "WireError"]

MAX_BODY_BYTES = 1_048_576
MAX_HEAD_BYTES = 65_536
"""Of all heads of one response (interim ones included), and of everything in a chunked body that is not its content."""

_STATUS = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class WireError(Exception):
    """The server's response cannot be a decision. Its text says why, to follow the server's name; it quotes nothing."""


def _distrust(fault: str) -> NoReturn:
    raise WireError(f"sent a response that cannot be trusted: {fault}")


def _no_http() -> NoReturn:
    raise WireError("ended the connection early or does not speak HTTP/1.1")


class ResponseReader:
    """Reads one response from the pieces in which it arrives.

    Attributes:
        keep: whether the connection may carry another request; meaningful once the body is there.
    """

    __slots__ = ("_body", "_buffer", "_length", "_spent", "keep")

    def __init__(self) -> None:
        self.keep = False
        self._buffer = bytearray()
        self._spent = 0  # bytes of heads, chunk sizes and trailers so far
        self._length: int | None = None  # bytes of the body that are to come; -1: until the end; -2: chunked
        self._body = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """The body, once it is complete.

        Raises:
            WireError: the response is not a 200 with one unambiguous body of at most 1 MiB.
        """
        buffer = self._buffer
        buffer += data
        while self._length is None:
            end = buffer.find(b"\r\n\r\n")
            self._account(len(buffer) if end < 0 else end)
            if end < 0:
                self._spent -= len(buffer)
                return None
            head = bytes(buffer[:end])
            del buffer[: end + 4]
            self._read_head(head)
        if self._length == -2:
            return self._read_chunks()
        if self._length == -1:
            if len(buffer) > MAX_BODY_BYTES:
                _distrust("the body is too large")
            return None
        if len(buffer) < self._length:
            return None
        return self._complete(buffer)

    def end(self) -> bytes:
        """The body, if the end of the connection is what ends it.

        Raises:
            WireError: it is not.
        """
        if self._length != -1:
            _no_http()
        return bytes(self._buffer)

    def _complete(self, body: bytearray) -> bytes:
        if self._length is not None and self._length >= 0 and len(body) > self._length:
            _distrust("more than it announced")
        return bytes(body)

    def _account(self, count: int) -> None:
        self._spent += count
        if self._spent > MAX_HEAD_BYTES:
            _distrust("the head is too large")

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if status is None:
            _no_http()
        code = int(status.group(2))
        if code in (100, 102, 103):  # interim: the response itself follows
            return
        if code != 200:
            redirect = "; redirects are not followed, configure the final URL" if 300 <= code < 400 else ""
            raise WireError(f"answered HTTP {code}, not 200{redirect}")
        length: bytes | None = None
        chunked = False
        self.keep = status.group(1) == b"1.1"
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                _no_http()
            name, value = header.group(1).lower(), header.group(2).rstrip(b" \t")
            if name == b"content-length":
                if length is not None or _LENGTH.fullmatch(value) is None:
                    _distrust("no single Content-Length")
                length = value
            elif name == b"transfer-encoding":
                if chunked or value.lower() != b"chunked":
                    _distrust("a Transfer-Encoding other than chunked")
                chunked = True
            elif name == b"content-encoding" and value.lower() != b"identity":
                _distrust("a Content-Encoding that was not asked for")
            elif name == b"connection" and b"close" in value.lower():
                self.keep = False
        if chunked and length is not None:
            _distrust("both Content-Length and Transfer-Encoding")
        if length is not None and int(length) > MAX_BODY_BYTES:
            _distrust("the body is too large")
        if chunked:
            self._length = -2
        elif length is not None:
            self._length = int(length)
        else:
            self._length, self.keep = -1, False

    def _read_chunks(self) -> bytes | None:
        buffer, position = self._buffer, 0
        while True:
            end = buffer.find(b"\r\n", position)
            if end < 0:
                if len(buffer) - position > MAX_HEAD_BYTES:
                    _distrust("the head is too large")
                break
            line = _CHUNK.fullmatch(buffer, position, end)
            if line is None:
                _distrust("a chunk without a size")
            size = int(line.group(1), 16)
            if size == 0:
                return self._read_trailers(position, end + 2)
            if len(self._body) + size > MAX_BODY_BYTES:
                _distrust("the body is too large")
            if len(buffer) < end + 2 + size + 2:
                break
            if buffer[end + 2 + size : end + 4 + size] != b"\r\n":
                _distrust("a chunk of another size than announced")
            self._body += buffer[end + 2 : end + 2 + size]
            self._account(end - position + 4)
            position = end + 4 + size
        del buffer[:position]
        return None

    def _read_trailers(self, last_chunk: int, position: int) -> bytes | None:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n", position)) >= 0:
            if end == position:
                if len(buffer) > end + 2:
                    _distrust("more than it announced")
                return bytes(self._body)
            if _HEADER.fullmatch(buffer, position, end) is None:
                _no_http()
            position = end + 2
        if len(buffer) - last_chunk > MAX_HEAD_BYTES:
            _distrust("the head is too large")
        del buffer[:last_chunk]
        return None
