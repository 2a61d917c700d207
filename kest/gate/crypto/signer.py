"""PqTokenSigner: signs permits, and verifies its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final

from kest._kestcore import PublicKey, Signer, uuid7
from kest.errors import GateInputError, KestError, KeyFormatError, PermitError, SigningError
from kest.gate.crypto import clock
from kest.gate.crypto.batch import PermitBatch, sign_batch
from kest.gate.crypto.claims import PermitClaims
from kest.gate.crypto.cose import HYBRID, Algorithm, SigningKeys, VerifyingKeys, build, check_key_id, sign
from kest.gate.crypto.keys import KeyPair
from kest.gate.crypto.permits import LEEWAY, PERMIT, PermitRules, verify_permit
from kest.gate.crypto.pq import MLDSA, MLDSAPublic
from kest.gate.crypto.replay_store import ReplayStore
from kest.gate.permit import PermitToken

__all__ = ["PqTokenSigner"]


@final
class PqTokenSigner:
    """Signs permits with Ed25519, ML-DSA-65, or both (hybrid). Safe to use from several threads.

    Made by one of the class methods. Verifying demands exactly the algorithm that the signer signs with.
    """

    __slots__ = ("_expires_at", "_public", "_rules", "_secret")

    def __init__(self, secret: SigningKeys, public: VerifyingKeys, expires_at: int | None = None) -> None:
        self._secret, self._public, self._expires_at = secret, public, expires_at
        self._rules = PermitRules(secret.algorithm)

    # --- making one ---

    @classmethod
    def hybrid(
        cls,
        ml_dsa_signing_key: bytes,
        ml_dsa_verifying_key: bytes,
        ed25519_signing_key: bytes,
        ed25519_verifying_key: bytes,
        key_id: str,
    ) -> PqTokenSigner:
        """From raw keys: seeds of 32 bytes each, or b"" for a signer that can only verify.

        Raises:
            KeyFormatError: a key is of the wrong length, or its two halves do not belong together.
        """
        ml_dsa, ml_dsa_public = _ml_dsa(ml_dsa_signing_key, ml_dsa_verifying_key)
        ed25519, ed25519_public = _ed25519(key_id, ed25519_signing_key, ed25519_verifying_key)
        return cls(SigningKeys(key_id, HYBRID, ed25519, ml_dsa), VerifyingKeys(key_id, ed25519_public, ml_dsa_public))

    @classmethod
    def pq_only(cls, ml_dsa_signing_key: bytes, ml_dsa_verifying_key: bytes, key_id: str) -> PqTokenSigner:
        """From a raw ML-DSA-65 key; see `hybrid`."""
        secret, public = _ml_dsa(ml_dsa_signing_key, ml_dsa_verifying_key)
        key_id = check_key_id(key_id)
        return cls(SigningKeys(key_id, "ml-dsa-65", None, secret), VerifyingKeys(key_id, None, public))

    @classmethod
    def ed25519_only(cls, ed25519_signing_key: bytes, ed25519_verifying_key: bytes, key_id: str) -> PqTokenSigner:
        """From a raw Ed25519 key; needs no extra. Not safe against a quantum computer."""
        secret, public = _ed25519(key_id, ed25519_signing_key, ed25519_verifying_key)
        return cls(SigningKeys(key_id, "ed25519", secret, None), VerifyingKeys(key_id, public, None))

    @classmethod
    def generate_hybrid(cls, key_id: str | None = None) -> PqTokenSigner:
        """With new keys."""
        return cls._generated(key_id, HYBRID)

    @classmethod
    def generate_pq_only(cls, key_id: str | None = None) -> PqTokenSigner:
        """With a new ML-DSA-65 key."""
        return cls._generated(key_id, "ml-dsa-65")

    @classmethod
    def generate_ed25519_only(cls, key_id: str | None = None) -> PqTokenSigner:
        """With a new Ed25519 key; needs no extra."""
        return cls._generated(key_id, "ed25519")

    @classmethod
    def _generated(cls, key_id: str | None, algorithm: Algorithm) -> PqTokenSigner:
        name = check_key_id(uuid7() if key_id is None else key_id)
        ed25519 = None if algorithm == "ml-dsa-65" else Signer(name)
        ml_dsa = None if algorithm == "ed25519" else MLDSA()
        public = VerifyingKeys(
            name,
            None if ed25519 is None else PublicKey.from_raw(ed25519.public_key),
            None if ml_dsa is None else MLDSAPublic(ml_dsa.public),
        )
        return cls(SigningKeys(name, algorithm, ed25519, ml_dsa), public)

    @classmethod
    def from_keypair_hybrid(cls, keypair: KeyPair, key_id: str | None = None) -> PqTokenSigner:
        """With the keys of a pair, under its id unless another is given. Stops signing when the pair expires."""
        return cls._from_keypair(keypair, key_id, HYBRID)

    @classmethod
    def from_keypair_pq_only(cls, keypair: KeyPair, key_id: str | None = None) -> PqTokenSigner:
        """The same with its ML-DSA-65 key alone."""
        return cls._from_keypair(keypair, key_id, "ml-dsa-65")

    @classmethod
    def _from_keypair(cls, keypair: KeyPair, key_id: str | None, algorithm: Algorithm) -> PqTokenSigner:
        if not isinstance(keypair, KeyPair):
            raise TypeError(f"a KeyPair is expected, not {type(keypair).__name__}")
        keys, name = keypair.signing_keys(algorithm), check_key_id(keypair.id if key_id is None else key_id)
        public = keypair.public_keys().verifying_keys()
        ed25519 = public.ed25519 if algorithm == HYBRID else None
        return cls(
            SigningKeys(name, algorithm, keys.ed25519, keys.ml_dsa),
            VerifyingKeys(name, ed25519, public.ml_dsa),
            keypair.expires_at,
        )

    # --- what it is ---

    @property
    def key_id(self) -> str:
        """The id that its envelopes name."""
        return self._secret.key_id

    @property
    def algorithm(self) -> Algorithm:
        """``ed25519``, ``ml-dsa-65`` or ``ml-dsa-65+ed25519``."""
        return self._secret.algorithm

    @property
    def is_hybrid(self) -> bool:
        """Whether both algorithms sign."""
        return self._secret.algorithm == HYBRID

    # --- signing ---

    def sign(self, token: PermitToken) -> bytes:
        """The signed form of a permit that binds its five fields; a gate signs all claims (`sign_claims`).

        Raises:
            SigningError: the key has expired or its secret half is not here.
        """
        return self.sign_claims(PermitClaims.of_token(token))

    def sign_claims(self, claims: PermitClaims) -> bytes:
        """The signed form of these claims. Their ``key_id`` is not looked at: the signer's is used.

        Raises:
            SigningError: the key has expired, its secret half is not here, or a claim cannot be written.
        """
        self._check_expiry()
        try:
            payload = claims.to_payload()
            protected, signatures = sign(self._secret, PERMIT, payload)
        except (KestError, ValueError) as error:
            raise SigningError(f"sign failed: {error}") from None
        return build(protected, payload, signatures)

    def sign_batch(self, permits: Iterable[PermitToken | PermitClaims]) -> PermitBatch:
        """Sign up to 256 permits that share one ML-DSA-65 signature; hybrid signers only.

        Raises:
            GateInputError: none, too many, or the signer is not hybrid.
            SigningError: see `sign_claims`.
        """
        self._check_expiry()
        claims = [one if isinstance(one, PermitClaims) else PermitClaims.of_token(one) for one in permits]
        try:
            return sign_batch(self._secret, PERMIT, claims)
        except GateInputError:
            raise
        except (KestError, ValueError) as error:
            raise SigningError(f"sign failed: {error}") from None

    # --- verifying ---

    def verify(
        self,
        token: PermitToken | None,
        signature: bytes | str,
        *,
        require: Mapping[str, object] | None = None,
        enforce_expiry: bool = True,
        leeway: float = LEEWAY,
        replay_store: ReplayStore | None = None,
        proof: bytes | str | None = None,
    ) -> PermitClaims:
        """Everything that the permit says, if it is to be honoured; arguments as for `DirectoryTokenVerifier`.

        Raises:
            PermitError: (a ValueError, "verify failed: ...") it is not.
        """
        rules = self._rules
        if leeway != LEEWAY or replay_store is not None:
            rules = PermitRules(self.algorithm, leeway, replay_store=replay_store)
            rules.proofs = self._rules.proofs
        return verify_permit(
            token, signature, rules, self._keys_of, require=require, enforce_expiry=enforce_expiry, proof=proof
        )

    def _keys_of(self, key_id: str) -> VerifyingKeys:
        if key_id != self.key_id:
            raise PermitError(f"verify failed: signed by key {key_id!r}, not by {self.key_id!r}")
        if self._expires_at is not None and clock.now() > self._expires_at:
            raise PermitError(f"verify failed: keypair expired: {key_id!r} at {self._expires_at}")
        return self._public

    def _check_expiry(self) -> None:
        if self._expires_at is not None and clock.now() > self._expires_at:
            raise SigningError(f"sign failed: key {self.key_id!r} expired at {self._expires_at}: generate a new one")

    def __repr__(self) -> str:
        return f"PqTokenSigner(key_id={self.key_id!r}, algorithm={self.algorithm!r})"

    def __reduce__(self) -> Any:
        raise TypeError("a signer is neither pickled nor copied")


def _ml_dsa(signing: bytes, verifying: bytes) -> tuple[MLDSA | None, MLDSAPublic]:
    secret = MLDSA(signing) if signing else None
    if secret is not None and secret.public != bytes(verifying):
        raise KeyFormatError("the ML-DSA-65 verifying key does not belong to the signing key")
    return secret, MLDSAPublic(verifying)


def _ed25519(key_id: str, signing: bytes, verifying: bytes) -> tuple[Signer | None, PublicKey]:
    secret = Signer(check_key_id(key_id), signing) if signing else None
    if secret is not None and secret.public_key != bytes(verifying):
        raise KeyFormatError("the Ed25519 verifying key does not belong to the signing key")
    if len(verifying) != 32:
        raise KeyFormatError(f"an Ed25519 verifying key is 32 bytes, not {len(verifying)}")
    return secret, PublicKey.from_raw(verifying)
