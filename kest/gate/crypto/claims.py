"""What a permit says: a CBOR Web Token (RFC 8392), without the signature around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from kest._kestcore import canonicalize, sha256
from kest.errors import GateInputError, PermitError
from kest.gate.crypto import cbor
from kest.gate.permit import EARLIEST, LATEST, PermitToken

if TYPE_CHECKING:
    from kest._kestcore import ActionContext

__all__ = ["PermitClaims", "params_hash"]

# Registered claims have numbers, Kest's own have names.
SUB, AUD, EXP, IAT, CTI = 2, 3, 4, 6, 7
MAX_TEXT = 8_192


def params_hash(params: Mapping[str, object]) -> str:
    """SHA-256 (hex) of the RFC 8785 form of a call's parameters.

    Raises:
        CanonicalizationError: they have none (a NaN, for instance).
    """
    return sha256(canonicalize(dict(params))).hex()


@dataclass(frozen=True, slots=True)
class PermitClaims:
    """Everything that a permit binds. None: the permit says nothing about it.

    Attributes:
        token_id, evaluation_id: UUIDs of the permit and of the decision behind it.
        action_name: what may run.
        issued_at, expires_at: Unix seconds.
        principal_id, principal_kind: for whom.
        resource: on what.
        params_hash: SHA-256 (hex) of the canonical parameters.
        policy_digest: SHA-256 (hex) of the policies that permitted it.
        audience: who is to honour it.
        passport_tip: the lineage that it was asked from: hashes, comma-joined.
        key_id: whose signature it is (in the envelope's header).
    """

    token_id: str
    evaluation_id: str
    action_name: str
    issued_at: int
    expires_at: int
    principal_id: str | None = None
    principal_kind: str | None = None
    resource: str | None = None
    params_hash: str | None = None
    policy_digest: str | None = None
    audience: str | None = None
    passport_tip: str | None = None
    key_id: str = ""

    @classmethod
    def of_token(cls, token: PermitToken) -> PermitClaims:
        """The five claims of a bare permit."""
        if not isinstance(token, PermitToken):
            raise TypeError(f"a permit is a PermitToken, not {type(token).__name__}")
        return cls(token.token_id, token.evaluation_id, token.action_name, token.issued_at, token.expires_at)

    @classmethod
    def of_decision(
        cls,
        token: PermitToken,
        context: ActionContext,
        policy_digest: str,
        audience: str | None = None,
        passport_tip: str | None = None,
    ) -> PermitClaims:
        """All claims: what was asked, and what decided."""
        return cls(
            token.token_id,
            token.evaluation_id,
            token.action_name,
            token.issued_at,
            token.expires_at,
            context.principal_id,
            context.principal_kind,
            context.resource,
            params_hash(context.params),
            policy_digest,
            audience,
            passport_tip,
        )

    def token(self, signature: bytes | None = None) -> PermitToken:
        """The permit of these claims."""
        return PermitToken(
            self.token_id, self.evaluation_id, self.issued_at, self.expires_at, self.action_name, signature
        )

    def to_payload(self) -> bytes:
        """The token's bytes.

        Raises:
            GateInputError: a claim has no form (too long, a lone surrogate, a digest that is none).
        """
        tips = None if self.passport_tip is None else [_digest_bytes(tip) for tip in self.passport_tip.split(",")]
        members: dict[int | str, Any] = {
            SUB: self.principal_id,
            AUD: self.audience,
            EXP: self.expires_at,
            IAT: self.issued_at,
            CTI: _uuid_bytes(self.token_id),
            "act": self.action_name,
            "evl": _uuid_bytes(self.evaluation_id),
            "pol": _digest_bytes(self.policy_digest),
            "prm": _digest_bytes(self.params_hash),
            "res": self.resource,
            "tip": tips,
            "kind": self.principal_kind,
        }
        out: list[bytes] = []
        for name, value in members.items():  # already in the order of their encoded keys
            if value is None:
                continue
            if type(value) is str and len(value) > MAX_TEXT:
                raise GateInputError(f"a permit's texts have at most {MAX_TEXT} characters")
            try:
                out += (_NAMES[name], cbor.encode(value))
            except cbor.CBORError as error:
                raise GateInputError(f"a permit cannot say {name!r}: {error}") from None
        return cbor.head(0xA0, len(out) // 2) + b"".join(out)

    @classmethod
    def from_payload(cls, payload: bytes, key_id: str) -> PermitClaims:
        """The claims of a token whose envelope names this key.

        Raises:
            PermitError: these are none.
        """
        try:
            members = cbor.decode(payload)
        except cbor.CBORError as error:
            raise PermitError(f"verify failed: claims parse: {error}") from None
        if type(members) is not dict or not {CTI, "evl", "act", IAT, EXP} <= set(members) <= set(_NAMES):
            raise PermitError("verify failed: claims parse: a claim is missing or unknown")
        for name, value in members.items():
            if not _FITS[name](value):
                raise PermitError(f"verify failed: claims parse: claim {name!r} is malformed")
        digests = {name: members[name].hex() if name in members else None for name in ("pol", "prm")}
        tips = ",".join(tip.hex() for tip in members["tip"]) if "tip" in members else None
        return cls(
            _uuid_text(members[CTI]), _uuid_text(members["evl"]), members["act"], members[IAT],
            members[EXP], members.get(SUB), members.get("kind"), members.get("res"), digests["prm"], digests["pol"],
            members.get(AUD), tips, key_id,
        )  # fmt: skip

    def check(self, required: Mapping[str, object]) -> None:
        """Compare claims with what the caller demands.

        Args:
            required: values by name: this class's attributes, ``principal``, ``kind``, ``action``, and ``params`` (a mapping,
                compared by its hash).

        Raises:
            PermitError: one differs, or the permit does not say.
            GateInputError: there is no such claim.
        """
        for name, value in required.items():
            if name == "params":
                if not isinstance(value, Mapping):
                    raise GateInputError("require: 'params' is a mapping of the call's parameters")
                name, value = "params_hash", params_hash(value)
            name = _ALIASES.get(name, name)
            if name not in _CLAIMS:
                raise GateInputError(f"require: a permit has no claim {name!r}; it has {', '.join(sorted(_CLAIMS))}")
            found = getattr(self, name)
            if found is None or type(found) is not type(value) or found != value:
                what = "says nothing about it" if found is None else "is for another"
                raise PermitError(f"verify failed: {name} does not match: the permit {what}")


def _uuid_bytes(text: str) -> bytes:
    return _unhexed(text.replace("-", ""), 16, "the id of a permit or decision is a UUID")


def _uuid_text(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _digest_bytes(text: str | None) -> bytes | None:
    return None if text is None else _unhexed(text, 32, "a digest is 64 hexadecimal digits")


def _unhexed(text: str, length: int, what: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != length or len(text) != 2 * length:  # `fromhex` passes over white space
        raise GateInputError(what)
    return raw


def _text(value: object) -> bool:
    return type(value) is str and len(value) <= MAX_TEXT


def _time(value: object) -> bool:
    return type(value) is int and EARLIEST <= value <= LATEST


def _bytes(length: int) -> Any:
    return lambda value: type(value) is bytes and len(value) == length


def _hashes(value: object) -> bool:
    return type(value) is list and 0 < len(value) <= 64 and all(type(one) is bytes and len(one) == 32 for one in value)


_FITS: dict[int | str, Any] = {
    SUB: _text, AUD: _text, EXP: _time, IAT: _time, CTI: _bytes(16), "act": _text, "evl": _bytes(16), "pol": _bytes(32),
    "prm": _bytes(32), "res": _text, "tip": _hashes, "kind": _text,
}  # fmt: skip
_NAMES = {name: cbor.encode(name) for name in _FITS}
_ALIASES = {"principal": "principal_id", "kind": "principal_kind", "action": "action_name"}
_CLAIMS = frozenset(field.name for field in fields(PermitClaims))
