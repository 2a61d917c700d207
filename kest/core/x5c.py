"""Certificate chains in entries (RFC 7515, section 4.1.6): from an x5c header to a key that may sign for a SPIFFE ID.

The rules are those of X.509-SVID (SPIFFE, X509-SVID.md, sections 2 to 5): the leaf names exactly one SPIFFE ID, in a URI SAN,
is no CA, may make signatures, and its chain ends at an authority of the trust domain of that ID. Paths are validated by
``cryptography.x509.verification``, which knows RFC 5280's rules, critical extensions and name constraints.

When a chain is judged, and what that means for entries, is written in docs/design.md, "Certificates and time".
"""

from __future__ import annotations

import base64
import binascii
import datetime
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kest._kestcore import PublicKey
from kest.core.grants import FOREVER, Grant, check_rights
from kest.errors import ConfigurationError, KestError, KeyFormatError, MissingExtraError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["GRACE", "Authorities", "ChainError", "Leaf", "certificates_of", "check_trust_domain"]

GRACE = 3600.0
"""Seconds for which entries made with a certificate verify after its end."""

MAX_CHAIN = 8
MAX_CERTIFICATE = 16 * 1024
MAX_ID = 2048

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_SPIFFE_ID = re.compile(r"spiffe://(?P<domain>[a-z0-9._-]{1,255})(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+\Z")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class ChainError(KestError):
    """A certificate chain does not prove whose key it is; the message is the end of a sentence about the chain."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A verified certificate: the grant that it makes, and until when it counts (Unix seconds; None: for ever)."""

    grant: Grant
    until: float | None
    authorities: Authorities


@dataclass(frozen=True, eq=False)
class Authorities:
    """The CA certificates of one trust domain, and what they may vouch for.

    Attributes:
        trust_domain: such as ``example.org``.
        certificates: the trust anchors. They need not be self-signed.
        max_trust, may_sanitise: the rights of every principal of the domain that `rights` does not name.
        grace: seconds after the end of a leaf's validity for which entries made within it still verify; None: for ever.
        rights: max_trust and may_sanitise of single principals, by SPIFFE ID.
    """

    trust_domain: str
    certificates: tuple[Certificate, ...]
    max_trust: int = 100
    may_sanitise: bool = True
    grace: float | None = GRACE
    rights: Mapping[str, tuple[int, bool]] = field(default_factory=dict)
    _policy: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        for rights in ((self.max_trust, self.may_sanitise), *self.rights.values()):
            check_rights(*rights)
        for principal in self.rights:
            named = _SPIFFE_ID.match(principal)
            if named is None or named["domain"] != self.trust_domain:
                raise ConfigurationError(
                    f"rights: {principal!r} is not the SPIFFE ID of a workload of {self.trust_domain}"
                )
        if self.grace is not None and not self.grace >= 0:
            raise ConfigurationError("grace is a number of seconds, or None for ever")
        object.__setattr__(self, "_policy", _policy(self.certificates) if self.certificates else None)

    def leaf(self, principal: str, x5c: Sequence[Any]) -> Leaf:
        """The key that this chain proves to be the principal's.

        Args:
            principal: the ``kid`` of the header.
            x5c: its chain, the leaf first: standard base64 of DER.

        Raises:
            ChainError: it proves nothing.
        """
        named = _SPIFFE_ID.match(principal)
        if named is None or len(principal) > MAX_ID:
            raise ChainError("names no workload: the principal is not a SPIFFE ID with a path")
        if named["domain"] != self.trust_domain:
            raise ChainError("belongs to another trust domain")
        if self._policy is None:
            raise ChainError("cannot be verified: the bundle of the trust domain has no authority")
        leaf, *others = _chain(x5c)
        key = _checked_leaf(leaf, principal)
        now = time.time()
        end = leaf.not_valid_after_utc.timestamp()
        until = None if self.grace is None else end + self.grace
        if until is not None and now > until:
            raise ChainError("has expired, longer ago than the trust store's grace")
        if now < leaf.not_valid_before_utc.timestamp():
            raise ChainError("is not valid yet")
        path = self._path(leaf, others, min(now, end))
        # An entry has to be made while all of the path was valid; its times are whole seconds, those of entries milliseconds.
        start = max(_milliseconds(one.not_valid_before_utc) for one in path)
        finish = min(_milliseconds(one.not_valid_after_utc) for one in path) + 999
        if not start <= finish < FOREVER:
            raise ChainError("was never valid as a whole")
        rights = self.rights.get(principal, (self.max_trust, self.may_sanitise))
        return Leaf((principal, key, *rights, start, finish), until, self)

    def _path(self, leaf: Certificate, others: list[Certificate], at: float) -> list[Certificate]:
        from cryptography.x509.verification import VerificationError

        moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
        try:
            verified = self._policy.time(moment).build_client_verifier().verify(leaf, others)
        except VerificationError as error:
            expired = "not valid at validation time" in str(error)
            raise ChainError(
                "has expired" if expired else f"leads to no authority of the trust domain {self.trust_domain}"
            ) from None
        except Exception as error:  # whatever a library makes of hostile input, it proves nothing
            raise ChainError(f"cannot be verified ({type(error).__name__})") from None
        path: list[Certificate] = list(verified.chain)
        if len(path) < 2:
            raise ChainError("is an authority itself")
        return path


def check_trust_domain(name: Any) -> str:
    """A trust domain's name: ``example.org``, or ``spiffe://example.org``.

    Raises:
        ConfigurationError: it is none.
    """
    given = getattr(name, "name", name)
    text = given.removeprefix("spiffe://") if isinstance(given, str) else ""
    if not _TRUST_DOMAIN.match(text):
        raise ConfigurationError(f"trust_domain is a name such as example.org, not {given!r}")
    return text


def _policy(certificates: tuple[Certificate, ...]) -> Any:
    from cryptography import x509

    try:
        from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store
    except ImportError as error:
        raise MissingExtraError(
            'certificate chains need cryptography 45 or newer: pip install "kest[spiffe]"'
        ) from error

    def may_sign_certificates(policy: Any, certificate: Any, usage: x509.KeyUsage | None) -> None:
        if usage is not None and not usage.key_cert_sign:
            raise ValueError("its key usage has no keyCertSign")

    # The library's defaults are those of the web's PKI; SVIDs carry neither DNS names nor key identifiers necessarily.
    authority = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, may_sign_certificates)
    )
    return (
        PolicyBuilder()
        .store(Store(list(certificates)))
        .max_chain_depth(MAX_CHAIN)
        .extension_policies(ca_policy=authority, ee_policy=ExtensionPolicy.permit_all())
    )


def _chain(x5c: Sequence[Any]) -> list[Certificate]:
    from cryptography import x509

    if not 1 <= len(x5c) <= MAX_CHAIN:
        raise ChainError(f"has more than {MAX_CHAIN} certificates")
    chain = []
    for text in x5c:
        try:
            der = base64.b64decode(text, validate=True)
            if len(der) > MAX_CERTIFICATE:
                raise ChainError(f"has a certificate of more than {MAX_CERTIFICATE} bytes")
            chain.append(x509.load_der_x509_certificate(der))
        except (ValueError, TypeError, binascii.Error):
            raise ChainError("cannot be read: it is standard base64 of DER certificates") from None
    return chain


def _checked_leaf(leaf: Certificate, principal: str) -> PublicKey:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        extensions = leaf.extensions
    except Exception:
        raise ChainError("has a leaf whose extensions cannot be read") from None
    found: dict[type[Any], Any] = {type(extension.value): extension.value for extension in extensions}
    constraints, usage = found.get(x509.BasicConstraints), found.get(x509.KeyUsage)
    if (constraints is not None and constraints.ca) or (usage is not None and (usage.key_cert_sign or usage.crl_sign)):
        raise ChainError("has a certificate authority as its leaf")
    if usage is None or not usage.digital_signature:
        raise ChainError("has a leaf that is not for signatures (key usage digitalSignature)")
    names = found.get(x509.SubjectAlternativeName)
    uris = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise ChainError(f"has a leaf with {len(uris)} URI names; an SVID has one")
    if uris[0] != principal:
        raise ChainError("belongs to another SPIFFE ID than the entry's principal")
    try:
        key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return PublicKey.from_spki(key)
    except Exception:  # of the library for keys that it does not know, of the core for those that are too weak
        raise ChainError("has a leaf whose key is neither P-256 nor RSA of 2,048 bits or more") from None


def _milliseconds(moment: datetime.datetime) -> int:
    return int(moment.timestamp()) * 1000


def certificates_of(given: Any) -> tuple[Certificate, ...]:
    """CA certificates from PEM (one or several), DER, `cryptography` objects, or a collection of these.

    Raises:
        KeyFormatError: something in it is no certificate, or not that of a CA.
    """
    try:
        from cryptography import x509
    except ImportError as error:
        raise MissingExtraError('certificates need cryptography: pip install "kest[spiffe]"') from error
    found: dict[Certificate, None] = {}
    for one in _flat(given):
        if isinstance(one, x509.Certificate):
            found[one] = None
            continue
        data = one.encode() if isinstance(one, str) else bytes(one) if isinstance(one, (bytes, bytearray)) else b""
        blocks = _PEM.findall(data)
        try:
            for block in blocks:
                found[x509.load_pem_x509_certificate(block)] = None
            if not blocks:
                found[x509.load_der_x509_certificate(data)] = None
        except ValueError:
            raise KeyFormatError(
                "not a certificate: PEM (BEGIN CERTIFICATE), DER or x509.Certificate is expected"
            ) from None
    for certificate in found:
        try:
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, ValueError):
            is_authority = False
        if not is_authority:
            raise KeyFormatError("a bundle holds CA certificates (basicConstraints cA), and one of these is none")
    return tuple(found)


def _flat(given: Any) -> Iterable[Any]:
    return given if isinstance(given, (list, tuple, set, frozenset)) else (given,)
