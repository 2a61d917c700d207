"""What the lifecycle of a call may have to wait for somebody else to answer, and the two ways to wait.

The lifecycle yields each `Question`; `answer` drives it where blocking is right, `answer_async` on an event loop.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kest.core.engine.base import Decision, decide, decide_async
from kest.core.identity.base import async_principal_of, async_sign_payload, principal_of, sign_payload

if TYPE_CHECKING:
    from kest.core.audit import Settling

__all__ = ["Asking", "Decide", "Principal", "Question", "Settle", "Sign", "answer", "answer_async"]


class Question:
    """Something that the lifecycle needs from elsewhere, asked in either world."""

    def ask(self) -> Any:
        """Answer it here and now, blocking if need be."""
        raise NotImplementedError

    async def ask_async(self) -> Any:
        """Answer it without holding up the event loop."""
        raise NotImplementedError


class Decide(Question):
    __slots__ = ("arguments",)

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def ask(self) -> Decision:
        return decide(*self.arguments)

    async def ask_async(self) -> Decision:
        return await decide_async(*self.arguments)


class Principal(Question):
    __slots__ = ("identity",)

    def __init__(self, identity: Any) -> None:
        self.identity = identity

    def ask(self) -> str:
        return principal_of(self.identity)

    async def ask_async(self) -> str:
        return await async_principal_of(self.identity)


class Sign(Question):
    __slots__ = ("identity", "payload", "principal")

    def __init__(self, identity: Any, payload: bytes, principal: str) -> None:
        self.identity, self.payload, self.principal = identity, payload, principal

    def ask(self) -> str:
        return sign_payload(self.identity, self.payload, self.principal)

    async def ask_async(self) -> str:
        return await async_sign_payload(self.identity, self.payload, self.principal)


class Settle(Question):
    """Waits for a record that the audit log could only queue."""

    __slots__ = ("record",)

    def __init__(self, record: Settling) -> None:
        self.record = record

    def ask(self) -> None:
        self.record.wait()

    async def ask_async(self) -> None:
        await self.record.wait_async()


Asking = Generator[Question, Any, None]


def answer(steps: Asking) -> None:
    """Drive the lifecycle to its end, blocking where it asks."""
    reply: Any = None
    try:
        question = next(steps)
        while True:
            try:
                reply = question.ask()
            except BaseException as error:
                question = steps.throw(error)
            else:
                question = steps.send(reply)
    except StopIteration:
        return


async def answer_async(steps: Asking) -> None:
    """Drive the lifecycle to its end, awaiting where it asks."""
    reply: Any = None
    try:
        question = next(steps)
        while True:
            try:
                reply = await question.ask_async()
            except BaseException as error:
                question = steps.throw(error)
            else:
                question = steps.send(reply)
    except StopIteration:
        return
