"""kest-agent: a person hands over a task; the agent has it authorised, and executed, on the person's behalf."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from workload import Job, Service, arrived, facts, job_id, proof

from kest import kest_verified
from kest.core.context import get_current_jwt

__all__ = ["build"]

GATEWAY = "kest-gateway"


def build(app: FastAPI, service: Service) -> None:
    """Add the agent's route."""

    @app.post("/delegate")
    @kest_verified(
        "delegation_policy",
        source_type="internet",
        added_taints=["unchecked-request"],
        resource_id=job_id,
        resource_attr=facts,
        operation_name="delegate",
        agent=service.name,
    )
    async def delegate(job: Job) -> dict[str, Any]:
        token = get_current_jwt()
        assert token is not None  # the middleware requires one
        body = job.model_dump()
        # On behalf of: the person stays the subject, the agent becomes the actor. Delegating further is not passed on.
        scope = " ".join(name for name in facts()["scopes"] if name != "delegate")
        obo = await service.tokens.exchange(token, GATEWAY, scope=scope)
        granted = await service.call(GATEWAY, "/authorise", body, obo)
        service.returned(granted)
        done = await service.call(GATEWAY, "/execute-task", body, granted["task_token"])
        service.returned(done)
        return {
            "report": done["report"],
            "carried": arrived() + granted["carried"] + done["carried"],
            **proof(),
        }
