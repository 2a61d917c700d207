"""AWSWorkloadIdentity and BedrockAgentIdentity against moto's STS, KMS and IAM over HTTP, and behind a faulty network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pytest
from kest_services.moto import Moto
from kest_services.processes import Processes
from relay import Answer, Cut, Gate, Relay, Request, relaying

from kest import _kestcore
from kest.core import (
    AWSWorkloadIdentity,
    BedrockAgentIdentity,
    PassportVerifier,
    TrustStore,
    configure,
    get_default_identity,
    kest_verified,
)
from kest.core.context import get_current_passport, lineage
from kest.core.identity import sign_payload
from kest.errors import ConfigurationError, IdentityError, KestError

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/shop"
REGION = "eu-central-1"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": REGION,
    "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Iterator[SimpleNamespace]:
    """moto behind a relay, with two keys and a role."""
    built("moto")
    folder = tmp_path_factory.mktemp("moto")
    with (
        pytest.MonkeyPatch.context() as patch,
        Processes(folder) as processes,
        Moto(processes, folder / "moto") as moto,
        relaying(moto.url) as relay,
    ):
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        clients = {name: boto3.client(name, endpoint_url=moto.url) for name in ("kms", "sts", "iam")}
        kms, iam = clients["kms"], clients["iam"]
        keys = {
            alg: kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
            for alg, spec in (("ES256", "ECC_NIST_P256"), ("RS256", "RSA_3072"), ("P-384", "ECC_NIST_P384"))
        }
        keys["encrypt"] = kms.create_key()["KeyMetadata"]["Arn"]
        kms.create_alias(AliasName="alias/kest", TargetKeyId=keys["ES256"])
        role = iam.create_role(RoleName="shop", Path="/team/", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        yield SimpleNamespace(moto=moto, relay=relay, keys=keys, role=role, **clients)
        for client in clients.values():
            client.close()


@pytest.fixture
def relay(aws: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """The relay, as this process's AWS."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.relay.url)
    aws.relay.seen.clear()
    yield aws.relay
    aws.relay.rule = lambda request: None


@pytest.fixture
def make(aws: SimpleNamespace, relay: Relay) -> Iterator[Callable[..., AWSWorkloadIdentity]]:
    """Identities with a key of moto's; closed afterwards."""
    made: list[AWSWorkloadIdentity] = []

    def identity(alg: str = "ES256", **settings: Any) -> AWSWorkloadIdentity:
        made.append(AWSWorkloadIdentity(aws.keys.get(alg, alg), **settings))
        return made[-1]

    yield identity
    for one in made:
        one.close()


def session(answer: Any) -> Any:
    """A boto3 session with the credentials in an answer of STS or IAM."""
    return boto3.Session(answer["AccessKeyId"], answer["SecretAccessKey"], answer.get("SessionToken"), REGION)


def failing(code: str, status: int = 400) -> Answer:
    """What KMS answers when something is wrong: JSON with the code as its type, and a text that is nobody's business."""
    return Answer(status, json.dumps({"__type": code, "message": "request 4711 of account hunter2"}).encode())


@pytest.mark.parametrize("alg", ["ES256", "RS256"])
async def test_kms_signs_entries_of_the_role(
    alg: str, aws: SimpleNamespace, make: Any, relay: Relay, recording: Any, payload_of: Any
) -> None:
    credentials = aws.sts.assume_role(RoleArn=aws.role, RoleSessionName="pod-7")["Credentials"]
    identity = make(alg, session=session(credentials))
    configure(engine=recording, identity=identity, enterprise_policies=["e"], app_policies=["a"])

    @kest_verified("work")
    async def later() -> None: ...

    with lineage():
        kest_verified("work")(lambda: None)()
        await later()
        passport = get_current_passport()
    for jws in passport.entries:
        assert json.loads(_kestcore.b64url_decode(jws.partition(".")[0])) == {"alg": alg, "kid": ROLE, "typ": "JWS"}
        labels = payload_of(jws)["labels"]
        assert labels["principal"] == ROLE
        assert labels["kest.aws.arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/shop/pod-7"
        context = payload_of(jws)["policy_context"]
        recorded = [context[f"{tier}_policies"] for tier in ("enterprise", "platform", "app", "function")]
        assert recorded == [["e"], [], ["a"], ["work"]]  # ATTACKS B6: what was asked, and nothing else
    assert {name for names, _ in recording.asked for name in names} == {"e", "a", "work"}
    store = TrustStore.from_jwks({"keys": [identity.public_jwk()]})  # what the operator publishes
    assert PassportVerifier.verify(passport, store).principals == {ROLE}
    # One request a signature, over the JWS signing input as it is.
    assert relay.count("TrentService.Sign") == 2
    assert (relay.count("GetPublicKey"), relay.count("GetCallerIdentity")) == (1, 1)


def test_the_message_is_the_signing_input_raw(make: Any, relay: Relay) -> None:
    requests: list[Request] = []
    relay.rule = requests.append  # type: ignore[assignment]
    message = sign_payload(make("alias/kest"), b'{"a":1}').rpartition(".")[0]
    (sent,) = [json.loads(request.body) for request in requests if request.operation == "TrentService.Sign"]
    assert (sent["MessageType"], sent["SigningAlgorithm"]) == ("RAW", "ECDSA_SHA_256")
    assert _kestcore.b64url_encode(message.encode()) == sent["Message"].translate(str.maketrans("+/", "-_", "="))


def test_a_wrong_signature_is_noticed_also_when_it_is_not_the_first(make: Any, relay: Relay) -> None:
    identity = make()
    sign_payload(identity, b"{}")
    # KMS takes 4,096 bytes and leaves the hashing to us beyond; moto hashes once more, so nobody could verify that.
    with pytest.raises(IdentityError, match="does not verify under the public key of"):
        sign_payload(identity, b"x" * 5000)


def test_roles_by_web_identity(aws: SimpleNamespace, relay: Relay, tmp_path: Path, monkeypatch: Any) -> None:
    """IAM roles for service accounts: a token file and a role, no keys in the environment."""
    token = tmp_path / "token"
    token.write_text("header.claims.signature")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", aws.role)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigurationError, match="KEST_KMS_KEY_ID"):  # which key is never guessed
        get_default_identity()
    monkeypatch.setenv("KEST_KMS_KEY_ID", "alias/kest")
    found = get_default_identity()
    assert isinstance(found, AWSWorkloadIdentity)
    assert found.get_identity() == ROLE
    found.close()


def test_policies_of_iam_are_asked(aws: SimpleNamespace, make: Any, relay: Relay, recording: Any) -> None:
    aws.iam.create_user(UserName="shop")
    own = session(aws.iam.create_access_key(UserName="shop")["AccessKey"])
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Resource": "*"}}
    ran: list[int] = []
    configure(engine=recording, identity=make(session=own))
    step = kest_verified("work")(lambda: ran.append(1))

    def refusal() -> str:
        with pytest.raises(IdentityError) as caught:
            step()
        assert "hunter2" not in str(caught.value)
        assert "not authorized to perform" not in str(caught.value)
        return str(caught.value)

    def allow(*actions: str) -> None:
        policy["Statement"]["Action"] = list(actions)  # type: ignore[index]
        aws.iam.put_user_policy(UserName="shop", PolicyName="sign", PolicyDocument=json.dumps(policy))

    switch = f"{aws.moto.url}/moto-api/reset-auth"  # from how many requests on moto checks who asks
    allow("kms:GetPublicKey", "kms:Sign")
    httpx.post(switch, content=b"0")
    try:
        step()
        httpx.post(switch, content=b"1000000000")
        allow("kms:GetPublicKey")
        httpx.post(switch, content=b"0")
        assert "kms sign failed with" in (said := refusal())
        assert "allow this role kms:GetPublicKey and kms:Sign on the key" in said
        configure(identity=make(session=boto3.Session("AKIAUNKNOWN", "hunter2", region_name=REGION)))
        assert "InvalidClientTokenId: AWS does not know these credentials" in refusal()
    finally:
        httpx.post(switch, content=b"1000000000")
    assert ran == [1]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("ThrottlingException", "request quota"),
        ("AccessDeniedException", "or in the key's"),
        ("DisabledException", "enable it"),
        ("KMSInvalidStateException", "enable it"),
        ("ExpiredTokenException", "renew"),
        ("KMSInternalException", "check region"),
    ],
)
def test_errors_of_kms_fail_closed(code: str, hint: str, make: Any, relay: Relay, recording: Any) -> None:
    ran: list[int] = []
    configure(engine=recording, identity=make())
    step = kest_verified("work")(lambda: ran.append(1))
    step()
    entries = len(get_current_passport())
    relay.rule = lambda request: failing(code) if "Sign" in request.operation else None
    with pytest.raises(IdentityError) as caught:
        step()
    assert f"AWS kms sign failed with {code}: " in str(caught.value)
    assert hint in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert (len(ran), len(get_current_passport())) == (1, entries)
    relay.rule = lambda request: None
    step()
    assert len(ran) == 2


def test_a_throttled_request_is_tried_once_more(make: Any, relay: Relay) -> None:
    relay.rule = lambda request: (
        failing("ThrottlingException") if "Sign" in request.operation and relay.count("Sign") == 1 else None
    )
    assert sign_payload(make(), b"{}")
    assert relay.count("Sign") == 2


@pytest.mark.parametrize("operation", ["GetCallerIdentity", "GetPublicKey", "Sign"])
@pytest.mark.parametrize("fault", ["stalls", "cut", "nonsense"])
async def test_faults_of_the_network_fail_closed(
    fault: str, operation: str, make: Any, relay: Relay, recording: Any
) -> None:
    gate = Gate(operation)

    def rule(request: Request) -> Answer | None:
        if operation not in request.operation:
            return None
        if fault == "stalls":
            return gate(request)
        if fault == "cut":
            raise Cut
        return Answer(200, b"<html>welcome to the hotel's network</html>", "text/html")

    relay.rule = rule
    ran: list[int] = []
    configure(engine=recording, identity=make(timeout=0.2))

    @kest_verified("work")
    async def step() -> None:
        ran.append(1)

    with pytest.raises(KestError):
        kest_verified("work")(lambda: ran.append(1))()
    with pytest.raises(KestError):
        await step()
    assert not ran
    assert len(get_current_passport()) == 0
    gate.open()


async def test_latency_of_kms_is_hidden_from_the_loop(make: Any, relay: Relay, recording: Any) -> None:
    """Sixteen calls wait for KMS at the same time, and the loop, which lets them go on, is not one of those that wait."""
    identity = make()
    identity.public_jwk()
    configure(engine=recording, identity=identity)
    gate = Gate("Sign")
    relay.rule = gate
    ran: list[int] = []

    @kest_verified("work")
    async def step(number: int) -> None:
        ran.append(number)

    calls = [asyncio.create_task(step(number)) for number in range(16)]
    assert await asyncio.to_thread(gate.wait_for, 16)
    assert not ran
    gate.open()
    await asyncio.gather(*calls)
    assert sorted(ran) == list(range(16))


async def test_kms_that_keeps_a_request_is_given_up(make: Any, relay: Relay, recording: Any) -> None:
    class Impatient(AWSWorkloadIdentity):
        call_timeout = 0.3

    identity = Impatient("alias/kest", timeout=60)
    identity.public_jwk()
    gate = Gate("Sign")
    relay.rule = gate
    configure(engine=recording, identity=identity)
    ran: list[int] = []

    @kest_verified("work")
    async def step() -> None:
        ran.append(1)

    late = r"Impatient did not answer within 0\.3 s"
    with pytest.raises(IdentityError, match=late):
        kest_verified("work")(lambda: ran.append(1))()
    with pytest.raises(IdentityError, match=late):
        await step()
    assert not ran
    gate.open()
    identity.close()


@pytest.mark.parametrize(
    ("key", "message"), [("P-384", "ECC_NIST_P256"), ("encrypt", "SIGN_VERIFY"), ("alias/none", "check the key id")]
)
def test_keys_that_cannot_sign_entries(key: str, message: str, make: Any) -> None:
    with pytest.raises(KestError, match=message):
        make(key).public_jwk()


def test_the_default_identity_is_kms_or_an_error(
    aws: SimpleNamespace, relay: Relay, monkeypatch: pytest.MonkeyPatch, run_python: Any
) -> None:
    command = "import sys; from kest.cli.main import main; sys.exit(main(['identity', '--explain']))"
    monkeypatch.setenv("KEST_KMS_KEY_ID", "alias/kest")
    found = get_default_identity()
    assert isinstance(found, AWSWorkloadIdentity)
    found.close()
    said = run_python(command).stdout
    assert "1. spire  no      SPIFFE_ENDPOINT_SOCKET is not set" in said
    assert "2. aws    chosen  KEST_KMS_KEY_ID names a key" in said
    assert f"arn:aws:sts::{ACCOUNT}:user/moto" in said
    relay.rule = lambda request: failing("AccessDeniedException")
    with pytest.raises(IdentityError, match="AccessDenied"):
        get_default_identity()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(IdentityError, match="no answer: check the network"):
        get_default_identity()
    down = run_python(command, expect=1)
    assert "2. aws    chosen" in down.stdout
    assert "principal" not in down.stdout
    assert "no answer: check the network" in down.stderr


def test_a_bedrock_agent_signs_with_the_key_of_its_workload(
    aws: SimpleNamespace, make: Any, relay: Relay, recording: Any, payload_of: Any
) -> None:
    credentials = aws.sts.assume_role(RoleArn=aws.role, RoleSessionName="agent")["Credentials"]
    identity = BedrockAgentIdentity("ABCDEFGHIJ", "TSTALIASID", signer=make(session=session(credentials)))
    principal = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:agent-alias/ABCDEFGHIJ/TSTALIASID"
    configure(engine=recording, identity=identity)
    ran: list[int] = []
    step = kest_verified("work")(lambda: ran.append(1))
    step()
    passport = get_current_passport()
    assert PassportVerifier.verify(passport, {principal: identity.public_jwk()}).principals == {principal}
    labels = payload_of(passport.entries[0])["labels"]
    assert labels["kest.bedrock.signer"] == ROLE
    assert labels["kest.bedrock.agent"] == "ABCDEFGHIJ"
    for code in ("AccessDeniedException", "ThrottlingException"):
        relay.rule = lambda request, code=code: failing(code)  # type: ignore[misc]
        with pytest.raises(IdentityError, match=code):
            step()
    assert ran == [1]
