"""ATTACKS, rows A1 to A7 over real sockets: refused with a trust store, at most degraded without one, never believed."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from wire import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    HOP,
    STRANGER,
    canonical,
    encode,
    grown,
    inline,
    keys,
    payload,
    service,
    serving,
    signed,
    spec,
    tip_of,
)  # fmt: skip

from kest.core import MockIdentityProvider, Passport, TrustStore, configure
from kest.core.trust import ORIGIN_TRUST_MAP

Client = Callable[[str], httpx.Response]


class Site:
    """A service with the keys of ALICE, BOB and HOP, and the same one without any."""

    def __init__(self, verifying: str, trusting: str, ran: list[Any]) -> None:
        self.verifying, self.degrading, self.ran = verifying, trusting, ran

    def refused(self, header: str | bytes, status: int | tuple[int, ...] = (400, 403)) -> dict[str, Any]:
        """Refused by the verifying service with a reason; by the other one refused too, or believed to be worth little."""
        self.ran.clear()
        answer = post(self.verifying, header)
        assert answer.status_code in ((status,) if isinstance(status, int) else status), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = answer.json()
        assert problem["detail"]
        assert problem["status"] == answer.status_code
        assert not self.ran
        other = post(self.degrading, header)
        if other.status_code == 200:
            assert other.json()["trust"] <= 10
            assert "kest.unverified" in other.json()["taints"]
            assert other.json()["user"] is None
        else:
            assert other.status_code in (400, 403, 424), other.text
            assert len(self.ran) == 0
        return problem


def post(url: str, header: str | bytes) -> httpx.Response:
    return httpx.post(f"{url}/work", headers=[(b"baggage", header.encode() if isinstance(header, str) else header)])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    ran: list[Any] = []
    store = TrustStore(keys())
    store.add("spiffe://kest.test/guest", ALICE, max_trust=60, may_sanitise=False)
    with serving(service(ran, trust_store=store)) as verifying, serving(service(ran)) as degrading:
        yield Site(verifying, degrading, ran)


def test_a1_an_honest_passport_is_believed(site: Site) -> None:
    passport = grown(2, user="alice")
    answer = post(site.verifying, inline(passport.entries, user="alice"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["entries"][:2] == passport.entries
    assert len(answer.json()["entries"]) == 3
    assert (answer.json()["trust"], answer.json()["user"]) == (100, "alice")


def test_a1_without_a_trust_store_the_chain_is_kept_but_counts_for_little(site: Site, caplog: Any) -> None:
    passport = grown(2, user="alice")
    with caplog.at_level("WARNING", "kest"):
        answers = [post(site.degrading, inline(passport.entries, user="alice")).json() for _ in range(3)]
    for answer in answers:
        assert answer["entries"][:2] == passport.entries
        assert (answer["trust"], answer["user"]) == (10, None)
        assert answer["taints"] == ["kest.unverified"]
    warnings = [r for r in caplog.records if "trust_store" in r.getMessage()]
    assert len(warnings) == 1


def fabricated() -> dict[str, str]:
    head, body = spec.header(ALICE.get_identity()), canonical.canonicalize(payload())
    unsigned = f"{encode(canonical.canonicalize(head))}.{encode(body)}."
    none = {**head, "alg": "none"}
    mac_input = f"{encode(canonical.canonicalize({**head, 'alg': 'HS256'}))}.{encode(body)}"
    mac = hmac.HMAC(ALICE.signer.public_key, hashes.SHA256())
    mac.update(mac_input.encode())
    good = signed()
    parts = good.split(".")
    altered = canonical.canonicalize(payload(operation="other"))
    flipped = bytearray(ALICE_KEY.sign(b"x"))
    return {
        "plain text": "forged",
        "unsigned": unsigned,
        "alg none": f"{encode(canonical.canonicalize(none))}.{encode(body)}.",
        "alg none, signed": signed(header=none),
        "alg None": signed(header={**head, "alg": "None"}),
        "hs256 with the public key": f"{mac_input}.{encode(mac.finalize())}",
        "mock signed": _mock(),
        "wrong key": signed(key=BOB_KEY),
        "altered payload": f"{parts[0]}.{encode(altered)}.{parts[2]}",
        "altered signature": f"{parts[0]}.{parts[1]}.{encode(bytes(flipped))}",
        "cut signature": good[:-2],
        "empty signature": f"{parts[0]}.{parts[1]}.",
        "two parts": f"{parts[0]}.{parts[1]}",
        "four parts": f"{good}.{parts[2]}",
        "empty": "",
    }


def _mock() -> str:
    claims = payload()
    return MockIdentityProvider(ALICE.get_identity()).sign(canonical.canonicalize(claims))


@pytest.mark.parametrize("kind", sorted(fabricated()))
def test_a1_fabricated_entries(site: Site, kind: str) -> None:
    site.refused(inline([fabricated()[kind]]))


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("part", [1, 2])
def test_a1_an_altered_entry_anywhere_in_a_chain(site: Site, at: int, part: int) -> None:
    entries = grown(3).entries
    pieces = entries[at].split(".")
    middle = len(pieces[part]) // 2
    swapped = "A" if pieces[part][middle] != "A" else "B"
    pieces[part] = pieces[part][:middle] + swapped + pieces[part][middle + 1 :]
    entries[at] = ".".join(pieces)
    site.refused(inline(entries))


def test_a1_a_chain_seen_before_does_not_vouch_for_a_changed_one(site: Site) -> None:
    """The memory of verified passports must not be fooled by texts that look alike."""
    entries = grown(3).entries
    assert post(site.verifying, inline(entries)).status_code == 200
    assert post(site.verifying, inline(entries)).status_code == 200
    for at in range(3):
        for offset in (0, 40, -100, -70, -40, -2):
            changed = list(entries)
            text = changed[at]
            where = offset % len(text)
            letter = "A" if text[where] != "A" else "B"
            changed[at] = text[:where] + letter + text[where + 1 :]
            assert post(site.verifying, inline(changed)).status_code in (400, 403)
    assert (
        post(
            site.verifying, inline([*entries, signed(payload(parent_ids=[tip_of(entries[-1])]), key=BOB_KEY)])
        ).status_code
        == 403
    )
    assert post(site.verifying, inline([*entries, fabricated()["altered signature"]])).status_code in (400, 403)
    assert post(site.verifying, inline(entries)).status_code == 200


def test_a2_unknown_principals(site: Site) -> None:
    assert "principal" in site.refused(inline(grown(1, identity=STRANGER).entries), 403)["reason"]
    mixed = grown(1, identity=STRANGER, passport=grown(1))
    assert site.refused(inline(mixed.entries), 403)["index"] == 1


@pytest.mark.parametrize(
    "claims",
    [
        {**payload(), "principal": ALICE.get_identity(), "labels": {}},
        {**payload(), "principal": ALICE.get_identity()},
        {**payload(), "labels": {}},
        {**payload(), "labels": {"principal": ""}},
        {**payload(), "labels": {"principal": BOB.get_identity()}},
        {**payload(), "metadata": {"principal": ALICE.get_identity()}},
    ],
)
def test_a2_the_principal_stands_in_one_place_only(site: Site, claims: Any) -> None:
    site.refused(inline([signed(claims)]), 403)


def test_a2_a_kid_that_is_not_the_principal(site: Site) -> None:
    site.refused(inline([signed(header=spec.header(BOB.get_identity()))]), 403)
    site.refused(inline([signed(key=BOB_KEY, header=spec.header(BOB.get_identity()))]), 403)


HEAD = spec.header(ALICE.get_identity())
BODY = canonical.canonicalize(payload())
FORMS: dict[str, dict[str, Any]] = {
    "crit": {"header": {**HEAD, "crit": ["b64"]}},
    "crit empty": {"header": {**HEAD, "crit": []}},
    "b64": {"header": {**HEAD, "b64": False}},
    "jwk": {"header": {**HEAD, "jwk": {}}},
    "jku": {"header": {**HEAD, "jku": "https://evil.example/keys"}},
    "unknown member": {"header": {**HEAD, "x": 1}},
    "typ": {"header": {**HEAD, "typ": "JWT"}},
    "duplicate key in the header": {"raw_header": b'{"alg":"EdDSA","alg":"EdDSA","kid":"x","typ":"JWS"}'},
    "duplicate key": {"raw_payload": BODY[:-1] + b',"trust_score":100}'},
    "trailing data": {"raw_payload": BODY + b"{}"},
    "trailing space": {"raw_payload": BODY + b" "},
    "not canonical": {"raw_payload": json.dumps(payload()).encode()},
    "over-long integer": {"raw_payload": BODY.replace(b'"trust_score":100', b'"trust_score":1' + b"0" * 400)},
    "big integer": {
        "raw_payload": BODY.replace(b'"timestamp_ms":1700000000000', b'"timestamp_ms":99999999999999999999')
    },
    "float": {"raw_payload": BODY.replace(b'"trust_score":100', b'"trust_score":1e2')},
    "nesting": {"raw_payload": BODY.replace(b'"environment":{}', b'"environment":' + b"[" * 5000 + b"]" * 5000)},
    "invalid utf-8": {"raw_payload": BODY.replace(b"forged", b"\xff\xfe")},
    "lone surrogate": {"raw_payload": BODY.replace(b"forged", b"\\ud800")},
    "encoded surrogate": {"raw_payload": BODY.replace(b"forged", b"\xed\xa0\x80")},
    "not an object": {"raw_payload": b"[]"},
    "not json": {"raw_payload": b"\x00"},
}


@pytest.mark.parametrize("kind", sorted(FORMS))
def test_a3_malformed_entries(site: Site, kind: str) -> None:
    entry = signed(**FORMS[kind])
    site.refused(_z([entry]) if len(entry) > 3500 else inline([entry]))


def _z(entries: list[str]) -> str:
    import zlib

    from wire import header_of

    packed = encode(zlib.compress(json.dumps(entries, separators=(",", ":")).encode()))
    return header_of({"kest.passport_z": packed, "kest.chain_tip": tip_of(entries[-1])})


@pytest.mark.parametrize("change", ["padding", "space", "newline", "bits", "plus", "slash"])
def test_a3_base64_that_is_not_the_one_spelling(site: Site, change: str) -> None:
    good = signed()
    head, body, signature = good.split(".")
    bits = signature[:-1] + "AQgw"[("AQgw".find(signature[-1]) + 1) % 4]
    bad = {
        "padding": f"{head}.{body}.{signature}==",
        "space": f"{head}. {body}.{signature}",
        "newline": f"{good}\n",
        "bits": f"{head}.{body}.{bits[:-1]}{chr(ord(bits[-1]) + 1)}",
        "plus": f"{head}.{body}.{'+' + signature[1:]}",
        "slash": f"{head}.{body}.{'/' + signature[1:]}",
    }[change]
    site.refused(inline([bad]))


def test_a4_chains_that_do_not_hang_together(site: Site) -> None:
    one = grown(4).entries
    other = grown(3).entries
    site.refused(inline(one[1:]), 403)  # the first parent is missing
    site.refused(inline([one[0], *one[2:]]), 403)
    site.refused(inline([one[1], one[0], *one[2:]]), 403)  # out of order
    site.refused(inline([*one, one[-1]]), 403)  # a duplicate
    site.refused(inline([one[0], other[1], one[1]]), 403)  # a swapped branch


def test_a4_a_dropped_tail(site: Site) -> None:
    entries = grown(3).entries
    site.refused(inline(entries[:2], tip_of(entries[2])), 400)


def test_a4_entries_that_the_tip_does_not_descend_from(site: Site) -> None:
    entries, other = grown(2).entries, grown(1).entries
    site.refused(inline([*entries, *other], tip_of(entries[-1])), 400)
    site.refused(inline([*other, *entries], tip_of(entries[-1])), 400)


def test_a4_a_cycle_cannot_be_written(site: Site) -> None:
    # A parent is named by a hash that covers its text: an entry that names a later one names one that is not there.
    child = signed(payload(parent_ids=["f" * 64]))
    parent = signed(payload(parent_ids=[tip_of(child)]))
    site.refused(inline([child, parent]), 403)


def test_a4_branches_arrive_with_all_their_tips(site: Site) -> None:
    root = grown(1)
    left, right = grown(1, passport=root), grown(1, identity=BOB, passport=root)
    merged = Passport.merge(left, right)
    answer = post(site.verifying, inline(merged.entries, merged.chain_tip))
    assert answer.status_code == 200, answer.text
    site.refused(inline(merged.entries, left.chain_tip), 400)
    site.refused(inline(merged.entries, ",".join(reversed(merged.chain_tip.split(",")))), 400)


@pytest.mark.parametrize("score", [-1, 101, 1000, True, False, 50.5, None, "50", [], 2**53])
def test_a5_trust_that_is_no_score(site: Site, score: Any) -> None:
    claims = payload(trust_score=0)
    raw = canonical.canonicalize(claims).replace(b'"trust_score":0', b'"trust_score":' + json.dumps(score).encode())
    site.refused(inline([signed(raw_payload=raw)]), 403)


def child_of(parent: str, **changes: Any) -> str:
    return signed(payload(parent_ids=[tip_of(parent)], **changes))


def test_a5_trust_above_the_weakest_parent(site: Site) -> None:
    low = signed(payload(trust_score=10))
    assert post(site.verifying, inline([low, child_of(low, trust_score=10)])).status_code == 200
    site.refused(inline([low, child_of(low, trust_score=11)]), 403)
    labels = {"principal": ALICE.get_identity()}
    for label in ("10", "012", "100", " 11", "11 "):
        site.refused(inline([low, child_of(low, trust_score=11, labels={**labels, "kest.trust_override": label})]), 403)
    right = child_of(low, trust_score=11, labels={**labels, "kest.trust_override": "11"})
    assert post(site.verifying, inline([low, right])).status_code == 200


def test_a5_principals_that_may_not_sanitise_or_claim_so_much(site: Site) -> None:
    guest = "spiffe://kest.test/guest"
    labels = {"principal": guest}

    def entry(**changes: Any) -> str:
        return signed(payload(guest, **changes), principal=guest)

    low = entry(trust_score=10, added_taints=["x"], taints=["x"])
    assert post(site.verifying, inline([low])).status_code == 200
    site.refused(inline([entry(trust_score=61)]), 403)
    raised = {"trust_score": 20, "labels": {**labels, "kest.trust_override": "20"}, "parent_ids": [tip_of(low)]}
    site.refused(inline([low, entry(**raised, taints=["x"])]), 403)
    removed = entry(trust_score=10, parent_ids=[tip_of(low)], removed_taints=["x"])
    site.refused(inline([low, removed]), 403)


def test_a5_taints_that_vanish(site: Site) -> None:
    tainted = signed(payload(added_taints=["x", "y"], taints=["x", "y"]))
    site.refused(inline([tainted, child_of(tainted)]), 403)
    site.refused(inline([tainted, child_of(tainted, taints=["y"])]), 403)
    site.refused(inline([tainted, child_of(tainted, taints=["x", "y", "z"])]), 403)
    right = child_of(tainted, removed_taints=["x"], taints=["y"])
    assert post(site.verifying, inline([tainted, right])).status_code == 200


def test_a6_der_signatures_and_short_keys() -> None:
    from wire import payload as claims_of

    key = ec.generate_private_key(ec.SECP256R1())
    name = "spiffe://kest.test/ec"
    pem = key.public_key().public_bytes(*_spki())
    good = signed(claims_of(name), key=key, principal=name)
    head, body, _ = good.split(".")
    der = key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    ran: list[Any] = []
    with serving(service(ran, trust_store={name: pem})) as url:
        assert post(url, inline([good])).status_code == 200
        ran.clear()
        assert post(url, inline([f"{head}.{body}.{encode(der)}"])).status_code == 403
        assert not ran
    short = rsa.generate_private_key(65537, 1024).public_key().public_bytes(*_spki())
    with pytest.raises(ValueError):
        TrustStore({name: short})


def _spki() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Encoding.PEM, PublicFormat.SubjectPublicKeyInfo


def test_a6_a_certificate_chain_proves_nothing_by_itself(site: Site) -> None:
    """Without a bundle that vouches for it, an x5c header is the sender's word."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evil")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(random.getrandbits(64)).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ALICE.get_identity())]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    import base64

    from cryptography.hazmat.primitives.serialization import Encoding

    x5c = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
    site.refused(inline([signed(key=key, header=spec.header(ALICE.get_identity(), "ES256", x5c))]), 403)


@pytest.mark.parametrize(
    "tip", ["0", "x" * 64, "A" * 64, "a" * 63, "a" * 65, "a" * 64, "a" * 64 + ",", "é" * 64, "0" * 64]
)
def test_a7_a_chain_tip_that_is_no_hash_or_another_ones(site: Site, tip: str) -> None:
    site.refused(inline(grown(1).entries, tip), 400)


def test_a7_a_chain_tip_alone_is_never_signed(site: Site) -> None:
    from wire import header_of

    site.refused(header_of({"kest.chain_tip": "a" * 64}), 400)
    site.refused(header_of({"kest.chain_tip": ""}), 400)


def test_a7_upper_case_of_the_right_tip(site: Site) -> None:
    passport = grown(1)
    site.refused(inline(passport.entries, passport.chain_tip.upper()), 400)


def test_reject_and_accept(site: Site, monkeypatch: Any) -> None:
    ran: list[Any] = []
    passport = grown(1, user="alice")
    with serving(service(ran, on_unverified="reject")) as url:
        assert post(url, inline(passport.entries)).status_code == 403
        assert not ran
        assert httpx.post(f"{url}/work").status_code == 200  # no lineage, nothing to verify
    monkeypatch.setenv("KEST_INSECURE_NO_VERIFY", "true")
    with serving(service(ran, on_unverified="accept")) as url:
        assert post(url, inline(passport.entries, user="alice")).json()["user"] == "alice"


def test_accept_needs_to_be_insecure_on_purpose() -> None:
    from kest.errors import ConfigurationError
    from kest.http import Edge

    with pytest.raises(ConfigurationError, match="KEST_INSECURE_NO_VERIFY"):
        Edge(on_unverified="accept")


def test_the_configured_store_and_mode_are_those_of_the_moment() -> None:
    passport = grown(1)
    with serving(service()) as url:
        assert post(url, inline(passport.entries)).json()["trust"] == 10
        configure(trust_store=keys())
        assert post(url, inline(passport.entries)).json()["trust"] == 100
        configure(trust_store=keys(HOP))
        assert post(url, inline(passport.entries)).status_code == 403


def test_requests_without_lineage(site: Site) -> None:
    with serving(service(require_passport=True)) as url:
        assert httpx.post(f"{url}/work").status_code == 403
    with serving(service(origin="internet")) as url:
        answer = httpx.post(f"{url}/work").json()
        assert answer["trust"] == ORIGIN_TRUST_MAP["internet"]
    assert httpx.post(f"{site.verifying}/work").json()["trust"] == 100
