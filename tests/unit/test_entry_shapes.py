"""An entry has exactly the members of its format, each of its type: anything else is refused, however well it is signed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from kest._kestcore import b64url_encode, canonicalize, parse
from kest.core import KestEntry, LocalEd25519Provider, Passport, PassportVerifier, VerificationError

NAME = "spiffe://kest.test/unit"
IDENTITY = LocalEd25519Provider(NAME, bytes(32))
OTHERS: list[Any] = [None, True, False, 5, -1, 1.5, "x", "", [], {}, [1], [None], ["x"], {"a": 1}, {"a": "b"}]


def payload() -> dict[str, Any]:
    entry = KestEntry(
        "op", trust_score=40, labels={"trace_id": "t"}, added_taints=["b", "c"], removed_taints=["d"], taints=["b", "c"],
        input_hash="0" * 64,
        policy_context={
            "enterprise_policies": ["e"], "platform_policies": ["p"], "app_policies": ["a"], "function_policies": ["f"],
            "deviations": [{"policy": "x", "tier": "app", "reason": "because", "approver": "me"}],
        },
    )  # fmt: skip
    document: dict[str, Any] = parse(entry.payload(NAME))
    return document


HEADER: dict[str, Any] = {"alg": "EdDSA", "kid": NAME, "typ": "JWS"}


def signed(document: Any, header_of: Any = HEADER) -> str:
    header = b64url_encode(canonicalize(header_of))
    text = f"{header}.{b64url_encode(canonicalize(document))}"
    return f"{text}.{b64url_encode(IDENTITY.signer.sign(text.encode()))}"


def verifies(document: Any) -> bool:
    try:
        PassportVerifier.verify(Passport([signed(document)]), {NAME: IDENTITY})
    except VerificationError:
        return False
    return True


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def kind(value: Any) -> str:
    return "int" if type(value) is int else type(value).__name__


PLACES = list(places(payload()))


def test_the_entry_itself_verifies() -> None:
    assert verifies(payload())
    assert len(PLACES) > 30


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_every_member_has_its_type(path: tuple[Any, ...]) -> None:
    for other in OTHERS:
        changed = payload()
        holder = at(changed, path[:-1])
        if kind(other) == kind(holder[path[-1]]) and not (isinstance(other, list) and other in ([1], [None])):
            continue
        holder[path[-1]] = copy.deepcopy(other)
        assert not verifies(changed), other


@pytest.mark.parametrize(
    "path", [path for path in PLACES if isinstance(path[-1], str)], ids=lambda path: ".".join(map(str, path))
)
def test_no_member_is_missing_and_none_is_more(path: tuple[Any, ...]) -> None:
    changed = payload()
    del at(changed, path[:-1])[path[-1]]
    assert verifies(changed) is (path == ("labels", "trace_id"))
    changed = payload()
    at(changed, path[:-1])["zzz"] = "x"
    assert verifies(changed) is (path[:-1] == ("labels",))


@pytest.mark.parametrize("whole", [None, True, 5, "x", [], [payload()], {}])
def test_a_payload_is_an_object(whole: Any) -> None:
    assert not verifies(whole)


@pytest.mark.parametrize(
    ("member", "values"),
    [("trust_score", (-1, 101, 1000)), ("timestamp_ms", (-1,)), ("schema_version", ("0.2.0", "0.3", "0.3.00")),
     ("classification", ("other", "System", "syste", "systemm")), ("input_hash", ("0" * 63, "0" * 65, "A" * 64, "g" * 64)),
     ("content_hash", ("0",)), ("operation", ("",)), ("parent_ids", ([], ["0", "0"], ["00"], ["0" * 63], ["A" * 64])),
     ("added_taints", (["c", "b"], ["b", "b"], ["", "b", "c"])), ("taints", (["c", "b"], ["b"], ["b", "c", "d"], [])),
     ("removed_taints", (["e", "d"], [""])), ("entry_id", ("", "0" * 36, "x"))],
)  # fmt: skip
def test_values_that_no_entry_has(member: str, values: tuple[Any, ...]) -> None:
    for value in values:
        assert not verifies({**payload(), member: value}), value


def without(member: str) -> dict[str, Any]:
    return {name: value for name, value in HEADER.items() if name != member}


@pytest.mark.parametrize(
    "header",
    [None, 5, "x", [], [HEADER], {}, without("alg"), without("kid"), without("typ"),
     *({**HEADER, member: value} for member in HEADER for value in (None, True, 5, "", "x", [], {}, [HEADER[member]])),
     {**HEADER, "typ": "JWT"}, {**HEADER, "typ": "jws"}, {**HEADER, "typ": "JWSS"}, {**HEADER, "alg": "none"},
     {**HEADER, "alg": "ES256"}, {**HEADER, "alg": "eddsa"}, {**HEADER, "zzz": 1}, {**HEADER, "crit": []},
     {**HEADER, "crit": ["b64"], "b64": False}, {**HEADER, "x5c": ["AA=="]}, {**HEADER, "x5c": []}, {**HEADER, "jwk": {}},
     {**without("typ"), "x5c": ["AA=="]}, {**without("typ"), "zzz": "JWS"}],
)  # fmt: skip
def test_headers_that_no_entry_has(header: Any) -> None:
    """What was signed is of no account: neither these nor anything they could say is believed."""
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(Passport([signed(payload(), header)]), {NAME: IDENTITY, "x": IDENTITY})
    assert caught.value.index == 0
    reasons = ("header", "algorithm", "crit", "principal", "key")
    assert any(word in caught.value.reason for word in reasons), caught.value.reason
    given = header if isinstance(header, dict) else {}
    if not isinstance(header, dict) or (not isinstance(given.get("kid"), str) and given.get("alg") == "EdDSA"):
        assert "header" in caught.value.reason
