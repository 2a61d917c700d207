"""ATTACKS.md, rows A1 to A5 and A7: nothing from outside is believed before it is verified.

Forgeries are made by hand from the wire format, with real keys where a signature has to be right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kest._kestcore import Signer, b64url_encode, canonicalize, sha256
from kest.core import (
    BaggageManager,
    KestEntry,
    LocalEd25519Provider,
    MockIdentityProvider,
    Passport,
    PassportVerifier,
    TrustStore,
    VerificationError,
    kest_verified,
    sign_entry,
)
from kest.core.context import get_current_passport, lineage
from kest.errors import KestError

NAME = "spiffe://kest.test/a"
HEADER = {"alg": "EdDSA", "kid": NAME, "typ": "JWS"}
KEY = Signer(NAME, bytes(range(32)))
STORE = TrustStore({NAME: KEY.public_key})


def tip(jws: str) -> str:
    return sha256(jws.encode()).hex()


def payload(*parents: str, **changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(KestEntry("op", parent_ids=tuple(map(tip, parents)) or ("0",)).payload(NAME))
    value.update(changes)
    return value


def signed(
    value: Any,
    header: Any = HEADER,
    key: Signer = KEY,
    write: Callable[[Any], bytes] = canonicalize,
    signature: bytes | None = None,
) -> str:
    """A JWS over whatever is given: dicts through ``write``, bytes as they are."""
    head, body = (part if isinstance(part, bytes) else write(part) for part in (header, value))
    message = f"{b64url_encode(head)}.{b64url_encode(body)}"
    return f"{message}.{b64url_encode(key.sign(message.encode()) if signature is None else signature)}"


def chain(n: int) -> list[str]:
    entries: list[str] = []
    for i in range(n):
        entries.append(signed(payload(*entries[-1:], operation=f"op{i}")))
    return entries


def refused(
    entries: list[str], index: int | None, *, store: Any = STORE, chain_tip: str | None = None
) -> VerificationError:
    """Verification names the entry; what is known of the passport before it is verified cannot be used either."""
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(entries, store, chain_tip=chain_tip)
    assert caught.value.index == index, caught.value
    assert caught.value.reason
    return caught.value


def test_the_forger_can_also_make_what_is_accepted() -> None:
    """Otherwise the refusals below would prove nothing."""
    entries = chain(3)
    assert len(PassportVerifier.verify(entries, STORE, chain_tip=tip(entries[-1]))) == 3
    assert signed(payload()).count(".") == 2


# --- A1 --------------------------------------------------------------------------------------------------------------

FABRICATED: dict[str, Callable[[], str]] = {
    "unsigned": lambda: signed(payload(), signature=b""),
    "zero signature": lambda: signed(payload(), signature=bytes(64)),
    "short signature": lambda: signed(payload(), signature=b"x" * 63),
    "long signature": lambda: signed(payload(), signature=KEY.sign(b"") + b"x"),
    "alg none": lambda: signed(payload(), {**HEADER, "alg": "none"}, signature=b""),
    "alg none with a signature": lambda: signed(payload(), {**HEADER, "alg": "none"}),
    "alg None in other case": lambda: signed(payload(), {**HEADER, "alg": "NONE"}),
    "no alg": lambda: signed(payload(), {"kid": NAME, "typ": "JWS"}),
    "alg null": lambda: signed(payload(), {**HEADER, "alg": None}),
    "alg list": lambda: signed(payload(), {**HEADER, "alg": ["EdDSA"]}),
    "HS256 with the public key": lambda: hs256(),
    "ES256 over an Ed25519 key": lambda: signed(payload(), {**HEADER, "alg": "ES256"}),
    "RS256 over an Ed25519 key": lambda: signed(payload(), {**HEADER, "alg": "RS256"}, signature=b"x" * 256),
    "mock-signed": lambda: sign_entry(KestEntry("op"), MockIdentityProvider(NAME)),
    "wrong key": lambda: signed(payload(), key=Signer(NAME)),
    "altered payload": lambda: altered(1),
    "altered signature": lambda: altered(2),
    "altered header": lambda: signed(payload(), {**HEADER, "kid": NAME + "x"}),
    "two parts": lambda: signed(payload()).rpartition(".")[0],
    "four parts": lambda: signed(payload()) + ".AAAA",
    "empty parts": lambda: "..",
    "empty": lambda: "",
    "not a JWS": lambda: "hello",
    "JSON serialisation": lambda: json.dumps({"protected": "", "payload": "", "signature": ""}),
}


def hs256() -> str:
    import hashlib
    import hmac

    message = f"{b64url_encode(canonicalize({**HEADER, 'alg': 'HS256'}))}.{b64url_encode(canonicalize(payload()))}"
    return f"{message}.{b64url_encode(hmac.new(KEY.public_key, message.encode(), hashlib.sha256).digest())}"


def altered(part: int) -> str:
    parts = signed(payload()).split(".")
    if part == 1:
        value = payload(trust_score=99, operation="altered")
        parts[1] = b64url_encode(canonicalize(value))
    else:
        from kest._kestcore import b64url_decode

        raw = bytearray(b64url_decode(parts[2]))
        raw[33] ^= 1
        parts[2] = b64url_encode(raw)
    return ".".join(parts)


@pytest.mark.parametrize("what", FABRICATED)
@pytest.mark.parametrize("position", ["only", "first", "middle", "last"])
def test_a1_fabricated_entries_are_refused_with_a_trust_store(what: str, position: str) -> None:
    genuine = chain(2)
    forged = FABRICATED[what]()
    entries = {
        "only": [forged], "first": [forged, *genuine], "middle": [genuine[0], forged, genuine[1]], "last": [*genuine, forged],
    }[position]  # fmt: skip
    refused(entries, entries.index(forged))


@pytest.mark.parametrize("what", ["altered signature", "wrong key", "zero signature"])
def test_a1_the_last_entry_of_a_long_passport(what: str) -> None:
    for n in (15, 63, 200):
        genuine = chain(n)
        refused([*genuine, FABRICATED[what]()], n)


def test_a1_altered_entries_break_what_follows_too() -> None:
    entries = chain(3)
    body = payload(entries[0], operation="op1", trust_score=99)
    entries[1] = signed(body, key=Signer(NAME))
    refused(entries, 1)
    entries[1] = signed(body)  # even with the right key, the next entry names another parent
    refused(entries, 2)


@pytest.mark.parametrize("what", FABRICATED)
def test_a1_without_a_store_it_is_never_believed(what: str, configured: Any) -> None:
    """An edge without keys degrades: whatever is in there, what follows has trust 10 at most and is tainted."""
    forged = Passport([FABRICATED[what]()])
    ran: list[int] = []
    try:
        with lineage(forged.restrict(10, ["kest.unverified"])):
            kest_verified("p")(lambda: ran.append(1))()
            entry = get_current_passport().decode()[-1]
        assert entry["trust_score"] <= 10
        assert "kest.unverified" in entry["taints"]
    except KestError:
        assert not ran


# --- A2 --------------------------------------------------------------------------------------------------------------


def test_a2_unknown_principals() -> None:
    other = LocalEd25519Provider("spiffe://kest.test/unknown")
    assert "principal" in refused([sign_entry(KestEntry("op"), other)], 0).reason
    refused([*chain(1), sign_entry(KestEntry("op", parent_ids=(tip(chain(1)[0]),)), other)], 1)
    refused(chain(1), 0, store=TrustStore())
    for near in (NAME + "/", NAME.upper(), NAME + "\u200b", NAME + " ", NAME[:-1]):
        refused(chain(1), 0, store=TrustStore({near: KEY.public_key}))


def moved_principal(**places: Any) -> dict[str, Any]:
    value = payload()
    value["labels"].pop("principal")
    value.update(places)
    return value


@pytest.mark.parametrize(
    "value",
    [
        moved_principal(),
        moved_principal(principal=NAME),
        moved_principal(environment={"principal": NAME}),
        moved_principal(metadata={"principal": NAME}),
        moved_principal(otel_context={"principal": NAME}),
        payload(labels={"principal": ""}),
        payload(labels={"principal": None}),
        payload(labels={"principal": [NAME]}),
        payload(labels={"Principal": NAME}),
        payload(labels=[NAME]),
    ],
)
def test_a2_principal_belongs_in_the_labels_only(value: Any) -> None:
    refused([signed(value)], 0)


@pytest.mark.parametrize("kid", ["spiffe://kest.test/b", NAME + "x", NAME[:-1], "", None, 5, [NAME]])
def test_a2_header_kid_must_be_the_principal(kid: Any) -> None:
    refused([signed(payload(), {**HEADER, "kid": kid})], 0)
    refused([signed(payload(), {"alg": "EdDSA", "typ": "JWS"})], 0)


def test_a2_a_known_key_may_not_speak_for_another_known_principal() -> None:
    other = LocalEd25519Provider("spiffe://kest.test/b")
    store = TrustStore({NAME: KEY.public_key, "spiffe://kest.test/b": other})
    value = payload(labels={"principal": "spiffe://kest.test/b"})
    refused([signed(value, {**HEADER, "kid": "spiffe://kest.test/b"})], 0, store=store)
    refused([signed(value)], 0, store=store)


# --- A3 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "crit": ["exp"]}, {**HEADER, "crit": []}, {**HEADER, "b64": False, "crit": ["b64"]},
        {**HEADER, "b64": False},
        {**HEADER, "jwk": {"kty": "OKP"}}, {**HEADER, "jku": "https://evil"}, {**HEADER, "x5u": "https://evil"},
        {**HEADER, "x5c": ["AAAA"]}, {**HEADER, "cty": "x"}, {**HEADER, "unknown": 1}, {**HEADER, "typ": "JWT"},
        {**HEADER, "typ": "jws"}, {**HEADER, "typ": "kest-outcome+jws"}, {"alg": "EdDSA", "kid": NAME}, [], "EdDSA", None, {},
    ],
)  # fmt: skip
def test_a3_headers(header: Any) -> None:
    refused([signed(payload(), header)], 0)


def text(value: dict[str, Any]) -> bytes:
    return canonicalize(value)


PAYLOADS: dict[str, Callable[[], bytes]] = {
    "duplicate key": lambda: text(payload()).replace(b'{"added_taints"', b'{"added_taints":[],"added_taints"'),
    "duplicate key by escape": lambda: text(payload()).replace(
        b'{"added_taints"', b'{"added\\u005ftaints":[],"added_taints"'
    ),
    "duplicate label": lambda: text(payload()).replace(b'"principal":', b'"principal":"x","principal":'),
    "trailing data": lambda: text(payload()) + b"{}",
    "trailing newline": lambda: text(payload()) + b"\n",
    "leading space": lambda: b" " + text(payload()),
    "byte order mark": lambda: b"\xef\xbb\xbf" + text(payload()),
    "NUL": lambda: text(payload()) + b"\0",
    "white space inside": lambda: text(payload()).replace(b'":', b'": ', 1),
    "escaped where it need not be": lambda: text(payload()).replace(b'"op"', b'"\\u006fp"'),
    "escaped slash": lambda: text(payload()).replace(b"spiffe://", b"spiffe:\\/\\/"),
    "members in another order": lambda: json.dumps(dict(reversed(payload().items())), separators=(",", ":")).encode(),
    "number as float": lambda: text(payload()).replace(b'"trust_score":100', b'"trust_score":100.0'),
    "number with exponent": lambda: text(payload()).replace(b'"trust_score":100', b'"trust_score":1e2'),
    "number with plus": lambda: text(payload()).replace(b'"trust_score":100', b'"trust_score":+100'),
    "number with leading zero": lambda: text(payload()).replace(b'"trust_score":100', b'"trust_score":0100'),
    "over-long integer": lambda: text(payload()).replace(b'"trust_score":100', b'"trust_score":' + b"9" * 40),
    "integer beyond 2^53": lambda: text(payload(timestamp_ms=0)).replace(
        b'"timestamp_ms":0', b'"timestamp_ms":9007199254740993'
    ),
    "64-bit overflow": lambda: text(payload()).replace(b'"trust_score":100', b'"trust_score":18446744073709551716'),
    "NaN": lambda: text(payload()).replace(b'"trust_score":100', b'"trust_score":NaN'),
    "deep nesting": lambda: text(payload()).replace(
        b'"environment":{}', b'"environment":' + b'{"a":' * 100 + b"1" + b"}" * 100
    ),
    "very deep nesting": lambda: b"[" * 1_000_000,
    "invalid UTF-8": lambda: text(payload()).replace(b'"op"', b'"\xff\xfe"'),
    "overlong UTF-8": lambda: text(payload()).replace(b'"op"', b'"\xc0\xaf"'),
    "UTF-8 surrogate": lambda: text(payload()).replace(b'"op"', b'"\xed\xa0\x80"'),
    "escaped lone surrogate": lambda: text(payload()).replace(b'"op"', b'"\\ud800"'),
    "control character": lambda: text(payload()).replace(b'"op"', b'"\x01"'),
    "UTF-16": lambda: text(payload()).decode().encode("utf-16"),
    "array": lambda: b"[]",
    "string": lambda: b'"x"',
    "null": lambda: b"null",
    "empty object": lambda: b"{}",
    "missing member": lambda: text({key: value for key, value in payload().items() if key != "metadata"}),
    "more members": lambda: text(payload(extra=1)),
    "another schema": lambda: text(payload(schema_version="0.2.0")),
    "environment with content": lambda: text(payload(environment={"a": 1})),
    "metadata": lambda: text(payload(metadata={})),
    "classification": lambda: text(payload(classification="root")),
    "label that is no text": lambda: text(payload(labels={"principal": NAME, "x": 1})),
    "UUIDv4": lambda: text(payload(entry_id="f47ac10b-58cc-4372-a567-0e02b2c3d479")),
    "upper-case UUID": lambda: text(payload(entry_id=KestEntry("x").entry_id.upper().replace("0", "A"))),
    "time as text": lambda: text(payload(timestamp_ms="1")),
    "negative time": lambda: text(payload(timestamp_ms=-1)),
    "policy_context without a tier": lambda: text(payload(policy_context={"deviations": []})),
    "policy_context of other types": lambda: text(
        payload(policy_context={**payload()["policy_context"], "app_policies": [1]})
    ),
    "incomplete deviation": lambda: text(
        payload(policy_context={**payload()["policy_context"], "deviations": [{"policy": "p"}]})
    ),
    "input_hash": lambda: text(payload(input_hash="0x12")),
    "upper-case input_hash": lambda: text(payload(input_hash="A" * 64)),
    "empty operation": lambda: text(payload(operation="")),
}


@pytest.mark.parametrize("what", PAYLOADS)
def test_a3_payloads(what: str) -> None:
    body = PAYLOADS[what]()
    assert body != text(payload())
    refused([signed(body)], 0)
    refused([*chain(2), signed(body)], 2)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("padding", lambda part: part + "=" * (-len(part) % 4 or 4)),
        ("space", lambda part: part[:4] + " " + part[4:]),
        ("newline at the end", lambda part: part + "\n"),
        ("standard alphabet", lambda part: "+" + part[1:]),
        ("non-ASCII", lambda part: "é" + part[1:]),
        ("one character too few", lambda part: part[: len(part) - (len(part) - 1) % 4]),
    ],
)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a3_base64(what: str, change: Any, part: int) -> None:
    parts = signed(payload()).split(".")
    parts[part] = change(parts[part])
    refused([".".join(parts)], 0)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a3_set_trailing_bits(part: int) -> None:
    """The same bytes in another spelling would be the same entry under another hash."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for n in range(12):
        header = {**HEADER, "kid": NAME + "x" * n}
        value = payload(labels={"principal": NAME + "x" * n}, operation="o" * (n + 1))
        parts = signed(value, header).split(".")
        if len(parts[part]) % 4 == 0:
            continue
        last = alphabet.index(parts[part][-1])
        parts[part] = parts[part][:-1] + alphabet[last ^ 1]
        refused([".".join(parts)], 0, store=TrustStore({header["kid"]: KEY.public_key}))
        return
    pytest.fail("no part with trailing bits was made")


# --- A4 --------------------------------------------------------------------------------------------------------------


def test_a4_missing_parent() -> None:
    entries = chain(4)
    for missing in range(3):
        refused([*entries[:missing], *entries[missing + 1 :]], missing)
    refused([signed(payload(parent_ids=["0" * 64]))], 0)


def test_a4_order() -> None:
    first, second, third = chain(3)
    refused([second, first, third], 0)
    refused([first, third, second], 1)
    refused([third, second, first], 0)


def test_a4_duplicates() -> None:
    entries = chain(3)
    for i in range(3):
        refused([*entries[: i + 1], *entries[i:]], i + 1)
        refused([*entries, entries[i]], 3)
    value = payload(entries[0])
    value["parent_ids"] = [tip(entries[0])] * 2
    refused([entries[0], signed(value)], 1)


@pytest.mark.parametrize(
    "parents",
    [
        [],
        ["0", "0"],
        "0",
        None,
        [0],
        ["00"],
        ["0" * 63],
        ["0" * 65],
        ["A" * 64],
        ["g" * 64],
        ["0x" + "0" * 62],
        [None],
        {},
        ["0" * 64, "0"],
    ],
)
def test_a4_malformed_parents(parents: Any) -> None:
    refused([*chain(1), signed(payload(parent_ids=parents))], 1)


def test_a4_a_cycle_cannot_be_written_but_a_self_reference_is_refused() -> None:
    entries = chain(1)
    refused([signed(payload(parent_ids=[tip(signed(payload()))]))], 0)
    refused([*entries, signed(payload(parent_ids=[tip(entries[0]), "f" * 64]))], 1)


def test_a4_dropped_tail() -> None:
    entries = chain(4)
    whole = tip(entries[-1])
    PassportVerifier.verify(entries, STORE, chain_tip=whole)
    for n in range(4):
        refused(entries[:n], None, chain_tip=whole)
    refused(entries, None, chain_tip=tip(entries[-2]))


def test_a4_entries_that_the_tips_do_not_descend_from() -> None:
    entries, stray = chain(3), signed(payload(operation="stray"))
    for position in range(4):
        refused([*entries[:position], stray, *entries[position:]], None, chain_tip=tip(entries[-1]))


def test_a4_swapped_branch() -> None:
    (root,) = chain(1)
    left, right, evil = (signed(payload(root, operation=name)) for name in ("left", "right", "evil"))
    join = payload(root, operation="join")
    join["parent_ids"] = sorted([tip(left), tip(right)])
    joined = signed(join)
    assert len(PassportVerifier.verify([root, left, right, joined], STORE, chain_tip=tip(joined))) == 4
    assert len(PassportVerifier.verify([root, right, left, joined], STORE, chain_tip=tip(joined))) == 4
    refused([root, left, evil, joined], 3)
    refused([root, evil, right, joined], 3)
    refused([root, left, joined], 2)


def test_a4_in_baggage() -> None:
    entries = chain(4)
    packed = {"kest.passport": json.dumps(entries[:3]), "kest.chain_tip": tip(entries[3])}
    with pytest.raises(KestError):
        BaggageManager.unpack(packed)


# --- A5 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", [-1, 101, 1000, True, False, None, "100", [], {}, 50.5])
def test_a5_trust_outside_its_range(trust: Any) -> None:
    refused([signed(payload(trust_score=trust))], 0)
    refused([*chain(1), signed(payload(*chain(1), trust_score=trust))], 1)


def child(parent: str, trust: int, **labels: str) -> str:
    return signed(payload(parent, trust_score=trust, labels={"principal": NAME, **labels}))


def test_a5_trust_above_the_weakest_parent_needs_the_matching_label() -> None:
    low = signed(payload(trust_score=10))
    PassportVerifier.verify([low, child(low, 10)], STORE)
    PassportVerifier.verify([low, child(low, 80, **{"kest.trust_override": "80"})], STORE)
    refused([low, child(low, 11)], 1)
    refused([low, child(low, 100)], 1)
    for label in ("81", "80.0", "080", " 80", "+80", "", "8", "true", "100"):
        refused([low, child(low, 80, **{"kest.trust_override": label})], 1)
    high = signed(payload(trust_score=90))
    both = payload(low, trust_score=50)
    both["parent_ids"] = sorted([tip(low), tip(high)])
    refused([low, high, signed(both)], 2)


def test_a5_a_principal_that_may_not_sanitise() -> None:
    store = TrustStore()
    store.add(NAME, KEY.public_key, may_sanitise=False)
    low = signed(payload(trust_score=10, added_taints=["x"], taints=["x"]))
    tainted = {"labels": {"principal": NAME}, "taints": ["x"]}
    PassportVerifier.verify([low, signed(payload(low, trust_score=10, **tainted))], store)
    rise = payload(low, trust_score=80, taints=["x"], labels={"principal": NAME, "kest.trust_override": "80"})
    refused([low, signed(rise)], 1, store=store)
    removal = payload(low, trust_score=10, removed_taints=["x"], taints=[])
    refused([low, signed(removal)], 1, store=store)
    PassportVerifier.verify([low, signed(removal)], STORE)
    nothing = payload(low, trust_score=10, removed_taints=["y"], taints=["x"])  # names a taint that is not there
    PassportVerifier.verify([low, signed(nothing)], store)
    labelled_root = payload(trust_score=80, labels={"principal": NAME, "kest.trust_override": "80"})
    refused([signed(labelled_root)], 0, store=store)


def test_a5_max_trust() -> None:
    store = TrustStore()
    store.add(NAME, KEY.public_key, max_trust=60)
    PassportVerifier.verify([signed(payload(trust_score=60))], store)
    refused([signed(payload(trust_score=61))], 0, store=store)
    low = signed(payload(trust_score=10))
    refused([low, child(low, 61, **{"kest.trust_override": "61"})], 1, store=store)
    PassportVerifier.verify([low, child(low, 60, **{"kest.trust_override": "60"})], store)
    continues = payload(trust_score=61, labels={"principal": NAME, "kest.continues": tip(low)})
    refused([signed(continues)], 0, store=store)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"taints": []}, "vanished"),
        ({"taints": ["a"]}, "vanished in part"),
        ({"taints": ["a", "b", "c"]}, "appeared"),
        ({"taints": ["b", "a"]}, "unsorted"),
        ({"taints": ["a", "a", "b"]}, "twice"),
        ({"taints": ["a", "b", ""]}, "empty"),
        ({"taints": ["a", "b"], "removed_taints": ["a"]}, "removed but still there"),
        ({"taints": ["a"], "removed_taints": ["b", "b"]}, "removed twice"),
        ({"taints": ["a", "b"], "added_taints": ["c"]}, "added but not there"),
        ({"taints": ["a", "b", 5]}, "no text"),
        ({"taints": "a,b"}, "no list"),
        ({"taints": None}, "null"),
        ({"taints": ["a", "b"], "added_taints": ["d", "c"]}, "added unsorted"),
    ],
)
def test_a5_taints_that_do_not_add_up(change: dict[str, Any], why: str) -> None:
    root = signed(payload(added_taints=["a", "b"], taints=["a", "b"]))
    PassportVerifier.verify([root, signed(payload(root, taints=["a", "b"]))], STORE)
    refused([root, signed(payload(root, **change))], 1)


def test_a5_taints_of_every_parent_count() -> None:
    left = signed(payload(added_taints=["a"], taints=["a"], operation="l"))
    right = signed(payload(added_taints=["b"], taints=["b"], operation="r"))
    value = payload(left, taints=["a"])
    value["parent_ids"] = sorted([tip(left), tip(right)])
    refused([left, right, signed(value)], 2)
    value["taints"] = ["a", "b"]
    PassportVerifier.verify([left, right, signed(value)], STORE)


# --- A7 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    ["", "0", "x" * 64, "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", " " + "0" * 63, "0" * 64 + ",", "," + "0" * 64,
     "0" * 64 + " , " + "1" * 64, "0x" + "0" * 62, "０" * 64, "0" * 64],
)  # fmt: skip
def test_a7_chain_tip_from_outside_is_checked(bad: str, configured: Any) -> None:
    entries = chain(1)
    packed = BaggageManager.pack(Passport(entries))
    with pytest.raises(KestError):
        BaggageManager.unpack({**packed, "kest.chain_tip": bad})
    with pytest.raises(VerificationError):
        PassportVerifier.verify(entries, STORE, chain_tip=bad)


def test_a7_what_is_signed_comes_from_the_entries_not_from_the_header(configured: Any) -> None:
    entries = chain(2)
    passport = BaggageManager.unpack(BaggageManager.pack(Passport(entries)))
    with lineage(passport):
        kest_verified("p")(lambda: 1)()
        assert get_current_passport().decode()[-1]["parent_ids"] == [tip(entries[-1])]
    assert configured.engine.asked[-1][1]["environment"]["parent_hash"] == tip(entries[-1])
