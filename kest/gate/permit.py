"""The permit: what a gate hands out for an action that may run."""

from __future__ import annotations

import re
import uuid
from typing import final

from kest.errors import GateInputError

__all__ = ["PermitToken"]

EARLIEST, LATEST = -8_334_601_228_800, 8_210_266_876_799  # Unix seconds of the years -262142 and 262142
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DIGITS = re.compile("[0-9A-Fa-f]{32}")


def uuid_text(value: object, what: str) -> str:
    """The usual spelling of a UUID in any that `uuid.UUID` takes of its digits."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")
    if _UUID.fullmatch(value):
        return str(value)
    # As `uuid` spells it, which reads digits as `int` does: 0x, underscores, spaces and other scripts' digits included.
    digits = value.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "")
    if not _DIGITS.fullmatch(digits):
        raise GateInputError(f"{what} not a UUID: {value!r:.100}")
    return str(uuid.UUID(digits))


def _seconds(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an int of Unix seconds, not {type(value).__name__}")
    if not EARLIEST <= value <= LATEST:
        raise GateInputError(f"{what} out of range")
    return value


@final
class PermitToken:
    """Leave to run one action, from ``issued_at`` until ``expires_at`` (Unix seconds). Immutable.

    Without a signature it is a statement of the gate in this process; nobody else has a reason to believe it.
    """

    __slots__ = ("action_name", "evaluation_id", "expires_at", "issued_at", "signature", "token_id")

    token_id: str
    evaluation_id: str
    issued_at: int
    expires_at: int
    action_name: str
    signature: bytes | None

    def __init__(
        self,
        token_id: str,
        evaluation_id: str,
        issued_at: int,
        expires_at: int,
        action_name: str,
        signature: bytes | None = None,
    ) -> None:
        if not isinstance(action_name, str):
            raise TypeError(f"action_name is a str, not {type(action_name).__name__}")
        if signature is not None and not isinstance(signature, bytes):
            raise TypeError(f"signature is bytes or None, not {type(signature).__name__}")
        put = object.__setattr__
        put(self, "token_id", uuid_text(token_id, "token_id"))
        put(self, "evaluation_id", uuid_text(evaluation_id, "evaluation_id"))
        put(self, "issued_at", _seconds(issued_at, "issued_at"))
        put(self, "expires_at", _seconds(expires_at, "expires_at"))
        put(self, "action_name", action_name)
        put(self, "signature", signature)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a PermitToken is immutable: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a PermitToken is immutable: {name!r} cannot be deleted")

    def signed(self, signature: bytes) -> PermitToken:
        """The same permit with this signature."""
        return PermitToken(
            self.token_id, self.evaluation_id, self.issued_at, self.expires_at, self.action_name, signature
        )

    def __repr__(self) -> str:
        signed = "true" if self.signature is not None else "false"
        return f"PermitToken(token_id={self.token_id}, action={self.action_name}, signed={signed})"
