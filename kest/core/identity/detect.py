"""Which identity a process has when nobody says: SPIRE, then AWS, then an ephemeral local key.

What the environment configures is used or is an error. Falling back from a configured source that does not answer would
turn a provable identity into a claim without anybody noticing (NF-SEC-04).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from kest.errors import ConfigurationError
from kest.locks import Lock

if TYPE_CHECKING:
    from kest.core.identity.base import BaseIdentity
    from kest.core.identity.local import LocalEd25519Provider

__all__ = ["IdentitySource", "explain_default_identity", "get_default_identity"]

_log = logging.getLogger("kest.identity")

_SPIRE = "SPIFFE_ENDPOINT_SOCKET"
_KMS_KEY = "KEST_KMS_KEY_ID"
_WEB_IDENTITY = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")

_lock = Lock()
_local: LocalEd25519Provider | None = None


class IdentitySource(NamedTuple):
    """One place that an identity could come from: its name, whether it is the one that is used, and why."""

    source: str
    chosen: bool
    reason: str


def explain_default_identity() -> list[IdentitySource]:
    """The sources in the order in which they are tried. Reads the environment only; nothing is connected."""
    spire, kms = os.environ.get(_SPIRE), os.environ.get(_KMS_KEY)
    web = [name for name in _WEB_IDENTITY if os.environ.get(name)]
    aws = bool(kms) or len(web) == 2
    if kms:
        aws_reason = f"{_KMS_KEY} names a key"
    elif aws:
        aws_reason = f"{' and '.join(web)} are set, but {_KMS_KEY} is not: using it is an error until a key is named"
    else:
        aws_reason = f"neither {_KMS_KEY} nor {' with '.join(_WEB_IDENTITY)} is set"
    passed_over = "a source before it is configured"
    return [
        IdentitySource("spire", bool(spire), f"{_SPIRE} is {spire}" if spire else f"{_SPIRE} is not set"),
        IdentitySource("aws", aws and not spire, passed_over if spire else aws_reason),
        IdentitySource(
            "local",
            not spire and not aws,
            passed_over if spire or aws else "nothing else is configured: an ephemeral Ed25519 key, for development",
        ),
    ]


def get_default_identity() -> BaseIdentity:
    """The identity that the environment provides. Connects to it, so call it at start-up, not on an event loop.

    Order: SPIRE (SPIFFE_ENDPOINT_SOCKET), AWS (KEST_KMS_KEY_ID, or web identity credentials), an ephemeral local key,
    one for the whole process, with one warning.

    Raises:
        IdentityError: the source that is configured does not answer.
        ConfigurationError: it is configured incompletely, or its client library is missing.
    """
    chosen = next(source for source in explain_default_identity() if source.chosen)
    _log.info("identity source: %s (%s)", chosen.source, chosen.reason)
    if chosen.source == "spire":
        from kest.core.identity.spire import SPIREProvider

        spire = SPIREProvider()
        spire.open()
        return spire
    if chosen.source == "aws":
        if not os.environ.get(_KMS_KEY):
            raise ConfigurationError(
                f"this workload has AWS credentials ({_WEB_IDENTITY[1]}) but no key to sign with: set {_KMS_KEY} to an "
                "asymmetric KMS key, or pass an identity to kest.configure(identity=…)"
            )
        from kest.core.identity.aws import AWSWorkloadIdentity

        aws = AWSWorkloadIdentity()
        aws.public_jwk()  # both STS and KMS must answer
        return aws
    return _local_identity()


def _local_identity() -> LocalEd25519Provider:
    global _local
    with _lock:
        if _local is None:
            from kest.core.identity.local import DEFAULT_PRINCIPAL, LocalEd25519Provider, warn

            warn(DEFAULT_PRINCIPAL, "no workload identity is configured")
            _local = LocalEd25519Provider()
        return _local
