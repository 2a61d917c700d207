"""Amazon Verified Permissions."""

from __future__ import annotations

import importlib.util
import os
import time
from typing import Any

import pytest
from engine_samples import CONTEXT

from kest.core.engine import AVPPolicyEngine, Decision, decide, decide_async
from kest.errors import ConfigurationError, MissingExtraError, PolicyEngineError


class FakeAVP:
    """Stands in for the client; shapes are checked against botocore's models in the test below."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    def is_authorized(self, **request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers[0]
        return answer() if callable(answer) else answer

    def batch_is_authorized(self, **request: Any) -> Any:
        self.asked.append(request)
        results = [{"request": part, **answer} for part, answer in zip(request["requests"], self.answers, strict=False)]
        self.answers = self.answers[len(results) :]
        return {"results": results}


YES = {"decision": "ALLOW", "determiningPolicies": [{"policyId": "p1"}], "errors": []}
NO = {"decision": "DENY", "determiningPolicies": [], "errors": []}


def test_avp_decisions() -> None:
    engine = AVPPolicyEngine("ps-1", client=FakeAVP([YES]))
    assert decide(engine, "e", ["a"], CONTEXT) == Decision(True, "", None, ("p1",))
    for answer in (
        NO,
        {},
        {"decision": "Allow"},
        {**YES, "errors": [{"errorDescription": "x"}]},
        {"decision": True},
        None,
    ):
        assert decide(AVPPolicyEngine("ps-1", client=FakeAVP([answer])), "e", ["a"], CONTEXT).allowed is False
    many = FakeAVP([YES] * 70)
    assert decide(AVPPolicyEngine("ps-1", client=many), "e", [f"p{n}" for n in range(70)], CONTEXT).allowed is True
    assert [len(request["requests"]) for request in many.asked] == [30, 30, 10]
    decision = decide(AVPPolicyEngine("ps-1", client=FakeAVP([YES, NO])), "e", ["a", "b"], CONTEXT)
    assert (decision.allowed, decision.policy) == (False, "b")


def test_avp_batches_must_answer_what_was_asked() -> None:
    short = FakeAVP([YES])
    with pytest.raises(PolicyEngineError, match="number of results"):
        decide(AVPPolicyEngine("ps-1", client=short), "e", ["a", "b"], CONTEXT)
    swapped = FakeAVP([YES, NO])
    real = swapped.batch_is_authorized
    swapped.batch_is_authorized = lambda **request: {"results": real(**request)["results"][::-1]}  # type: ignore[method-assign]
    with pytest.raises(PolicyEngineError, match="other requests"):
        decide(AVPPolicyEngine("ps-1", client=swapped), "e", ["a", "b"], CONTEXT)


async def test_avp_failures() -> None:
    def fail() -> None:
        raise RuntimeError("s3cr3t")

    with pytest.raises(PolicyEngineError) as caught:
        decide(AVPPolicyEngine("ps-1", client=FakeAVP([fail])), "e", ["a"], CONTEXT)
    assert "s3cr3t" not in str(caught.value)
    start = time.monotonic()
    slow = AVPPolicyEngine("ps-1", client=FakeAVP([lambda: time.sleep(2)]), timeout=0.2)
    with pytest.raises(PolicyEngineError, match=r"0\.2 s"):
        await decide_async(slow, "e", ["a"], CONTEXT)
    assert time.monotonic() - start < 1.9
    with pytest.raises(ConfigurationError):
        AVPPolicyEngine("")


def test_document_sample_avp(monkeypatch: pytest.MonkeyPatch) -> None:

    if importlib.util.find_spec("boto3") is None:
        with pytest.raises(MissingExtraError, match=r"kest\[aws\]"):
            AVPPolicyEngine(policy_store_id="ps-abc123", region="us-east-1")
        pytest.skip("boto3 is not installed")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    AVPPolicyEngine(policy_store_id="ps-abc123", region="us-east-1").close()


def test_avp_requests_fit_botocore_models() -> None:
    boto3 = pytest.importorskip("boto3")
    from botocore.stub import ANY, Stubber

    client = boto3.client(
        "verifiedpermissions", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    context = {**CONTEXT, "args": {"f": 1.5, "s": ["a", 1, [True]], "r": {"x": "y"}, "big": 2**70}}
    with Stubber(client) as stub:
        answer = {
            **YES,
            "determiningPolicies": [{"policyId": "p1"}],
        }
        stub.add_response(
            "is_authorized",
            answer,
            {"policyStoreId": "ps-1", "principal": ANY, "action": ANY, "resource": ANY, "context": ANY},
        )
        assert decide(AVPPolicyEngine("ps-1", client=client), "e", ["a"], context).allowed is True
        results = [{"request": {"action": {"actionType": "Action", "actionId": name}}, **answer} for name in ("a", "b")]
        stub.add_response("batch_is_authorized", {"results": results}, {"policyStoreId": "ps-1", "requests": ANY})
        assert decide(AVPPolicyEngine("ps-1", client=client), "e", ["a", "b"], context).allowed is True
