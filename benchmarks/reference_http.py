"""What `KestMiddleware` and a decorated handler are compared with: the same job in plain Python, rfc8785 and cryptography.

Incoming baggage is split, percent-decoded, inflated and parsed, every entry verified with all that `reference_stack.verify`
checks (no cache: that is what writing one is worth), the chain tip compared, and the flow continued: policy asked, input
hashed, entry signed and appended, then the handler runs.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel

from benchmarks.hops import context_of
from benchmarks.reference_stack import ReferenceSigner, Tip, unb64, verify

__all__ = ["Chain", "ReferenceMiddleware", "chain_var", "governed", "read"]

MAX_INFLATED = 1024 * 1024


@dataclass(frozen=True)
class Chain:
    """The flow of a request: what came, what was added, and where it goes on."""

    arrived: str
    added: tuple[str, ...]
    tips: tuple[Tip, ...]


NOTHING = Chain("[]", (), ())
chain_var: ContextVar[Chain] = ContextVar("reference.chain", default=NOTHING)


def _members(lines: Iterable[bytes]) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in lines:
        for member in line.decode("ascii").split(","):
            key, _, value = member.partition(";")[0].partition("=")
            key = key.strip()
            if key.startswith("kest.") and values.setdefault(key, text := unquote(value.strip())) != text:
                raise ValueError("two generations")
    return values


def read(lines: Iterable[bytes], keys: Mapping[str, Ed25519PublicKey]) -> Chain:
    """The verified flow that these headers bring."""
    values = _members(lines)
    if not values:
        return NOTHING
    text = values.get("kest.passport")
    if text is None:
        stream = zlib.decompressobj()
        text = stream.decompress(unb64(values["kest.passport_z"]), MAX_INFLATED).decode("ascii")
        if not stream.eof:
            raise ValueError("truncated or too large")
    facts = verify(text, keys)
    if ",".join(facts.tips) != values["kest.chain_tip"]:
        raise ValueError("the tip is another")
    return Chain(text, (), tuple(Tip(tip, facts.trust, facts.taints) for tip in facts.tips))


class ReferenceMiddleware:
    """Pure ASGI, as `KestMiddleware` is."""

    def __init__(self, app: Any, keys: Mapping[str, bytes]) -> None:
        self.app = app
        self.keys = {name: Ed25519PublicKey.from_public_bytes(key) for name, key in keys.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification, version 3."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            chain = read([value for name, value in scope["headers"] if name == b"baggage"], self.keys)
        except (ValueError, KeyError, zlib.error) as error:
            body = json.dumps({"status": 403, "detail": str(error)}).encode()
            headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        token = chain_var.set(chain)
        try:
            await self.app(scope, receive, send)
        finally:
            chain_var.reset(token)


def _uuid7(unix_ms: int) -> str:
    value = unix_ms << 80 | 7 << 76 | 2 << 62 | int.from_bytes(os.urandom(10), "big") & ~(0xF << 76 | 3 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _allow(entry_id: str, policies: list[str], question: Mapping[str, Any]) -> bool:
    return True


def governed(policy: str, signer: ReferenceSigner, operation: str) -> Callable[[Any], Any]:
    """Decide, sign, append, then run a coroutine function."""
    context = context_of([policy])

    def decorate(function: Callable[..., Awaitable[Any]]) -> Any:
        signature = inspect.signature(function)

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            chain = chain_var.get()
            trust = min((tip.trust for tip in chain.tips), default=100)
            taints = sorted({taint for tip in chain.tips for taint in tip.taints})
            timestamp_ms = time.time_ns() // 1_000_000
            entry_id = _uuid7(timestamp_ms)
            question = _question(policy, signer.principal, operation, chain, trust, taints)
            if _allow(entry_id, [policy], question) is not True:
                raise PermissionError(policy)
            jws, tip = signer.sign_entry(
                operation,
                trust,
                chain.tips,
                labels={},
                context=context,
                input_hash=_hash(bound.arguments),
                entry_id=entry_id,
                timestamp_ms=timestamp_ms,
            )
            chain_var.set(Chain(chain.arrived, (*chain.added, jws), (tip,)))
            return await function(*args, **kwargs)

        return call

    return decorate


def _hash(arguments: Mapping[str, Any]) -> str:
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in arguments.items()
    }
    return hashlib.sha256(rfc8785.dumps(plain)).hexdigest()


def _question(
    policy: str, principal: str, operation: str, chain: Chain, trust: int, taints: list[str]
) -> Mapping[str, Any]:
    """What a policy engine is given."""
    return {
        "subject": {
            "workload": principal,
            "user": None,
            "agent": None,
            "task": None,
            "trust_score": trust,
            "taints": taints,
        },
        "object": {"id": operation, "attributes": {}},
        "environment": {
            "is_root": not chain.tips,
            "source_type": "internal",
            "parent_hash": ",".join(tip.hash for tip in chain.tips) or "0",
            "policy_names": [policy],
            "policy_tier": "function",
            "active_deviations": [],
        },
        "principal": principal,
        "trust_score": trust,
        "taints": taints,
        "operation": operation,
        "args": {},
    }
