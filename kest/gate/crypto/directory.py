"""PublicKeyDirectory: whose keys are believed, in memory, in a file, or in a file signed by a root."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from kest._kestcore import canonicalize, parse
from kest.errors import DirectoryError, GateInputError, KestError
from kest.gate.crypto.bundles import PublicKeyBundle
from kest.gate.crypto.cose import VerifyingKeys
from kest.gate.crypto.manifest import MAX_MANIFEST, Manifest, Root, build_unsigned, read_signed, read_unsigned
from kest.gate.crypto.private_file import locked_folder, read_bounded, write_atomic
from kest.locks import Lock

if TYPE_CHECKING:
    from kest.gate.crypto.directory_source import DirectorySource
    from kest.gate.crypto.keys import KeyPair

__all__ = ["PublicKeyDirectory"]

log = logging.getLogger("kest.gate")


@final
class PublicKeyDirectory:
    """Key bundles by id. Thread-safe; a reader sees a directory as it was before or after a change, never in between.

    Made by `in_memory`, `from_file` or `from_signed_file`.
    """

    def __init__(self, manifest: Manifest, load: Callable[[], Manifest] | None = None) -> None:
        self._manifest = manifest
        self._load = load
        self._lock = Lock()

    @classmethod
    def in_memory(cls, bundles: Iterable[PublicKeyBundle] = ()) -> PublicKeyDirectory:
        """Of these bundles; `insert` and `remove` change it."""
        directory = cls(Manifest({}))
        for bundle in bundles:
            directory.insert(bundle)
        return directory

    @classmethod
    def from_file(cls, path: str | Path) -> PublicKeyDirectory:
        """Of an unsigned manifest: whoever can write the file decides whose keys are believed.

        Raises:
            DirectoryError: it is missing or malformed.
        """

        def load() -> Manifest:
            return read_unsigned(_content(Path(path)))

        return cls(_first(load), load)

    @classmethod
    def from_signed_file(
        cls,
        path: str | Path,
        root_ml_dsa_verifying_key: bytes | None = None,
        *,
        root_ed25519_verifying_key: bytes | None = None,
        root: PublicKeyBundle | None = None,
        state_file: str | Path | Literal[False] | None = None,
    ) -> PublicKeyDirectory:
        """Of a manifest that `KeyPair.build_signed_manifest` made.

        Args:
            path: the manifest.
            root_ml_dsa_verifying_key: the root's; give its Ed25519 key as well, or ``root``, so that both signatures count.
            root_ed25519_verifying_key: the root's.
            root: the root's bundle, in place of the two.
            state_file: where the highest version seen is remembered, so that an older manifest is refused after a
                restart too; beside the manifest, as ``<path>.seen``, when not given. False: only in memory.

        Raises:
            DirectoryError: it is missing, malformed, not signed by the root, expired, or older than one seen before.
        """
        if (root is None) == (root_ml_dsa_verifying_key is None):
            raise GateInputError("from_signed_file needs root_ml_dsa_verifying_key, or root (a PublicKeyBundle)")
        if root is not None:
            believed = Root(root.ml_dsa_verifying_key, root.ed25519_verifying_key)
        else:
            believed = Root(root_ml_dsa_verifying_key or b"", root_ed25519_verifying_key)
        place = Path(f"{path}.seen") if state_file is None else Path(state_file) if state_file else None
        seen = _Seen(place, believed.fingerprint)

        def load() -> Manifest:
            manifest = read_signed(_content(Path(path)), believed)
            seen.advance(manifest.version, manifest.digest)
            return manifest

        return cls(_first(load), load)

    # --- asking ---

    def fetch(self, id: str) -> PublicKeyBundle:
        """The bundle of this id.

        Raises:
            DirectoryError: there is none, or the signed directory has expired.
        """
        manifest = self._manifest
        try:
            manifest.check_time()
        except DirectoryError as error:
            raise DirectoryError(f"directory fetch: {error}") from None
        bundle = manifest.bundles.get(id)
        if bundle is None:
            raise DirectoryError(f"directory fetch: public key not found for id {id[:300]!r}")
        return bundle

    def verifying_keys(self, id: str) -> VerifyingKeys:
        """The keys of this id, expanded once; see `fetch`."""
        return self.fetch(id).verifying_keys()

    def bundles(self) -> tuple[PublicKeyBundle, ...]:
        """All of them, by id."""
        found = self._manifest.bundles
        return tuple(found[id] for id in sorted(found))

    @property
    def version(self) -> int:
        """Of the signed manifest in force; 0 for the others."""
        return self._manifest.version

    @property
    def expires_at(self) -> int | None:
        """Unix seconds until which the signed manifest is believed, or None."""
        return self._manifest.expires_at

    @property
    def length(self) -> int:
        """How many bundles it has."""
        return len(self._manifest.bundles)

    @property
    def is_empty(self) -> bool:
        """Whether it has none."""
        return not self._manifest.bundles

    def __len__(self) -> int:
        return len(self._manifest.bundles)

    # --- changing ---

    def insert(self, bundle: PublicKeyBundle) -> None:
        """Add a bundle, in place of one with the same id. DirectoryError unless in memory."""
        if not isinstance(bundle, PublicKeyBundle):
            raise TypeError(f"a directory is made of PublicKeyBundles, not {type(bundle).__name__}")
        self._change(lambda bundles: bundles.update({bundle.id: bundle}))

    def remove(self, id: str) -> bool:
        """Take a bundle away; whether there was one. DirectoryError unless in memory."""
        known = id in self._manifest.bundles
        self._change(lambda bundles: bundles.pop(id, None))
        return known

    def _change(self, change: Callable[[dict[str, PublicKeyBundle]], object]) -> None:
        if self._load is not None:
            raise DirectoryError(
                "insert/remove only supported on in-memory directories: write a new manifest and reload"
            )
        with self._lock:
            bundles = dict(self._manifest.bundles)
            change(bundles)
            self._manifest = Manifest(bundles)

    def reload(self) -> None:
        """Read the file again; nothing happens to a directory in memory.

        Raises:
            DirectoryError: what is there now cannot be believed. What was in force stays in force.
        """
        if self._load is None:
            return
        with self._lock:
            try:
                self._manifest = self._load()
            except DirectoryError as error:
                log.error("key directory not reloaded, the last good one stays in force: %s", error)
                raise DirectoryError(f"directory reload: {error}") from None

    # --- for others ---

    def key_source(self, *, max_trust: int = 100, may_sanitise: bool = True) -> DirectorySource:
        """This directory as a source of a `TrustStore`: each id is a principal with its Ed25519 key.

        Use it as ``store.add_source(directory.key_source())``.
        """
        from kest.gate.crypto.directory_source import DirectorySource

        return DirectorySource(self, max_trust, may_sanitise)

    @staticmethod
    def build_unsigned_manifest(bundles: Iterable[PublicKeyBundle]) -> bytes:
        """The content of a file for `from_file`."""
        return build_unsigned(bundles)

    @staticmethod
    def build_signed_manifest(bundles: Iterable[PublicKeyBundle], root: KeyPair) -> bytes:
        """The content of a file for `from_signed_file`; see `KeyPair.build_signed_manifest`."""
        return root.build_signed_manifest(bundles)

    def __repr__(self) -> str:
        return f"PublicKeyDirectory(kind={'in_memory' if self._load is None else 'file'}, length={self.length})"


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_MANIFEST)[0]
    except OSError as error:
        raise DirectoryError(f"unavailable: read {str(path)!r}: {error.strerror or error}") from None


def _first(load: Callable[[], Manifest]) -> Manifest:
    try:
        return load()
    except DirectoryError as error:
        raise DirectoryError(f"directory load: {error}") from None


class _Seen:
    """The highest version seen of one root's directory, in memory and in a file."""

    def __init__(self, place: Path | None, fingerprint: str) -> None:
        self._place, self._fingerprint = place, fingerprint
        self._highest: tuple[int, str] = (0, "")

    def advance(self, version: int, digest: str) -> None:
        """Remember this version.

        Raises:
            DirectoryError: a higher one was seen, another one of the same number, or the file cannot be kept.
        """
        if self._place is None:
            self._highest = self._checked(self._highest, version, digest)
            return
        try:
            with locked_folder(self._place.parent):
                known = self._read(self._place)
                row = known.get(self._fingerprint, [0, ""])
                highest = self._checked(max(self._highest, (row[0], row[1])), version, digest)
                if highest != (row[0], row[1]):
                    write_atomic(self._place, canonicalize({**known, self._fingerprint: list(highest)}))
        except OSError as error:
            reason = f"{error.strerror or error}; give state_file= a place that can be written"
            raise DirectoryError(f"unavailable: the version seen last, {str(self._place)!r}: {reason}") from None
        self._highest = highest

    @staticmethod
    def _checked(highest: tuple[int, str], version: int, digest: str) -> tuple[int, str]:
        if version < highest[0]:
            raise DirectoryError(
                f"rollback: version {version} is older than version {highest[0]}, which was seen before"
            )
        if version == highest[0] and digest != highest[1]:
            raise DirectoryError(f"rollback: another directory of version {version} was seen before")
        return version, digest

    @staticmethod
    def _read(place: Path) -> dict[str, list[Any]]:
        try:
            data, _ = read_bounded(place, 1 << 20)
        except FileNotFoundError:
            return {}
        try:
            known = parse(data)
            if isinstance(known, dict) and all(
                isinstance(row, list) and len(row) == 2 and type(row[0]) is int and type(row[1]) is str
                for row in known.values()
            ):
                return known
        except (KestError, ValueError):
            pass
        raise DirectoryError(f"corrupt: the version seen last, {str(place)!r}: remove it if its loss is understood")
