"""Where a request comes from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from kest.errors import GateInputError

__all__ = ["TrustedProxies"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` is believed: addresses and networks (``10.0.0.0/8``)."""

    __slots__ = ("_networks",)

    def __init__(self, proxies: Iterable[str]) -> None:
        if isinstance(proxies, str):
            raise TypeError("trusted_proxies is a list of addresses and networks, not one str")
        try:
            self._networks: list[Network] = [ipaddress.ip_network(proxy) for proxy in proxies]
        except ValueError as error:
            raise GateInputError(f"trusted_proxies: {error}") from None

    def client(self, peer: str | None, forwarded: Sequence[str]) -> str | None:
        """The address of the client: the peer's; or behind trusted proxies, the last one that is not one of them.

        Args:
            peer: whose connection it is; None over a Unix socket.
            forwarded: the lines of ``X-Forwarded-For``. Each proxy appends whom it was called by, so it is read from the end;
                what stands before the last address that is not trusted, anybody may have written.
        """
        address = _address(peer)
        hops = ",".join(forwarded).split(",") if forwarded else []
        while address is not None and hops and self._trusts(address):
            address = _address(_bare(hops.pop().strip()))
        return None if address is None else str(address)

    def _trusts(self, address: Address) -> bool:
        plain = (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
        return any(plain in network for network in self._networks if network.version == plain.version)


def _address(text: str | None) -> Address | None:
    """An address without its zone; None for what is none (the path of a socket, a name)."""
    try:
        return ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None


def _bare(hop: str) -> str:
    """Without the port that some proxies add: ``1.2.3.4:5678``, ``[::1]:5678``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
