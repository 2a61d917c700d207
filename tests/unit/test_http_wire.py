"""The reader of HTTP responses: the same whatever the pieces, and nothing but a body or a WireError, whatever the bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kest.core.engine.http_wire import MAX_BODY_BYTES, ResponseReader, WireError

BODY = b'{"result":{"allow":true}}'
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n" + BODY
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200\r\ntransfer-encoding:CHUNKED \r\n\r\n"
    b"5\r\n" + BODY[:5] + b"\r\n014 ;a=b\r\n" + BODY[5:] + b"\r\n0\r\nT: x\r\n\r\n"
)
UNTIL_END = b"HTTP/1.0 200 OK\r\n\r\n" + BODY


def read(data: bytes, cuts: list[int]) -> tuple[bytes, bool]:
    """The body, and whether the connection may be used again, from pieces cut at ``cuts``."""
    reader = ResponseReader()
    places = sorted({cut % len(data) for cut in cuts} | {0, len(data)})
    pieces = [data[start:stop] for start, stop in itertools.pairwise(places)]
    for index, piece in enumerate(pieces):
        body = reader.feed(piece)
        if body is not None:
            assert index == len(pieces) - 1
            return body, reader.keep
    return reader.end(), reader.keep


@pytest.mark.parametrize(("data", "keep"), [(LENGTH, True), (CHUNKED, True), (UNTIL_END, False)])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_pieces_do_not_matter(data: bytes, keep: bool, cuts: list[int]) -> None:
    assert read(data, cuts) == (BODY, keep)


@given(
    start=st.sampled_from([LENGTH, CHUNKED, UNTIL_END]),
    edits=st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=4)), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 10_000), max_size=4),
)
def test_any_bytes_are_a_body_or_an_error(start: bytes, edits: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = bytearray(start)
    for place, replacement in edits:
        data[place : place + len(replacement)] = replacement
    reader = ResponseReader()
    try:
        for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
            if reader.feed(bytes(piece)) is not None:
                return
        reader.end()
    except WireError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX\x00: y\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BODY_BYTES + 1),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 50_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
    ],
)
def test_ambiguous_and_excessive_responses_are_refused_at_once(data: bytes) -> None:
    with pytest.raises(WireError):
        ResponseReader().feed(data)


@pytest.mark.parametrize("data", [LENGTH[:-1], CHUNKED[:-1], LENGTH[:30], b"", b"HTTP/1.1 200 OK\nX: y\n\n{}"])
def test_an_early_end_is_an_error(data: bytes) -> None:
    reader = ResponseReader()
    assert reader.feed(data) is None
    with pytest.raises(WireError, match="early"):
        reader.end()
