"""Permits in signed form: how one is made, and everything that is checked before one counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kest._kestcore import b64url_decode, b64url_encode
from kest.errors import GateInputError, KestError, PermitError, ReplayStoreError
from kest.gate.crypto import clock
from kest.gate.crypto.batch import BATCH, BatchProofs
from kest.gate.crypto.claims import PermitClaims
from kest.gate.crypto.cose import (
    ALGORITHMS,
    ED25519,
    HYBRID,
    Algorithm,
    CoseError,
    Envelope,
    Kind,
    VerifyingKeys,
    check,
    parse,
)
from kest.gate.crypto.replay_store import ReplayStore, replay_key
from kest.gate.permit import PermitToken

__all__ = ["LEEWAY", "PERMIT", "PermitRules", "envelope_bytes", "envelope_text", "verify_permit"]

PERMIT = Kind("kest-permit+cwt", b"kest.gate permit v1", 65_536)

LEEWAY = 5.0
"""Seconds by which the clocks of signer and verifier may differ."""


def envelope_text(envelope: bytes) -> str:
    """The text form of a signed permit: base64url without padding."""
    return b64url_encode(envelope)


def envelope_bytes(envelope: bytes | str) -> bytes:
    """A signed permit from either form.

    Raises:
        PermitError: text that is not base64url.
    """
    if isinstance(envelope, str):
        try:
            return b64url_decode(envelope)
        except KestError as error:
            raise PermitError(f"verify failed: envelope parse: {error}") from None
    if not isinstance(envelope, bytes):
        raise TypeError(f"a signed permit is bytes, or str in its text form, not {type(envelope).__name__}")
    return envelope


class PermitRules:
    """What a verifier demands of every permit.

    Args:
        algorithm: what must verify; nothing more and nothing less is accepted.
        leeway: seconds by which clocks may differ.
        audience: who this verifier is. A permit for an audience is honoured by that audience only; with one given here, a
            permit without audience is not honoured either.
        replay_store: makes permits single-use.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        leeway: float = LEEWAY,
        audience: str | None = None,
        replay_store: ReplayStore | None = None,
    ) -> None:
        if not 0 <= leeway <= 3600:
            raise GateInputError("leeway is 0 to 3,600 seconds")
        if replay_store is not None and not callable(getattr(replay_store, "first_use", None)):
            raise GateInputError("replay_store has a method first_use(key, expires_at); see kest.gate.ReplayStore")
        self.algorithm, self.leeway, self.audience, self.replay_store = algorithm, leeway, audience, replay_store
        self.proofs = BatchProofs()

    def check_algorithm(self, found: Algorithm) -> None:
        """Raise PermitError unless it is the one that is demanded."""
        if found == self.algorithm:
            return
        if self.algorithm == HYBRID:
            raise PermitError(
                f"verify failed: algorithm mismatch: hybrid verifier rejects non-hybrid algorithm {found!r}"
            )
        expected = "PQ-only verifier" if self.algorithm == "ml-dsa-65" else "Ed25519 verifier"
        raise PermitError(f"verify failed: algorithm mismatch: {expected} expected {self.algorithm!r}, got {found!r}")

    def check_times(self, claims: PermitClaims) -> None:
        """Raise PermitError outside the time for which the permit is good."""
        now = clock.now()
        if now > claims.expires_at + self.leeway:
            raise PermitError(
                f"verify failed: permit expired at {claims.expires_at}, {now - claims.expires_at:.0f} s ago"
            )
        if claims.issued_at > now + self.leeway:
            raise PermitError(f"verify failed: permit is not valid before {claims.issued_at}: check the clocks")

    def check_audience(self, claims: PermitClaims, required: Mapping[str, object]) -> None:
        """Raise PermitError when the permit is for somebody else."""
        mine = required.get("audience", self.audience)
        if claims.audience != mine:
            theirs = "no audience" if claims.audience is None else f"the audience {claims.audience[:200]!r}"
            raise PermitError(f"verify failed: audience does not match: the permit is for {theirs}")

    def check_unused(self, claims: PermitClaims) -> None:
        """Raise PermitError when it was used before, as far as there is a store that knows."""
        if self.replay_store is None:
            return
        key = replay_key("permit", claims.key_id, claims.token_id)
        try:
            first = self.replay_store.first_use(key, claims.expires_at + self.leeway)
        except ReplayStoreError as error:
            raise PermitError(f"verify failed: single use cannot be established: {error}") from error
        if first is not True:
            raise PermitError(f"verify failed: replay: permit {claims.token_id} was used before")


def verify_permit(
    token: PermitToken | None,
    envelope: bytes | str,
    rules: PermitRules,
    keys_of: Callable[[str], VerifyingKeys],
    *,
    require: Mapping[str, object] | None = None,
    enforce_expiry: bool = True,
    proof: bytes | str | None = None,
) -> PermitClaims:
    """The claims of a permit that is to be honoured; see `DirectoryTokenVerifier.verify`.

    ``keys_of`` finds the keys of a key id, or raises GateError.
    """
    required: dict[str, Any] = dict(require or {})
    try:
        data = envelope_bytes(envelope)
        parsed = _parse(data)
        rules.check_algorithm(parsed.algorithm)
        keys = keys_of(parsed.key_id)
        check(parsed.protected, parsed.payload, parsed.signatures, keys, PERMIT)
        if BATCH in parsed.header:
            rules.proofs.check(parsed, keys, None if proof is None else envelope_bytes(proof))
    except CoseError as error:
        raise PermitError(f"verify failed: {error}") from None
    claims = PermitClaims.from_payload(parsed.payload, parsed.key_id)
    if token is not None:
        given = PermitClaims.of_token(token)
        for name in ("token_id", "evaluation_id", "action_name", "issued_at", "expires_at"):
            if getattr(given, name) != getattr(claims, name):
                raise PermitError(
                    f"verify failed: signature verification failed: the token's {name} is not the signed one"
                )
    if enforce_expiry:
        rules.check_times(claims)
    rules.check_audience(claims, required)
    claims.check({name: value for name, value in required.items() if name != "audience"})
    rules.check_unused(claims)
    return claims


def _parse(data: bytes) -> Envelope:
    """An envelope of either kind: with all its signatures, or of a batch, with Ed25519 and a path."""
    try:
        return parse(data, PERMIT)
    except CoseError as first:
        try:
            parsed = parse(data, PERMIT, only=(ED25519,), unprotected=True)
        except CoseError:
            raise first from None
        if set(parsed.header) != {BATCH} or parsed.header[BATCH] is not True or len(ALGORITHMS[parsed.algorithm]) < 2:
            raise first from None
        return parsed
