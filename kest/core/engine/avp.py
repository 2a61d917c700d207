"""Decisions from Amazon Verified Permissions (Cedar as a service), through boto3."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from kest.core.engine.base import DecidingEngine, Decision, refuse_names
from kest.core.engine.deadline import call_with_deadline, check_timeout
from kest.core.engine.policy_input import cedar_context, input_json, resource_id, utf8, workload_id
from kest.errors import ConfigurationError, MissingExtraError, PolicyEngineError
from kest.locks import Lock

__all__ = ["AVPPolicyEngine"]

MAX_BATCH = 30
"""Requests that BatchIsAuthorized takes at a time."""


class AVPPolicyEngine(DecidingEngine):
    """Asks a Verified Permissions policy store: principal ``Workload::"<workload id>"``, action
    ``Action::"<policy name>"``, resource ``Resource::"<resource id or operation>"``, context flattened for Cedar
    (see `kest.core.engine.policy_input`). Several names go out as one batch; all must allow.

    Only ``"decision": "ALLOW"`` with no errors allows. Nothing is retried. Constructing it touches neither the network
    nor
    credentials: the client is made at the first decision.

    Args:
        policy_store_id: the policy store.
        region: AWS region; default: boto3's own configuration.
        client: a boto3 ``verifiedpermissions`` client to use instead of one made here (its timeouts are then yours).
        timeout: seconds for a whole decision.

    Raises:
        ConfigurationError: an argument cannot be used.
        MissingExtraError: boto3 is not installed and no client was given.
    """

    def __init__(
        self, policy_store_id: str, region: str | None = None, client: Any = None, *, timeout: float = 1.0
    ) -> None:
        if not isinstance(policy_store_id, str) or not policy_store_id:
            raise ConfigurationError("policy_store_id must be the id of a Verified Permissions policy store")
        if client is None and importlib.util.find_spec("boto3") is None:
            raise MissingExtraError('AVPPolicyEngine needs boto3: pip install "kest[aws]"')
        self._store = policy_store_id
        self._region = region
        self._timeout = check_timeout(timeout)
        self._given = client
        self._made: Any = None
        self._made_by = 0
        self._lock = Lock()

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Ask once, or once per 30 policy names; ``ids`` are the policies that determined the answers.

        Raises:
            PolicyEngineError: the service cannot be reached, is late, refuses, or answers something else.
        """
        refused = refuse_names(policy_names)
        if refused is not None:
            return refused
        flat = cedar_context(context)
        try:
            attributes = {name: _attribute(value) for name, value in flat.items()}
        except RecursionError:
            raise PolicyEngineError("the policy input is nested too deeply for Verified Permissions") from None
        shared = {
            "principal": {"entityType": "Workload", "entityId": workload_id(context)},
            "resource": {"entityType": "Resource", "entityId": resource_id(context)},
            "context": {"contextMap": attributes},
        }
        utf8(input_json(shared))  # botocore would send a lone surrogate as an escape, for the service to make sense of
        requests = [{**shared, "action": {"actionType": "Action", "actionId": name}} for name in policy_names]
        try:
            # botocore's timeouts are per read, and finding credentials has its own: one deadline around all of it.
            answers = call_with_deadline(lambda: self._ask(requests), self._timeout)
        except TimeoutError:
            raise PolicyEngineError(f"Verified Permissions did not answer within {self._timeout:g} s") from None
        except PolicyEngineError:
            raise
        except Exception as error:
            raise PolicyEngineError(f"Verified Permissions failed with {_kind(error)}") from error
        ids: list[str] = []
        for name, answer in zip(policy_names, answers, strict=True):
            decision = _read(name, answer, ids)
            if decision is not None:
                return decision
        return Decision(True, "", None, tuple(ids))

    def _ask(self, requests: list[dict[str, Any]]) -> list[Any]:
        client = self._client()
        if len(requests) == 1:
            return [client.is_authorized(policyStoreId=self._store, **requests[0])]
        answers: list[Any] = []
        for start in range(0, len(requests), MAX_BATCH):
            part = requests[start : start + MAX_BATCH]
            results = client.batch_is_authorized(policyStoreId=self._store, requests=part).get("results")
            if not isinstance(results, list) or len(results) != len(part):
                raise PolicyEngineError("Verified Permissions answered a batch with a different number of results")
            for asked, result in zip(part, results, strict=True):  # each result repeats what it answers
                echoed = result.get("request", {}).get("action") if isinstance(result, dict) else None
                if echoed != asked["action"]:
                    raise PolicyEngineError("Verified Permissions answered a batch with results for other requests")
            answers += results
        return answers

    def _client(self) -> Any:
        if self._given is not None:
            return self._given
        with self._lock:
            if self._made is None or self._made_by != os.getpid():  # its connections must not be shared with a parent
                boto3: Any = import_module("boto3")  # it has no type information
                config = import_module("botocore.config").Config(
                    connect_timeout=self._timeout, read_timeout=self._timeout, retries={"total_max_attempts": 1}
                )
                session = boto3.Session()  # the default session is not thread-safe
                self._made = session.client("verifiedpermissions", region_name=self._region, config=config)
                self._made_by = os.getpid()
            return self._made

    def close(self) -> None:
        """Close the client made here; one that was given stays open."""
        client, self._made = self._made, None
        if client is not None:
            client.close()

    def __repr__(self) -> str:
        return f"<AVPPolicyEngine asking policy store {self._store}>"


def _attribute(value: Any) -> dict[str, Any]:
    """A value of Cedar's JSON dialect as an AVP AttributeValue."""
    if isinstance(value, bool):
        return {"boolean": value}
    if isinstance(value, int):
        return {"long": value}
    if isinstance(value, str):
        return {"string": value}
    if isinstance(value, list):
        return {"set": [_attribute(item) for item in value]}
    extension = value.get("__extn")
    if extension is not None:  # only policy_input makes these: it refuses them in the input
        return {"decimal": extension["arg"]}
    return {"record": {name: _attribute(item) for name, item in value.items()}}


def _read(name: str, answer: Any, ids: list[str]) -> Decision | None:
    """The denial that one answer means for policy ``name``, or None if it allows; adds its policy ids to ``ids``."""
    if not isinstance(answer, dict):
        return Decision(False, "Verified Permissions gave no decision", name, tuple(ids))
    policies = answer.get("determiningPolicies")
    for policy in policies if isinstance(policies, list) else ():
        if isinstance(policy, dict) and isinstance(policy.get("policyId"), str):
            ids.append(policy["policyId"])
    if answer.get("errors"):
        return Decision(False, "Cedar could not evaluate every policy, which denies", name, tuple(ids))
    if answer.get("decision") == "ALLOW":
        return None
    return Decision(False, "Verified Permissions did not allow it", name, tuple(ids))


def _kind(error: Exception) -> str:
    """The service's error code where there is one; its message may repeat the request."""
    response = getattr(error, "response", None)
    details = response.get("Error") if isinstance(response, dict) else None
    code = details.get("Code") if isinstance(details, dict) else None
    return f"{type(error).__name__} ({code})" if isinstance(code, str) else type(error).__name__
