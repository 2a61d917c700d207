"""AWS identities: principals of ARNs, signatures by KMS, agents of Bedrock."""

from __future__ import annotations

from typing import Any

import pytest
from identity_samples import PAYLOAD, PRINCIPAL, ROLE, ROLE_SESSION, SEED, parts, verifies

from kest.core.identity import (
    BedrockAgentIdentity,
    StaticIdentity,
    async_sign_payload,
    get_default_identity,
    sign_payload,
)
from kest.core.identity.aws import AWSWorkloadIdentity, normalise_arn
from kest.errors import ConfigurationError, IdentityError, KestError


def test_arns_are_normalised() -> None:
    assert normalise_arn(ROLE_SESSION) == ROLE
    assert normalise_arn("arn:aws-cn:sts::123456789012:assumed-role/a.b/s@x") == "arn:aws-cn:iam::123456789012:role/a.b"
    for same in ("arn:aws:iam::123456789012:user/p/u", "arn:aws:iam::123456789012:root", "x"):
        assert normalise_arn(same) == same
    assert normalise_arn("arn:aws:sts::123456789012:federated-user/u").endswith("federated-user/u")


class FakeAWS:
    """A session whose KMS does real cryptography, and checks its requests as KMS does."""

    def __init__(self, spec: str) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        self.key: Any = {
            "ECC_NIST_P256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ECC_NIST_P384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "RSA_2048": lambda: rsa.generate_private_key(65537, 2048),
            "ECC_NIST_EDWARDS25519": ed25519.Ed25519PrivateKey.generate,
        }[spec]()
        self.spec, self.usage, self.requests = spec, "SIGN_VERIFY", []
        self.failure: Exception | None = None
        self.signature: Any = None

    def client(self, service: str, **options: Any) -> FakeAWS:
        return self

    def get_caller_identity(self) -> dict[str, Any]:
        return {"Arn": ROLE_SESSION, "Account": "123456789012"}

    def get_public_key(self, KeyId: str) -> dict[str, Any]:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        algorithms = {"E": ["ECDSA_SHA_256"], "R": ["RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_256"]}[self.spec[0]]
        if "EDWARDS" in self.spec:
            algorithms = ["ED25519_SHA_512"]
        der = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "KeyId": "arn:key", "KeySpec": self.spec, "KeyUsage": self.usage,
            "PublicKey": der, "SigningAlgorithms": algorithms,
        }  # fmt: skip

    def sign(self, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> dict[str, Any]:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

        assert KeyId == "arn:key"
        assert len(Message) <= 4096
        self.requests.append(MessageType)
        if self.failure:
            raise self.failure
        digest: Any = utils.Prehashed(hashes.SHA256()) if MessageType == "DIGEST" else hashes.SHA256()
        if SigningAlgorithm == "ECDSA_SHA_256":
            signature = self.key.sign(Message, ec.ECDSA(digest))
        elif SigningAlgorithm == "RSASSA_PKCS1_V1_5_SHA_256":
            signature = self.key.sign(Message, padding.PKCS1v15(), digest)
        else:
            signature = self.key.sign(Message)
        return {"Signature": self.signature or signature, "SigningAlgorithm": SigningAlgorithm, "KeyId": KeyId}


@pytest.fixture
def _aws() -> None:
    pytest.importorskip("boto3")
    pytest.importorskip("cryptography")


@pytest.mark.usefixtures("_aws")
@pytest.mark.parametrize(
    ("spec", "alg"), [("ECC_NIST_P256", "ES256"), ("RSA_2048", "RS256"), ("ECC_NIST_EDWARDS25519", "EdDSA")]
)
async def test_aws_signs_with_kms(spec: str, alg: str) -> None:
    session = FakeAWS(spec)
    identity = AWSWorkloadIdentity("alias/kest", session=session)
    assert identity.get_identity() == ROLE
    assert identity.labels() == {"kest.aws.arn": ROLE_SESSION}
    for _ in range(20):  # r and s of every length
        jws = sign_payload(identity, PAYLOAD)
        assert parts(jws)[0] == {"alg": alg, "kid": ROLE, "typ": "JWS"}
        assert verifies(jws, identity.public_jwk())
    assert await async_sign_payload(identity, PAYLOAD)
    large = b"x" * 5000
    if alg == "EdDSA":
        with pytest.raises(IdentityError, match="4096"):
            identity.sign(large)
    else:
        assert verifies(identity.sign(large), identity.public_jwk())
        assert session.requests[-1] == "DIGEST"


@pytest.mark.usefixtures("_aws")
def test_aws_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    monkeypatch.delenv("KEST_KMS_KEY_ID", raising=False)
    session = FakeAWS("ECC_NIST_P256")
    keyless = AWSWorkloadIdentity(session=session)
    assert keyless.get_identity() == ROLE
    with pytest.raises(ConfigurationError, match="KEST_KMS_KEY_ID"):
        keyless.sign(PAYLOAD)
    monkeypatch.setenv("KEST_KMS_KEY_ID", "key")
    assert keyless.sign(PAYLOAD)
    with pytest.raises(ConfigurationError, match="ECC_NIST_P256"):
        AWSWorkloadIdentity("k", session=FakeAWS("ECC_NIST_P384")).sign(PAYLOAD)
    session.usage = "ENCRYPT_DECRYPT"
    with pytest.raises(ConfigurationError, match="SIGN_VERIFY"):
        AWSWorkloadIdentity("k", session=session).sign(PAYLOAD)
    session.usage = "SIGN_VERIFY"
    identity = AWSWorkloadIdentity("k", session=session)
    session.failure = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "secret text"}}, "Sign")
    with pytest.raises(IdentityError, match="kms:Sign") as caught:
        sign_payload(identity, PAYLOAD)
    assert "secret text" not in str(caught.value)
    session.failure = TimeoutError("secret text")
    with pytest.raises(IdentityError, match="TimeoutError"):
        sign_payload(identity, PAYLOAD)
    session.failure = None
    for stub in (b"pending", "pending", 7, b"x" * 71):
        session.signature = stub
        with pytest.raises(IdentityError):
            sign_payload(identity, PAYLOAD)


def test_aws_against_moto(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not "moto" alone: the folder tools/services/moto would pass for it.
    pytest.importorskip("moto.core", reason="moto (the AWS simulator) is not installed")
    import moto

    boto3 = pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with moto.mock_aws():
        kms = boto3.client("kms")
        for spec, alg in (("ECC_NIST_P256", "ES256"), ("RSA_2048", "RS256")):
            key = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
            identity = AWSWorkloadIdentity(key)
            jws = sign_payload(identity, PAYLOAD)
            assert parts(jws)[0]["alg"] == alg
            assert verifies(jws, identity.public_jwk())
            assert identity.get_identity().startswith("arn:aws:")
            identity.close()
            assert sign_payload(identity, PAYLOAD)
        monkeypatch.setenv("KEST_KMS_KEY_ID", key)
        monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
        assert isinstance(get_default_identity(), AWSWorkloadIdentity)
        bedrock = BedrockAgentIdentity("ABCDEFGHIJ", "TSTALIASID")
        assert bedrock.get_identity() == "arn:aws:bedrock:eu-central-1:123456789012:agent-alias/ABCDEFGHIJ/TSTALIASID"
        assert verifies(sign_payload(bedrock, PAYLOAD), bedrock.public_jwk())
        monkeypatch.setenv("KEST_KMS_KEY_ID", "no-such-key")
        with pytest.raises(KestError):
            get_default_identity()


def test_bedrock_composes_a_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEDROCK_AGENT_ID", "ABCDEFGHIJ")
    monkeypatch.setenv("BEDROCK_AGENT_ALIAS_ID", "0123456789")
    key = StaticIdentity(PRINCIPAL, key=SEED)
    identity = BedrockAgentIdentity(signer=key, account="123456789012", region="us-east-1")
    principal = "arn:aws:bedrock:us-east-1:123456789012:agent-alias/ABCDEFGHIJ/0123456789"
    jws = sign_payload(identity, PAYLOAD)
    assert parts(jws)[0] == {"alg": "EdDSA", "kid": principal, "typ": "JWS"}
    assert verifies(jws, identity.public_jwk())
    assert identity.labels()["kest.bedrock.signer"] == PRINCIPAL
    with pytest.raises(ConfigurationError, match="account"):
        BedrockAgentIdentity(signer=key).get_identity()
    for bad in ("short", "ABCDEFGHI/", ""):
        with pytest.raises(ConfigurationError):
            BedrockAgentIdentity(bad, "ABCDEFGHIJ")
    monkeypatch.delenv("BEDROCK_AGENT_ID")
    with pytest.raises(ConfigurationError, match="BEDROCK_AGENT_ID"):
        BedrockAgentIdentity()
