"""An engine of your own: one method.

`evaluate` returns exactly True to allow; whatever else it returns or raises denies. Without `in_process` Kest takes it that
`evaluate` may wait for something, and calls it in a thread when the caller is asynchronous.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from kest import PolicyDeniedError, PolicyEngine, StaticIdentity, configure, kest_verified


class Budget(PolicyEngine):
    """The policy `budget/<n>` allows amounts up to n, and nothing tainted."""

    in_process = True  # it only computes: it may run on an event loop

    def evaluate(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> bool:
        limits = [int(name.removeprefix("budget/")) for name in policy_names]
        return not context["taints"] and context["args"]["amount"] <= min(limits)


configure(engine=Budget(), identity=StaticIdentity("spiffe://example.org/shop"))


@kest_verified("budget/500", context_map={"amount": "amount"})
async def refund(amount: int) -> str:
    return f"refunded {amount}"


@kest_verified("allowance", context_map={"amount": "amount"})  # no such policy: int() raises, and that denies
async def pay(amount: int) -> str:
    return f"paid {amount}"


async def main() -> None:
    print(await refund(120))
    for call, amount in ((refund, 900), (pay, 1)):
        try:
            await call(amount)
        except PolicyDeniedError as denied:
            print(denied)


asyncio.run(main())
