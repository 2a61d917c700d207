"""The edge: the one place where incoming lineage becomes a passport that anything else may look at.

Nothing of it is believed before it is verified. What cannot be read or does not verify is an error, never an empty
passport; what nobody can verify, for want of a trust store, is handled as ``on_unverified`` says.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kest import _kestcore
from kest._kestcore import Passport
from kest.core import config
from kest.core.baggage import CHAIN_TIP, CLAIM_CHECK, KEYS, MAX_INFLATED, MAX_UNPACKED_ENTRIES, BaggageManager
from kest.core.cache import SimpleCache
from kest.core.context import NOBODY, Caller
from kest.core.trust import ORIGIN_TRUST_MAP
from kest.core.truststore import TrustStore
from kest.core.users import is_hashed, same_user
from kest.errors import ClaimCheckError, ConfigurationError, KestError, RejectedLineageError
from kest.http.baggage_header import MAX_INCOMING, Baggage, read_baggage
from kest.http.egress import warn_once
from kest.http.outgoing import AGENT, MAX_CLAIM, TASK, USER
from kest.http.verified import VerifiedEntries

__all__ = ["UNVERIFIED_TAINT", "UNVERIFIED_TRUST", "Arrival", "Edge"]

log = logging.getLogger("kest.http")

UNVERIFIED_TAINT = "kest.unverified"
UNVERIFIED_TRUST = 10
"""What unverified lineage counts for: the trust of the internet."""

VERIFY_INLINE = 32
"""Entries up to which an event loop verifies in place: beyond it, a thread takes less of its time."""

_CARRIERS = frozenset(KEYS)
_IN_MEMORY = (SimpleCache, dict)

Who = tuple[str | None, str | None, str | None]
"""User, agent and task as the header has them."""
_NOBODY: Who = (None, None, None)


class Arrival(NamedTuple):
    """What a request brought.

    Attributes:
        passport: where its lineage continues; empty for a request without any.
        caller: user, agent and task, where a verified entry says the same as the header.
        foreign: other vendors' baggage members, as they came.
        verified: whether the passport was verified with a trust store.
    """

    passport: Passport
    caller: Caller = NOBODY
    foreign: tuple[bytes, ...] = ()
    verified: bool = False


class Edge:
    """Reads, verifies and judges incoming lineage. Thread-safe; holds no state of any request.

    Args:
        trust_store: whose keys are believed; None: the configured store.
        on_unverified: ``degrade``, ``reject`` or ``accept`` without a trust store; None: as configured.
        cache: for claim checks; None: the configured one.
        require_passport: refuse requests that bring no lineage.
        origin: what a request without lineage counts as (a name of `ORIGIN_TRUST_MAP`): a ceiling for the trust of its root.
            None: the source_type of the function that is called decides alone.
    """

    def __init__(
        self,
        trust_store: TrustStore | Mapping[str, Any] | None = None,
        on_unverified: str | None = None,
        cache: Any = None,
        *,
        require_passport: bool = False,
        origin: str | None = None,
    ) -> None:
        if trust_store is not None and not isinstance(trust_store, TrustStore):
            trust_store = TrustStore(trust_store)
        if on_unverified not in (None, *config.ON_UNVERIFIED):
            raise ConfigurationError(
                f"on_unverified is one of {', '.join(config.ON_UNVERIFIED)}, not {on_unverified!r}"
            )
        if on_unverified == "accept" and os.environ.get("KEST_INSECURE_NO_VERIFY", "").lower() != "true":
            raise ConfigurationError(
                "on_unverified='accept' believes forged lineage; for development only, set KEST_INSECURE_NO_VERIFY=true"
            )
        if origin is not None and origin not in ORIGIN_TRUST_MAP:
            raise ConfigurationError(f"origin {origin!r} is unknown; known are {', '.join(ORIGIN_TRUST_MAP)}")
        self._store, self._on_unverified, self._cache = trust_store, on_unverified, cache
        self._require = require_passport
        self._origin = origin
        self._verified = VerifiedEntries()

    # --- the two ways in ---

    def read(self, lines: Iterable[bytes]) -> Arrival:
        """What these header lines bring; blocks for a claim check.

        Raises:
            BaggageError: unreadable, oversized, contradictory (400).
            ClaimCheckError: the claim check cannot be redeemed (424).
            VerificationError: it does not verify, or may not come unverified (403).
        """
        given = tuple(lines)
        if (usual := self._usual(given)) is not None:
            store, passport, foreign, who = usual
            self._verify(passport, store)
            return Arrival(passport, _caller(who, passport), foreign, True)
        baggage = read_baggage(given)
        if not self._carries(baggage):
            return self._without(baggage)
        return self._judged(baggage, *self._unpacked(baggage.kest, self.cache))

    async def read_async(self, lines: Iterable[bytes]) -> Arrival:
        """`read` without holding up the event loop."""
        given = tuple(lines)
        if (usual := self._usual(given)) is not None:
            keys, passport, foreign, who = usual
            if self._takes_long(passport, keys):
                await asyncio.to_thread(self._verify, passport, keys)
            else:
                self._verify(passport, keys)
            return Arrival(passport, _caller(who, passport), foreign, True)
        baggage = read_baggage(given)
        if not self._carries(baggage):
            return self._without(baggage)
        cache = self.cache
        if CLAIM_CHECK in baggage.kest and cache is not None:
            cache = await _fetched(cache, baggage.kest[CLAIM_CHECK])
        passport, store = self._unpacked(baggage.kest, cache)
        if store is not None and self._takes_long(passport, store):
            await asyncio.to_thread(self._verify, passport, store)
        return self._judged(baggage, passport, store)

    @property
    def cache(self) -> Any:
        """Where claim checks are redeemed, or None."""
        return self._cache if self._cache is not None else config.settings().cache

    @property
    def _trusted(self) -> TrustStore | None:
        return self._store if self._store is not None else config.settings().trust_store

    # --- steps ---

    def _usual(self, lines: tuple[bytes, ...]) -> tuple[TrustStore, Passport, tuple[bytes, ...], Who] | None:
        """What nearly every request brings, read by the C core in one go; None for the rest, and for all that is refused."""
        store = self._trusted
        if store is None or len(lines) != 1 or len(lines[0]) > MAX_INCOMING:
            return None
        cache = self.cache
        get = cache.get if type(cache) in _IN_MEMORY else None  # others block, and are not asked twice
        found = self._verified.under(store.ring()).arrive(lines[0], MAX_INFLATED, MAX_UNPACKED_ENTRIES, get, MAX_CLAIM)
        return None if found is None else (store, *found)

    def _carries(self, baggage: Baggage) -> bool:
        return not _CARRIERS.isdisjoint(baggage.kest)

    def _without(self, baggage: Baggage) -> Arrival:
        if self._require:
            raise RejectedLineageError(
                "this service takes no request without lineage: call it through a client that Kest is attached to",
                reason="no lineage",
            )
        passport = Passport()
        if self._origin is not None:
            passport = passport.restrict(ORIGIN_TRUST_MAP[self._origin], [])
        return Arrival(passport, NOBODY, baggage.foreign)

    def _unpacked(self, values: Mapping[str, str], cache: Any) -> tuple[Passport, TrustStore | None]:
        """The passport, and the store that is to verify it."""
        limit = MAX_INFLATED
        if CLAIM_CHECK in values:
            limit = MAX_CLAIM
            if CHAIN_TIP not in values:
                raise ClaimCheckError("a claim check came without kest.chain_tip, which binds it to its passport")
        store = self._trusted
        known = None if store is None else self._verified.under(store.ring())
        return BaggageManager.unpack(values, cache, max_bytes=limit, known=known), store

    def _verify(self, passport: Passport, store: TrustStore) -> None:
        store.verify(passport, lambda ring: self._verified.under(ring).verify(passport))

    def _takes_long(self, passport: Passport, store: TrustStore) -> bool:
        return len(passport) > VERIFY_INLINE and self._verified.under(store.ring()).missing(passport) > VERIFY_INLINE

    def _judged(self, baggage: Baggage, passport: Passport, store: TrustStore | None) -> Arrival:
        if store is not None:
            self._verify(passport, store)
            return Arrival(passport, _caller(_who(baggage.kest), passport), baggage.foreign, True)
        settings = config.settings()
        mode = self._on_unverified or settings.on_unverified
        if mode == "reject":
            raise RejectedLineageError(
                "lineage came that cannot be verified: no trust store is configured here", reason="no trust store"
            )
        if mode == "accept":
            warn_once("accept", "on_unverified='accept': incoming lineage is believed without verification")
            _ = passport.trust_score  # an entry that is none raises, also here
            return Arrival(passport, _caller(_who(baggage.kest), passport), baggage.foreign)
        warn_once(
            "degrade",
            "incoming lineage is not verified and counts as from the internet (trust at most %d, taint %s): configure keys, "
            "configure(trust_store=TrustStore(...))",
            UNVERIFIED_TRUST,
            UNVERIFIED_TAINT,
        )
        return Arrival(passport.restrict(UNVERIFIED_TRUST, [UNVERIFIED_TAINT]), NOBODY, baggage.foreign)


async def _fetched(cache: Any, claim: str) -> Any:
    """The record behind a claim, fetched without blocking, as a mapping that `BaggageManager.unpack` takes."""
    if isinstance(cache, (SimpleCache, dict)):
        return cache
    getter = getattr(cache, "get_async", None)
    try:
        record = await getter(claim) if getter is not None else await asyncio.to_thread(cache.get, claim)
    except KestError:
        raise
    except Exception as error:
        raise ClaimCheckError(f"the claim check could not be redeemed: {type(error).__name__}") from error
    return {claim: record}


# --- on whose behalf ---


def _who(values: Mapping[str, str]) -> Who:
    return values.get(USER), values.get(AGENT), values.get(TASK)


def _caller(claimed: Who, passport: Passport) -> Caller:
    """User, agent and task of the header, each only if the signed identity of every tip says the same.

    A user counts as the same if one of both is the other's salted hash. Actors come from the entries alone, and only
    where the current one is the agent.
    """
    if claimed == _NOBODY:
        return NOBODY
    signed = _identities(passport)
    user, agent, task = claimed
    salt = config.settings().user_salt
    names = [user, *(identity.get("user") for identity in signed)]
    if any(not isinstance(name, str) or not same_user(user, name, salt) for name in names):
        user = None
    else:
        user = next((str(name) for name in names if not is_hashed(str(name))), user)
    agent = agent if all(identity.get("agent") == agent for identity in signed) else None
    task = task if all(identity.get("task") == task for identity in signed) else None
    chains = {identity.get("actors", ()) for identity in signed}
    actors = chains.pop() if len(chains) == 1 else ()
    return Caller(user, agent, task, None, actors if actors and actors[0] == agent else ())


def _identities(passport: Passport) -> list[dict[str, Any]]:
    """What the labels of each tip say of user, agent, task and actors; an empty dict for a tip that says nothing."""
    return [_identity(labels) for labels in passport.tip_labels]


def _identity(labels: Mapping[str, str]) -> dict[str, Any]:
    try:
        identity = _kestcore.parse(labels.get("kest.identity", "{}"))
        actors = _kestcore.parse(labels.get("kest.actors", "[]"))
    except KestError:
        return {}
    if not isinstance(identity, dict) or not isinstance(actors, list):
        return {}
    return {**identity, "actors": tuple(actor for actor in actors if isinstance(actor, str))}
