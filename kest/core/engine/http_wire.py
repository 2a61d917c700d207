"""An HTTP/1.1 response read without doing IO: bytes are fed in, a complete response comes out, anything odd is an
error.

Only what a policy server sends is understood (RFC 9112): status line, headers, a body framed by ``Content-Length``, by
``chunked``, or by the end of the connection. Whatever could be read in two ways is refused, since a decision hangs on
it.
"""

from __future__ import annotations

import re

__all__ = ["ProtocolError", "ResponseReader"]

MAX_HEAD_BYTES = 16_384

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,12}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")


class ProtocolError(Exception):
    """What the server sent is not a response that can be trusted, or too much of one; the text quotes none of it."""


class ResponseReader:
    """One response to one POST.

    Args:
        limit: the most bytes that the body may have.
    """

    __slots__ = (
        "_buffer",
        "_chunked",
        "_head_done",
        "_left",
        "_limit",
        "_trailers",
        "body",
        "complete",
        "keep",
        "status",
    )

    def __init__(self, limit: int) -> None:
        self.status = 0
        self.body = b""
        self.complete = False
        self.keep = False
        """Whether the connection may carry another request."""
        self._limit = limit
        self._buffer = bytearray()
        self._head_done = False
        self._chunked = False
        self._trailers = False
        self._left: int | None = (
            None  # bytes that the body (or this chunk) still lacks; None: until the connection ends
        )

    def feed(self, data: bytes) -> bool:
        """Take more bytes; returns True once the response is complete."""
        buffer = self._buffer
        buffer += data
        if not self._head_done and not self._read_head():
            return False
        if self._chunked:
            self._read_chunks()
        elif self._left is not None:
            if len(buffer) > self._left:
                raise ProtocolError("more bytes than Content-Length announced")
            if len(buffer) == self._left:
                self._finish(bytes(buffer))
        elif len(buffer) > self._limit:
            raise ProtocolError("the body is too large")
        return self.complete

    def end(self) -> None:
        """The connection has ended: complete if that is how this body ends, otherwise an error."""
        if self._head_done and not self._chunked and self._left is None:
            self.keep = False
            self._finish(bytes(self._buffer))
        elif not self.complete:
            raise ProtocolError("the connection ended before the response did")

    def _finish(self, body: bytes) -> None:
        self.body = body
        self.complete = True
        self._buffer = bytearray()

    def _read_head(self) -> bool:
        while True:
            end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
            if end < 0:
                if len(self._buffer) >= MAX_HEAD_BYTES:
                    raise ProtocolError("the headers are too large")
                return False
            head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            lines = head.split(b"\r\n")
            status = _STATUS.fullmatch(lines[0])
            if status is None:
                raise ProtocolError("not an HTTP/1.1 response")
            self.status = int(status.group(2))
            if self.status >= 200:
                break
            if self.status == 101:
                raise ProtocolError("an unasked protocol switch")
        self._read_framing(lines[1:], newer=status.group(1) == b"1")
        self._head_done = True
        return True

    def _read_framing(self, lines: list[bytes], *, newer: bool) -> None:
        length: bytes | None = None
        encoding: bytes | None = None
        connection = b""
        for line in lines:
            header = _HEADER.fullmatch(line)
            if header is None:
                raise ProtocolError("a malformed header")
            name, value = header.group(1).lower(), header.group(2)
            if name == b"content-length":
                if length is not None or not _LENGTH.fullmatch(value):
                    raise ProtocolError("a bad Content-Length")
                length = value
            elif name == b"transfer-encoding":
                if encoding is not None or value.lower() != b"chunked":
                    raise ProtocolError("an unknown Transfer-Encoding")
                encoding = value
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise ProtocolError("a Content-Encoding that was not asked for")
            elif name == b"connection":
                connection += b"," + value.lower()
        if length is not None and encoding is not None:
            raise ProtocolError("both Content-Length and Transfer-Encoding")
        tokens = {token.strip() for token in connection.split(b",")}
        self.keep = newer and b"close" not in tokens
        if self.status in (204, 304):
            self._left = 0
        elif encoding is not None:
            self._chunked = True
            self._left = None
        elif length is not None:
            self._left = int(length)
            if self._left > self._limit:
                raise ProtocolError("the body is too large")

    def _read_chunks(self) -> None:
        buffer = self._buffer
        while not self.complete:
            if self._left is not None:  # inside a chunk, whose closing CRLF counts
                if len(buffer) < self._left + 2:
                    return
                if buffer[self._left : self._left + 2] != b"\r\n":
                    raise ProtocolError("a malformed chunk")
                self.body += bytes(buffer[: self._left])
                del buffer[: self._left + 2]
                self._left = None
            end = buffer.find(b"\r\n", 0, MAX_HEAD_BYTES)
            if end < 0:
                if len(buffer) >= MAX_HEAD_BYTES:
                    raise ProtocolError("a malformed chunk")
                return
            line = bytes(buffer[:end])
            del buffer[: end + 2]
            if self._trailers:
                if not line:
                    if buffer:
                        raise ProtocolError("bytes after the end of the response")
                    self._finish(self.body)
                continue
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise ProtocolError("a malformed chunk")
            count = int(size.group(1), 16)
            if len(self.body) + count > self._limit:
                raise ProtocolError("the body is too large")
            if count:
                self._left = count
            else:
                self._trailers = True
