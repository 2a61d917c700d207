"""hop1, hop2 and hop3: each does its part of the task and hands on."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field
from workload import PROCESS_DATA, Service, arrived, facts, proof

from kest import kest_verified
from kest.core.context import get_current_jwt

__all__ = ["build"]

NEXT = {"hop1": "hop2", "hop2": "hop3"}


class Work(BaseModel):
    """What one hop hands to the next."""

    readings: list[float] = Field(max_length=1000)
    report: dict[str, int | float] = {}


def clean(work: Work) -> Work:
    """hop1: without what cannot be."""
    middle = median(work.readings)
    return Work(readings=[reading for reading in work.readings if abs(reading - middle) <= 10])


def summarise(work: Work) -> Work:
    """hop2: numbers instead of readings."""
    report = {"count": len(work.readings), "mean": mean(work.readings), "highest": max(work.readings)}
    return Work(readings=[], report=report)


def publish(work: Work) -> Work:
    """hop3: as it is shown."""
    return Work(readings=[], report={name: round(value, 2) for name, value in work.report.items()})


STEPS = {"hop1": clean, "hop2": summarise, "hop3": publish}


def build(app: FastAPI, service: Service) -> None:
    """Add the hop's route."""
    step, onward = STEPS[service.name], NEXT.get(service.name)

    @app.post("/process")
    @kest_verified("workload_user_policy", resource_attr=facts, operation_name=f"{service.name}.process")
    async def process(work: Work) -> dict[str, Any]:
        done = step(work)
        if onward is None:
            return {"report": done.report, "carried": arrived(), **proof()}
        token = get_current_jwt()
        assert token is not None
        # A token for the next hop only, with this one as its actor: here it is good for nothing else.
        passed = await service.tokens.exchange(token, onward, scope=PROCESS_DATA)
        answer = await service.call(onward, "/process", done.model_dump(), passed)
        return {**answer, "carried": arrived() + answer["carried"]}
