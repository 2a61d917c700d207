"""Amazon Verified Permissions as far as a policy engine sees it: botocore's own client, whose requests end in cedarpy.

No simulator of the service is to be had (moto has none). What is real here: botocore validates and serialises every request
and validates every answer by AWS's own model of the API, and current Cedar decides. What is not: the network, credentials,
and the service.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["client"]


def client(policies: str, **options: Any) -> Any:
    """A boto3 client whose policy store holds ``policies``."""
    import boto3
    import cedarpy
    from botocore.awsrequest import AWSResponse
    from botocore.validate import ParamValidator

    policy_set = cedarpy.PolicySet.from_str(policies)
    made = boto3.client(
        "verifiedpermissions", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x", **options
    )

    def entity(kind: str, asked: dict[str, Any]) -> dict[str, str]:
        return {"type": asked[f"{kind}Type"], "id": asked[f"{kind}Id"]}

    def decided(asked: dict[str, Any]) -> dict[str, Any]:
        request = {
            "principal": entity("entity", asked["principal"]),
            "action": entity("action", asked["action"]),
            "resource": entity("entity", asked["resource"]),
            "context": {name: _cedar(value) for name, value in asked["context"]["contextMap"].items()},
        }
        answer = cedarpy.is_authorized(request, policy_set, [])
        return {
            "decision": "ALLOW" if answer.allowed else "DENY",
            "determiningPolicies": [{"policyId": reason} for reason in answer.diagnostics.reasons],
            "errors": [{"errorDescription": text} for text in answer.diagnostics.errors],
        }

    def answer(model: Any, params: dict[str, Any], **_: Any) -> tuple[AWSResponse, dict[str, Any]]:
        asked = json.loads(params["body"])
        if model.name == "IsAuthorized":
            document = decided(asked)
        else:
            document = {"results": [{"request": each, **decided(each)} for each in asked["requests"]]}
        problems = ParamValidator().validate(document, model.output_shape)
        assert not problems.has_errors(), problems.generate_report()
        return AWSResponse("https://verifiedpermissions", 200, {}, None), document

    made.meta.events.register("before-call.verifiedpermissions", answer)
    return made


def _cedar(value: dict[str, Any]) -> Any:
    """An AttributeValue in Cedar's JSON dialect."""
    ((kind, content),) = value.items()
    if kind == "set":
        return [_cedar(item) for item in content]
    if kind == "record":
        return {name: _cedar(item) for name, item in content.items()}
    if kind == "decimal":
        return {"__extn": {"fn": "decimal", "arg": content}}
    assert kind in ("boolean", "long", "string"), kind
    return content
