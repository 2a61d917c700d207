"""The egress guard: which hosts get the passport, and which the bearer token."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable

from kest.core.users import hashed_user
from kest.errors import ConfigurationError
from kest.locks import Lock

__all__ = ["ALLOWED_HOSTS_VARIABLE", "EgressGuard", "HostPatterns", "hashed_user", "warn_once"]

log = logging.getLogger("kest.http")

ALLOWED_HOSTS_VARIABLE = "KEST_ALLOWED_HOSTS"
_PATTERN = re.compile(r"(?P<name>\*|(?:\*\.)?[^\s*/:@\[\]]+|\[[0-9a-fA-F:.%]+\])(?::(?P<port>\d{1,5}))?\Z")

_warned: set[str] = set()
_lock = Lock()


def warn_once(key: str, message: str, *args: object) -> None:
    """Log a warning the first time that ``key`` comes up in this process."""
    if key in _warned:
        return
    with _lock:
        if key in _warned:
            return
        _warned.add(key)
    log.warning(message, *args)


class HostPatterns:
    """Host names, each exact (``api.example.org``), of subdomains (``*.example.org``) or ``*``; optionally with a port."""

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Iterable[str], setting: str) -> None:
        if isinstance(patterns, str):
            raise ConfigurationError(f"{setting} is a list of host patterns, not one str")
        self._patterns: list[tuple[str, int | None]] = []
        for pattern in patterns:
            match = _PATTERN.match(pattern) if isinstance(pattern, str) else None
            if match is None:
                raise ConfigurationError(
                    f"{setting}: {pattern!r} is not a host pattern; write api.example.org, *.example.org, "
                    "api.example.org:8443 or * (no scheme, no path)"
                )
            port = match["port"]
            self._patterns.append((_plain(match["name"]), None if port is None else int(port)))

    def __contains__(self, address: tuple[str, int | None]) -> bool:
        host, port = _plain(address[0]), address[1]
        return any(_fits(name, host) and wanted in (None, port) for name, wanted in self._patterns)


def _plain(host: str) -> str:
    host = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _fits(name: str, host: str) -> bool:
    if name == "*":
        return True
    if name.startswith("*."):
        return host.endswith(name[1:]) and len(host) > len(name) - 1
    return host == name


class EgressGuard:
    """Decides per request what may leave.

    Args:
        allowed_hosts: patterns of the hosts that get Kest members. None: what ``KEST_ALLOWED_HOSTS`` lists (comma-separated);
            if that is unset too, every host that the application attached Kest to, with one warning.
        token_hosts: patterns of the hosts that get the caller's bearer token, over https or on this machine. None: nobody.
    """

    __slots__ = ("_hosts", "_tokens")

    def __init__(self, allowed_hosts: Iterable[str] | None = None, token_hosts: Iterable[str] | None = None) -> None:
        setting = "allowed_hosts"
        if allowed_hosts is None:
            listed = os.environ.get(ALLOWED_HOSTS_VARIABLE)
            if listed is not None:
                setting = ALLOWED_HOSTS_VARIABLE
                allowed_hosts = [part for item in listed.split(",") if (part := item.strip())]
        self._hosts = None if allowed_hosts is None else HostPatterns(allowed_hosts, setting)
        self._tokens = None if token_hosts is None else HostPatterns(token_hosts, "token_hosts")

    @property
    def open(self) -> bool:
        """Whether no list of hosts is configured."""
        return self._hosts is None

    def allows(self, host: str | None, port: int | None = None) -> bool:
        """Whether Kest members may go to this host. A host that is not known (None) is on no list."""
        if self._hosts is None:
            warn_once(
                "allowed_hosts",
                "passports are sent to every host that Kest is attached to; name the hosts that should get them: "
                "allowed_hosts=[...] or %s",
                ALLOWED_HOSTS_VARIABLE,
            )
            return True
        return host is not None and (host, port) in self._hosts

    def allows_token(self, scheme: str, host: str, port: int | None = None) -> bool:
        """Whether the caller's bearer token may go there."""
        if self._tokens is None or (host, port) not in self._tokens:
            return False
        return scheme == "https" or _plain(host) in ("localhost", "127.0.0.1", "::1")
