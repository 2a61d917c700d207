"""Making entries, passports and tokens that nobody should believe."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from kest._kestcore import Signer, b64url_encode, canonicalize, parse, sha256
from kest.core.identity.mock import MockIdentityProvider
from kest.core.passport import KestEntry

__all__ = ["Forger", "hash_of", "header_of", "inline"]


def hash_of(jws: str) -> str:
    """By which an entry is named."""
    return sha256(jws.encode("utf-8", "surrogatepass")).hex()


def header_of(members: Mapping[str, str]) -> bytes:
    """A ``baggage`` header."""
    return ",".join(f"{key}={quote(value, safe='')}" for key, value in members.items()).encode("ascii")


def inline(entries: Sequence[Any], tip: str | None = "", **members: str) -> bytes:
    """A ``baggage`` header with these entries; the tip is the last one's unless given, and left out for None."""
    values = {"kest.passport": json.dumps(list(entries), separators=(",", ":"))}
    if tip is not None:
        values["kest.chain_tip"] = tip or hash_of(str(entries[-1]))
    return header_of({**values, **{f"kest.{name}": value for name, value in members.items()}})


class Forger:
    """Makes entries.

    Args:
        honest: a signer that the target should believe, if there is one: then lies can be told under a right signature.
        principal: whom to impersonate.
    """

    def __init__(self, honest: Signer | None, principal: str) -> None:
        self.principal = principal
        self.thief = Signer(principal)  # a key of our own, under somebody else's name
        self.honest = honest
        self.signer = self.thief if honest is None else honest

    # --- entries ---

    def payload(self, *parents: str, **changes: Any) -> dict[str, Any]:
        """A well-formed payload, with members changed."""
        named = [hash_of(parent) for parent in parents] or ["0"]
        made: dict[str, Any] = parse(KestEntry("kest.doctor.probe", parent_ids=named).payload(self.principal))
        return {**made, **changes}

    def body(self, *parents: str, **changes: Any) -> bytes:
        """The same as canonical JSON."""
        return canonicalize(self.payload(*parents, **changes))

    def header(self, **changes: Any) -> dict[str, Any]:
        """A well-formed header, with members changed."""
        return {"alg": "EdDSA", "kid": self.principal, "typ": "JWS", **changes}

    def signed(self, body: bytes, header: dict[str, Any] | bytes | None = None, signer: Signer | None = None) -> str:
        """A compact JWS over these bytes, whatever they are."""
        head = header if isinstance(header, bytes) else canonicalize(self.header() if header is None else header)
        signing = f"{b64url_encode(head)}.{b64url_encode(body)}"
        return f"{signing}.{b64url_encode((signer or self.signer).sign(signing.encode()))}"

    def entry(self, *parents: str, **changes: Any) -> str:
        """A well-formed entry, with members of its payload changed."""
        return self.signed(self.body(*parents, **changes))

    def chain(self, length: int) -> list[str]:
        """Entries that continue from one another."""
        entries: list[str] = []
        for _ in range(length):
            entries.append(self.entry(*entries[-1:]))
        return entries

    def unsigned(self, alg: str) -> str:
        """An entry with an empty signature."""
        return f"{b64url_encode(canonicalize(self.header(alg=alg)))}.{b64url_encode(self.body())}."

    def mac(self) -> str:
        """HS256, with the public key as its secret."""
        signing = f"{b64url_encode(canonicalize(self.header(alg='HS256')))}.{b64url_encode(self.body())}"
        digest = hmac.new(self.signer.public_key, signing.encode(), hashlib.sha256).digest()
        return f"{signing}.{b64url_encode(digest)}"

    def mock(self) -> str:
        """By the key that a `MockIdentityProvider` of this name has."""
        return MockIdentityProvider(self.principal).sign(self.body())

    # --- tokens (RFC 7519) ---

    def token(
        self, marker: str, header: Mapping[str, Any] | None = None, secret: bytes | None = None, **claims: Any
    ) -> str:
        """A JWT for the user ``marker``: by our own key, or with ``secret`` by HMAC; unsigned where its ``alg`` is none."""
        now = int(time.time())
        said = {"sub": marker, "client_id": marker, "iat": now, "exp": now + 300, "scope": marker, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        head = {"alg": "EdDSA" if secret is None else "HS256", "typ": "JWT", "kid": "kest-doctor", **(header or {})}
        signing = f"{b64url_encode(canonicalize(head))}.{b64url_encode(canonicalize(said))}"
        if str(head["alg"]).lower() == "none":
            return f"{signing}."
        if secret is not None:
            return f"{signing}.{b64url_encode(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"
        return f"{signing}.{b64url_encode(self.thief.sign(signing.encode()))}"
