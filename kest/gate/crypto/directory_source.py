"""A key directory as a source of a passport's `TrustStore`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, final

from kest.core.grants import Grant, check_rights, make_grant
from kest.core.trust_sources import KeySnapshot
from kest.errors import DirectoryError
from kest.gate.crypto.bundles import PublicKeyBundle

if TYPE_CHECKING:
    from kest.gate.crypto.directory import PublicKeyDirectory

__all__ = ["DirectorySource"]

log = logging.getLogger("kest.gate")

INTERVAL = 1.0
"""Seconds between two looks at the file, however many unknown principals turn up."""


@final
class DirectorySource:
    """Each bundle's id as a principal, with its Ed25519 key for as long as the bundle says.

    Args:
        directory: stays its owner's; closing the source does nothing to it.
        max_trust, may_sanitise: what its principals may claim, see `TrustStore.add`.
    """

    def __init__(self, directory: PublicKeyDirectory, max_trust: int = 100, may_sanitise: bool = True) -> None:
        check_rights(max_trust, may_sanitise)
        self._directory, self._rights = directory, (max_trust, may_sanitise)
        self._made: tuple[tuple[PublicKeyBundle, ...], KeySnapshot] | None = None
        self._expired: KeySnapshot | None = None
        self._looked = 0.0

    def snapshot(self) -> KeySnapshot:
        """See `KeySource`."""
        manifest = self._directory._manifest
        try:
            manifest.check_time()
        except DirectoryError as error:
            if self._expired is None:
                self._expired = KeySnapshot(problem=str(error))
            return self._expired
        self._expired = None
        bundles = self._directory.bundles()
        made = self._made
        if made is None or made[0] != bundles:
            self._made = made = (bundles, KeySnapshot(tuple(self._grant(bundle) for bundle in bundles)))
        return made[1]

    def _grant(self, bundle: PublicKeyBundle) -> Grant:
        max_trust, may_sanitise = self._rights
        until = None if bundle.expires_at is None else bundle.expires_at * 1000
        return make_grant(
            bundle.id,
            bundle.ed25519_verifying_key,
            max_trust=max_trust,
            may_sanitise=may_sanitise,
            not_before=max(0, bundle.created_at * 1000),
            not_after=until,
        )

    def refresh_soon(self) -> None:
        """See `KeySource`: reads the file again."""
        now = time.monotonic()
        if now - self._looked < INTERVAL:
            return
        self._looked = now
        try:
            self._directory.reload()
        except DirectoryError as error:
            log.warning("the keys of a directory may be stale: %s", error)

    def close(self) -> None:
        """See `KeySource`. The directory has nothing that runs."""
