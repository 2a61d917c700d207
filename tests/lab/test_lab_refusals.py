"""The lab under attack, and with parts of it missing: everything is refused, by whom and why it should be."""

from __future__ import annotations

import base64
import datetime
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from attacks import altered, carry, header, unsigned
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from kest_services.service import http, wait_until
from workload import principal_of

from kest import BaggageManager, KestEntry, Passport, RedisCache, StaticIdentity, VerificationError, sign_entry
from kest._kestcore import b64url_decode
from kest.core.identity.jws import compact, ecdsa_der_to_raw, signing_input

GATEWAY = principal_of("kest-gateway")
SIGN = """
import sys
from kest import KestEntry, SPIREProvider, sign_entry
identity = SPIREProvider()
print(sign_entry(KestEntry("batch.report", trust_score=int(sys.argv[1])), identity))
identity.close()
"""
RAISE = """
import sys
from kest import KestEntry, SPIREProvider, sign_entry
from kest._kestcore import sha256
identity = SPIREProvider()
entry = KestEntry("authorise", trust_score=100, parent_ids=(sha256(sys.argv[1].encode()).hex(),),
                  removed_taints=["unchecked-request"], labels={"kest.trust_override": "100"})
print(sign_entry(entry, identity))
identity.close()
"""
BE = """
import sys
from kest import SPIREProvider
SPIREProvider(spiffe_id=sys.argv[1] or None, timeout=2.0).open()
"""


def refused(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert answer.status_code == problem["status"] == status, answer.text
    assert words in problem.get("detail", problem["title"]), answer.text


class Forger:
    """Signs with a key of its own, and shows whichever chain it likes."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    def entry(self, x5c: list[str], trust: int = 100) -> str:
        payload = KestEntry("authorise", trust_score=trust).payload(GATEWAY)
        _, message = signing_input(GATEWAY, payload, "ES256", x5c)
        return compact(message, ecdsa_der_to_raw(self.key.sign(message, ec.ECDSA(hashes.SHA256()))))

    def chain(self) -> list[str]:
        """An SVID that says that its owner is the gateway, from an authority that nobody knows."""
        now = datetime.datetime.now(datetime.timezone.utc)
        authority = ec.generate_private_key(ec.SECP256R1())

        def issued(name: str, key: ec.EllipticCurvePrivateKey, uri: str, ca: bool) -> str:
            builder = (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
                .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]))
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(hours=1))
                .add_extension(x509.BasicConstraints(ca, None), True)
                .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, False, False, False), True)
                .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
            )
            made = builder.sign(authority, hashes.SHA256())
            return base64.b64encode(made.public_bytes(Encoding.DER)).decode()

        domain = GATEWAY.rpartition("/")[0]
        return [issued("workload", self.key, GATEWAY, False), issued("authority", authority, domain, True)]


def chain_of(jws: str) -> list[str]:
    found: list[str] = json.loads(b64url_decode(jws.partition(".")[0]))["x5c"]
    return found


# --- forged lineage ---


@pytest.mark.parametrize(
    ("forgery", "words"),
    [
        ("no certificate", ""),  # no key of the gateway is known, or an SVID's, which is of another kind
        ("an authority of its own", "leads to no authority of the trust domain delegation.example"),
        ("the gateway's certificate, another key", "the signature does not match"),
        ("another user", "the signature does not match"),
        ("more trust", "trust is above the maximum"),
        ("no algorithm", "alg"),
    ],
)
def test_forged_lineage_is_refused(forgery: str, words: str, lab: Any, alice: str, passport: Passport) -> None:
    forger, (first, second) = Forger(), passport.entries[:2]
    user = json.loads(passport.decode()[1]["labels"]["kest.identity"])["user"]
    entries = {
        "no certificate": lambda: [sign_entry(KestEntry("authorise", trust_score=100), StaticIdentity(GATEWAY))],
        "an authority of its own": lambda: [forger.entry(forger.chain())],
        "the gateway's certificate, another key": lambda: [forger.entry(chain_of(second))],
        "another user": lambda: [first, altered(second, user, "0" * len(user))],
        "more trust": lambda: [altered(first, '":10}', '":100}')],
        "no algorithm": lambda: [unsigned(first)],
    }[forgery]()
    refused(lab.post("kest-agent", "/delegate", alice, carry(entries)), 403, words)


def test_a_workload_of_the_domain_has_no_more_rights_than_it_was_given(lab: Any, alice: str) -> None:
    assert len(lab.verify(Passport([lab.as_batch_report(SIGN, "10")]))) == 1
    too_much = lab.as_batch_report(SIGN, "100")
    refused(lab.post("kest-agent", "/delegate", alice, carry([too_much])), 403, "trust is above the maximum")


def test_only_the_gateway_sanitises(lab: Any, passport: Passport) -> None:
    first = passport.entries[0]
    with pytest.raises(VerificationError) as caught:
        lab.verify(Passport([first, lab.as_batch_report(RAISE, first)]))
    assert caught.value.index == 1


# --- workloads ---


def test_a_process_that_is_not_registered_gets_no_identity(lab: Any) -> None:
    done = lab.run_as(sys.executable, "-c", BE, "")
    assert done.returncode == 1
    assert "no registration entry matches this process" in done.stderr


def test_a_workload_gets_no_identity_but_its_own(lab: Any) -> None:
    done = lab.run_as(lab.pythons["batch-report"], "-c", BE, GATEWAY)
    assert done.returncode == 1
    assert f"the Workload API offers no SVID for {GATEWAY}" in done.stderr


# --- tokens ---


def test_a_token_for_one_service_is_none_for_another(lab: Any, alice: str, passport: Passport) -> None:
    own = carry([lab.as_batch_report(SIGN, "10")])
    refused(lab.post("kest-gateway", "/authorise", alice, own), 401, "another audience")
    onward = lab.token_for(alice, "kest-agent", "kest-gateway", "hop1")
    refused(lab.post("hop3", "/process", onward, own, {"readings": [1.0]}), 401, "another audience")


def test_a_stolen_token_needs_the_lineage_of_whom_it_was_issued_to(lab: Any, alice: str) -> None:
    own = carry([lab.as_batch_report(SIGN, "10")])
    obo = lab.token_for(alice, "kest-agent", "kest-gateway")
    refused(lab.post("kest-gateway", "/authorise", obo, own), 403, "policy 'gateway_policy' (function) denied")
    refused(lab.post("kest-gateway", "/authorise", obo), 403, "takes no request without lineage")
    task = lab.token_for(obo, "kest-gateway", "kest-gateway")
    refused(lab.post("kest-gateway", "/execute-task", task, own), 403, "policy 'task_policy' (function) denied")
    onward = lab.token_for(task, "kest-gateway", "hop1")
    answer = lab.post("hop1", "/process", onward, own, {"readings": [1.0]})
    refused(answer, 403, "policy 'workload_user_policy' (function) denied")


def test_keycloak_exchanges_for_whom_a_token_was_meant_and_never_widens_it(lab: Any) -> None:
    token = lab.sign_in(scope="delegate task:read-reports")

    def answered(client: str, audience: str, scope: str) -> tuple[int, str]:
        answer = lab.exchange(token, client, audience, scope)
        return answer.status_code, answer.json().get("error_description", "a token")

    assert answered("kest-agent", "kest-gateway", "task:read-reports") == (200, "a token")
    status, reason = answered("kest-agent", "kest-gateway", "task:process-data")
    assert status == 400
    assert "not present in the initial access token" in reason
    assert answered("batch-report", "kest-gateway", "task:read-reports")[0] == 403
    assert answered("kest-agent", "hop1", "task:read-reports")[0] == 400


def test_too_little_scope(lab: Any) -> None:
    refused(lab.delegate(lab.sign_in(scope="task:process-data")), 403, "policy 'delegation_policy' (function) denied")
    reading = lab.delegate(lab.sign_in(scope="delegate task:read-reports"))
    refused(reading, 403, "policy 'gateway_policy' (function) denied operation 'authorise'")
    # Bob agrees to all of it, but has no role that lets him have data processed: nothing is left to be exchanged.
    refused(lab.delegate(lab.sign_in("bob")), 403, "not present in the initial access token [delegate]")


# --- dropped entries ---


@pytest.fixture
def onward(lab: Any, alice: str) -> str:
    """A token for hop1, as it could leak."""
    return str(lab.token_for(alice, "kest-agent", "kest-gateway", "kest-gateway", "hop1"))


def checked(cache: RedisCache, passport: Passport, **changes: str) -> str:
    """A baggage header with a claim check."""
    return header({**BaggageManager.pack(passport, cache, limit=128), **changes})


def test_a_dropped_entry_is_noticed(lab: Any, onward: str, passport: Passport, claim_checks: RedisCache) -> None:
    work = {"readings": [1.0]}
    genuine = Passport(passport.entries[:3])

    def sent(entries: list[str]) -> httpx.Response:
        return lab.post("hop1", "/process", onward, carry(entries, genuine.chain_tip), work)  # type: ignore[no-any-return]

    refused(sent(genuine.entries[:2]), 400, "kest.chain_tip is not the tip of the passport")
    refused(sent([genuine.entries[0], genuine.entries[2]]), 403, "parent")
    # The same in Redis: a record exchanged for a shorter one, under either tip; and one that is gone.
    values = BaggageManager.pack(genuine, claim_checks, limit=128)
    shorter = Passport(genuine.entries[:2])
    for tip in (genuine.chain_tip, shorter.chain_tip):
        claim_checks.set(values["kest.claim_check"], f"{tip}\n{shorter.serialize()}", 60)
        assert lab.post("hop1", "/process", onward, header(values), work).status_code in (400, 424)
    gone = {**values, "kest.claim_check": "00000000-0000-7000-8000-000000000000"}
    refused(lab.post("hop1", "/process", onward, header(gone), work), 424, "")
    # And the genuine one is taken.
    answer = lab.post("hop1", "/process", onward, checked(claim_checks, genuine), work)
    assert answer.status_code == 200, answer.text
    assert answer.json()["carried"][0]["form"] == "claim check"


# --- policy ---


def test_a_change_of_policy_counts_at_once(lab: Any, alice: str) -> None:
    policies = http("GET", f"{lab.at['opa']}/v1/policies")[1]["result"]
    (policy,) = (one for one in policies if one["raw"].find("package gateway_policy") >= 0)
    where = f"{lab.at['opa']}/v1/policies/{policy['id']}"
    stricter = policy["raw"].replace("is_string(input.user)", 'input.user == "nobody"')
    assert stricter != policy["raw"]
    assert lab.delegate(alice).status_code == 200
    try:
        assert http("PUT", where, stricter, "text/plain")[0] == 200
        refused(lab.delegate(alice), 403, "policy 'gateway_policy' (function) denied operation 'authorise'")
    finally:
        assert http("PUT", where, policy["raw"], "text/plain")[0] == 200
    assert lab.delegate(alice).status_code == 200


# --- parts that are missing ---


def test_without_opa_nothing_runs(lab: Any, alice: str, stopped: Callable[[str], None]) -> None:
    before = (lab.records / "kest-agent.jsonl").read_text("utf-8").count('"kind": "entry"')
    stopped("opa")
    refused(lab.delegate(alice), 403, "the policy engine failed: OPA at")
    lab.state.ask("start opa")
    assert (lab.records / "kest-agent.jsonl").read_text("utf-8").count('"kind": "entry"') == before
    assert lab.delegate(alice).status_code == 200


def test_without_redis_no_long_lineage_is_sent(lab: Any, alice: str, stopped: Callable[[str], None]) -> None:
    stopped("redis")
    refused(lab.delegate(alice), 424, "Redis did not answer the claim check")
    lab.state.ask("start redis")
    assert lab.delegate(alice).status_code == 200


def test_without_the_spire_agent_nobody_signs_for_longer_than_an_svid_lives(
    lab: Any, stopped: Callable[[str], None]
) -> None:
    token = lab.sign_in()
    seen: list[int] = []

    def hop3_cannot_sign() -> bool:
        answer = lab.delegate(token)
        seen.append(answer.status_code)
        assert answer.status_code in (200, 503), answer.text
        time.sleep(0.2)
        return seen[-1] == 503

    assert lab.delegate(token).status_code == 200
    stopped("spire-agent")
    done = lab.run_as(lab.pythons["batch-report"], "-c", BE, "")
    assert done.returncode == 1
    assert "start" in done.stderr.splitlines()[-1]
    assert "SPIRE agent" in done.stderr.splitlines()[-1]
    wait_until(hop3_cannot_sign, 60)
    assert "has expired and none has replaced it: is the SPIRE agent running" in lab.log("hop3")
    refused(lab.delegate(token), 503, "Identity unavailable")
    lab.state.ask("start spire-agent")
    wait_until(lambda: not hop3_cannot_sign(), 60)
