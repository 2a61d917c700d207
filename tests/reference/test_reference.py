"""The specification against itself, RFC vectors and hand-made attacks. Nothing here needs the C module."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from reference import b64, canonical, chain, entry, pack, schema, trust, verify

UUID = "0192f0c1-7a3b-7c4d-8e5f-0123456789ab"
ALICE, BOB = "spiffe://kest.internal/alice", "spiffe://kest.internal/bob"
KEY = {
    name: ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()) for name in (ALICE, BOB)
}
KEYS = {name: verify.KeyInfo(key.public_key()) for name, key in KEY.items()}
FIELDS: dict[str, Any] = {"operation": "op", "entry_id": UUID, "timestamp_ms": 1_700_000_000_000}


def three() -> chain.Passport:
    """Root (taints a, b) → lower trust, taint c → a join of both."""
    passport = chain.Passport()
    passport.append(KEY[ALICE], ALICE, added_taints=["b", "a"], **FIELDS)
    passport.append(KEY[BOB], BOB, self_score=40, added_taints=["c"], **FIELDS)
    passport.append(KEY[ALICE], ALICE, **FIELDS)
    return passport


def blame(entries: list[str], keys: verify.Keys = KEYS, chain_tip: str | None = None) -> tuple[int | None, str]:
    with pytest.raises(verify.BadEntry) as caught:
        verify.verify(entries, keys, chain_tip)
    return caught.value.index, caught.value.code


def resign(jws: str, change: Callable[[dict[str, Any]], object], name: str = ALICE) -> str:
    payload = chain.payload_of(jws)
    change(payload)
    return entry.sign_entry(payload, KEY[name], name)


# --- independence -------------------------------------------------------------------------------------------------


def test_nothing_here_imports_what_it_specifies() -> None:
    allowed = {"rfc8785", "cryptography", *sys.stdlib_module_names}
    modules = [p for p in Path(__file__).parent.glob("*.py") if p.name not in (Path(__file__).name, "conftest.py")]
    assert len(modules) >= 8
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").split(".")[0] in allowed, path


# --- canonical JSON -----------------------------------------------------------------------------------------------


def vectors(folder: str) -> Path:
    root = os.environ.get("KEST_VECTORS")
    if not root:
        pytest.skip("KEST_VECTORS is not set: it names the folder with the RFC 8785 and JSON parsing vectors")
    return Path(root) / folder


def test_rfc8785_vectors() -> None:
    inputs = sorted((vectors("jcs") / "input").glob("*.json"))
    assert len(inputs) == 6
    for path in inputs:
        expected = bytes.fromhex((vectors("jcs") / "outhex" / f"{path.stem}.txt").read_text())
        assert canonical.canonicalize(canonical.strict_parse(path.read_bytes())) == expected, path.name
        assert canonical.is_canonical(expected), path.name


def test_json_parsing_vectors() -> None:
    duplicates = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
    either_way_accepted = {"i_number_double_huge_neg_exp.json", "i_number_real_underflow.json"}
    paths = sorted(vectors("json-parsing").glob("*.json"))
    assert len(paths) == 318
    for path in paths:
        try:
            canonical.strict_parse(path.read_bytes())
            accepted = True
        except canonical.StrictJSONError:
            accepted = False
        expected = (path.name.startswith("y_") and path.name not in duplicates) or path.name in either_way_accepted
        assert accepted is expected, path.name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"z": 1, "a": 2, "m": 3}, '{"a":2,"m":3,"z":1}'),  # TC-10
        ({"\ue000": 1, "\U0001f600": 2}, '{"\U0001f600":2,"\ue000":1}'),  # UTF-16 order, not code point order
        ([1e21, 1e20, 1e-6, 1e-7, -0.0, 0.1, 5e-324], "[1e+21,100000000000000000000,0.000001,1e-7,0,0.1,5e-324]"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        ([9007199254740991, -9007199254740991, 1.0], "[9007199254740991,-9007199254740991,1]"),
        ('\x00\x1f\x7f\b\t\n\f\r"\\/\u2028\u20ac', '"\\u0000\\u001f\x7f\\b\\t\\n\\f\\r\\"\\\\/\u2028\u20ac"'),
        ((None, True, False, (), {}, ""), '[null,true,false,[],{},""]'),
    ],
)
def test_canonical_form(value: object, text: str) -> None:
    assert canonical.canonicalize(value) == text.encode("utf-8")


class Text(str):
    pass


class Number(int):
    pass


def nested(levels: int, inner: object = None) -> object:
    value = inner
    for _ in range(levels):
        value = [value]
    return value


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        *(float("nan"), float("inf"), -float("inf"), 2**53, -(2**53), 10**400, {1: 2}, {None: 1}, {Text("k"): 1}),
        *("\ud800", {"\udfff": 1}, b"", {1}, Text("x"), Number(1), object(), nested(65), {"a": nested(64)}, CYCLE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_without_a_canonical_form(value: object) -> None:
    with pytest.raises(canonical.CanonicalError):
        canonical.canonicalize(value)


def test_depth_counts_containers() -> None:
    assert canonical.canonicalize(nested(64)) == b"[" * 64 + b"null" + b"]" * 64
    canonical.strict_parse(b"[" * 64 + b"1" + b"]" * 64)
    with pytest.raises(canonical.StrictJSONError):
        canonical.strict_parse(b"[" * 65 + b"]" * 65)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" ", b"\xef\xbb\xbf{}", b"{}\x00", b"{} {}", b"[1,]", b"{,}", b'{"a":1,}', b"01", b"1.", b".5", b"+1"),
        *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9007199254740992", b"-9007199254740992"),
        *(b'"\\ud800"', b'{"\\udc00":1}', b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\x80"', b'"\n"', b'"\\x"', b"'a'"),
        *(
            b'{"a":1,"a":1}',
            b'{"a":1,"\\u0061":2}',
            b'[{"x":{"y":0,"y":0}}]',
            b"\x0b1",
            b"\xc2\xa01",
            b"1\x0c",
            b"tRue",
        ),
        *(b"[" * 100_000, b'[{"a":' * 50_000, b"/**/1", b"1" * 5000, b'"\\u+123"', b'"\\u00 1"', b"\xef\xbc\x91"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_texts_that_are_not_strict_json(text: bytes) -> None:
    with pytest.raises(canonical.StrictJSONError):
        canonical.strict_parse(text)
    assert not canonical.is_canonical(text)


def test_strict_json_values() -> None:
    value = canonical.strict_parse(b' \t\r\n{"a":[1,-0,1.0,1e2,"\\ud83d\\ude00\\u0000",null,true]} ')
    assert value == {"a": [1, 0.0, 1.0, 100.0, "\U0001f600\x00", None, True]}
    assert [type(item) for item in value["a"]][:4] == [int, float, float, float]
    assert canonical.strict_parse("[9007199254740991,-9007199254740991]") == [2**53 - 1, 1 - 2**53]


@pytest.mark.parametrize(
    "text", [b"1.0", b"-0", b"1e2", b" 1", b"1 ", b'{"b":1,"a":2}', b'{"a": 1}', b'"\\u0041"', b'"\\/"', b'"\\u000A"']
)
def test_accepted_but_not_canonical(text: bytes) -> None:
    canonical.strict_parse(text)
    assert not canonical.is_canonical(text)


# --- base64url ----------------------------------------------------------------------------------------------------


def test_base64url() -> None:
    for length in range(70):
        data = hashlib.shake_128(bytes([length])).digest(length)
        assert b64.decode(b64.encode(data)) == data
    assert b64.encode(b"\xfb\xff") == "-_8"


@pytest.mark.parametrize(
    "text",
    ["A", "AAAAA", "QQ==", "QQ=", "QR", "QUK", "+/8", "-_8=", " QQ", "QQ\n", "Q Q", "QQ\x00", "QQÀ", "ＱＱ", "\ud800Q"],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(b64.Base64Error):
        b64.decode(text)


# --- trust and taints ---------------------------------------------------------------------------------------------


def test_trust_and_taints() -> None:
    origin = trust.ORIGIN_TRUST
    assert trust.propagate([origin["internet"]], origin["internal"]) == 10  # TC-04
    assert trust.propagate([99, 50, 77], 99) == 49
    assert trust.propagate([], 90) == 90
    assert trust.propagate([0], 100) == 0
    assert trust.taints([["a", "b"]], ["c"], ["b"]) == ["a", "c"]  # TC-06
    assert trust.taints([["x"], ["y", "x"]], ["z"], ["z", "unknown"]) == ["x", "y"]
    assert trust.taints([], ["\U0001f600", "\ue000"], []) == ["\ue000", "\U0001f600"]  # code points, not UTF-16


# --- chains that hold ---------------------------------------------------------------------------------------------


def test_a_chain_verifies_and_says_what_it_says() -> None:
    passport = three()
    facts = verify.verify(passport.entries, KEYS, passport.chain_tip())
    tip = entry.jws_hash(passport.entries[2])
    assert facts == verify.Facts(trust=40, taints=["a", "b", "c"], tips=[tip], principals=[ALICE, BOB])
    assert (passport.trust_score(), passport.taints(), passport.tips()) == (40, ["a", "b", "c"], [tip])
    assert chain.Passport.deserialize(passport.serialize()).entries == passport.entries
    assert [set(p) for p in passport.payloads().values()] == [set(schema.MEMBERS)] * 3


def test_the_empty_passport_is_valid() -> None:  # F-PA-03
    for tip in (None, ""):
        assert verify.verify([], {}, tip) == verify.Facts(trust=None, taints=[], tips=[], principals=[])
    assert blame([], chain_tip="0" * 64) == (None, "tip")
    assert chain.Passport().serialize() == "[]"


def test_branches_and_joins() -> None:
    passport = chain.Passport()
    root = entry.jws_hash(passport.append(KEY[ALICE], ALICE, **FIELDS))
    left = entry.jws_hash(passport.append(KEY[BOB], BOB, parents=[root], self_score=30, added_taints=["l"], **FIELDS))
    right = entry.jws_hash(passport.append(KEY[BOB], BOB, parents=[root], self_score=70, added_taints=["r"], **FIELDS))
    other = entry.jws_hash(passport.append(KEY[ALICE], ALICE, parents=[], self_score=90, **FIELDS))
    assert verify.verify(passport.entries, KEYS, ",".join(sorted([left, right, other]))).trust == 30
    passport.append(KEY[ALICE], ALICE, **FIELDS)
    facts = verify.verify(passport.entries, KEYS)
    assert (facts.trust, facts.taints, len(facts.tips)) == (30, ["l", "r"], 1)


def test_a_sanitiser_holds_for_its_descendants() -> None:  # B5, TC-05
    passport = chain.Passport()
    passport.append(KEY[ALICE], ALICE, self_score=10, added_taints=["dirty"], **FIELDS)
    passport.append(KEY[BOB], BOB, trust_override=100, removed_taints=["dirty"], **FIELDS)
    for _ in range(10):
        passport.append(KEY[ALICE], ALICE, **FIELDS)
    facts = verify.verify(passport.entries, KEYS, passport.chain_tip())
    assert (facts.trust, facts.taints) == (100, [])


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
def test_other_algorithms(alg: str) -> None:
    private: entry.PrivateKey = (
        ec.generate_private_key(ec.SECP256R1()) if alg == "ES256" else rsa.generate_private_key(65537, 2048)
    )
    passport = chain.Passport()
    jws = passport.append(private, ALICE, **FIELDS)
    info = verify.KeyInfo(private.public_key(), alg=alg)
    assert verify.verify(passport.entries, {ALICE: info}).trust == 100
    assert blame(passport.entries) == (0, "key")  # the store knows an Ed25519 key for her
    assert blame([jws[:-8] + "AAAAAAAA"], {ALICE: info}) == (0, "signature")
    payload = canonical.canonicalize(chain.payload_of(jws))
    with_chain = canonical.canonicalize(entry.header(ALICE, alg, x5c=["MIIB"]))
    assert verify.verify([entry.sign_raw(with_chain, payload, private)], {ALICE: info}).principals == [ALICE]


def test_keys_that_do_not_fit_their_algorithm() -> None:
    for key, alg in (
        (KEY[ALICE].public_key(), "ES256"),
        (KEY[ALICE].public_key(), "none"),
        (ec.generate_private_key(ec.SECP384R1()).public_key(), "ES256"),
        (rsa.generate_private_key(65537, 1024).public_key(), "RS256"),
    ):
        with pytest.raises(ValueError, match="cannot be used"):
            verify.KeyInfo(key, alg=alg)


# --- chains that do not -------------------------------------------------------------------------------------------


def test_every_altered_character_is_noticed() -> None:
    jws = three().entries[0]
    for at in range(len(jws)):
        for c in "AQgw_.":
            if jws[at] != c:
                blame([jws[:at] + c + jws[at + 1 :]])


def test_a_change_is_found_where_it_was_made() -> None:  # TC-02
    passport = three()
    a, b, c = passport.entries
    assert blame([a, b[:-4] + "AAAA", c]) == (1, "signature")
    assert blame([a, b, c[:-4] + "AAAA"]) == (2, "signature")
    assert blame([a, resign(b, lambda p: p.update(operation="other"), BOB), c]) == (2, "parent_missing")
    assert blame([b, a, c]) == (0, "parent_missing")
    assert blame([a, c]) == (1, "parent_missing")
    assert blame([a, b, b]) == (2, "duplicate")
    assert blame([b, c]) == (0, "parent_missing")
    assert blame([a, b], chain_tip=passport.chain_tip()) == (None, "tip")


@pytest.mark.parametrize(
    "change", [str.upper, lambda t: "", lambda t: t + ",", lambda t: t[:-1], lambda t: f"{t},{t}", lambda t: " " + t]
)
def test_chain_tip_has_one_spelling(change: Callable[[str], str]) -> None:  # A7
    passport = three()
    assert blame(passport.entries, chain_tip=change(passport.chain_tip())) == (None, "tip")


def forge(
    head: object, payload: object = None, *, raw_head: bytes | None = None, raw_payload: bytes | None = None
) -> str:
    head_text = raw_head if raw_head is not None else canonical.canonicalize(head)
    body = payload if payload is not None else entry.build_payload(principal=ALICE, **FIELDS)
    return entry.sign_raw(
        head_text, raw_payload if raw_payload is not None else canonical.canonicalize(body), KEY[ALICE]
    )


HEAD = entry.header(ALICE)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ({**HEAD, "crit": ["exp"]}, "jws_crit"),
        ({**HEAD, "b64": False, "crit": ["b64"]}, "jws_crit"),
        ({**HEAD, "jwk": {}}, "jws_header"),
        ({"alg": "EdDSA", "typ": "JWS"}, "jws_header"),
        ({**HEAD, "typ": "JWT"}, "jws_header"),
        ({**HEAD, "kid": 1}, "jws_header"),
        ({**HEAD, "x5c": ["MIIB"]}, "jws_header"),
        ({**HEAD, "alg": "RS256", "x5c": []}, "jws_header"),
        ({**HEAD, "alg": "RS256", "x5c": "MIIB"}, "jws_header"),
        ([], "jws_header"),
        *(({**HEAD, "alg": alg}, "jws_alg") for alg in ("none", "None", "HS256", "PS256", "EDDSA", "")),
        ({**HEAD, "alg": None}, "jws_header"),
        ({**HEAD, "kid": BOB}, "kid"),
        ({**HEAD, "alg": "ES256"}, "key"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_headers(head: object, code: str) -> None:
    assert blame([forge(head)]) == (0, code)


def test_text_level_forgeries() -> None:
    body = canonical.canonicalize(entry.build_payload(principal=ALICE, **FIELDS))
    head = canonical.canonicalize(HEAD)
    good = forge(HEAD)
    verify.verify([good], KEYS)
    for raw in (
        b'{"kid":"%s","alg":"EdDSA","typ":"JWS"}' % ALICE.encode(),
        head + b" ",
        head[:-1] + b',"alg":"EdDSA"}',
        b"",
        b"\xff",
    ):
        assert blame([forge(None, raw_head=raw)]) == (0, "jws_header")
    for raw in (body + b" ", body.replace(b":", b": ", 1), json.dumps(json.loads(body)).encode()):
        assert blame([forge(HEAD, raw_payload=raw)]) == (0, "not_canonical")
    for raw in (body + b"{}", b'{"trust_score":1,' + body[1:], b"\xef\xbb\xbf" + body, b"", b"[" * 70 + b"]" * 70):
        assert blame([forge(HEAD, raw_payload=raw)]) == (0, "json")
    h, p, s = good.split(".")
    for text in (good + ".", f"{h}.{p}", f"{h}.{p}.{s}.{s}", "", "..."):
        assert blame([text]) == (0, "jws_parts")
    for text in (
        f"{h}=.{p}.{s}",
        f"{h}.{p}.{s}==",
        f"{h}.{p}.{s}\n",
        f" {good}",
        f"{h}.{p}.{s[:-1]}{chr(ord(s[-1]) + 1)}",
        f"{h}.{p}.A",
    ):
        assert blame([text]) == (0, "b64")
    for text in (f"{h}.{p}.", f"{h}.{p}.{s[:-2]}"):
        assert blame([text]) in [(0, "signature"), (0, "b64")]
    assert blame([f"..{s}"]) == (0, "jws_header")


LONG = [f"{i:064x}" for i in range(1025)]


def each(member: str, code: str, *values: Any) -> list[tuple[dict[str, Any], str]]:
    return [({member: value}, code) for value in values]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *each("schema_version", "schema", "0.3", "0.4.0", 3, None),
        *each("runtime", "schema", {}, {"name": "x"}, {"name": 1, "version": ""}, {"name": "", "version": "", "x": ""}),
        *each(
            "entry_id",
            "schema",
            UUID.upper(),
            str(uuid.UUID(int=0)),
            "0192f0c1-7a3b-4c4d-8e5f-0123456789ab",
            "0192f0c1-7a3b-7c4d-ce5f-0123456789ab",
            "",
            UUID + "\n",
            7,
        ),
        *each("operation", "schema", "", None, 1),
        *each("classification", "schema", "System", "", None, []),
        *each(
            "parent_ids",
            "schema",
            [],
            "0",
            ["1"],
            ["0", "0"],
            ["0", "a" * 64],
            ["A" * 64],
            ["a" * 63],
            ["a" * 64] * 2,
            [0],
            LONG,
        ),
        ({"parent_ids": LONG[:1024]}, "parent_missing"),
        *each("taints", "schema", ["b", "a"], ["a", "a"], [""], [1], "a", None, {}),
        ({"added_taints": ["b", "a"]}, "schema"),
        ({"removed_taints": [""]}, "schema"),
        *each("labels", "schema", {}, {"principal": ""}, {"principal": ALICE, "x": 1}, {"Principal": ALICE}, [], None),
        *each("environment", "schema", [], None, {"a": 1}),
        ({"otel_context": []}, "schema"),
        *each("metadata", "schema", {}, False, ""),
        *each("content_hash", "schema", None, "a" * 64),
        *each("input_hash", "schema", None, "a" * 63, "A" * 64, "0"),
        *each("timestamp_ms", "schema", -1, True, "1", None, 1.5),
        *each("policy_context", "schema", {}, None, {**entry.empty_policy_context(), "x": []}),
        ({"policy_context": {**entry.empty_policy_context(), "app_policies": [1]}}, "schema"),
        ({"policy_context": {**entry.empty_policy_context(), "deviations": [{"policy": "p"}]}}, "schema"),
        ({"policy_context": {**entry.empty_policy_context(), "deviations": ["p"]}}, "schema"),
        *each("trust_score", "trust_range", -1, 101, True, False, None, "100", 99.5, 2**53 - 1),
        ({"extra": 1}, "schema"),
        ({"labels": {"principal": ALICE, "kest.trust_override": "99"}}, "trust_label"),
        ({"labels": {"principal": ALICE, "kest.trust_override": "0100"}}, "trust_label"),
        ({"taints": ["a"]}, "taints"),
        ({"added_taints": ["a"]}, "taints"),
        ({"labels": {"principal": "spiffe://elsewhere/x"}}, "kid"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:60],
)
def test_payloads(change: dict[str, Any], code: str) -> None:
    assert blame([forge(HEAD, {**entry.build_payload(principal=ALICE, **FIELDS), **change})]) == (0, code)


@pytest.mark.parametrize("name", sorted(schema.MEMBERS))
def test_every_member_is_required(name: str) -> None:
    payload = entry.build_payload(principal=ALICE, **FIELDS)
    del payload[name]
    assert blame([forge(HEAD, payload)]) == (0, "schema")


def test_trust_and_taints_cannot_be_cheated() -> None:  # A5
    passport = chain.Passport()
    root = passport.append(KEY[ALICE], ALICE, self_score=40, added_taints=["t"], **FIELDS)
    child = passport.append(KEY[BOB], BOB, **FIELDS)
    label = {"kest.trust_override": "41"}
    for change, code in (
        ({"trust_score": 41}, "trust_rise"),
        ({"trust_score": 41, "labels": {"principal": BOB, "kest.trust_override": "100"}}, "trust_label"),
        ({"taints": []}, "taints"),
        ({"taints": ["t", "u"]}, "taints"),
        ({"removed_taints": ["t"]}, "taints"),
    ):
        assert blame([root, resign(child, lambda p, c=change: p.update(c), BOB)]) == (1, code)  # type: ignore[misc]
    raised = resign(child, lambda p: p.update(trust_score=41, labels={"principal": BOB, **label}), BOB)
    cleaned = resign(child, lambda p: p.update(taints=[], removed_taints=["t"]), BOB)
    idle = resign(child, lambda p: p.update(removed_taints=["never there"]), BOB)
    own = resign(child, lambda p: p.update(added_taints=["u"], removed_taints=["u"]), BOB)
    lower = resign(child, lambda p: p.update(trust_score=7, labels={"principal": BOB, "kest.trust_override": "7"}), BOB)
    started = resign(root, lambda p: p.update(labels={"principal": ALICE, "kest.trust_override": "40"}))
    pub = {name: key.public_key() for name, key in KEY.items()}
    tied = {name: verify.KeyInfo(key, may_sanitise=False) for name, key in pub.items()}
    capped = {ALICE: KEYS[ALICE], BOB: verify.KeyInfo(pub[BOB], max_trust=40)}
    for jws, tied_ok, capped_ok in ((raised, False, False), (cleaned, False, True), (own, False, True)):
        verify.verify([root, jws], KEYS)
        assert tied_ok or blame([root, jws], tied) == (1, "may_not_sanitise")
        assert capped_ok or blame([root, jws], capped) == (1, "trust_max")
    for jws in (idle, lower, child):
        verify.verify([root, jws], tied)
    assert blame([started], tied) == (0, "may_not_sanitise")
    assert blame([root], {ALICE: verify.KeyInfo(pub[ALICE], max_trust=39)}) == (0, "trust_max")
    verify.verify([root], {ALICE: verify.KeyInfo(pub[ALICE], max_trust=40)})
    # A strong parent may be continued by somebody whose own roots would be capped.
    strong = chain.Passport()
    strong.append(KEY[ALICE], ALICE, **FIELDS)
    strong.append(KEY[BOB], BOB, **FIELDS)
    assert verify.verify(strong.entries, capped).trust == 100


def test_keys_and_their_times() -> None:
    jws = three().entries[0]
    when = FIELDS["timestamp_ms"]
    public, wrong = KEY[ALICE].public_key(), KEY[BOB].public_key()
    assert blame([jws], {}) == (0, "principal")
    assert blame([jws], {ALICE: []}) == (0, "principal")
    assert blame([jws], {ALICE: verify.KeyInfo(wrong)}) == (0, "signature")
    for before, after in ((when + 1, None), (None, when - 1), (when + 1, when - 1)):
        assert blame([jws], {ALICE: verify.KeyInfo(public, not_before=before, not_after=after)}) == (0, "key_time")
    verify.verify([jws], {ALICE: verify.KeyInfo(public, not_before=when, not_after=when)})
    rotated = [verify.KeyInfo(wrong, not_before=when), verify.KeyInfo(public, not_after=when)]
    verify.verify([jws], {ALICE: rotated})
    assert blame([jws], {ALICE: [rotated[0], verify.KeyInfo(public, not_after=when - 1)]}) == (0, "signature")
    with pytest.raises(ValueError, match="belong to the principal"):
        verify.verify([jws], {ALICE: [verify.KeyInfo(wrong), verify.KeyInfo(public, max_trust=1)]})


def test_an_entry_has_a_size_limit() -> None:
    assert blame(["A" * (verify.MAX_JWS + 1)]) == (0, "limit")
    assert blame(["A" * verify.MAX_JWS]) == (0, "jws_parts")


# --- baggage ------------------------------------------------------------------------------------------------------


def grow(count: int) -> chain.Passport:
    passport, parents = chain.Passport(), list[str]()
    for at in range(count):
        fields = {**FIELDS, "timestamp_ms": FIELDS["timestamp_ms"] + at}
        payload = entry.build_payload(principal=ALICE, parent_ids=parents or ["0"], **fields)
        passport.entries.append(entry.sign_entry(payload, KEY[ALICE], ALICE))
        parents = [entry.jws_hash(passport.entries[-1])]
    return passport


def test_the_three_forms() -> None:
    claims: dict[str, str] = {}

    def store(text: str) -> str:
        claims["c0ffee00-0000-4000-8000-000000000000"] = text
        return "c0ffee00-0000-4000-8000-000000000000"

    used = []
    for count in (0, 1, 2, 3, 4, 6, 8, 16, 40):
        passport = grow(count)
        members = pack.pack(passport, store=store, identity={"kest.user": "älice, of=Wonder%land;"})
        (form,) = set(members) & {pack.INLINE, pack.COMPRESSED, pack.CLAIM}
        used.append(form)
        assert pack.pair_length(form, members[form]) <= pack.MAX_PAIR
        assert pack.header_length(members) <= pack.MAX_HEADER
        assert pack.unpack(members, load=claims.get).entries == passport.entries
    assert sorted(set(used), key=used.index) == [pack.INLINE, pack.COMPRESSED, pack.CLAIM]
    assert used == sorted(used, key=[pack.INLINE, pack.COMPRESSED, pack.CLAIM].index)
    with pytest.raises(pack.TooLarge):
        pack.pack(grow(40))
    with pytest.raises(pack.TooLarge):
        pack.pack(grow(1), store=store, identity={"kest.user": "x" * 9000})


def test_pair_length_counts_encoded_characters() -> None:
    assert pack.pair_length("k", 'a,"[]é ~') == len("k=a%2C%22%5B%5D%C3%A9%20~")
    edge = pack.MAX_PAIR - pack.pair_length(pack.INLINE, "")
    assert pack.pair_length(pack.INLINE, "a" * edge) == 4096


@pytest.mark.parametrize("cut", ["", "A", "AAAA", "eJw", "!!!!"])
def test_bad_compression(cut: str) -> None:
    with pytest.raises(pack.BadBaggage):
        pack.decompress(cut)


def test_inflation_is_capped_and_whole() -> None:
    exact = pack.compress("x" * pack.MAX_INFLATED)
    assert len(pack.decompress(exact)) == pack.MAX_INFLATED
    stream = zlib.compress(b"[]", 1)
    for data in (
        zlib.compress(b"x" * (pack.MAX_INFLATED + 1), 1),
        zlib.compress(b"\0" * 50_000_000, 9),
        stream[:-1],
        stream + b"\0",
        stream + stream,
        zlib.compress(b"\xff", 1),
    ):
        with pytest.raises(pack.BadBaggage):
            pack.decompress(b64.encode(data))


@pytest.mark.parametrize(
    "members",
    [
        {"kest.passport": ""},
        {"kest.passport": "{}"},
        {"kest.passport": "[1]"},
        {"kest.passport": '["a.b"]'},
        {"kest.passport": '["..A"]'},
        {"kest.passport": '[".MQ."]'},
        {"kest.passport": "[]", "kest.chain_tip": "0" * 64},
        {"kest.passport": "[] []"},
        {"kest.passport_z": "eJw", "kest.passport": "[]"},
        {"kest.claim_check": "c0ffee00-0000-4000-8000-000000000000"},
        {"kest.chain_tip": "0" * 64},
    ],
    ids=repr,
)
def test_bad_baggage_is_never_an_empty_passport(members: dict[str, str]) -> None:
    with pytest.raises(pack.BadBaggage):
        pack.unpack(members)
    assert pack.unpack({"kest.user": "x"}).entries == []


def test_too_many_entries() -> None:
    with pytest.raises(pack.BadBaggage):
        pack.unpack({"kest.passport_z": pack.compress(json.dumps(["e30.e30."] * 2001))})
