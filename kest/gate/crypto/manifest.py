"""Manifests of key directories: lists of bundles, signed by a root or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kest._kestcore import PublicKey, b64url_decode, b64url_encode, canonicalize, parse, sha256
from kest.errors import DirectoryError, GateInputError, KestError
from kest.gate.crypto import clock, cose
from kest.gate.crypto.bundles import LATEST, PublicKeyBundle
from kest.gate.crypto.cose import ED25519, HYBRID, ML_DSA_65, CoseError, Kind, VerifyingKeys
from kest.gate.crypto.pq import MLDSAPublic

if TYPE_CHECKING:
    from kest.gate.crypto.keys import KeyPair

__all__ = [
    "MANIFEST",
    "MAX_MANIFEST",
    "Manifest",
    "Root",
    "build_signed",
    "build_unsigned",
    "read_signed",
    "read_unsigned",
]

MANIFEST = Kind("kest-directory+json", b"kest.gate key directory v1")
MAX_MANIFEST = 16 * 1024 * 1024
MAX_VERSION = 2**53 - 1

Bundles = dict[str, PublicKeyBundle]


@dataclass(frozen=True)
class Manifest:
    """A directory at one moment. ``digest``: SHA-256 (hex) of what was signed; empty for an unsigned one."""

    bundles: Bundles
    version: int = 0
    expires_at: int | None = None
    digest: str = ""

    def check_time(self) -> None:
        """Raise DirectoryError when it is no longer to be believed."""
        if self.expires_at is not None and clock.now() > self.expires_at:
            raise DirectoryError(f"the signed directory expired at {self.expires_at}: have its root sign a new one")


class Root:
    """The key that a signed directory must be signed by.

    Args:
        ml_dsa: raw ML-DSA-65 verifying key.
        ed25519: raw Ed25519 verifying key; without it only the ML-DSA signature can be checked.
    """

    def __init__(self, ml_dsa: bytes, ed25519: bytes | None = None) -> None:
        try:
            key = None if ed25519 is None else PublicKey.from_raw(ed25519)
            self.keys = VerifyingKeys("root", key, MLDSAPublic(ml_dsa))
        except (KestError, TypeError) as error:
            raise DirectoryError(f"directory load: corrupt: root key: {error}") from None
        self.numbers = (ML_DSA_65,) if ed25519 is None else (ED25519, ML_DSA_65)
        self.fingerprint = sha256(bytes(ml_dsa)).hex()


def _rows(bundles: Iterable[PublicKeyBundle]) -> list[dict[str, Any]]:
    found: Bundles = {}
    for bundle in bundles:
        if not isinstance(bundle, PublicKeyBundle):
            raise TypeError(f"a directory is made of PublicKeyBundles, not {type(bundle).__name__}")
        if found.setdefault(bundle.id, bundle) != bundle:
            raise GateInputError(f"two bundles with the id {bundle.id!r} and different keys")
    return [found[id].to_dict() for id in sorted(found)]


def build_unsigned(bundles: Iterable[PublicKeyBundle]) -> bytes:
    """A JSON array of bundles."""
    return canonicalize(_rows(bundles))


def build_signed(
    root: KeyPair, bundles: Iterable[PublicKeyBundle], version: int | None, expires_in: int | None
) -> bytes:
    """See `KeyPair.build_signed_manifest`."""
    now = clock.now()
    version = int(now * 1000) if version is None else version
    if type(version) is not int or not 0 < version <= MAX_VERSION:
        raise GateInputError("the version of a directory is an int from 1 to 2**53 - 1")
    if expires_in is not None and (type(expires_in) is not int or not 0 < expires_in <= LATEST - now):
        raise GateInputError("expires_in is a positive int of seconds, or None")
    manifest = {
        "bundles": _rows(bundles),
        "expires_at": None if expires_in is None else int(now) + expires_in,
        "issued_at": int(now),
        "root": root.id,
        "version": version,
    }
    _, signatures = cose.sign(root.signing_keys(HYBRID), MANIFEST, canonicalize(manifest))
    texts = {"ed25519": b64url_encode(signatures[ED25519]), "ml_dsa_65": b64url_encode(signatures[ML_DSA_65])}
    return canonicalize({"manifest": manifest, **texts})


def _parsed(data: bytes) -> Any:
    try:
        return parse(data)
    except (KestError, ValueError) as error:
        raise DirectoryError(f"corrupt: parse: {error}") from None


def _read_rows(rows: Any) -> Bundles:
    if not isinstance(rows, list):
        raise DirectoryError("corrupt: parse: the bundles are no list")
    bundles: Bundles = {}
    for index, row in enumerate(rows):
        try:
            bundle = PublicKeyBundle.from_dict(row)
        except KestError as error:
            raise DirectoryError(f"corrupt: bundles[{index}]: {error}") from None
        if bundle.id in bundles:
            raise DirectoryError(f"corrupt: bundles[{index}]: the id {bundle.id!r} a second time")
        bundles[bundle.id] = bundle
    return bundles


def read_unsigned(data: bytes) -> Manifest:
    """An unsigned manifest; whoever can write the file decides whose keys are believed.

    Raises:
        DirectoryError: it is none.
    """
    return Manifest(_read_rows(_parsed(data)))


def read_signed(data: bytes, root: Root) -> Manifest:
    """A signed manifest, verified before anything of it is read.

    Raises:
        DirectoryError: it is none, is not signed by this root, or has expired.
    """
    whole = _parsed(data)
    if not isinstance(whole, dict) or set(whole) != {"manifest", "ed25519", "ml_dsa_65"}:
        raise DirectoryError("corrupt: parse: not a signed directory")
    if canonicalize(whole) != data:
        raise DirectoryError("corrupt: parse: not canonical JSON")
    manifest = whole["manifest"]
    names = {"bundles", "expires_at", "issued_at", "root", "version"}
    if not isinstance(manifest, dict) or set(manifest) != names or not isinstance(manifest["root"], str):
        raise DirectoryError("corrupt: parse: not a signed directory")
    signed = canonicalize(manifest)
    try:
        signatures = {ED25519: b64url_decode(whole["ed25519"]), ML_DSA_65: b64url_decode(whole["ml_dsa_65"])}
        protected = cose.protected_header(cose.check_key_id(manifest["root"]), HYBRID, MANIFEST)
        cose.check(protected, signed, {number: signatures[number] for number in root.numbers}, root.keys, MANIFEST)
    except CoseError:
        raise DirectoryError("root signature invalid: signature verification failed") from None
    except (KestError, TypeError) as error:
        raise DirectoryError(f"corrupt: signature: {error}") from None
    version, expires = manifest["version"], manifest["expires_at"]
    if type(version) is not int or version < 1 or not (expires is None or type(expires) is int):
        raise DirectoryError("corrupt: version or expiry")
    found = Manifest(_read_rows(manifest["bundles"]), version, expires, sha256(signed).hex())
    found.check_time()
    return found
