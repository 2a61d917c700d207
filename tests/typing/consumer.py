"""What a user's type checker sees: `make check` runs mypy --strict and pyright over this."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from typing_extensions import assert_type

from kest import (
    MockPolicyEngine,
    Passport,
    PassportVerifier,
    PolicyEngine,
    StaticIdentity,
    TrustStore,
    configure,
    kest_verified,
)
from kest.audit import AuditLog, LogReport, verify_log
from kest.core.context import get_current_passport, get_current_user, lineage
from kest.gate import ActionContext, Gate, Verdict, guarded

identity = StaticIdentity("spiffe://example.org/shop")
configure(engine=MockPolicyEngine(), identity=identity, trust_store=TrustStore({"spiffe://example.org/shop": identity}))


@kest_verified("pay", user=lambda amount: f"user-{amount}")
def pay(amount: int, *, note: str = "") -> str:
    return f"{amount} {note}"


@kest_verified(["pay", "audit"])
async def pay_later(amount: int) -> bytes:
    return bytes(amount)


@kest_verified("read")
def rows(count: int) -> Generator[int, None, str]:
    yield count
    return "done"


@kest_verified("read")
async def stream(count: int) -> AsyncGenerator[int, None]:
    yield count


class Shop:
    @kest_verified("pay")
    def pay(self, amount: int) -> str:
        return str(amount)

    @classmethod
    @kest_verified("pay")
    def open(cls, name: str) -> Shop:
        return cls()


gate = Gate.from_dict({"policies": []})


@guarded(gate, action="refund", param_fields={"amount": "amount"})
def refund(amount: float) -> bool:
    return amount > 0


class Office(PolicyEngine):
    def evaluate(self, entry_id: str, policy_names: Any, context: Any) -> bool:
        return True


async def use() -> None:
    assert_type(pay(3, note="x"), str)
    assert_type(await pay_later(3), bytes)
    assert_type(rows(3), Generator[int, None, str])
    async for item in stream(3):
        assert_type(item, int)
    assert_type(Shop().pay(3), str)
    assert_type(Shop.open("x"), Shop)
    with lineage() as flow:
        assert_type(flow, Passport)
    assert_type(get_current_passport(), Passport)
    assert_type(get_current_user(), "str | None")
    verified = PassportVerifier.verify(get_current_passport(), {"spiffe://example.org/shop": identity})
    assert_type(verified.principals, frozenset[str])
    assert_type(verified.trust_score, int)
    assert_type(gate.evaluate(ActionContext("ann", "user", "refund")), Verdict)
    assert_type(refund(1.0), bool)
    with AuditLog("log", identity) as log:
        configure(audit=log)
    assert_type(verify_log("log", "vkey", {}), LogReport)


plain: Callable[[int], str] = pay
pay("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
pay(3, other=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
