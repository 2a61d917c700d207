"""The lab at work: Alice signs in, an agent acts for her, five services prove with their SVIDs what was done."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kest_services.service import wait_until

from kest import Passport, PassportVerifier, TrustStore, VerificationError
from kest._kestcore import b64url_decode, sha256

DOMAIN = "delegation.example"
# Service, operation, trust, policy, and whom Keycloak issued the token to that the service was called with.
EXPECTED = [
    ("kest-agent", "delegate", 10, "delegation_policy", "kest-agent"),
    ("kest-gateway", "authorise", 100, "gateway_policy", "kest-agent"),
    ("kest-gateway", "execute-task", 100, "task_policy", "kest-gateway"),
    ("hop1", "hop1.process", 100, "workload_user_policy", "kest-gateway"),
    ("hop2", "hop2.process", 100, "workload_user_policy", "hop1"),
    ("hop3", "hop3.process", 100, "workload_user_policy", "hop2"),
]
SERVICES = {row[0] for row in EXPECTED}
KEST = "import sys; from kest.cli.main import main; sys.exit(main(sys.argv[1:]))"


def header(jws: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(b64url_decode(jws.partition(".")[0]))
    return found


def leaf(jws: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(base64.b64decode(header(jws)["x5c"][0]))


def authority_of(jws: str) -> str:
    """The key identifier of the authority that issued the SVID of an entry."""
    found = leaf(jws).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return "" if found is None else found.hex()


def test_six_linked_entries_say_who_did_what_for_alice(honest: dict[str, Any], passport: Passport, alice: str) -> None:
    user = jwt.decode(alice, options={"verify_signature": False})["sub"]
    assert honest["report"] == {"count": 7, "mean": 21.67, "highest": 22.3}
    rows, parent = [], "0"
    for jws, entry in zip(passport.entries, passport.decode(), strict=True):
        labels = entry["labels"]
        identity = json.loads(labels["kest.identity"])
        policies = entry["policy_context"]["function_policies"]
        service = labels["principal"].removeprefix(f"spiffe://{DOMAIN}/")
        rows.append((service, entry["operation"], entry["trust_score"], *policies, identity["agent"]))
        assert identity["user"] == user
        assert entry["parent_ids"] == [parent]
        parent = sha256(jws.encode()).hex()
    assert rows == EXPECTED
    assert honest["chain_tip"] == parent
    assert (passport.trust_score, passport.taints) == (100, ())


def test_each_service_signs_with_its_own_svid(passport: Passport) -> None:
    owners: dict[bytes, set[str]] = {}
    for jws, (service, *_) in zip(passport.entries, EXPECTED, strict=True):
        said, certificate = header(jws), leaf(jws)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        principal = f"spiffe://{DOMAIN}/{service}"
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [principal] == [said["kid"]]
        assert said["alg"] == "ES256"
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        owners.setdefault(key, set()).add(service)
    assert all(len(services) == 1 for services in owners.values())
    assert set().union(*owners.values()) == SERVICES


def test_the_command_line_verifies_it_with_the_servers_bundle(
    lab: Any, honest: dict[str, Any], passport: Passport, tmp_path: Path
) -> None:
    (tmp_path / "passport.json").write_text(honest["passport"], "utf-8")
    (tmp_path / "short.json").write_text(Passport(passport.entries[:-1]).serialize(), "utf-8")
    (tmp_path / "bundle.json").write_text(lab.bundle(), "utf-8")

    def verify(file: str, domain: str = DOMAIN) -> tuple[int, str]:
        given = [str(tmp_path / file), "--spiffe-bundle", str(tmp_path / "bundle.json"), "--trust-domain", domain]
        done = lab.run_as(sys.executable, "-c", KEST, "verify", *given, "--chain-tip", honest["chain_tip"])
        return done.returncode, done.stdout + done.stderr

    status, said = verify("passport.json")
    assert status == 0, said
    assert "verified: 6 entries" in said
    assert verify("short.json")[0] == 1
    assert verify("passport.json", "other.example")[0] == 1


def test_an_auditor_verifies_it_with_the_live_bundle_of_the_workload_api(lab: Any, passport: Passport) -> None:
    script = str(Path(__file__).resolve().parents[2] / "examples/lab/audit.py")
    done = lab.run_as(lab.pythons["auditor"], script, text=passport.serialize())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "trust": 100,
        "principals": sorted(f"spiffe://{DOMAIN}/{name}" for name in SERVICES),
    }


def test_only_the_gateway_may_raise_trust(lab: Any, passport: Passport) -> None:
    assert len(lab.verify(passport)) == 6
    nobody = TrustStore.from_spiffe_bundle(json.loads(lab.bundle()), DOMAIN, max_trust=10, may_sanitise=False)
    with pytest.raises(VerificationError) as refused:
        PassportVerifier.verify(passport, nobody)
    assert refused.value.index == 1


def test_a_long_passport_waits_in_redis(lab: Any, honest: dict[str, Any], passport: Passport) -> None:
    forms = {f"{came['at']}{came['path']}": came["form"] for came in honest["carried"]}
    assert forms["kest-agent/delegate"] == "-"
    assert [forms[f"{hop}/process"] for hop in ("hop1", "hop2", "hop3")] == ["claim check"] * 3
    with redis.Redis.from_url(lab.at["redis"], decode_responses=True) as client:
        stored = {key: client.get(key) for key in client.scan_iter("kest:claim:*")}
        lives = [client.ttl(key) for key in stored]
    assert all(0 < seconds <= 300 for seconds in lives)
    tips = {(record or "").partition("\n")[0] for record in stored.values()}
    assert {Passport(passport.entries[:length]).chain_tip for length in (3, 4, 5)} <= tips


def test_the_spans_of_all_services_are_one_trace(lab: Any, passport: Passport) -> None:
    (trace,) = {entry["labels"]["trace_id"] for entry in passport.decode()}

    def kests() -> list[tuple[str, dict[str, Any]]]:
        ours = [(name, span) for name, span in lab.spans() if span["traceId"] == trace]
        return [(name, span) for name, span in ours if span["name"].startswith("kest.verified.")]

    wait_until(lambda: len(kests()) >= 6, 20)
    found = {}
    for name, span in kests():
        attributes = {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}
        assert attributes["kest.workload_id"] == f"spiffe://{DOMAIN}/{name}"
        assert attributes["kest.allowed"] is True
        found[attributes["kest.entry_id"]] = attributes
    for entry, (_, operation, trust, policy, _) in zip(passport.decode(), EXPECTED, strict=True):
        attributes = found[entry["entry_id"]]
        assert attributes["kest.operation"] == operation
        assert int(attributes["kest.trust_score"]) == trust
        assert policy in json.dumps(attributes["kest.policy_ids"])
    assert len(found) == 6


def test_nothing_written_down_holds_a_token(lab: Any, honest: dict[str, Any], alice: str) -> None:
    folder = lab.state.folder
    for file in [*folder.glob("logs/*.log"), *folder.glob("records/*.jsonl"), lab.spans_file]:
        text = file.read_text("utf-8", "replace")
        assert alice.rpartition(".")[2] not in text, file.name
        assert not any(f"{client}-secret" in text for client in (*SERVICES, "batch-report")), file.name


def test_a_new_authority_counts_as_soon_as_spire_says_so(lab: Any) -> None:
    yesterday = lab.bundle()
    new = lab.spire_server("localauthority", "x509", "prepare")["prepared_authority"]["authority_id"]
    lab.spire_server("localauthority", "x509", "activate", "-authorityID", new)
    token = lab.sign_in()
    last: list[Passport] = []

    def signed_by_the_new_one() -> bool:
        answer: httpx.Response = lab.delegate(token)
        assert answer.status_code == 200, answer.text  # nobody stops working meanwhile
        last[:] = [Passport.deserialize(answer.json()["passport"])]
        return authority_of(last[0].entries[-1]) == new

    wait_until(signed_by_the_new_one, 60)  # hop3's SVID is a short one
    assert len(lab.verify(last[0])) == 6
    with pytest.raises(VerificationError, match="leads to no authority"):
        lab.verify(last[0], yesterday)
