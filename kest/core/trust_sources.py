"""Where the keys of a trust store come from when they change while the process runs.

A `KeySource` is asked at every verification what it vouches for, and answers with what it has at hand. JWK sets and SPIFFE
bundles are here; anything else that has these three methods can be added with `TrustStore.add_source`.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kest.core.grants import Grant, make_grant
from kest.core.live_document import LiveDocument, LiveSettings
from kest.core.x5c import GRACE, Authorities, certificates_of, check_trust_domain
from kest.errors import ConfigurationError, JSONSyntaxError, KestError, KeyFormatError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["JWKSSource", "KeySnapshot", "KeySource", "SpiffeBundleSource"]

log = logging.getLogger("kest")

_KINDS = (("OKP", "Ed25519"), ("EC", "P-256"), ("RSA", None))


@dataclass(frozen=True, slots=True, eq=False)
class KeySnapshot:
    """What a source vouches for at one moment. A source hands out the same object until something changes.

    Attributes:
        grants: principals and their keys.
        authorities: CA certificates, for principals whose entries carry a certificate chain.
        problem: why there is nothing, where that is no choice; part of the reason of a refusal.
    """

    grants: tuple[Grant, ...] = ()
    authorities: tuple[Authorities, ...] = ()
    problem: str | None = None


@runtime_checkable
class KeySource(Protocol):
    """Feeds a `TrustStore`. Thread-safe."""

    def snapshot(self) -> KeySnapshot:
        """What counts now. Called for every verification, also on event loops: waits for no network."""
        ...

    def refresh_soon(self) -> None:
        """Something did not verify and a newer key might explain it. The source decides how often it believes that."""
        ...

    def close(self) -> None:
        """End whatever runs in the background."""
        ...


class _Document:
    """A source over one document; the empty answer after its expiry is one object as well."""

    def __init__(self, document: LiveDocument[KeySnapshot], what: str) -> None:
        self._document = document
        self._expired = KeySnapshot(problem=f"the {what} could not be refreshed in time and are no longer believed")

    def snapshot(self) -> KeySnapshot:
        """See `KeySource`."""
        found = self._document.current()
        return self._expired if found is None else found

    def refresh_soon(self) -> None:
        """See `KeySource`."""
        self._document.refresh_soon()

    def close(self) -> None:
        """See `KeySource`."""
        self._document.close()


class JWKSSource(_Document):
    """A JWK set (RFC 7517, section 5) in a file or at a URL; each key's ``kid`` is the principal.

    Args:
        place: a path or an https URL.
        settings: of `LiveDocument`.
    """

    def __init__(self, place: str | Path, **settings: Unpack[LiveSettings]) -> None:
        def parse(body: bytes) -> tuple[KeySnapshot, None]:
            return KeySnapshot(jwks_grants(_json(body))), None

        super().__init__(LiveDocument(place, parse, what="keys", **settings), "principal's keys")


def jwks_grants(document: Mapping[str, Any]) -> tuple[Grant, ...]:
    """The grants of a JWK set.

    Raises:
        KeyFormatError: it is none, or one of its keys is malformed.
    """
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise KeyFormatError("a JWK set is an object with a list 'keys' (RFC 7517, section 5)")
    grants = []
    for index, jwk in enumerate(keys):
        try:
            grant = _jwk_grant(jwk)
        except (KestError, TypeError, ValueError) as error:
            raise KeyFormatError(f"keys[{index}]: {error}") from error
        if grant is not None:
            grants.append(grant)
    return tuple(grants)


def _jwk_grant(jwk: Any) -> Grant | None:
    if not isinstance(jwk, Mapping) or not isinstance(jwk.get("kid"), str):
        raise KeyFormatError("each key is an object whose 'kid' names the principal")
    if jwk.get("use", "sig") != "sig" or (
        isinstance(jwk.get("kty"), str) and (jwk["kty"], jwk.get("crv")) not in _KINDS
    ):
        # A set may hold keys for other purposes; section 5 says to ignore them.
        log.info("key %r of a JWK set is not for signatures that Kest verifies; ignored", jwk["kid"])
        return None
    return make_grant(
        jwk["kid"],
        jwk,
        max_trust=jwk.get("kest_max_trust", 100),
        may_sanitise=jwk.get("kest_may_sanitise", True),
        not_before=jwk.get("kest_not_before"),
        not_after=jwk.get("kest_not_after"),
    )


class SpiffeBundleSource:
    """The X.509 authorities of a SPIFFE trust domain.

    Args:
        source: a bundle document (SPIFFE Trust Domain and Bundle, section 4): a path, an https URL or the parsed dict; or CA
            certificates as PEM or DER (a path, bytes, text, or a list); or an ``X509Bundle``, ``X509BundleSet`` or
            ``X509Source`` of the package ``spiffe``, which is read afresh at every use and stays its owner's to close.
        trust_domain: whose authorities these are. Only an ``X509Bundle`` says it itself.
        max_trust, may_sanitise, grace: see `Authorities`.
        rights: see `TrustStore.from_spiffe_bundle`.
        settings: of `LiveDocument`, for a path or a URL. A bundle's ``spiffe_refresh_hint`` shortens ``refresh``.
    """

    def __init__(
        self,
        source: Any,
        trust_domain: Any = None,
        *,
        max_trust: int = 100,
        may_sanitise: bool = True,
        grace: float | None = GRACE,
        rights: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Unpack[LiveSettings],
    ) -> None:
        if trust_domain is None:
            trust_domain = _attribute(source, "trust_domain")
            if trust_domain is None:
                raise ConfigurationError("from_spiffe_bundle needs trust_domain: the bundle does not say whose it is")
        self.trust_domain = domain = check_trust_domain(trust_domain)
        self._given = source
        self._rights: dict[str, Any] = {"max_trust": max_trust, "may_sanitise": may_sanitise, "grace": grace}
        self._rights["rights"] = {name: _rights(own, max_trust, may_sanitise) for name, own in (rights or {}).items()}
        self._now: tuple[tuple[frozenset[Any], str | None], KeySnapshot] | None = None
        self._document: _Document | None = None
        self._live = any(
            _attribute(source, name) is not None for name in ("get_bundle_for_trust_domain", "x509_authorities")
        )
        if self._live:
            own = _attribute(source, "trust_domain")
            if own is not None and check_trust_domain(own) != domain:
                raise ConfigurationError(f"the bundle is that of {check_trust_domain(own)}, not of {domain}")
            self._fixed = self._from_object()
        elif isinstance(source, (str, Path)) and "-----BEGIN" not in str(source):
            what = f"authorities of the trust domain {domain}"
            self._document = _Document(LiveDocument(source, self._parsed, what=what, **settings), what)
        elif settings:
            raise ConfigurationError(f"{', '.join(sorted(settings))}: only for a bundle in a file or at a URL")
        elif isinstance(source, Mapping):
            self._fixed = self._made(bundle_certificates(source))
        else:
            self._fixed = self._made(certificates_of(source))

    def snapshot(self) -> KeySnapshot:
        """See `KeySource`."""
        if self._document is not None:
            return self._document.snapshot()
        return self._from_object() if self._live else self._fixed

    def refresh_soon(self) -> None:
        """See `KeySource`."""
        if self._document is not None:
            self._document.refresh_soon()

    def close(self) -> None:
        """See `KeySource`."""
        if self._document is not None:
            self._document.close()

    # --- inside ---

    def _made(self, certificates: Any) -> KeySnapshot:
        return KeySnapshot(authorities=(Authorities(self.trust_domain, tuple(certificates), **self._rights),))

    def _parsed(self, body: bytes) -> tuple[KeySnapshot, float | None]:
        if not body.lstrip().startswith((b"{", b"[")):
            if body.lstrip().startswith(b"-----BEGIN") or body.startswith(b"\x30"):
                return self._made(certificates_of(body)), None
            raise KeyFormatError("neither a SPIFFE bundle document (JSON) nor CA certificates (PEM, DER)")
        document = _json(body)
        hint = document.get("spiffe_refresh_hint")
        wish = float(hint) if type(hint) is int and 0 < hint < 2**31 else None
        return self._made(bundle_certificates(document)), wish

    def _from_object(self) -> KeySnapshot:
        problem: str | None = None
        authorities: frozenset[Any] = frozenset()
        try:
            bundle = self._given
            if not hasattr(bundle, "x509_authorities"):
                from spiffe import TrustDomain

                bundle = bundle.get_bundle_for_trust_domain(TrustDomain(self.trust_domain))
            if bundle is None:
                problem = f"the source has no bundle of the trust domain {self.trust_domain}"
            else:
                authorities = frozenset(bundle.x509_authorities)
        except Exception as error:
            problem = f"the source of the bundle of {self.trust_domain} failed ({type(error).__name__})"
        known = self._now
        if known is None or known[0] != (authorities, problem):
            if problem is not None:
                log.warning("no SPIFFE ID of %s is believed now: %s", self.trust_domain, problem)
            made = KeySnapshot(problem=problem) if problem is not None else self._made(certificates_of(authorities))
            self._now = known = ((authorities, problem), made)
        return known[1]


def _attribute(source: object, name: str) -> Any:
    """What an object of somebody else's says, None where it has nothing of that name."""
    try:
        return getattr(source, name, None)
    except Exception as error:
        raise ConfigurationError(f"the bundle's own {name} failed ({type(error).__name__})") from error


def _rights(own: Mapping[str, Any], max_trust: int, may_sanitise: bool) -> tuple[int, bool]:
    """A workload's rights; where it has none of its own, those of the domain."""
    unknown = sorted(set(own) - {"max_trust", "may_sanitise"})
    if unknown:
        raise ConfigurationError(f"rights: there are max_trust and may_sanitise, not {', '.join(unknown)}")
    return own.get("max_trust", max_trust), own.get("may_sanitise", may_sanitise)


def bundle_certificates(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """The CA certificates of a SPIFFE bundle document.

    Raises:
        KeyFormatError: it is none, or one of its certificates is malformed. JWT authorities and keys of unknown use are
            passed over, as section 4.2.2 says.
    """
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise KeyFormatError("a SPIFFE bundle is a JWK set: an object with a list 'keys'")
    found: list[bytes] = []
    for index, jwk in enumerate(keys):
        if not isinstance(jwk, Mapping):
            raise KeyFormatError(f"keys[{index}]: each key is an object")
        if jwk.get("use") != "x509-svid":
            continue
        chain = jwk.get("x5c")
        if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
            raise KeyFormatError(f"keys[{index}]: an x509-svid key has exactly one certificate in x5c")
        try:
            found.append(base64.b64decode(chain[0], validate=True))
        except ValueError:
            raise KeyFormatError(f"keys[{index}]: x5c is not base64") from None
    return certificates_of(found)


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        kind = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise JSONSyntaxError(f"not JSON: {kind}") from None
    if not isinstance(document, dict):
        raise KeyFormatError("a JWK set is an object")
    return document
