"""Passports: building, signing by hand, and offline verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kest._kestcore import KestEntry, Passport, Signer, verify_passport
from kest.core.identity.base import principal_of, sign_payload
from kest.core.truststore import TrustStore
from kest.errors import VerificationError

__all__ = ["KestEntry", "Passport", "PassportVerifier", "VerificationError", "VerifiedPassport", "sign_entry"]


def sign_entry(entry: KestEntry, identity: Any) -> str:
    """Sign an entry made by hand: its compact JWS, with ``labels.principal`` set to the identity's principal.

    Raises:
        PassportError: the entry is not one that a verifier would accept.
        IdentityError: the identity failed.
    """
    signer = getattr(identity, "signer", None)
    if (
        type(signer) is Signer
    ):  # nothing but the key decides what sign() returns: no need to check what we made ourselves
        return signer.sign_jws(entry.payload(signer.principal))
    principal = principal_of(identity)
    return sign_payload(identity, entry.payload(principal), principal)


@dataclass(frozen=True, slots=True)
class VerifiedPassport:
    """What is known of a passport whose every signature, link, score and taint was checked.

    Attributes:
        passport: the entries.
        trust_score: the lowest trust among the tips.
        taints: the union of the tips' taints, ascending.
        tips: hashes of the last entries, sorted.
        principals: everyone who signed an entry.
    """

    passport: Passport
    trust_score: int
    taints: tuple[str, ...]
    tips: tuple[str, ...]
    principals: frozenset[str]

    @property
    def entries(self) -> list[str]:
        """The JWS strings."""
        return self.passport.entries

    def decode(self) -> list[dict[str, Any]]:
        """The payloads as dicts."""
        return self.passport.decode()

    def __len__(self) -> int:
        return len(self.passport)


class PassportVerifier:
    """Verifies passports with the keys of a trust store; needs no network and none of the services involved."""

    @staticmethod
    def verify(
        passport: Passport | str | Sequence[str], keys: TrustStore | Mapping[str, Any], *, chain_tip: str | None = None
    ) -> VerifiedPassport:
        """Check every entry: form, links, trust, taints, the principal's rights and the signature.

        Args:
            passport: a `Passport`, its serialised text, or a list of JWS strings.
            keys: a `TrustStore`, or a mapping of principals to providers, raw 32-byte keys, JWK dicts or PEM. A principal
                that is not in it makes the passport invalid.
            chain_tip: the tip that the passport must have (``kest.chain_tip``), several comma-joined and sorted. Without
                it, nobody can tell that the last entries were cut off.

        Raises:
            VerificationError: with ``index`` (None: the passport as a whole) and ``reason`` of the first thing wrong.
        """
        store = keys if isinstance(keys, TrustStore) else TrustStore(keys)
        if isinstance(passport, str):
            passport = Passport.deserialize(passport)
        elif not isinstance(passport, Passport):
            passport = Passport(passport)
        passport = passport.snapshot()  # what is verified is what the caller gets, whoever adds to it meanwhile
        principals = store.verify(passport, lambda ring: verify_passport(passport, ring))
        if chain_tip is not None and chain_tip != passport.chain_tip:
            raise VerificationError(
                "passport does not verify: its last entry is not the one it should have (entries may have been cut off)",
                reason="the tip of the chain is not the expected one",
            )
        return VerifiedPassport(passport, passport.trust_score, passport.taints, passport.tips, principals)
