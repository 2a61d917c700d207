"""What every client interceptor does, whatever the library: decide by host, pack, merge, and hand over what to set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kest.core.cache import CLAIM_TTL
from kest.core.context import caller_var
from kest.http.baggage_header import HEADER, foreign_members
from kest.http.egress import EgressGuard
from kest.http.outgoing import Packer

__all__ = ["Interceptor", "Prepared"]

_PORTS = {"https": 443, "http": 80}


@dataclass(slots=True)
class Prepared:
    """What to do to one request.

    Attributes:
        baggage: the value of its only ``baggage`` header; empty: it has none.
        claims: records to store before it leaves.
        token: the bearer token it may carry, if it carries no other.
        token_host: whether its host may have the caller's token.
    """

    baggage: bytes
    claims: dict[str, str] = field(default_factory=dict)
    token: str | None = field(default=None, repr=False)
    token_host: bool = False


class Interceptor:
    """Settings shared by all clients; see `KestHttpxInterceptor` for what they mean."""

    __slots__ = ("guard", "packer")

    def __init__(
        self,
        allowed_hosts: Iterable[str] | None = None,
        token_hosts: Iterable[str] | None = None,
        user_salt: str | bytes | None = None,
        cache: Any = None,
        dense: bool | None = None,
        max_header: int = 8192,
        claim_ttl: float = CLAIM_TTL,
    ) -> None:
        self.guard = EgressGuard(allowed_hosts, token_hosts)
        self.packer = Packer(cache, dense, max_header, claim_ttl, user_salt)

    def prepare(self, scheme: str, host: str | None, port: int | None, lines: Iterable[bytes]) -> Prepared:
        """What a request to this host, which carries these baggage lines, should carry instead.

        Raises:
            PassportTooLargeError: no form of the passport fits and no cache is configured.
        """
        if port is None:
            port = _PORTS.get(scheme)
        given = tuple(lines)
        allowed = self.guard.allows(host, port)
        prepared = Prepared(*self.packer.header(given)) if allowed else Prepared(_without_kest(given))
        if host is not None and self.guard.allows_token(scheme, host, port):
            prepared.token_host, prepared.token = True, caller_var.get().jwt
        return prepared


def _without_kest(lines: tuple[bytes, ...]) -> bytes:
    if any(b"kest." in line or b"%" in line for line in lines):
        return b",".join(foreign_members(lines))
    return b",".join(lines)


def header_bytes(value: object) -> bytes:
    """A header value as bytes; text is latin-1, as HTTP libraries send it, or UTF-8 where it cannot be."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    text = str(value)
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def set_header(headers: Any, value: bytes) -> None:
    """Replace ``baggage`` in a case-insensitive mapping of headers (requests, aiohttp)."""
    if value:
        headers[HEADER] = value.decode("latin-1")
    else:
        headers.pop(HEADER, None)
