"""The handlers of `serving_app`: the least one, and one as services have them: models in, rows written, models out."""

from __future__ import annotations

import sqlite3
import tempfile
from functools import cache
from pathlib import Path
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


@cache
def orders() -> sqlite3.Connection:
    """A database file of this process's, as small services keep it; nothing waits for the disk."""
    folder = tempfile.TemporaryDirectory(prefix="kest-orders-")
    database = sqlite3.connect(Path(folder.name) / "orders.db", isolation_level=None)
    database.executescript(
        """PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
        CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, currency TEXT, note TEXT);
        CREATE TABLE lines (ordered INTEGER, sku TEXT, title TEXT, quantity INTEGER, price REAL);
        CREATE INDEX lines_of ON lines (ordered);"""
    )
    _folders.append(folder)
    return database


_folders: list[Any] = []  # removed when the process ends


async def place_order(order: Order) -> Receipt:
    database = orders()
    database.execute("BEGIN")
    number = database.execute(
        "INSERT INTO orders (customer, currency, note) VALUES (?, ?, ?)",
        (order.customer.id, order.currency, order.note),
    ).lastrowid
    database.executemany(
        "INSERT INTO lines VALUES (?, ?, ?, ?, ?)",
        [(number, line.sku, line.title, line.quantity, line.price) for line in order.lines],
    )
    items, total = database.execute(
        "SELECT sum(quantity), sum(quantity * price) FROM lines WHERE ordered = ?", (number,)
    ).fetchone()
    database.execute("COMMIT")
    return Receipt(customer=order.customer.id, items=items, total=total, currency=order.currency)
