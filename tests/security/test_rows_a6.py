"""ATTACKS.md, row A6: certificate chains in entries, with really issued certificates."""

from __future__ import annotations

import base64
import datetime
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from spiffe import SpiffeId, TrustDomain, X509Bundle, X509BundleSet

from kest._kestcore import b64url_encode, canonicalize, sha256
from kest.cli.main import main
from kest.core import (
    KestEntry,
    LocalEd25519Provider,
    Passport,
    PassportVerifier,
    TrustStore,
    VerificationError,
    sign_entry,
)
from kest.core import truststore as truststore_module
from kest.core.identity.jws import ecdsa_der_to_raw
from kest.core.x5c import ChainError
from kest.errors import ConfigurationError, KestError, KeyFormatError
from kest.http import Edge

DOMAIN = "kest.test"
AGENT = f"spiffe://{DOMAIN}/agent"
HOUR = datetime.timedelta(hours=1)
RSA_2048 = rsa.generate_private_key(65537, 2048)
RSA_1024 = rsa.generate_private_key(65537, 1024)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def milliseconds(moment: datetime.datetime) -> int:
    return int(moment.timestamp() * 1000)


@dataclass
class Authority:
    name: str
    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    issuer: Authority | None,
    key: Any,
    name: str,
    *,
    uris: Any = (),
    ca: bool | None = False,
    usage: tuple[bool, bool] | None = (True, False),
    start: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
    extra: Any = (),
) -> x509.Certificate:
    """A certificate; ``usage`` is (digitalSignature, keyCertSign)."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start or now() - HOUR)
        .not_valid_after(end or now() + HOUR)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
    if usage is not None:
        flags = (usage[0], False, False, False, False, usage[1], False, False, False)
        builder = builder.add_extension(x509.KeyUsage(*flags), True)
    names = [one if isinstance(one, x509.GeneralName) else x509.UniformResourceIdentifier(one) for one in uris]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical)
    signer = key if issuer is None else issuer.key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def authority(name: str, issuer: Authority | None = None, **changes: Any) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    settings: dict[str, Any] = {"ca": True, "usage": (False, True), "uris": [f"spiffe://{DOMAIN}"], **changes}
    return Authority(name, key, issue(issuer, key, name, **settings))


ROOT = authority("root")
INTERMEDIATE = authority("intermediate", ROOT)
OTHER_ROOT = authority("other root")


class Workload:
    """Signs entries like a workload with an X.509-SVID."""

    def __init__(
        self,
        issuer: Authority = INTERMEDIATE,
        principal: str = AGENT,
        key: Any = None,
        chain: Any = None,
        **changes: Any,
    ):
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.principal = principal
        settings: dict[str, Any] = {"uris": [principal], **changes}
        self.leaf = issue(issuer, self.key, "workload", **settings)
        self.chain = [self.leaf, INTERMEDIATE.certificate] if chain is None else chain(self.leaf)

    def entry(self, der: bool = False, x5c: Any = None, **members: Any) -> str:
        algorithm = "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"
        texts = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in self.chain]
        header = canonicalize(
            {"alg": algorithm, "kid": self.principal, "typ": "JWS", "x5c": texts if x5c is None else x5c}
        )
        message = f"{b64url_encode(header)}.{b64url_encode(KestEntry('op', **members).payload(self.principal))}"
        if algorithm == "RS256":
            signature = self.key.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = self.key.sign(message.encode(), ec.ECDSA(hashes.SHA256()))
            raw = isinstance(self.key.curve, ec.SECP256R1) and not der
            signature = ecdsa_der_to_raw(signature) if raw else signature
        return f"{message}.{b64url_encode(signature)}"


def store(**settings: Any) -> TrustStore:
    return TrustStore.from_spiffe_bundle(ROOT.pem, DOMAIN, **settings)


def refused(entries: Any, keys: TrustStore | None = None) -> VerificationError:
    """The refusal, which is the same the second time."""
    keys = keys or store()
    passport = Passport([entries] if isinstance(entries, str) else entries)
    with pytest.raises(VerificationError) as first:
        PassportVerifier.verify(passport, keys)
    with pytest.raises(VerificationError) as second:
        PassportVerifier.verify(passport, keys)
    assert str(first.value) == str(second.value)
    return first.value


def test_a6_chains_that_verify() -> None:
    keys = store()
    for workload in (
        Workload(),
        Workload(chain=lambda leaf: [leaf, INTERMEDIATE.certificate, ROOT.certificate]),
        Workload(issuer=ROOT, chain=lambda leaf: [leaf]),
        Workload(key=RSA_2048),
        Workload(ca=None),
        Workload(uris=[AGENT, x509.DNSName("agent.kest.test")]),
        Workload(extra=[(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), False)]),
    ):
        verified = PassportVerifier.verify(Passport([workload.entry()]), keys)
        assert verified.principals == {AGENT}
    assert AGENT not in keys  # nobody is known before it shows its chain


def test_a6_several_workloads_and_keys_in_one_passport() -> None:
    """And of one workload two certificates, as after a rotation, beside a principal with a key of its own."""
    local = LocalEd25519Provider("spiffe://elsewhere.example/static")
    keys = store()
    keys.add("spiffe://elsewhere.example/static", local)
    entries: list[str] = []
    for signer in (Workload(), Workload(principal=f"spiffe://{DOMAIN}/b/c"), local, Workload(), Workload(key=RSA_2048)):
        parents = (sha256(entries[-1].encode()).hex(),) if entries else ("0",)
        entries.append(
            signer.entry(parent_ids=parents)
            if isinstance(signer, Workload)
            else sign_entry(KestEntry("op", parent_ids=parents), signer)
        )
    assert len(PassportVerifier.verify(Passport(entries), keys).principals) == 3


def test_a6_the_steady_state_is_one_ring() -> None:
    keys, workload = store(), Workload()
    PassportVerifier.verify(Passport([workload.entry()]), keys)
    ring = keys.ring()
    PassportVerifier.verify(Passport([workload.entry()]), keys)
    assert keys.ring() is ring


# Each: how the workload is made, and words of the reason.
CHAINS: dict[str, tuple[Any, str]] = {
    "expired": (lambda: Workload(start=now() - 9 * HOUR, end=now() - 8 * HOUR), "expired"),
    "not yet valid": (lambda: Workload(start=now() + HOUR, end=now() + 2 * HOUR), "not valid yet"),
    "wrong trust domain": (lambda: Workload(uris=["spiffe://other.test/agent"]), "another SPIFFE ID"),
    "another id": (lambda: Workload(uris=[AGENT + "2"]), "another SPIFFE ID"),
    "id without a path": (lambda: Workload(principal=f"spiffe://{DOMAIN}"), "names no workload"),
    "id with dots": (lambda: Workload(principal=f"spiffe://{DOMAIN}/a/../b"), "names no workload"),
    "id with a slash at the end": (lambda: Workload(principal=f"spiffe://{DOMAIN}/a/"), "names no workload"),
    "two ids": (lambda: Workload(uris=[AGENT, f"spiffe://{DOMAIN}/other"]), "2 URI names"),
    "no id": (lambda: Workload(uris=[]), "0 URI names"),
    "dns name only": (lambda: Workload(uris=[x509.DNSName("kest.test")]), "0 URI names"),
    "ca as leaf": (lambda: Workload(ca=True), "certificate authority as its leaf"),
    "leaf that may sign certificates": (lambda: Workload(usage=(True, True)), "certificate authority as its leaf"),
    "no digitalSignature": (lambda: Workload(usage=(False, False)), "digitalSignature"),
    "no key usage": (lambda: Workload(usage=None), "digitalSignature"),
    "missing intermediate": (lambda: Workload(chain=lambda leaf: [leaf]), "leads to no authority"),
    "another root": (lambda: Workload(issuer=OTHER_ROOT, chain=lambda leaf: [leaf, OTHER_ROOT.certificate]), "leads to no"),
    "self-signed": (lambda: _self_signed(), "leads to no authority"),
    "leaf as issuer": (lambda: _leaf_as_issuer(), "leads to no authority"),
    "expired intermediate": (lambda: _through(start=now() - 9 * HOUR, end=now() - 8 * HOUR), "expired|leads to no"),
    "intermediate without keyCertSign": (lambda: _through(usage=(True, False)), "leads to no authority"),
    "critical extension": (
        lambda: Workload(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]),
        "leads to no authority",
    ),
    "too long": (lambda: Workload(chain=lambda leaf: [leaf] * 9), "more than 8"),
    "rsa below 2048": (lambda: Workload(key=RSA_1024), "neither P-256 nor RSA|leads to no"),
    "p-384": (lambda: Workload(key=ec.generate_private_key(ec.SECP384R1())), "neither P-256 nor RSA"),
}  # fmt: skip


def _self_signed() -> Workload:
    workload = Workload()
    workload.leaf = issue(None, workload.key, "root", uris=[AGENT])
    workload.chain = [workload.leaf]
    return workload


def _leaf_as_issuer() -> Workload:
    owner = Workload()
    return Workload(
        issuer=Authority("workload", owner.key, owner.leaf),
        principal=f"spiffe://{DOMAIN}/victim",
        chain=lambda leaf: [leaf, owner.leaf, INTERMEDIATE.certificate],
    )


def _through(**changes: Any) -> Workload:
    between = authority("between", ROOT, **changes)
    return Workload(issuer=between, chain=lambda leaf: [leaf, between.certificate])


@pytest.mark.parametrize("kind", sorted(CHAINS))
def test_a6_chains_that_prove_nothing(kind: str) -> None:
    make, words = CHAINS[kind]
    workload = make()
    error = refused(workload.entry())
    assert error.index == 0
    import re

    assert re.search(words, error.reason), error.reason


@pytest.mark.parametrize("x5c", [["AAAA"], ["not base64"], ["====", "AAAA"], ["A" * 40000], ["é" * 300]])
def test_a6_what_is_no_certificate(x5c: list[str]) -> None:
    keys, workload = store(), Workload()
    assert "chain" in refused(workload.entry(x5c=x5c), keys).reason
    PassportVerifier.verify(Passport([workload.entry()]), keys)
    assert "chain" in refused(workload.entry(x5c=x5c), keys).reason  # also where the key is known by now


def test_a6_another_trust_domain_is_unknown() -> None:
    workload = Workload(principal="spiffe://other.test/agent")
    assert "no key is known" in refused(workload.entry()).reason
    assert "no key is known" in refused(Workload(principal=DOMAIN + "/agent").entry()).reason


def test_a6_the_key_has_to_be_the_leafs() -> None:
    workload, thief = Workload(), ec.generate_private_key(ec.SECP256R1())
    workload.key = thief
    assert "signature" in refused(workload.entry()).reason
    keys = store()
    PassportVerifier.verify(Passport([Workload().entry()]), keys)  # another certificate of the principal is known
    assert "signature" in refused(workload.entry(), keys).reason


def test_a6_a_key_learned_for_one_id_signs_for_no_other() -> None:
    keys, workload = store(), Workload()
    PassportVerifier.verify(Passport([workload.entry()]), keys)
    workload.principal = f"spiffe://{DOMAIN}/victim"
    assert "another SPIFFE ID" in refused(workload.entry(), keys).reason


def test_a6_der_signatures() -> None:
    workload = Workload()
    PassportVerifier.verify(Passport([workload.entry()]), store())
    assert "signature" in refused(workload.entry(der=True)).reason


def test_a6_the_first_bad_entry_is_named() -> None:
    good, bad = Workload(), CHAINS["ca as leaf"][0]()
    entries = [good.entry()]
    entries.append(bad.entry(parent_ids=(sha256(entries[0].encode()).hex(),)))
    assert refused(entries).index == 1
    altered = entries[0][:-8] + ("AAAAAAAA" if not entries[0].endswith("AAAAAAAA") else "BBBBBBBB")
    entries = [altered, bad.entry(parent_ids=(sha256(altered.encode()).hex(),))]
    error = refused(entries)
    assert (error.index, "signature" in error.reason) == (0, True)


# --- time ---


def test_a6_entries_are_made_while_the_certificate_is_valid() -> None:
    start, end = now() - datetime.timedelta(minutes=50), now() - datetime.timedelta(minutes=1)
    workload = Workload(start=start, end=end)
    keys = store()
    for at, good in (
        (milliseconds(end) // 1000 * 1000, True),
        (milliseconds(start) // 1000 * 1000, True),
        (milliseconds(end) + 60_000, False),
        (milliseconds(start) - 60_000, False),
    ):
        one = Passport([workload.entry(timestamp_ms=at)])
        if good:
            PassportVerifier.verify(one, keys)
        else:
            with pytest.raises(VerificationError, match="valid when the entry was made"):
                PassportVerifier.verify(one, keys)


def test_a6_the_window_is_that_of_the_whole_path() -> None:
    end = now() + datetime.timedelta(minutes=1)
    workload = _through(end=end)
    PassportVerifier.verify(Passport([workload.entry()]), store())
    after = workload.entry(timestamp_ms=milliseconds(end) + 60_000)
    assert "valid when the entry was made" in refused(after).reason


def test_a6_an_old_key_cannot_back_date_for_ever() -> None:
    start, end = now() - 3 * HOUR, now() - datetime.timedelta(minutes=30)
    workload = Workload(start=start, end=end)
    back_dated = workload.entry(timestamp_ms=milliseconds(end) - 60_000)
    PassportVerifier.verify(Passport([back_dated]), store())
    assert "grace" in refused(back_dated, store(grace=60.0)).reason
    assert "grace" in refused(back_dated, store(grace=0.0)).reason
    PassportVerifier.verify(Passport([back_dated]), store(grace=None))  # an auditor, long after


def test_a6_a_remembered_certificate_is_forgotten_in_time(monkeypatch: Any) -> None:
    keys, workload = store(grace=600.0), Workload()
    one = Passport([workload.entry()])
    PassportVerifier.verify(one, keys)
    ring, later = keys.ring(), time.time() + 3600 + 601
    monkeypatch.setattr(time, "time", lambda: later)
    assert keys.ring() is not ring
    assert len(keys.ring()) == 0
    assert "grace" in refused(one.entries, keys).reason


def test_a6_the_memory_of_certificates_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(truststore_module, "MAX_LEAVES", 3)
    keys = store()
    workloads = [Workload(principal=f"{AGENT}/{n}") for n in range(5)]
    for _ in range(2):
        for workload in workloads:
            PassportVerifier.verify(Passport([workload.entry()]), keys)
    assert len(keys.ring()) == 3


# --- bundles ---


def document(*authorities: Authority, **members: Any) -> dict[str, Any]:
    keys: list[dict[str, Any]] = [{"use": "jwt-svid", "kid": "x", "kty": "EC"}]
    keys += [{"use": "x509-svid", "kty": "EC", "x5c": [base64.b64encode(one.der).decode()]} for one in authorities]
    return {"keys": keys, "spiffe_sequence": 1, **members}


def test_bundles_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps(document(ROOT, spiffe_refresh_hint=60)))
    (tmp_path / "bundle.pem").write_bytes(OTHER_ROOT.pem + ROOT.pem)
    (tmp_path / "bundle.der").write_bytes(ROOT.der)
    bundle = X509Bundle(TrustDomain(DOMAIN), {ROOT.certificate})
    forms: list[tuple[Any, Any]] = [
        (document(ROOT), DOMAIN),
        (tmp_path / "bundle.json", f"spiffe://{DOMAIN}"),
        (str(tmp_path / "bundle.pem"), DOMAIN),
        (tmp_path / "bundle.der", TrustDomain(DOMAIN)),
        (ROOT.pem, DOMAIN),
        (ROOT.pem.decode(), DOMAIN),
        (ROOT.der, DOMAIN),
        (ROOT.certificate, DOMAIN),
        ([OTHER_ROOT.der, ROOT.pem], DOMAIN),
        (bundle, None),
        (bundle, DOMAIN),
        (X509BundleSet.of([bundle]), DOMAIN),
    ]
    one, other = Passport([Workload().entry()]), _self_signed().entry()
    for source, domain in forms:
        keys = TrustStore.from_spiffe_bundle(source, domain)
        PassportVerifier.verify(one, keys)
        refused(other, keys)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    leaf = Workload().leaf.public_bytes(Encoding.DER)
    empty = tmp_path / "x"
    empty.write_bytes(b"hello")
    bad: list[Any] = [
        b"", b"x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", leaf, [5], {}, {"keys": [5]}, empty,
        {"keys": [{"use": "x509-svid"}]}, {"keys": [{"use": "x509-svid", "x5c": ["?"]}]},
        {"keys": [{"use": "x509-svid", "x5c": [base64.b64encode(leaf).decode()]}]},
    ]  # fmt: skip
    for source in bad:
        with pytest.raises(KestError):
            TrustStore.from_spiffe_bundle(source, DOMAIN)
    for domain in (None, "", "Kest.Test", "a/b", 5):
        with pytest.raises(ConfigurationError):
            TrustStore.from_spiffe_bundle(ROOT.pem, domain)
    with pytest.raises(ConfigurationError, match=r"other\.test"):
        TrustStore.from_spiffe_bundle(X509Bundle(TrustDomain("other.test"), set()), DOMAIN)
    with pytest.raises(ConfigurationError):
        TrustStore.from_spiffe_bundle(ROOT.pem, DOMAIN, refresh=1.0)
    with pytest.raises(ConfigurationError):
        store(grace=-1.0)
    with pytest.raises(KeyFormatError):
        TrustStore.from_spiffe_bundle(Workload().leaf, DOMAIN)


def test_a_bundle_that_lives_is_read_afresh() -> None:
    bundle = X509Bundle(TrustDomain(DOMAIN), {OTHER_ROOT.certificate})
    keys = TrustStore.from_spiffe_bundle(bundle)
    one = Passport([Workload().entry()])
    refused(one.entries, keys)
    bundle.add_authority(ROOT.certificate)
    PassportVerifier.verify(one, keys)
    ring = keys.ring()
    assert keys.ring() is ring
    bundle.remove_authority(ROOT.certificate)  # and what it vouched for is gone with it
    refused(one.entries, keys)


def test_a_bundle_set_without_the_trust_domain_says_so() -> None:
    bundles = X509BundleSet({})
    keys = TrustStore.from_spiffe_bundle(bundles, DOMAIN)
    one = Passport([Workload().entry()])
    assert f"no bundle of the trust domain {DOMAIN}" in refused(one.entries, keys).reason
    bundles.put(X509Bundle(TrustDomain(DOMAIN), {ROOT.certificate}))
    PassportVerifier.verify(one, keys)
    assert SpiffeId(AGENT).trust_domain.name == DOMAIN


def test_two_domains_in_one_store() -> None:
    from kest.core.trust_sources import SpiffeBundleSource

    keys = store()
    keys.add_source(SpiffeBundleSource(OTHER_ROOT.pem, "other.test"))
    foreign = Workload(
        issuer=OTHER_ROOT, principal="spiffe://other.test/x", chain=lambda leaf: [leaf, OTHER_ROOT.certificate]
    )
    PassportVerifier.verify(Passport([Workload().entry()]), keys)
    PassportVerifier.verify(Passport([foreign.entry()]), keys)
    # the other domain's authority vouches for nobody here
    forged = Workload(issuer=OTHER_ROOT, chain=lambda leaf: [leaf, OTHER_ROOT.certificate])
    assert "leads to no authority" in refused(forged.entry(), keys).reason


def test_rights_of_a_trust_domain() -> None:
    workload = Workload()
    keys = store(max_trust=60, may_sanitise=False)
    PassportVerifier.verify(Passport([workload.entry(trust_score=60)]), keys)
    refused(workload.entry(trust_score=61), keys)


def test_workloads_of_one_domain_have_rights_of_their_own() -> None:
    gateway = f"spiffe://{DOMAIN}/gateway"
    keys = store(max_trust=10, may_sanitise=False, rights={gateway: {"max_trust": 100, "may_sanitise": True}})
    root = Workload().entry(trust_score=10, added_taints=["raw"], taints=["raw"])
    raised = {
        "trust_score": 100,
        "parent_ids": (sha256(root.encode()).hex(),),
        "removed_taints": ["raw"],
        "labels": {"kest.trust_override": "100"},
    }
    for principal, end in ((gateway, 100), (AGENT, None), (f"{gateway}/other", None)):
        flow = [root, Workload(principal=principal).entry(**raised)]
        if end is None:
            assert refused(flow, keys).index == 1
        else:
            assert PassportVerifier.verify(Passport(flow), keys).trust_score == end
    assert PassportVerifier.verify(Passport([Workload(principal=gateway).entry(trust_score=100)]), keys)
    assert refused(Workload().entry(trust_score=11), keys).index == 0
    half = store(max_trust=10, may_sanitise=True, rights={gateway: {"may_sanitise": False}})  # the rest is the domain's
    assert refused(Workload(principal=gateway).entry(trust_score=11), half).index == 0
    for bad in ({"spiffe://other.test/gateway": {}}, {"gateway": {}}, {gateway: {"max_trusst": 1}}):
        with pytest.raises(ConfigurationError, match="rights"):
            store(rights=bad)
    with pytest.raises(ValueError, match="max_trust"):
        store(rights={gateway: {"max_trust": 101}})


def test_a_removed_workload_is_refused_in_spite_of_its_chain() -> None:
    keys, workload = store(), Workload()
    one = Passport([workload.entry()])
    PassportVerifier.verify(one, keys)
    keys.remove(AGENT)
    assert "no key is known" in refused(one.entries, keys).reason


def test_a6_at_the_edge() -> None:
    from urllib.parse import quote

    edge = Edge(store())

    def read(entry: str) -> Any:
        text = json.dumps([entry], separators=(",", ":"))
        tip = sha256(entry.encode()).hex()
        return edge.read([f"kest.passport={quote(text, safe='')},kest.chain_tip={tip}".encode()])

    workload = Workload(issuer=ROOT, chain=lambda leaf: [leaf])
    entry = workload.entry()
    assert read(entry).verified
    assert read(entry).verified
    with pytest.raises(VerificationError, match="x5c"):
        read(CHAINS["missing intermediate"][0]().entry())


def test_spki_of_a_leaf_is_what_the_core_pins() -> None:
    """An RS256 header over a P-256 leaf: the key decides."""
    workload = Workload()
    head = {
        "alg": "RS256",
        "kid": AGENT,
        "typ": "JWS",
        "x5c": [base64.b64encode(c.public_bytes(Encoding.DER)).decode() for c in workload.chain],
    }
    message = f"{b64url_encode(canonicalize(head))}.{b64url_encode(KestEntry('op').payload(AGENT))}"
    signature = RSA_2048.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert refused(f"{message}.{b64url_encode(signature)}").index == 0
    assert workload.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_authorities_vouch_for_their_own_domain_only() -> None:
    (known,) = store()._sources[0].snapshot().authorities
    foreign = Workload(issuer=ROOT, principal="spiffe://other.test/agent", chain=lambda leaf: [leaf])
    with pytest.raises(ChainError, match="another trust domain"):
        known.leaf(foreign.principal, [base64.b64encode(foreign.leaf.public_bytes(Encoding.DER)).decode()])


# --- kest verify ---


def test_kest_verify_takes_old_passports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything has expired long ago, and it all was valid when the entries were made."""
    made = now() - datetime.timedelta(days=400)
    root = authority("old root", start=made - HOUR, end=made + 24 * HOUR)
    workload = Workload(root, start=made, end=made + HOUR, chain=lambda leaf: [leaf])

    def verify(entry: str, *arguments: str | Path) -> tuple[int, str]:
        (tmp_path / "passport.json").write_text(json.dumps([entry]))
        status = main(["verify", str(tmp_path / "passport.json"), *map(str, arguments)])
        said = capsys.readouterr()
        return status, said.out + said.err

    pem, document = tmp_path / "bundle.pem", tmp_path / "bundle.json"
    pem.write_bytes(root.pem)
    x5c = [base64.b64encode(root.der).decode()]
    document.write_text(json.dumps({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": x5c}], "spiffe_sequence": 1}))
    old = workload.entry(timestamp_ms=milliseconds(made) + 1000)
    assert "has expired" in refused(old, TrustStore.from_spiffe_bundle(pem, DOMAIN)).reason
    for file in (pem, document):
        status, said = verify(old, "--spiffe-bundle", file, "--trust-domain", DOMAIN)
        assert (status, AGENT in said) == (0, True)
    both = (
        "--spiffe-bundle",
        document,
        "--trust-domain",
        "other.test",
        "--spiffe-bundle",
        pem,
        "--trust-domain",
        DOMAIN,
    )
    assert verify(old, *both)[0] == 0
    after = workload.entry(timestamp_ms=milliseconds(made + HOUR) + 1000)
    status, said = verify(after, "--spiffe-bundle", pem, "--trust-domain", DOMAIN)
    assert (status, "valid when the entry was made" in said) == (1, True)
    status, said = verify(old, "--spiffe-bundle", pem, "--trust-domain", "other.test")
    assert status == 1
    assert "pass --trust KEYS, or --spiffe-bundle FILE --trust-domain NAME" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--spiffe-bundle", "bundle.pem"), "each needs one"),
        (("--trust-domain", DOMAIN), "each needs one"),
        (("--spiffe-bundle", "none", "--trust-domain", DOMAIN), "cannot read none"),
        (("--spiffe-bundle", "bundle.pem", "--trust-domain", "Not A Name"), "trust_domain is a name"),
        (("--spiffe-bundle", "leaf.pem", "--trust-domain", DOMAIN), "a bundle holds CA certificates"),
        (("--spiffe-bundle", "list.json", "--trust-domain", DOMAIN), "is a JSON object"),
        (("--spiffe-bundle", "empty.json", "--trust-domain", DOMAIN), "'keys'"),
        (("--spiffe-bundle", "noise", "--trust-domain", DOMAIN), "not a certificate"),
    ],
)
def test_kest_verify_refuses_what_is_no_bundle(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("passport.json").write_text(json.dumps([Workload().entry()]))
    Path("bundle.pem").write_bytes(ROOT.pem)
    Path("leaf.pem").write_bytes(Workload().leaf.public_bytes(Encoding.PEM))
    Path("list.json").write_text("[1]")
    Path("empty.json").write_text("{}")
    Path("noise").write_bytes(b"\x00\x01nothing")
    assert main(["verify", "passport.json", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_removed_principal_is_not_vouched_for_any_more() -> None:
    keys, entry = store(), Workload().entry()
    PassportVerifier.verify(Passport([entry]), keys)
    keys.remove(AGENT)
    refused(entry, keys)


def test_workloads_may_sanitise_unless_the_bundle_is_told_otherwise() -> None:
    raised = Workload().entry(trust_score=80, labels={"kest.trust_override": "80"})
    PassportVerifier.verify(Passport([raised]), store())
    refused(raised, store(may_sanitise=False))


def test_without_a_chain_a_key_of_its_own_counts() -> None:
    """Also beside authorities for its trust domain; and what no header is, is refused as that."""
    own = LocalEd25519Provider(AGENT)
    entry = sign_entry(KestEntry("op"), own)
    refused(entry)
    keys = store()
    keys.add(AGENT, own)
    PassportVerifier.verify(Passport([entry]), keys)
    for header in ("!!!", b64url_encode(b"[]"), b64url_encode(b'{"alg":"ES256","kid":5,"typ":"JWS","x5c":[]}')):
        refused(header + entry[entry.index(".") :], store())
