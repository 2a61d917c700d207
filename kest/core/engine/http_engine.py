"""What the engines that ask a server over HTTP have in common: one request per policy name, in order, until one
denies."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from kest.core.engine.base import DecidingEngine, Decision, refuse_names
from kest.core.engine.http_client import PolicyServer, json_document
from kest.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

__all__ = ["HTTPEngine"]

MAX_SOCKET_PATH = 107
_HOST = re.compile(r"[A-Za-z0-9._~-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+")


class HTTPEngine(DecidingEngine):
    """Asks a policy server; subclasses say what to send, how to read the answer, and what their arguments mean."""

    label: ClassVar[str]
    """What errors call the server."""
    ids_are_evidence: ClassVar[bool] = False
    """Whether the ids lead to records that the server keeps; see `Decision`."""

    def __init__(
        self,
        url: str | None,
        host: str | None,
        port: int,
        timeout: float,
        headers: Mapping[str, str] | None,
        tls: ssl.SSLContext | None,
        uds: str | None = None,
    ) -> None:
        if uds is None and isinstance(url, str) and url.startswith("unix:"):
            uds = _socket_path(type(self).__name__, url)
            url = None
        if uds is not None and len(os.fsencode(uds)) > MAX_SOCKET_PATH:
            raise ConfigurationError(f"{type(self).__name__}: the path of a Unix socket has at most 107 bytes")
        target = _server_url(type(self).__name__, url, host, port, uds)
        self._server = PolicyServer(self.label, target, timeout=timeout, uds=uds, headers=headers, context=tls)

    @abstractmethod
    def _requests(self, policy_names: Sequence[str], context: Mapping[str, Any]) -> Iterable[tuple[str, bytes]]:
        """The path and the body to POST for each policy name."""

    @abstractmethod
    def _read(self, name: str, document: Any, ids: list[str]) -> Decision | None:
        """The denial that ``document`` means for policy ``name``, or None if it allows; adds its ids to ``ids``."""

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Ask once per policy name; ``ids`` holds what the server says decided.

        Raises:
            PolicyEngineError: the server cannot be reached, is late, or answers anything but 200 with JSON.
        """
        deadline = self._server.deadline()
        flow = self._ask(policy_names, context)
        try:
            request = next(flow)
            while True:
                request = flow.send(self._server.post(*request, deadline))
        except StopIteration as end:
            return _decision(end)

    async def async_decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """`decide` without blocking the event loop."""
        deadline = self._server.deadline()
        flow = self._ask(policy_names, context)
        try:
            request = next(flow)
            while True:
                request = flow.send(await self._server.apost(*request, deadline))
        except StopIteration as end:
            return _decision(end)

    def _ask(
        self, policy_names: Sequence[str], context: Mapping[str, Any]
    ) -> Generator[tuple[str, bytes], bytes, Decision]:
        """One decision without the IO: yields each request, is sent each answer."""
        refused = refuse_names(policy_names)
        if refused is not None:
            return refused
        ids: list[str] = []
        for name, request in zip(policy_names, self._requests(policy_names, context), strict=True):
            answer = yield request
            denial = self._read(name, json_document(answer, self._server.name), ids)
            if denial is not None:
                return denial
        return Decision(True, "", None, tuple(ids), tuple(ids) if self.ids_are_evidence else ())

    def close(self) -> None:
        """Close the idle connections."""
        self._server.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} asking {self._server.name}>"


def _decision(end: StopIteration) -> Decision:
    decision: Decision = end.value
    return decision


def _socket_path(engine: str, url: str) -> str:
    path = url[len("unix://") :]
    if not url.startswith("unix:///") or len(path) < 2 or any(c in path for c in "?#%\0"):
        raise ConfigurationError(f"{engine}: the URL of a Unix socket is unix:///absolute/path, without ?, # and %")
    return path


def _server_url(engine: str, url: str | None, host: str | None, port: int, uds: str | None) -> str:
    if url is not None:
        if host is not None:
            raise ConfigurationError(f"{engine} takes url= or host=, not both")
        return url
    if host is None:
        if uds is None:
            raise ConfigurationError(f"{engine} needs url='http://host:port' or host=")
        return "http://localhost"
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ConfigurationError(f"{engine}: port must be between 1 and 65535")
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        raise ConfigurationError(f"{engine}: host must be a host name or an IP address, without scheme, port or path")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
