"""Signers that are known by their certificates only: real P-256 chains, good ones and all the others."""

from __future__ import annotations

import base64
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography.x509.verification")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kest import KestEntry, LocalEd25519Provider, TrustStore
from kest._kestcore import b64url_encode, canonicalize, sha256
from kest.audit import AuditLog, AuditReader, Verdict, key_event, thumbprint, verify_log, verify_proof
from kest.audit.records import TYPES
from kest.cli.main import main
from kest.core.identity.jws import ecdsa_der_to_raw
from kest.viz import graph_of, read

DOMAIN = "kest.test"
AGENT = f"spiffe://{DOMAIN}/agent"
HOUR = datetime.timedelta(hours=1)
NOW = datetime.datetime.now(datetime.timezone.utc)


def milliseconds(moment: datetime.datetime) -> int:
    return int(moment.timestamp() * 1000)


class Authority:
    """A CA of a trust domain."""

    def __init__(self, domain: str = DOMAIN) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority of {domain}")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = (
            self._builder(self.name, self.key.public_key(), NOW - 9000 * HOUR, NOW + 9000 * HOUR)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(usage, True)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def _builder(self, subject: x509.Name, key: Any, start: Any, end: Any) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            self.name, subject, key, x509.random_serial_number(), not_valid_before=start, not_valid_after=end
        )

    def issue(self, key: Any, principal: str, start: Any, end: Any) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "workload")])
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        return (
            self._builder(subject, key.public_key(), start, end)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(principal)]), False)
            .sign(self.key, hashes.SHA256())
        )


class Workload:
    """Signs records like a workload with an X.509-SVID."""

    def __init__(
        self,
        issuer: Authority,
        principal: str = AGENT,
        *,
        key: Any = None,
        start: datetime.datetime = NOW - HOUR,
        end: datetime.datetime = NOW + HOUR,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.principal = principal
        self.leaf = issuer.issue(self.key, principal, start, end)

    def jwk(self) -> dict[str, str]:
        said = self.key.public_key().public_numbers()
        if isinstance(self.key, rsa.RSAPrivateKey):
            return {"e": "AQAB", "kty": "RSA", "n": b64url_encode(said.n.to_bytes(256, "big"))}
        x, y = (b64url_encode(one.to_bytes(32, "big")) for one in (said.x, said.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    def sign(self, payload: bytes, typ: str = "JWS", x5c: Any = None) -> str:
        alg = "RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256"
        chain = [base64.b64encode(self.leaf.public_bytes(Encoding.DER)).decode()] if x5c is None else x5c
        header = {"alg": alg, "kid": self.principal, "typ": typ, **({"x5c": chain} if chain else {})}
        message = f"{b64url_encode(canonicalize(header))}.{b64url_encode(payload)}"
        if alg == "RS256":
            signature = self.key.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = ecdsa_der_to_raw(self.key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{message}.{b64url_encode(signature)}"

    def entry(self, **members: Any) -> str:
        return self.sign(KestEntry("op", **members).payload(self.principal))

    def outcome(self, entry: str, typ: str = "kest-outcome+jws") -> str:
        said = {
            "duration_us": 1, "entry_hash": sha256(entry.encode()).hex(), "error": None, "output_hash": "",
            "principal": self.principal, "record": "outcome", "result": "returned", "timestamp_ms": milliseconds(NOW),
        }  # fmt: skip
        return self.sign(canonicalize(said), typ)

    def verdict(self, at: datetime.datetime = NOW, **members: Any) -> str:
        said = {"principal": self.principal, "record": "verdict", "timestamp_ms": milliseconds(at), **members}
        return self.sign(canonicalize(said), "kest-verdict+jws")


ROOT, OTHER = Authority(), Authority()


def store(**settings: Any) -> TrustStore:
    return TrustStore.from_spiffe_bundle(ROOT.pem, DOMAIN, **settings)


@pytest.fixture
def log(open_log: Callable[..., AuditLog]) -> AuditLog:
    return open_log()


def judged(log: AuditLog, record: str, keys: Any) -> Verdict:
    """The verdict of the whole log on a record, which is also that of a proof of it."""
    index = log.append(record).wait(30)
    log.checkpoint()
    report = verify_log(log.path, log.key, keys)
    proved = verify_proof(AuditReader(log.path, log.key).prove(index), log.key, keys).verdict
    assert report.verdicts == ({Verdict.VALID: 2} if proved is Verdict.VALID else {Verdict.VALID: 1, proved: 1})
    assert report.ok == proved.good
    assert [problem.index for problem in report.problems] == ([] if proved.good else [index])
    return proved


def test_calls_by_workloads_with_certificates(log: AuditLog) -> None:
    """Two workloads, one of which has a new certificate with a new key for every call; outcomes of both kinds."""
    first = Workload(ROOT, f"spiffe://{DOMAIN}/first")
    for number in range(5):
        second = Workload(ROOT, key=rsa.generate_private_key(65537, 2048) if number == 4 else None)
        for workload in (first, second):
            entry = workload.entry()
            log.append(entry)
            log.append(workload.outcome(entry, "JWS" if number % 2 else "kest-outcome+jws"))
    log.checkpoint()
    report = verify_log(log.path, log.key, store())
    assert report.ok
    assert report.verdicts == {Verdict.VALID: 21}
    assert report.kinds == {"log": 1, "entry": 10, "outcome": 10}
    assert report.missing_count == 0
    assert sorted(life.used for life in report.keys) == [1, 2, 2, 2, 2, 2, 10]
    unknown = verify_log(log.path, log.key)
    assert unknown.verdicts == {Verdict.VALID: 1, Verdict.UNKNOWN_KEY: 20}


def test_beside_keys_that_are_known_by_name(log: AuditLog) -> None:
    known = LocalEd25519Provider("spiffe://elsewhere.example/a")
    keys = store()
    keys.add(known.get_identity(), known)
    log.record_event("verdict", {"principal": known.get_identity()}, known)
    log.append(Workload(ROOT).verdict())
    log.checkpoint()
    report = verify_log(log.path, log.key, keys)
    assert report.verdicts == {Verdict.VALID: 3}


@pytest.mark.parametrize("long", [False, True])  # the latter is kept beside the log
def test_one_record(log: AuditLog, long: bool) -> None:
    assert judged(log, Workload(ROOT).verdict(said="x" * (100_000 if long else 1)), store()) is Verdict.VALID


def test_a_changed_signature(log: AuditLog) -> None:
    record = Workload(ROOT).verdict()
    body = record.rpartition(".")[0]
    other = Workload(ROOT).verdict().rpartition(".")[2]
    assert judged(log, f"{body}.{other}", store()) is Verdict.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Workload(ROOT, start=NOW - 9 * HOUR, end=NOW - 8 * HOUR).verdict(NOW - 8.5 * HOUR), "has expired"),
        (lambda: Workload(ROOT, start=NOW + HOUR, end=NOW + 2 * HOUR).verdict(), "is not valid yet"),
        (lambda: Workload(OTHER).verdict(), "leads to no authority of the trust domain kest.test"),
        (lambda: Workload(ROOT).sign(b"{}", "kest-verdict+jws", ["AAAA" * 100]), ""),
        (lambda: _of_another().verdict(), "belongs to another SPIFFE ID"),
    ],
)
def test_chains_that_prove_nothing(log: AuditLog, make: Callable[[], str], reason: str) -> None:
    verdict = judged(log, make(), store())
    assert verdict is (Verdict.BAD_CHAIN if reason else Verdict.UNREADABLE)
    (problem,) = verify_log(log.path, log.key, store()).problems
    assert reason in problem.reason


def _of_another() -> Workload:
    workload = Workload(ROOT, f"spiffe://{DOMAIN}/other")
    workload.principal = AGENT
    return workload


def test_a_bad_chain_counts_although_the_key_is_known(log: AuditLog) -> None:
    workload, keys = Workload(OTHER), store()
    keys.add(AGENT, workload.jwk())
    assert judged(log, workload.verdict(), keys) is Verdict.BAD_CHAIN


def test_another_trust_domain(log: AuditLog) -> None:
    """Nobody vouches for it: its chain says nothing, and its key may be known by name."""
    workload = Workload(Authority("other.test"), "spiffe://other.test/agent")
    assert judged(log, workload.verdict(), store()) is Verdict.UNKNOWN_KEY
    keys = store()
    keys.add("spiffe://other.test/agent", workload.jwk())
    assert verify_log(log.path, log.key, keys).ok


def test_old_certificates(log: AuditLog) -> None:
    """An auditor believes what was signed while the certificate was valid, and nothing that says it was made later."""
    workload = Workload(ROOT, start=NOW - 9 * HOUR, end=NOW - 8 * HOUR)
    for at, verdict in [
        (NOW - 8.5 * HOUR, Verdict.VALID),
        (NOW - 7 * HOUR, Verdict.AFTER_EXPIRY),
        (NOW - 10 * HOUR, Verdict.BEFORE_KEY),
    ]:
        index = log.append(workload.verdict(at)).wait(30)
        log.checkpoint()
        proof = AuditReader(log.path, log.key).prove(index)
        assert verify_proof(proof, log.key, store(grace=None)).verdict is verdict
    report = verify_log(log.path, log.key, store(grace=None))
    assert report.verdicts == {Verdict.VALID: 2, Verdict.AFTER_EXPIRY: 1, Verdict.BEFORE_KEY: 1}
    assert [problem.index for problem in report.problems] == [2, 3]


def test_a_renewed_certificate(log: AuditLog) -> None:
    """The same key, two certificates: each record lies in the time of one of them."""
    key = ec.generate_private_key(ec.SECP256R1())
    old = Workload(ROOT, key=key, start=NOW - 3 * HOUR, end=NOW - 2 * HOUR)
    new = Workload(ROOT, key=key)
    for workload, at in ((old, NOW - 2.5 * HOUR), (new, NOW), (new, NOW - 2.5 * HOUR), (new, NOW - 1.5 * HOUR)):
        log.append(workload.verdict(at))
    log.checkpoint()
    report = verify_log(log.path, log.key, store(grace=None))
    assert report.verdicts == {Verdict.VALID: 4, Verdict.AFTER_EXPIRY: 1}  # the last one: between the two
    assert [problem.index for problem in report.problems] == [4]


@pytest.mark.parametrize("shown_before", [True, False])
def test_a_revoked_certificate(log: AuditLog, shown_before: bool) -> None:
    """By an event in the log, also one that came before the key was ever shown; a proof brings the event along."""
    workload, keys = Workload(ROOT), store()
    indices = [log.append(workload.verdict()).wait(30)] if shown_before else []
    log.record_event("key", key_event("revoked", AGENT, workload.jwk(), reason="stolen"))
    indices.append(log.append(workload.verdict()).wait(30))
    log.append(Workload(ROOT).verdict())  # the next key of the same workload is as good as any
    log.checkpoint()
    report = verify_log(log.path, log.key, keys)
    before = {Verdict.SINCE_REVOKED: 1} if shown_before else {}
    assert report.verdicts == {Verdict.VALID: 3, Verdict.AFTER_REVOCATION: 1, **before}
    assert [problem.index for problem in report.problems] == indices[-1:]
    reader = AuditReader(log.path, log.key)
    said = [verify_proof(reader.prove(index), log.key, keys).verdict for index in indices]
    assert said == [*before, Verdict.AFTER_REVOCATION]


def test_a_principal_that_is_not_believed_any_more(log: AuditLog) -> None:
    keys = store()
    keys.remove(AGENT)
    assert judged(log, Workload(ROOT).verdict(), keys) is Verdict.UNKNOWN_KEY


def test_keys_with_times(log: AuditLog) -> None:
    """A trust store says from when on a key counts, too."""
    key, keys = LocalEd25519Provider("spiffe://kest.test/a"), TrustStore()
    keys.add("spiffe://kest.test/a", key, not_before=1000, not_after=2000)
    for at in (999, 1000, 2000, 2001):
        log.record_event("verdict", {"principal": "spiffe://kest.test/a", "timestamp_ms": at}, key)
    log.checkpoint()
    report = verify_log(log.path, log.key, keys)
    assert report.verdicts == {Verdict.VALID: 3, Verdict.BEFORE_KEY: 1, Verdict.AFTER_EXPIRY: 1}


def test_many_keys_of_one_workload_cost_nothing(log: AuditLog) -> None:
    """Each record is tried with the key that its own chain proves, not with all that the workload ever had."""
    workloads = [Workload(ROOT) for _ in range(40)]
    for _ in range(15):
        for workload in workloads:
            log.append(workload.verdict())
    log.checkpoint()
    started = time.process_time()
    report = verify_log(log.path, log.key, store())
    assert report.verdicts == {Verdict.VALID: 601}
    assert len(report.keys) == 41
    assert time.process_time() - started < 10  # all with all: 12,000 verifications of P-256 more


def test_the_command_and_the_picture(log: AuditLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload, liar = Workload(ROOT), Workload(OTHER)
    entry = workload.entry()
    log.append(entry)
    log.append(workload.outcome(entry))
    log.checkpoint()
    (tmp_path / "bundle.pem").write_bytes(ROOT.pem)
    options = ["--log-key", log.key.vkey, "--spiffe-bundle", str(tmp_path / "bundle.pem"), "--trust-domain", DOMAIN]
    assert main(["log", "verify", str(log.path), *options]) == 0
    (node,) = graph_of(read(log.path, log.key, store()), store()).nodes
    assert (node.verdict.state, node.outcome.verdict.state) == ("valid", "valid")
    log.append(liar.entry())
    log.checkpoint()
    capsys.readouterr()
    assert main(["log", "verify", str(log.path), *options, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdicts"]["the certificate chain proves nothing"] == 1
    assert document["problems"][0]["index"] == 3
    nodes = graph_of(read(log.path, log.key, store()), store()).nodes
    assert [node.verdict.state for node in nodes] == ["valid", "invalid"]
    assert "certificate chain" in nodes[1].verdict.reason


# --- keys of these kinds without a chain ---


@pytest.mark.parametrize("kind", ["ES256", "RS256"])
@pytest.mark.parametrize("form", ["pem", "jwk", "store"])
def test_keys_of_other_kinds_have_lives_too(log: AuditLog, kind: str, form: str) -> None:
    """However the verifier came by the key, the log's events name it: by what it is, not by how it was spelt."""
    workload = Workload(ROOT, key=rsa.generate_private_key(65537, 2048) if kind == "RS256" else None)
    said = canonicalize({"principal": AGENT, "record": "verdict", "timestamp_ms": milliseconds(NOW)})
    pem = workload.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    before = log.append(workload.sign(said, TYPES["verdict"], ())).wait(30)
    log.record_event("key", key_event("revoked", AGENT, pem, reason="stolen"))
    after = log.append(workload.sign(said, TYPES["verdict"], ())).wait(30)
    log.checkpoint()
    anchors: Any = {
        "pem": {AGENT: pem},
        "jwk": {AGENT: {**workload.jwk(), "kid": "another", "use": "sig"}},
        "store": TrustStore({AGENT: pem}),
    }[form]
    reader = AuditReader(log.path, log.key)
    assert verify_proof(reader.prove(before), log.key, anchors).verdict is Verdict.SINCE_REVOKED
    assert verify_proof(reader.prove(after), log.key, anchors).verdict is Verdict.AFTER_REVOCATION
    assert verify_log(log.path, log.key, anchors).keys[-1].thumbprint == thumbprint(pem) == thumbprint(workload.jwk())
