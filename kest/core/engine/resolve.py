"""Host names to addresses, within what is left of a deadline."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from kest.core.engine.deadline import call_with_deadline

__all__ = ["addresses_of", "distinct", "is_address"]


def is_address(host: str) -> bool:
    """Whether there is nothing to resolve."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def distinct(found: list[Any]) -> list[str]:
    """The addresses in what `socket.getaddrinfo` found, in its order."""
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def addresses_of(host: str, port: int, seconds: float) -> list[str]:
    """Every address of a host, blocking.

    Raises:
        OSError: it has none.
        TimeoutError: that took longer than ``seconds``.
    """
    if is_address(host):
        return [host]
    return distinct(call_with_deadline(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), seconds))
