"""The reader of HTTP responses: the same whatever the pieces, and nothing but a body or a WireError, whatever the bytes.

Every test runs twice: as it is, and with h11 reading also what `plain_body` knows at a glance.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest.core.engine import http_wire
from kest.core.engine.http_wire import MAX_BODY_BYTES, ResponseReader, WireError

BODY = b'{"result":{"allow":true}}'
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n" + BODY
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200\r\ntransfer-encoding:CHUNKED \r\n\r\n"
    b"5\r\n" + BODY[:5] + b"\r\n014;a=b\r\n" + BODY[5:] + b"\r\n0\r\nT: x\r\n\r\n"
)
UNTIL_END = b"HTTP/1.0 200 OK\r\n\r\n" + BODY


@pytest.fixture(params=["plain", "h11"], scope="module", autouse=True)
def readers(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            patch.setattr(http_wire, "plain_body", lambda data: None)
        yield


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
@settings(deadline=None)  # a busy machine is no defect
@given(cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_pieces_do_not_matter(data: bytes, keep: bool, cuts: list[int]) -> None:
    assert read(data, cuts) == (BODY, keep)


@settings(deadline=None)  # a busy machine is no defect
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
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\nX: y\n\n{}",
        b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n{}",
        b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nX\x00: y\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (MAX_BODY_BYTES + 1)
        + b" " * (MAX_BODY_BYTES + 1),  # not yet when it is announced: h11 does not say how long a chunk is to be
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_BODY_BYTES + 1),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 50_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
    ],
)
def test_ambiguous_and_excessive_responses_are_refused_at_once(data: bytes) -> None:
    with pytest.raises(WireError):
        ResponseReader().feed(data)


@pytest.mark.parametrize(
    "head", [b"Content-Length: 25, 25\r\n", b"Content-Length: 25\r\ncontent-length:25\r\n", b"Content-Length: 025\r\n"]
)
def test_a_length_said_twice_is_one_length(head: bytes) -> None:
    """All who read it at all read the same number (RFC 9110, section 8.6, allows that), so there is nothing to refuse."""
    assert ResponseReader().feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + BODY) == BODY


@pytest.mark.parametrize(
    "framing", [b"Content-Length: %d\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n%x\r\n", b"\r\n"]
)
def test_the_largest_body_is_read(framing: bytes) -> None:
    reader, body = ResponseReader(), b"x" * MAX_BODY_BYTES
    head = framing % MAX_BODY_BYTES if b"%" in framing else framing
    end = b"\r\n0\r\n\r\n" if b"chunked" in framing else b""
    data = b"HTTP/1.1 200 OK\r\n" + head + body + end
    answers = [reader.feed(data[start : start + 65_536]) for start in range(0, len(data), 65_536)]
    assert (answers[-1] or reader.end()) == body
    assert not any(answers[:-1])


@pytest.mark.parametrize("say", [b"Connection: close", b"Connection: keep-alive, Close"])
def test_a_connection_that_the_server_closes_is_not_kept(say: bytes) -> None:
    assert read(LENGTH.replace(b"Content-Type: application/json", say), []) == (BODY, False)
    assert read(LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"), []) == (BODY, False)


@pytest.mark.parametrize(
    "data",
    [b"SECRET\r\n\r\n", LENGTH.replace(b"-Type:", b"-Type SECRET:"), CHUNKED.replace(b"014;", b"SECRET;")],
)
def test_an_error_quotes_nothing(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        ResponseReader().feed(data)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value, chain=True))


@pytest.mark.parametrize("data", [LENGTH[:-1], CHUNKED[:-1], LENGTH[:30], b""])
def test_an_early_end_is_an_error(data: bytes) -> None:
    reader = ResponseReader()
    assert not data or reader.feed(data) is None
    with pytest.raises(WireError, match="early"):
        reader.end()
