"""W3C Baggage as Kest reads and writes it."""

from __future__ import annotations

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kest.errors import BaggageError, ConfigurationError, PassportTooLargeError
from kest.http import hashed_user
from kest.http.baggage_header import foreign_members, format_member, join_header, read_baggage, room_for
from kest.http.outgoing import Packer

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@given(texts)
def test_any_value_arrives(value: str) -> None:
    assert read_baggage([format_member("kest.user", value)]).kest == {"kest.user": value}
    # and as OpenTelemetry writes it
    assert read_baggage([f"kest.user={quote_plus(value)}".encode()]).kest == {"kest.user": value}


def test_encoding_of_what_is_special() -> None:
    assert format_member("kest.user", 'a%b=c,d;e f"\\é+') == b"kest.user=a%25b%3Dc%2Cd%3Be%20f%22%5C%C3%A9%2B"


@given(
    st.lists(st.binary(max_size=30).filter(lambda b: b"," not in b and b"kest" not in b and b"%" not in b), max_size=8)
)
def test_foreign_members_are_kept_as_they_came(members: list[bytes]) -> None:
    kept = [m.strip(b" \t") for m in members if m.strip(b" \t")]
    assert list(read_baggage([b",".join(members)]).foreign) == kept
    assert foreign_members([b" , ".join(members)]) == kept
    assert join_header(kept, []) == b",".join(kept)


@pytest.mark.parametrize(
    ("lines", "kest", "foreign"),
    [
        ([], {}, []),
        ([b""], {}, []),
        ([b" , ,"], {}, []),
        ([b"kest.a=1"], {"kest.a": "1"}, []),
        ([b" kest.a = 1 ; p=1 ; q "], {"kest.a": "1"}, []),
        ([b"kest.a=1=2"], {"kest.a": "1=2"}, []),
        ([b"kest.a=1", b"b=2,kest.b=%20"], {"kest.a": "1", "kest.b": " "}, [b"b=2"]),
        ([b"kest.a=1,kest.a=1"], {"kest.a": "1"}, []),
        ([b"kest.a=1,kest.a=%31"], {"kest.a": "1"}, []),
        ([b"KEST.a=1, kest=2, xkest.a=3"], {}, [b"KEST.a=1", b"kest=2", b"xkest.a=3"]),
        ([b"a=kest.b=1"], {}, [b"a=kest.b=1"]),
        ([b"a=1;kest.b=2"], {}, [b"a=1;kest.b=2"]),
    ],
)
def test_reading(lines: list[bytes], kest: dict[str, str], foreign: list[bytes]) -> None:
    found = read_baggage(lines)
    assert (dict(found.kest), list(found.foreign)) == (kest, foreign)


@pytest.mark.parametrize(
    "line",
    [
        b"kest.a", b"kest.a;p", b"kest.=1", b"kest.a b=1", b"kest.a=\xff", b"kest.a=%ff", b"kest.a=%", b"kest.a=%4",
        b"kest.a=%4g",
        b'kest.a="1"', b"kest.a=1 2", b"kest.a=\\", b"kest.a=1\x00", b"kest.\xffa=1", b"kest.a=1,kest.a=2", b"%6Best.a=1",
        b"kest%2ea=1", b"kest.(=1",
    ],
)  # fmt: skip
def test_malformed_kest_members(line: bytes) -> None:
    with pytest.raises(BaggageError):
        read_baggage([b"v=1", line])


def test_limits() -> None:
    assert room_for([], 1) == 8192
    assert room_for([b"x" * 100], 1) == 8192 - 101
    assert room_for([b"x"] * 179, 1) > 0
    assert room_for([b"x"] * 180, 1) == 0
    assert len(join_header([b"x" * (8192 - 11)], [b"kest.a=1234"[:10]])) == 8192
    with pytest.raises(PassportTooLargeError):
        join_header([b"x" * 8192], [b"kest.a=1"])
    with pytest.raises(PassportTooLargeError):
        join_header([b"x"] * 180, [b"kest.a=1"])
    with pytest.raises(BaggageError):
        read_baggage([b"v=" + b"x" * 70_000 + b",kest.a=1"])
    with pytest.raises(ConfigurationError):
        Packer(max_header=100)


def test_hashed_users() -> None:
    assert hashed_user("alice", b"k" * 16) == hashed_user("alice", "k" * 16)
    assert hashed_user("alice", b"k" * 16) != hashed_user("bob", b"k" * 16)
    assert hashed_user("hmac-sha256:" + "g" * 64, b"k" * 16) != "hmac-sha256:" + "g" * 64
    with pytest.raises(ConfigurationError):
        hashed_user("alice", "short")
