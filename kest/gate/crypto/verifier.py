"""DirectoryTokenVerifier: verifies permits of everybody in a key directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from kest.errors import DirectoryError, PermitError
from kest.gate.crypto.claims import PermitClaims
from kest.gate.crypto.cose import HYBRID, Algorithm, VerifyingKeys
from kest.gate.crypto.directory import PublicKeyDirectory
from kest.gate.crypto.permits import LEEWAY, PermitRules, verify_permit
from kest.gate.crypto.replay_store import ReplayStore
from kest.gate.permit import PermitToken

__all__ = ["DirectoryTokenVerifier"]


@final
class DirectoryTokenVerifier:
    """Verifies permits with the key that each names, looked up in a directory at every call. Thread-safe.

    Args:
        directory: whose permits are believed.
        hybrid: demand both signatures (the default), or ML-DSA-65 alone; what is not demanded is refused.
        algorithm: says it in full, ``ed25519`` included; ``hybrid`` does not count then.
        leeway: seconds by which clocks may differ.
        audience: who this service is. A permit for somebody else, or for nobody in particular, is refused.
        replay_store: makes every permit single-use.
    """

    def __init__(
        self,
        directory: PublicKeyDirectory,
        hybrid: bool = True,
        *,
        algorithm: Algorithm | None = None,
        leeway: float = LEEWAY,
        audience: str | None = None,
        replay_store: ReplayStore | None = None,
    ) -> None:
        if not isinstance(directory, PublicKeyDirectory):
            raise TypeError(f"directory is a PublicKeyDirectory, not {type(directory).__name__}")
        self._directory = directory
        self._rules = PermitRules(algorithm or (HYBRID if hybrid else "ml-dsa-65"), leeway, audience, replay_store)

    def verify(
        self,
        token: PermitToken | None,
        signature: bytes | str,
        *,
        require: Mapping[str, object] | None = None,
        enforce_expiry: bool = True,
        proof: bytes | str | None = None,
    ) -> PermitClaims:
        """Everything that the permit says, if it is to be honoured: signatures, algorithm, key, time, audience, single use.

        Args:
            token: the permit, whose five fields must be the signed ones; None when only the signed form is at hand.
            signature: the signed form, as bytes or as text.
            require: claims that must have these values: ``principal``, ``kind``, ``action``, ``resource``, ``params``
                (the call's parameters), ``audience``, or any attribute of `PermitClaims`.
            enforce_expiry: False for an audit after the fact; neither the permit's time nor its key's is looked at then.
            proof: of the permit's batch, where this verifier has not seen it yet.

        Raises:
            PermitError: (a ValueError, "verify failed: ...") it is not to be honoured.
        """

        def keys_of(key_id: str) -> VerifyingKeys:
            try:
                bundle = self._directory.fetch(key_id)
            except DirectoryError as error:
                raise PermitError(f"verify failed: {error}") from None
            if enforce_expiry and bundle.is_expired:
                raise PermitError(f"verify failed: keypair expired: bundle {key_id!r} expired at {bundle.expires_at}")
            return bundle.verifying_keys()

        return verify_permit(
            token, signature, self._rules, keys_of, require=require, enforce_expiry=enforce_expiry, proof=proof
        )

    def __repr__(self) -> str:
        return f"DirectoryTokenVerifier(algorithm={self._rules.algorithm!r}, directory={self._directory!r})"
