"""Workload identities: who signs. Each provider, and the library it needs, is loaded when it is first named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kest.lazy import lazy

if TYPE_CHECKING:
    from kest.core.identity.aws import AWSWorkloadIdentity
    from kest.core.identity.base import (
        BaseIdentity,
        IdentityProvider,
        async_principal_of,
        async_sign_payload,
        checked_jws,
        principal_of,
        sign_payload,
        signing_input,
    )
    from kest.core.identity.bedrock import BedrockAgentIdentity
    from kest.core.identity.detect import IdentitySource, explain_default_identity, get_default_identity
    from kest.core.identity.jws import ecdsa_der_to_raw
    from kest.core.identity.keys import public_jwk, read_private_key, write_private_key
    from kest.core.identity.local import LocalEd25519Provider
    from kest.core.identity.mock import MockIdentityProvider
    from kest.core.identity.oidc import OIDCIdentity
    from kest.core.identity.spire import SPIREProvider
    from kest.core.identity.static import StaticIdentity

__all__ = [
    "AWSWorkloadIdentity",
    "BaseIdentity",
    "BedrockAgentIdentity",
    "IdentityProvider",
    "IdentitySource",
    "LocalEd25519Provider",
    "MockIdentityProvider",
    "OIDCIdentity",
    "SPIREProvider",
    "StaticIdentity",
    "async_principal_of",
    "async_sign_payload",
    "checked_jws",
    "ecdsa_der_to_raw",
    "explain_default_identity",
    "get_default_identity",
    "principal_of",
    "public_jwk",
    "read_private_key",
    "sign_payload",
    "signing_input",
    "write_private_key",
]

__getattr__, __dir__ = lazy(
    globals(),
    {
        "AWSWorkloadIdentity": ".aws",
        "BaseIdentity": ".base",
        "BedrockAgentIdentity": ".bedrock",
        "IdentityProvider": ".base",
        "IdentitySource": ".detect",
        "LocalEd25519Provider": ".local",
        "MockIdentityProvider": ".mock",
        "OIDCIdentity": ".oidc",
        "SPIREProvider": ".spire",
        "StaticIdentity": ".static",
        "async_principal_of": ".base",
        "async_sign_payload": ".base",
        "checked_jws": ".base",
        "ecdsa_der_to_raw": ".jws",
        "explain_default_identity": ".detect",
        "get_default_identity": ".detect",
        "principal_of": ".base",
        "public_jwk": ".keys",
        "read_private_key": ".keys",
        "sign_payload": ".base",
        "signing_input": ".base",
        "write_private_key": ".keys",
    },
)
