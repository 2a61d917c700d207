"""The outcome of a call that ran, as a signed record for the audit sink."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
from typing import TYPE_CHECKING, Any

from kest.core.audit import OUTCOME_TYP, outcome_payload, output_hash

if TYPE_CHECKING:
    from kest.core.lifecycle import Call
    from kest.core.questions import Asking

__all__ = ["Outcome"]

_TIMEOUTS = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError)  # one class from Python 3.11 on


class Outcome:
    """Collects what came of one call and records it once. Each recorder is a lifecycle generator (see `answer`)."""

    __slots__ = ("_call", "_done", "_stream")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._stream: Any = None
        self._done = False

    def item(self, value: object) -> None:
        """One item of a stream: the stream's output hash runs over the hashes of its items."""
        if self._stream is None:
            self._stream = hashlib.sha256()
        self._stream.update(bytes.fromhex(output_hash(value)[0]))

    def returned(self, value: object) -> Asking:
        """The call ended by itself."""
        return self._record(
            "returned", output_hash(value)[0] if self._stream is None else self._stream.hexdigest(), None
        )

    def raised(self, error: BaseException) -> Asking:
        """The call ended in an exception; closing a stream early and cancellation are outcomes of their own."""
        if isinstance(error, GeneratorExit):
            result = "closed"
        elif isinstance(error, asyncio.CancelledError):
            result = "cancelled"
        else:
            result = "timed_out" if isinstance(error, _TIMEOUTS) else "raised"
        output = "" if self._stream is None else self._stream.hexdigest()
        return self._record(result, output, None if result == "closed" else error)

    def not_run(self, error: BaseException) -> Asking:
        """The entry is recorded, but waiting for that ended otherwise: the call will not run."""
        return self._record("not_run", "", error)

    def _record(self, result: str, output: str, error: BaseException | None) -> Asking:
        if self._done:  # recording itself failed: once is enough
            return
        self._done = True
        call = self._call
        assert call.sealed is not None
        payload = outcome_payload(call, call.sealed.chain_tip, result, output, error)
        yield from call.record("outcome", OUTCOME_TYP, payload)
