"""The handlers of `serving_app`: the least one, and one as services have them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

__all__ = ["Order", "Receipt", "get_order", "place_order"]


class Customer(BaseModel):
    id: str
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    country: str = Field(min_length=2, max_length=2)


class Line(BaseModel):
    sku: str
    title: str
    quantity: int = Field(ge=1)
    price: float = Field(ge=0)


class Order(BaseModel):
    customer: Customer
    currency: str = Field(min_length=3, max_length=3)
    lines: list[Line] = Field(min_length=1)
    note: str | None = None


class Receipt(BaseModel):
    customer: str
    items: int
    total: float
    currency: str


async def get_order(order: int, region: str = "eu") -> Any:
    return {"order": order}


async def place_order(order: Order) -> Receipt:
    return Receipt(
        customer=order.customer.id,
        items=sum(line.quantity for line in order.lines),
        total=sum(line.quantity * line.price for line in order.lines),
        currency=order.currency,
    )
