"""Plain HTTP answers read at a glance, against h11: whatever arrives, in whatever pieces, both say the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kest.core.engine import http_wire
from kest.core.engine.http_wire import MAX_BODY_BYTES, ResponseReader, WireError, plain_body

BODY = b'{"result":{"allow":true}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n" + BODY

PLAIN_FIELDS = [
    "Content-Length: 25",
    "Content-Type: application/json",
    "Vary: Accept-Encoding",
    "X-Frame-Options:DENY ",
]
# A field each; {} is cut out, so that blanks at either end can be seen.
ODD_FIELDS = r"""
Content-Length: 0|Content-Length: 24|Content-Length: 25|Content-Length: 26|Content-Length: 99999|Content-Length: 100000
Content-Length: 1048577|Content-Length:{}|Content-Length:25|Content-Length: 025|Content-Length:{}	25 {}
Content-Length: +25|Content-Length: 2 5|Content-Length: 25, 25|Content-Length: 25, 24|Content-Length: 0x19
Content-Length: ²µ|content-length : 25|CONTENT-LENGTH: 25|Content-Length-X: 3
Transfer-Encoding: chunked|Transfer-Encoding: identity|Transfer-Encoding: gzip, chunked|Transfer-Encoding:{}
transfer-encoding:Chunked {}|TRANSFER-ENCODING: x|Connection: close|Connection: keep-alive|cOnNeCtIoN:Keep-Alive, CLOSE
Connection: Transfer-Encoding|Connection: upgrade|Content-Encoding: gzip|content-encoding:identity|Content-Encoding:{}
X:|X: 	 {}|X: y  z|X	: y|{} X: y|X|: y|{}|X: {NUL}|X: {SOH}|X: {DEL}|X: é|É: y|(X): y|X: {LONG}
X: y{CR}Content-Length: 2|X: y{LF}Content-Length: 2|X: y{CR}{LF} Content-Length: 2|X: y{LF} z
Upgrade: h2c|Trailer: X|Proxy-Connection: close|Keep-Alive: timeout=5|TE: chunked|Location: /
"""
ODD_STATUS = r"""
HTTP/1.1 100 OK|HTTP/1.1 101 OK|HTTP/1.1 199 OK|HTTP/1.1 201 OK|HTTP/1.1 204 OK|HTTP/1.1 205 OK|HTTP/1.1 206 OK
HTTP/1.1 301 OK|HTTP/1.1 304 OK|HTTP/1.1 404 OK|HTTP/1.1 500 OK|HTTP/1.1 600 OK|HTTP/1.1 200|HTTP/1.1 200 {}
HTTP/1.1  200 OK|HTTP/1.1 0200 OK|HTTP/1.1 200 	OéK|HTTP/1.1 200 {NUL}|http/1.1 200 OK|HTTP/1.0 200 OK|HTTP/1.2 200 OK
HTTP/2 200 OK|HTTP/11 200 OK|HTTP/2.0 200 OK|ICY 200 OK|{CR}{LF}HTTP/1.1 200 OK|{}|{} HTTP/1.1 200 OK
"""
_CONTROLS = {
    "{}": "",
    "{NUL}": "\0",
    "{SOH}": "\1",
    "{DEL}": "\x7f",
    "{CR}": "\r",
    "{LF}": "\n",
    "{LONG}": "y" * 66_000,
}
BODIES = [
    BODY + b"\n",
    b"",
    b"{}",
    BODY + ANSWER,
    b"19\r\n%b\r\n0\r\n\r\n" % BODY,
    b"19\r\n%b\r\n0\r\n\r\n" % BODY + ANSWER,
    b"x" * 99_999,
]


def table(text: str) -> list[str]:
    entries = text.strip("\n").replace("\n", "|").split("|")
    for name, meaning in _CONTROLS.items():
        entries = [entry.replace(name, meaning) for entry in entries]
    return entries


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A plain answer, to which up to three things have happened, and perhaps an accident with a byte or two."""
    status, fields, body, before = "HTTP/1.1 200 OK", list(draw(st.permutations(PLAIN_FIELDS))), BODY, b""
    ends = ["\r\n"] * (len(fields) + 5)
    for oddity in draw(st.lists(st.sampled_from(["status", "field", "lost", "body", "end", "interim"]), max_size=3)):
        if oddity == "status":
            status = draw(st.sampled_from(table(ODD_STATUS)))
        elif oddity == "field":
            fields.insert(draw(st.integers(0, len(fields))), draw(st.sampled_from(table(ODD_FIELDS))))
        elif oddity == "lost":
            fields.pop()
        elif oddity == "body":
            body = draw(st.one_of(st.sampled_from(BODIES), st.binary(max_size=30)))
        elif oddity == "end":
            ends[draw(st.integers(0, len(ends) - 1))] = draw(st.sampled_from(["\n", "\r", "", "\r\n\r\n", "\r\r\n"]))
        else:
            before = b"HTTP/1.1 %d\r\n\r\n" % draw(st.sampled_from([100, 103]))
    lines = [status, *fields, ""]
    head = "".join(line + end for line, end in zip(lines, ends, strict=False)).encode("latin-1")
    data = before + head + body
    for place, replacement in draw(st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=2)), max_size=1)):
        data = data[:place] + replacement + data[place + len(replacement) :]
    return data


def said(data: bytes, cuts: list[int], end: bool) -> tuple[bytes | str | None, bool]:
    """What is made of the pieces, and whether the connection is kept: a body, the text of a WireError, or None: not yet."""
    reader = ResponseReader()
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    body = None
    try:
        for start, stop in itertools.pairwise(places):
            if body is not None:
                return "it goes on after the answer", False
            body = reader.feed(data[start:stop])
        return reader.end() if body is None and end else body, reader.keep
    except WireError as error:
        return str(error), False


def said_by_h11(data: bytes, cuts: list[int], end: bool) -> tuple[bytes | str | None, bool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_wire, "plain_body", lambda data: None)
        return said(data, cuts, end)


@settings(deadline=None, max_examples=1_000)  # no deadline: a busy machine is no defect
@given(data=answers(), cuts=st.one_of(st.just([]), st.lists(st.integers(0, 10_000), max_size=12)), end=st.booleans())
@example(data=ANSWER, cuts=[], end=False)
@example(data=ANSWER[:-1], cuts=[], end=True)
@example(data=ANSWER + ANSWER, cuts=[], end=False)
@example(data=ANSWER + ANSWER, cuts=[len(ANSWER)], end=False)
def test_both_say_the_same(data: bytes, cuts: list[int], end: bool) -> None:
    assert said(data, cuts, end) == said_by_h11(data, cuts, end)


@pytest.mark.parametrize("odd", [*table(ODD_FIELDS), *table(ODD_STATUS)], ids=lambda odd: ascii(odd[:40]))
def test_both_say_the_same_of_each_oddity(odd: str) -> None:
    """One at a time, in every place, with every body."""
    plain = ["HTTP/1.1 200 OK", *PLAIN_FIELDS]
    heads = [[odd, *PLAIN_FIELDS], *([*plain[:place], odd, *plain[place:]] for place in range(1, len(plain) + 1))]
    heads += [[*plain[:1], *(field for field in PLAIN_FIELDS if field[0] != odd[:1].upper()), odd]]
    for lines in heads:
        for body in (BODY, *BODIES):
            data = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
            assert said(data, [], False) == said_by_h11(data, [], False)


@settings(deadline=None, max_examples=300)
@given(head=st.from_regex(http_wire._PLAIN_HEAD, fullmatch=True), cuts=st.lists(st.integers(0, 10_000), max_size=5))
def test_all_that_could_be_plain_is_so_for_h11(head: bytes, cuts: list[int]) -> None:
    """Heads made from the very pattern: h11 reads them with the same length, and the connection may be used again."""
    length = http_wire._PLAIN_HEAD.fullmatch(head)
    assert length is not None
    body = b"x" * int(length[1])
    assert plain_body(head + body) == body
    assert plain_body(head + body + b"x") is None
    assert not body or plain_body(head + body[1:]) is None
    assert said_by_h11(head + body, cuts, False) == (body, True)
    assert len(body) < MAX_BODY_BYTES


FROM_SERVERS = {
    "OPA": "Content-Type: application/json|Vary: Accept-Encoding|Date: Sat, 21 Nov 2026 16:33:17 GMT|Content-Length: 25",
    "cedar-agent": "content-type: application/json|server: Rocket|x-frame-options: SAMEORIGIN|content-length: 25",
}


@pytest.mark.parametrize("fields", FROM_SERVERS.values(), ids=FROM_SERVERS)
def test_what_servers_say_is_plain(fields: str) -> None:
    head = "\r\n".join(["HTTP/1.1 200 OK", *fields.split("|"), "", ""])
    assert plain_body(head.encode() + BODY) == BODY
