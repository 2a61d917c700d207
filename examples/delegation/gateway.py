"""kest-gateway: checks what an agent wants to do for a person, hands out a token for that task only, and executes it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from workload import PROCESS_DATA, Job, Service, arrived, facts, job_id, proof

from kest import kest_verified
from kest.core.context import get_current_jwt

__all__ = ["build"]

LIMIT = 1e6


def build(app: FastAPI, service: Service) -> None:
    """Add the gateway's routes."""

    # The one place where trust is raised: the gateway vouches for what it has checked, and signs that it does.
    @app.post("/authorise")
    @kest_verified(
        "gateway_policy",
        trust_override=100,
        removed_taints=["unchecked-request"],
        resource_id=job_id,
        resource_attr=facts,
        context_map={"scope": lambda job: f"task:{job.task}"},
        operation_name="authorise",
        classification="sanitizer",
    )
    async def authorise(job: Job) -> dict[str, Any]:
        if not all(-LIMIT < reading < LIMIT for reading in job.readings):
            raise ValueError("readings are out of range")
        token = get_current_jwt()
        assert token is not None
        # Less than what came: one scope. The actor stays who it was, the gateway does not act here.
        task_token = await service.tokens.exchange(token, service.name, scope=f"task:{job.task}", act=False)
        return {"task_token": task_token, "carried": arrived(), **proof()}

    @app.post("/execute-task")
    @kest_verified("task_policy", resource_id=job_id, resource_attr=facts, operation_name="execute-task")
    async def execute_task(job: Job) -> dict[str, Any]:
        token = get_current_jwt()
        assert token is not None
        onward = await service.tokens.exchange(token, "hop1", scope=PROCESS_DATA)
        done = await service.call("hop1", "/process", {"readings": job.readings}, onward)
        return {**done, "carried": arrived() + done["carried"]}
