"""Workload identity on AWS: STS says who we are, KMS signs for us."""

from __future__ import annotations

import os
import re
from typing import Any

from kest import _kestcore
from kest.core.identity.base import BaseIdentity, checked_principal
from kest.core.identity.jws import ecdsa_der_to_raw
from kest.errors import ConfigurationError, IdentityError, KestError, KeyFormatError, MissingExtraError
from kest.locks import Lock

__all__ = ["KEY_VARIABLE", "AWSWorkloadIdentity", "normalise_arn"]

KEY_VARIABLE = "KEST_KMS_KEY_ID"
# KMS takes messages up to this size; beyond it, the caller hashes.
_KMS_MESSAGE_LIMIT = 4096
_KMS_ALGORITHMS = {"ES256": "ECDSA_SHA_256", "RS256": "RSASSA_PKCS1_V1_5_SHA_256", "EdDSA": "ED25519_SHA_512"}
_ASSUMED_ROLE = re.compile(r"arn:([^:]+):sts::(\d{12}):assumed-role/([^/]+)/.+")


def normalise_arn(arn: str) -> str:
    """The principal for an ARN from STS GetCallerIdentity.

    An assumed role's session name changes with every process, so the role stands for it:
    ``arn:aws:sts::1:assumed-role/R/session`` becomes ``arn:aws:iam::1:role/R`` (role names are unique in an account;
    STS leaves out the role's path). Anything else stays as it is.
    """
    match = _ASSUMED_ROLE.fullmatch(arn)
    return f"arn:{match[1]}:iam::{match[2]}:role/{match[3]}" if match else arn


class AWSWorkloadIdentity(BaseIdentity):
    """Signs with an asymmetric KMS key; the principal is the ARN of the caller, with roles in their stable form.

    The key (SIGN_VERIFY) is ECC_NIST_P256 (ES256), RSA_2048 or larger (RS256) or ECC_NIST_EDWARDS25519 (EdDSA; its
    entries are bounded by KMS to 4,096 bytes). The private key never leaves KMS. An alias is resolved once, so that
    moving it does not change the key of a running process. Each signature is one request, so this identity blocks:
    async callers use `async_sign`. Needs kms:GetPublicKey and kms:Sign on the key.

    Args:
        kms_key_id: key id, ARN or alias; None: the environment variable KEST_KMS_KEY_ID.
        region: AWS region; None: what boto3 finds.
        session: a ``boto3.Session`` to use; None: a new one, made at first use.
        timeout: seconds for connecting and for reading an answer.
    """

    __slots__ = ("_arn", "_clients", "_key", "_kms_key_id", "_lock", "_pid", "_region", "_session", "_timeout")

    def __init__(
        self,
        kms_key_id: str | None = None,
        region: str | None = None,
        session: Any = None,
        *,
        timeout: float = 3.0,
    ) -> None:
        self._kms_key_id = kms_key_id
        self._region = region
        self._session = session
        self._timeout = timeout
        self._lock = Lock()
        self._pid = os.getpid()
        self._clients: dict[str, Any] = {}
        self._arn: str | None = None
        self._key: tuple[str, str, dict[str, Any]] | None = None  # key ARN, algorithm, public JWK

    @property
    def blocking(self) -> bool:
        """Always: each signature is a request."""
        return True

    @property
    def algorithm(self) -> str:
        return self._public_key()[1]

    @property
    def arn(self) -> str:
        """The ARN exactly as STS reports it."""
        with self._lock:
            if self._arn is None:
                answer = self._call("sts", "get_caller_identity")
                self._arn = checked_principal(answer.get("Arn"), "STS GetCallerIdentity")
            return self._arn

    @property
    def region(self) -> str | None:
        """The region that requests for the key go to."""
        name = getattr(getattr(self._client("kms"), "meta", None), "region_name", None) or self._region
        return None if name is None else str(name)

    def get_identity(self) -> str:
        return normalise_arn(self.arn)

    def public_jwk(self) -> dict[str, Any]:
        return {**self._public_key()[2], "kid": self.get_identity()}

    def sign_message(self, message: bytes) -> bytes:
        key_arn, alg, jwk = self._public_key()
        kms_algorithm = _KMS_ALGORITHMS[alg]
        request = {"KeyId": key_arn, "SigningAlgorithm": kms_algorithm, "MessageType": "RAW", "Message": message}
        if len(message) > _KMS_MESSAGE_LIMIT:
            if alg == "EdDSA":
                raise IdentityError(
                    f"this entry is {len(message)} bytes and KMS signs at most {_KMS_MESSAGE_LIMIT} with Ed25519 keys; "
                    "use an ECC_NIST_P256 key"
                )
            request |= {"MessageType": "DIGEST", "Message": _kestcore.sha256(message)}
        answer = self._call("kms", "sign", **request)
        signature = answer.get("Signature")
        if not isinstance(signature, bytes) or answer.get("SigningAlgorithm", kms_algorithm) != kms_algorithm:
            raise IdentityError("KMS Sign returned no signature, or one by another algorithm than was asked for")
        raw = ecdsa_der_to_raw(signature) if alg == "ES256" else signature
        # Each one is verified: that costs little beside a request, and an entry that nobody can verify is lost evidence.
        if not _kestcore.PublicKey.from_jwk(jwk).verify(message, raw):
            raise IdentityError(f"KMS Sign returned a signature that does not verify under the public key of {key_arn}")
        return raw

    def labels(self) -> dict[str, str]:
        return {"kest.aws.arn": self.arn}

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            close = getattr(client, "close", None)
            if callable(close):
                close()

    def __repr__(self) -> str:
        return f"AWSWorkloadIdentity({self._arn or 'not connected'!r})"

    def _public_key(self) -> tuple[str, str, dict[str, Any]]:
        with self._lock:
            if self._key is None:
                key_id = self._kms_key_id or os.environ.get(KEY_VARIABLE)
                if not key_id:
                    raise ConfigurationError(
                        "AWSWorkloadIdentity needs an asymmetric KMS key to sign with: pass kms_key_id or set "
                        f"{KEY_VARIABLE} to the key's id, ARN or alias"
                    )
                answer = self._call("kms", "get_public_key", KeyId=key_id)
                self._key = _usable_key(key_id, answer)
            return self._key

    def _call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        client = self._client(service)
        try:
            answer = getattr(client, operation)(**arguments)
        except KestError:
            raise
        except Exception as error:
            raise IdentityError(_explain(service, operation, error)) from error
        if not isinstance(answer, dict):
            raise IdentityError(f"AWS {service} {operation} returned something that is not an answer")
        return answer

    def _client(self, service: str) -> Any:
        with self._lock:  # clients are thread-safe, making them from a session is not
            if self._pid != os.getpid():  # connections are not shared with the process that forked this one
                self._pid, self._clients = os.getpid(), {}
            client = self._clients.get(service)
            if client is None:
                client = self._clients[service] = self._new_client(service)
            return client

    def _new_client(self, service: str) -> Any:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise MissingExtraError('AWSWorkloadIdentity needs boto3: pip install "kest[aws]"') from error
        config = Config(
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=32,
        )
        try:
            if self._session is None:
                self._session = boto3.Session(region_name=self._region)
            session: Any = self._session
            return session.client(service, region_name=self._region, config=config)
        except Exception as error:
            raise ConfigurationError(
                f"no AWS client for {service} ({type(error).__name__}): set the region (region=… or AWS_REGION) and "
                "the credentials of this workload"
            ) from error


def _usable_key(key_id: str, answer: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    der, arn = answer.get("PublicKey"), answer.get("KeyId")
    if answer.get("KeyUsage") != "SIGN_VERIFY" or not isinstance(der, bytes) or not isinstance(arn, str):
        raise ConfigurationError(f"KMS key {key_id!r} is not a key for signing (key usage SIGN_VERIFY)")
    try:
        key = _kestcore.PublicKey.from_spki(der)
    except KeyFormatError:
        key = None
    if key is None or _KMS_ALGORITHMS[key.alg] not in answer.get("SigningAlgorithms", ()):
        raise ConfigurationError(
            f"KMS key {key_id!r} ({answer.get('KeySpec')}) cannot sign entries: make one with key spec ECC_NIST_P256"
        )
    return arn, key.alg, {**key.public_jwk(), "use": "sig", "alg": key.alg}


_DENIED = "allow this role kms:GetPublicKey and kms:Sign on the key, in its own policy or in the key's"
_RENEW = "the credentials have expired: renew them"
_UNKNOWN = "AWS does not know these credentials: check where this workload gets them from"
_ABSENT = "this workload has no AWS credentials: give it a role"
_DOWN = "the key is disabled or about to be deleted: enable it, or name another"
_UNREACHED = "no answer: check the network, the region and the endpoint"
_HINTS = {
    "403": _DENIED,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "NotFoundException": "check the key id and the region",
    "DisabledException": _DOWN,
    "KMSInvalidStateException": _DOWN,
    "ExpiredToken": _RENEW,
    "ExpiredTokenException": _RENEW,
    "InvalidClientTokenId": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "NoCredentialsError": _ABSENT,
    "ThrottlingException": "the request quota of KMS is used up: ask AWS for more, or sign fewer calls with this key",
    "EndpointConnectionError": _UNREACHED,
    "ConnectTimeoutError": _UNREACHED,
    "ReadTimeoutError": _UNREACHED,
    "ConnectionClosedError": _UNREACHED,
}


def _explain(service: str, operation: str, error: Exception) -> str:
    # botocore's ClientError carries an error code; its text may name requests and accounts, so only the code is used.
    response = getattr(error, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    what = code or type(error).__name__
    hint = _HINTS.get(what, "check region, network and credentials of this workload")
    return f"AWS {service} {operation} failed with {what}: {hint}"
