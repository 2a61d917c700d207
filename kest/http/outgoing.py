"""What leaves: the current passport as baggage members, merged with the baggage that a request carries already."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from kest._kestcore import Passport
from kest.core import config, context
from kest.core.baggage import BaggageManager, encoded_size
from kest.core.cache import CLAIM_TTL, SimpleCache
from kest.core.users import checked_salt, hashed_user
from kest.errors import ClaimCheckError, ConfigurationError, KestError, PassportTooLargeError
from kest.http.baggage_header import (
    MAX_HEADER,
    MAX_MEMBER,
    foreign_members,
    format_member,
    join_header,
    member_key,
    room_for,
)
from kest.http.egress import warn_once

__all__ = ["MAX_CLAIM", "Packer", "foreign_var", "merge_foreign"]

foreign_var: contextvars.ContextVar[tuple[bytes, ...]] = contextvars.ContextVar("kest.http.foreign", default=())
"""Other vendors' members of the request that is being served, as they came."""

USER, AGENT, TASK = "kest.user", "kest.agent", "kest.task"
TIP_BYTES = len("kest.chain_tip=") + 64
CLAIM_BYTES = len("kest.claim_check=") + 36
MAX_CLAIM = 4 * 1024 * 1024
"""Bytes of a record behind a claim check. It comes from our own cache, not from a header, so it may be larger than those."""
MAX_IDENTITY = 1024
"""Bytes that each of kest.user, kest.agent and kest.task may take, encoded."""


class Packer:
    """Packs the current flow.

    Args:
        cache: for claim checks; None: the configured one.
        dense: whether to use the dense form where the others do not fit. None: only where there is no cache, and the
            alternative would be an error.
        max_header: bytes that the whole ``baggage`` header may take, for proxies that cap headers (at most 8,192).
        ttl: seconds for which a claim check can be redeemed.
        user_salt: send user ids as hashes with this salt (see `hashed_user`). None: as configured.
    """

    __slots__ = ("_cache", "_dense", "_max_header", "_ttl", "_user_salt")

    def __init__(
        self,
        cache: Any = None,
        dense: bool | None = None,
        max_header: int = 8192,
        ttl: float = CLAIM_TTL,
        user_salt: str | bytes | None = None,
    ) -> None:
        if type(max_header) is not int or not 512 <= max_header <= 8192:
            raise ConfigurationError(f"max_header is an int from 512 to 8192 bytes, not {max_header!r}")
        if user_salt is not None:
            checked_salt(user_salt)
        self._cache, self._dense, self._max_header, self._ttl = cache, dense, max_header, ttl
        self._user_salt = user_salt

    @property
    def cache(self) -> Any:
        """Where claim checks are kept, or None."""
        return self._cache if self._cache is not None else config.settings().cache

    def values(
        self, foreign: Iterable[bytes] = (), passport: Passport | None = None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """The members of the current flow (or of ``passport``) that fit beside ``foreign``; none for an empty passport.

        Returns:
            The members, before percent-encoding, and the claim records to store before they are sent.
        Raises:
            PassportTooLargeError: no form fits and there is no cache.
        """
        if passport is None:
            passport = context.passport_var.get()
        if not passport:
            return {}, {}
        identity = self._identity()
        own = [format_member(key, value) for key, value in identity.items()]
        tips = TIP_BYTES + (len(passport.tips) - 1) * 67 + 1  # a comma is %2C
        limit = min(room_for([*foreign, *own], 2) - tips - (MAX_HEADER - self._max_header), MAX_MEMBER)
        cache = self.cache
        claims: dict[str, str] = {}
        dense = cache is None if self._dense is None else self._dense
        try:
            values = BaggageManager.pack(passport, None if cache is None else claims, limit=limit, dense=dense)
        except PassportTooLargeError as error:
            if limit >= MAX_MEMBER:
                raise
            raise PassportTooLargeError(
                f"{error}; other baggage and the settings left {max(limit, 0)} bytes of the header for it"
            ) from None
        if any(len(record) > MAX_CLAIM for record in claims.values()):
            raise PassportTooLargeError(
                f"a passport of {len(passport)} entries exceeds the {MAX_CLAIM} bytes that a claim check may stand for; "
                "configure(max_entries=...) keeps flows shorter"
            )
        if claims and limit < CLAIM_BYTES:
            raise PassportTooLargeError("other baggage leaves no room in the header for even a claim check")
        return values | identity, claims

    def _identity(self) -> dict[str, str]:
        caller = context.caller_var.get()
        user = caller.user
        salt = self._user_salt if self._user_salt is not None else config.settings().user_salt
        if user is not None and salt is not None:
            user = hashed_user(user, salt)
        fields = ((USER, user), (AGENT, caller.agent), (TASK, caller.task))
        # An id too long for its share stays out: the receiver then knows of none, which grants nothing.
        return {key: value for key, value in fields if value and encoded_size(key, value) <= MAX_IDENTITY}

    def header(self, existing: Iterable[bytes], passport: Passport | None = None) -> tuple[bytes, dict[str, str]]:
        """The whole ``baggage`` value for a request that carries ``existing``, and the claims to store first."""
        given = tuple(existing)
        foreign = merge_foreign(given)
        try:
            return self._joined(foreign, passport)
        except PassportTooLargeError:
            own = foreign_members(given)
            if own == foreign:
                raise
        # What only passes through makes room for lineage (W3C Baggage, section 3.3.2, lets anybody drop members).
        warn_once("foreign", "baggage of other vendors is not passed on: it leaves no room for the passport")
        return self._joined(own, passport)

    def _joined(self, foreign: list[bytes], passport: Passport | None) -> tuple[bytes, dict[str, str]]:
        values, claims = self.values(foreign, passport)
        return join_header(foreign, [format_member(key, value) for key, value in values.items()]), claims

    def store(self, claims: dict[str, str]) -> None:
        """Store claim records, blocking."""
        cache = self.cache
        for claim, record in claims.items():
            try:
                setter = getattr(cache, "set", None)
                if callable(setter):
                    setter(claim, record, self._ttl)
                else:
                    cache[claim] = record
            except KestError:
                raise
            except Exception as error:
                raise _unstored(error) from error

    async def store_async(self, claims: dict[str, str]) -> None:
        """Store claim records without holding up the event loop."""
        if not claims:
            return
        cache = self.cache
        setter = getattr(cache, "set_async", None)
        if setter is None:
            if isinstance(cache, (SimpleCache, dict)):
                return self.store(claims)
            import asyncio

            return await asyncio.to_thread(self.store, claims)
        for claim, record in claims.items():
            try:
                await setter(claim, record, self._ttl)
            except KestError:
                raise
            except Exception as error:
                raise _unstored(error) from error


def _unstored(error: Exception) -> ClaimCheckError:
    return ClaimCheckError(f"the passport could not be stored for a claim check: {type(error).__name__}")


def merge_foreign(existing: Iterable[bytes]) -> list[bytes]:
    """Other vendors' members for a request: what it carries, and what the request being served brought.

    A member that the application attached itself counts, unless it is only another spelling of what came in (the standard
    OpenTelemetry propagator re-encodes values and properties): then it goes on byte for byte as it came.
    """
    present = foreign_members(existing)
    arrived = {member_key(m): m for m in foreign_var.get()}
    if not arrived:
        return present
    result = []
    for member in present:
        original = arrived.pop(member_key(member), None)
        result.append(original if original is not None and _same(member, original) else member)
    result += arrived.values()
    return result


def _same(member: bytes, original: bytes) -> bool:
    return _decoded(member) == _decoded(original)


def _decoded(member: bytes) -> bytes:
    return unquote_to_bytes(member.replace(b"+", b" ")).replace(b" ", b"")
