"""The identity of an Amazon Bedrock agent."""

from __future__ import annotations

import os
import re
from typing import Any

from kest.core.identity.aws import AWSWorkloadIdentity
from kest.core.identity.base import BaseIdentity
from kest.core.identity.jws import compact, signing_input
from kest.errors import ConfigurationError, IdentityError

__all__ = ["AGENT_VARIABLE", "ALIAS_VARIABLE", "BedrockAgentIdentity"]

AGENT_VARIABLE = "BEDROCK_AGENT_ID"
ALIAS_VARIABLE = "BEDROCK_AGENT_ALIAS_ID"
# Bedrock's AgentId and AgentAliasId (API reference of GetAgentAlias).
_ID = re.compile(r"[0-9A-Za-z]{10}")
_ARN = re.compile(r"arn:([^:]+):(?:sts|iam)::(\d{12}):.+")


class BedrockAgentIdentity(BaseIdentity):
    """An agent's name with the key of the workload that runs it.

    The principal is the ARN of the agent's alias, ``arn:aws:bedrock:<region>:<account>:agent-alias/<agent>/<alias>``.
    Bedrock gives an agent no key of its own, so a signer does the signing: by default the workload's KMS key.

    Args:
        agent_id: ten letters and digits; None: the environment variable BEDROCK_AGENT_ID.
        alias_id: likewise, BEDROCK_AGENT_ALIAS_ID (TSTALIASID is Bedrock's test alias).
        region: AWS region of the agent; None: the signer's.
        signer: an `AWSWorkloadIdentity`, or any other `BaseIdentity`; then give `account` and `region` too.
        account: twelve digits; None: the account of the signer's ARN.
    """

    __slots__ = ("_account", "_agent", "_alias", "_key", "_region")

    def __init__(
        self,
        agent_id: str | None = None,
        alias_id: str | None = None,
        *,
        region: str | None = None,
        signer: BaseIdentity | None = None,
        account: str | None = None,
    ) -> None:
        self._agent = _checked_id("agent_id", agent_id, AGENT_VARIABLE)
        self._alias = _checked_id("alias_id", alias_id, ALIAS_VARIABLE)
        if account is not None and not re.fullmatch(r"\d{12}", account):
            raise ConfigurationError("BedrockAgentIdentity: account must be twelve digits")
        self._key = signer if signer is not None else AWSWorkloadIdentity(region=region)
        self._region = region
        self._account = account

    @property
    def blocking(self) -> bool:
        return self._key.blocking

    @property
    def algorithm(self) -> str:
        return self._key.algorithm

    def get_identity(self) -> str:
        partition, account, region = "aws", self._account, self._region
        if isinstance(self._key, AWSWorkloadIdentity):
            match = _ARN.fullmatch(self._key.arn)
            if match is not None:
                partition, account = match[1], account or match[2]
            region = region or self._key.region
        if not account or not region:
            raise ConfigurationError(
                "BedrockAgentIdentity cannot tell the agent's account or region from its signer: pass account=… "
                "and region=…"
            )
        return f"arn:{partition}:bedrock:{region}:{account}:agent-alias/{self._agent}/{self._alias}"

    def sign_message(self, message: bytes) -> bytes:
        return self._key.sign_message(message)

    def sign(self, payload: bytes) -> str:
        if getattr(self._key, "x5c", None):
            raise IdentityError("a certificate chain names its own subject: use that identity itself, not as a signer")
        _, message = signing_input(self.get_identity(), payload, self.algorithm)
        return compact(message, self.sign_message(message))

    def public_jwk(self) -> dict[str, Any]:
        return {**self._key.public_jwk(), "kid": self.get_identity()}

    def labels(self) -> dict[str, str]:
        return {
            **self._key.labels(),
            "kest.bedrock.agent": self._agent,
            "kest.bedrock.alias": self._alias,
            "kest.bedrock.signer": self._key.get_identity(),
        }

    def close(self) -> None:
        self._key.close()

    def __repr__(self) -> str:
        return f"BedrockAgentIdentity({self._agent!r}, {self._alias!r})"


def _checked_id(name: str, value: str | None, variable: str) -> str:
    found = value if value is not None else os.environ.get(variable, "")
    if not _ID.fullmatch(found):
        raise ConfigurationError(
            f"BedrockAgentIdentity: {name} must be ten letters or digits; pass it or set {variable}"
        )
    return found
