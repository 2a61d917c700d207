"""Whose signatures are believed: principals, their keys, and what each may claim."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kest._kestcore import KeyRing, Passport, b64url_decode, parse, sha256, verify_passport
from kest.core.grants import Grant, make_grant, public_key_of
from kest.core.trust_sources import JWKSSource, KeySnapshot, KeySource, SpiffeBundleSource, jwks_grants
from kest.core.x5c import GRACE, Authorities, ChainError, Leaf
from kest.errors import ConfigurationError, KestError, KeyFormatError, VerificationError
from kest.locks import Lock

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from kest.core.live_document import LiveSettings

__all__ = ["TrustStore", "public_key_of"]

MAX_LEAVES = 4096
"""Verified certificates that are remembered, the oldest forgotten first: each makes its principal's key known to the core."""

T = TypeVar("T")


class _Built(NamedTuple):
    """Keys as the core takes them, and what they were made of."""

    ring: KeyRing
    snapshots: tuple[KeySnapshot, ...]
    authorities: Mapping[str, tuple[Authorities, ...]]
    until: float
    grants: tuple[Grant, ...]
    """Without those of certificates."""


class TrustStore:
    """Maps principals to the keys that they sign with. Thread-safe; a verification sees one consistent state.

    ``TrustStore({"spiffe://example.org/agent": provider_or_key, ...})``; a list of keys is allowed as a value. Further keys
    come from sources that are kept up to date: JWK sets (`from_jwks`), SPIFFE bundles (`from_spiffe_bundle`), or anything
    else that is a `KeySource` (`add_source`). A store with sources may be closed, or used in a ``with`` statement, to end
    what they run in the background; nothing of it keeps an interpreter from ending.
    """

    def __init__(self, keys: Mapping[str, Any] | None = None) -> None:
        self._lock = Lock()
        self._static: tuple[Grant, ...] = ()
        self._sources: tuple[KeySource, ...] = ()
        self._removed: frozenset[str] = frozenset()
        self._leaves: OrderedDict[bytes, Leaf] = OrderedDict()
        self._built: _Built | None = None
        for principal, key in (keys or {}).items():
            for one in key if isinstance(key, (list, tuple)) else (key,):
                self.add(principal, one)

    # --- what is believed ---

    def add(
        self,
        principal: str,
        key: Any,
        *,
        max_trust: int = 100,
        may_sanitise: bool = True,
        not_before: int | None = None,
        not_after: int | None = None,
    ) -> None:
        """Believe ``key`` for ``principal``.

        Args:
            principal: as it stands in the signed entries.
            key: a provider, 32 raw bytes (Ed25519), a JWK dict, or PEM.
            max_trust: the most that its roots and its raises of trust may claim, 0..100.
            may_sanitise: whether its trust overrides and taint removals count; if not, such entries are refused.
            not_before, not_after: Unix milliseconds, inclusive, compared with the time in the entry. A principal may
                have several keys, so that keys can be rotated.
        """
        grant = make_grant(
            principal, key, max_trust=max_trust, may_sanitise=may_sanitise, not_before=not_before, not_after=not_after
        )
        with self._lock:
            self._static = (*self._static, grant)
            self._built = None

    def remove(self, principal: str) -> bool:
        """Believe nothing of ``principal`` any more: its keys are forgotten, and what sources say of it does not count.
        Keys that are added for it afterwards do. Returns whether there was a key."""
        found = principal in self
        with self._lock:
            self._static = tuple(grant for grant in self._static if grant[0] != principal)
            self._removed |= {principal}
            self._built = None
        return found

    def add_source(self, source: KeySource) -> None:
        """Believe what ``source`` vouches for, now and later."""
        if not isinstance(source, KeySource):
            raise TypeError(f"a key source has snapshot, refresh_soon and close; {type(source).__name__} does not")
        with self._lock:
            self._sources = (*self._sources, source)
            self._built = None

    @classmethod
    def from_jwks(cls, source: str | Path | Mapping[str, Any], **settings: Unpack[LiveSettings]) -> TrustStore:
        """From a JWK set (RFC 7517, section 5): a file, an https URL, or the parsed dict. A key's ``kid`` is the principal.

        Private members of Kest's own (RFC 7517, section 4, allows them) say what a key may do: ``kest_max_trust``,
        ``kest_may_sanitise``, ``kest_not_before``, ``kest_not_after``.

        A file is read again when it changes. A URL is fetched now, and from the first verification on in the background.
        A principal that nobody knows, or a signature that does not match, causes a fetch, which the request that shows it
        does not wait for. While the set cannot be fetched, the last good one counts, but not for ever.

        Args:
            source: where the keys are.
            settings: for a file or URL: ``refresh`` (300 s between fetches; Cache-Control: max-age makes it less),
                ``lifetime`` (86,400 s for which the last good set is believed), ``timeout`` (5 s a fetch), ``min_interval``
                (10 s between two fetches at least), ``allow_http`` (False: http for this machine only).

        Raises:
            ConfigurationError: it cannot be read or fetched now.
            KeyFormatError: it is no JWK set, or one of its keys is malformed.
        """
        store = cls()
        if not isinstance(source, Mapping):
            store.add_source(JWKSSource(source, **settings))
        elif settings:
            raise ConfigurationError(f"{', '.join(sorted(settings))}: only for keys in a file or at a URL")
        else:
            store._static = _jwk_set(source)
        return store

    @classmethod
    def from_spiffe_bundle(
        cls,
        source: Any,
        trust_domain: Any = None,
        *,
        max_trust: int = 100,
        may_sanitise: bool = True,
        grace: float | None = GRACE,
        rights: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Unpack[LiveSettings],
    ) -> TrustStore:
        """From the X.509 authorities of a SPIFFE trust domain: entries of its workloads verify by their certificate chains.

        Args:
            source: a bundle document (a path, an https URL or the parsed dict), CA certificates (PEM or DER, a path or a
                list), or an ``X509Bundle``, ``X509BundleSet`` or ``X509Source`` of the package ``spiffe``.
            trust_domain: whose authorities these are, such as ``example.org``. Only an ``X509Bundle`` says it itself.
            max_trust, may_sanitise: rights of every workload of the domain that ``rights`` does not name; see `add`.
            rights: those of single workloads, such as ``{"spiffe://example.org/gateway": {"may_sanitise": True}}``.
            grace: seconds after the end of a certificate for which entries that were made before it still verify; None: for
                ever, for checking old passports offline.
            settings: for a path or URL, those of `from_jwks`.

        Raises:
            ConfigurationError: it cannot be read or fetched now, or there is no trust domain.
            KeyFormatError: it is no bundle.
        """
        store = cls()
        store.add_source(
            SpiffeBundleSource(
                source,
                trust_domain,
                max_trust=max_trust,
                may_sanitise=may_sanitise,
                grace=grace,
                rights=rights,
                **settings,
            )
        )
        return store

    def close(self) -> None:
        """End what the sources run in the background. What they last knew counts until it expires."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> TrustStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, principal: object) -> bool:
        return any(grant[0] == principal for grant in self._current().grants)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(grant[0] for grant in self._current().grants))

    def __len__(self) -> int:
        return len(self._current().grants)

    def __bool__(self) -> bool:
        return bool(self._sources) or len(self) > 0

    def __repr__(self) -> str:
        return f"<TrustStore of {len(self)} keys and {len(self._sources)} sources>"

    # --- verification ---

    def ring(self) -> KeyRing:
        """The keys as the C core takes them: an immutable snapshot. It lacks those of certificates not seen before."""
        return self._current().ring

    def verify(self, passport: Passport, check: Callable[[KeyRing], T]) -> T:
        """``check`` with the keys that this passport needs, those of its certificate chains among them.

        Raises:
            VerificationError: from ``check``, or because a chain proves nothing; with what is wrong with the sources.
        """
        try:
            return check(self._ring_for(passport))
        except VerificationError as error:
            if error.index is None or not self._sources:
                raise
            # Perhaps a newer key explains it. Whoever sent this does not get to wait for it: it could be anybody.
            for source in self._sources:
                source.refresh_soon()
            problems = [one.problem for one in self._current().snapshots if one.problem is not None]
            if not problems or _header(passport.entries[error.index]).get("kid") in self:
                raise
            said = "; ".join(("", *problems))
            raise VerificationError(f"{error}{said}", index=error.index, reason=f"{error.reason}{said}") from None

    @property
    def has_authorities(self) -> bool:
        """Whether certificate chains can prove anything to it."""
        return bool(self._current().authorities)

    def chain_grant(self, header: str) -> Grant | None:
        """What the certificate chain in a JWS's header (base64url) proves; None where it is not for a chain to prove: there
        is none, or nobody here vouches for the principal's trust domain.

        Raises:
            ChainError: it proves nothing.
        """
        leaf = self._leaf(header, self._current())
        return None if leaf is None else leaf.grant

    # --- inside ---

    def _current(self) -> _Built:
        built = self._built
        sources = self._sources
        if built is not None:
            if not sources:
                return built
            if time.time() < built.until and all(
                source.snapshot() is known for source, known in zip(sources, built.snapshots, strict=False)
            ):
                return built
        with self._lock:
            return self._build()

    def _build(self) -> _Built:
        """The lock is held."""
        now = time.time()
        snapshots = tuple(source.snapshot() for source in self._sources)
        authorities: dict[str, tuple[Authorities, ...]] = {}
        for one in (authority for snapshot in snapshots for authority in snapshot.authorities):
            authorities[one.trust_domain] = (*authorities.get(one.trust_domain, ()), one)
        current = {id(one) for group in authorities.values() for one in group}
        for digest, leaf in list(self._leaves.items()):
            gone = id(leaf.authorities) not in current or leaf.grant[0] in self._removed
            if gone or (leaf.until is not None and leaf.until <= now):
                del self._leaves[digest]
        grants = self._static + tuple(
            grant for snapshot in snapshots for grant in snapshot.grants if grant[0] not in self._removed
        )
        learned = dict.fromkeys(leaf.grant for leaf in self._leaves.values())
        until = min((leaf.until for leaf in self._leaves.values() if leaf.until is not None), default=float("inf"))
        self._built = built = _Built(KeyRing((*grants, *learned)), snapshots, authorities, until, grants)
        return built

    def grants(self) -> tuple[Grant, ...]:
        """The keys with what each may do, those of sources among them, without those of certificates."""
        return self._current().grants

    def _ring_for(self, passport: Passport) -> KeyRing:
        built = self._current()
        if not built.authorities:
            return built.ring
        problem = None
        learned: dict[bytes, Leaf] = {}
        headers = dict.fromkeys(jws.partition(".")[0] for jws in passport.entries)
        for header in headers:
            if (digest := sha256(header.encode())) in self._leaves:
                continue
            try:
                leaf = self._leaf(header, built)
            except ChainError as error:
                # The passport is refused, here or before: what else is in it need not be looked at.
                problem = header, f"the certificate chain (x5c) {error}"
                break
            if leaf is not None:
                learned[digest] = leaf
        if learned:
            with self._lock:
                self._leaves.update(learned)
                while len(self._leaves) > MAX_LEAVES:
                    self._leaves.popitem(last=False)
                built = self._build()
        if problem is not None:
            self._refuse(passport, built.ring, *problem)
        return built.ring

    def _leaf(self, header: str, built: _Built) -> Leaf | None:
        """The key that a header's chain proves; None where that is not for a chain to prove."""
        members = _header(f"{header}.")
        principal, chain = members.get("kid"), members.get("x5c")
        if not isinstance(principal, str) or not isinstance(chain, list):
            return None
        group = built.authorities.get(principal.removeprefix("spiffe://").partition("/")[0], ())
        if not group or not principal.startswith("spiffe://"):
            # Nobody here vouches for it; a key of its own may still be known.
            return None
        if principal in self._removed:
            return None
        first: ChainError | None = None
        for authorities in group:
            try:
                return authorities.leaf(principal, chain)
            except ChainError as error:
                first = first or error
        raise first or ChainError("cannot be verified")

    def _refuse(self, passport: Passport, ring: KeyRing, header: str, reason: str) -> None:
        """Say what is wrong first: this chain, or an entry before it."""
        index = next(i for i, jws in enumerate(passport.entries) if jws.partition(".")[0] == header)
        try:
            verify_passport(passport, ring)
        except VerificationError as error:
            if error.index is not None and error.index < index:
                raise
        raise VerificationError(f"entry {index} does not verify: {reason}", index=index, reason=reason)


def _header(jws: str) -> dict[str, Any]:
    """The header of an entry; an empty one when it cannot be read, which the core refuses with its own reason."""
    try:
        members = parse(b64url_decode(jws.partition(".")[0]))
    except (KestError, ValueError):
        return {}
    return members if isinstance(members, dict) else {}


def _jwk_set(document: Mapping[str, Any]) -> tuple[Grant, ...]:
    try:
        return jwks_grants(document)
    except KeyFormatError as error:
        raise KeyFormatError(f"JWK set: {error}") from error
