"""The policy servers of these tests, all with the policies of tests/contract, and a proxy that spoils what they say."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engines import CEDAR, REGO
from kest_services.cedar_agent import CedarAgent
from kest_services.opa import Opa
from kest_services.processes import Processes

from kest.core.engine import CedarPolicyEngine, OPAPolicyEngine, PolicyEngine

__all__ = ["FAULTS", "KINDS", "AgentWithPolicies", "FaultProxy", "OpaOnSocket", "policy_files", "server"]


class OpaOnSocket(Opa):
    """OPA on a Unix socket."""

    ports = 0

    @property
    def path(self) -> str:
        return str(self.folder / "s")

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def command(self) -> Sequence[str]:
        return [self.url if part.startswith("127.0.0.1:") else part for part in super().command()]

    def ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)
        return True


class AgentWithPolicies(CedarAgent):
    """cedar-agent, which forgets its policies when it ends, and is here given them again at every start."""

    def __init__(self, processes: Processes, folder: Path, policies: Mapping[str, str] = CEDAR) -> None:
        super().__init__(processes, folder)
        self.policies = policies

    def start(self) -> None:
        super().start()
        self.put_policies(self.policies)


def policy_files(folder: Path, modules: Mapping[str, str] = REGO) -> Path:
    """The modules as files, since what is put into OPA over HTTP is gone after a restart."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name.replace('/', '_')}.rego").write_text(text, "utf-8")
    return folder


def server(kind: str, processes: Processes, folder: Path) -> Any:
    """The server that engines of this kind ask; it is not started."""
    if kind == "cedar-agent":
        return AgentWithPolicies(processes, folder)
    made = OpaOnSocket if kind == "opa-unix" else Opa
    return made(processes, folder, policies=[policy_files(folder / "policies")])


def _cedar_plain(url: str, **options: Any) -> PolicyEngine:
    # The path that the documents name is below /v1 in the agent that there is.
    return CedarPolicyEngine(f"{url}/v1", path="/is_authorized", **options)


# kind of engine -> the server that it asks, and how it is made from that server's URL
KINDS: dict[str, tuple[str, Callable[..., PolicyEngine]]] = {
    "opa": ("opa", OPAPolicyEngine),
    "opa-unix": ("opa-unix", OPAPolicyEngine),
    "cedar-agent": ("cedar-agent", CedarPolicyEngine),
    "cedar-agent-plain": ("cedar-agent", _cedar_plain),
}


HTML = b"<html>true</html>"
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: "
# What the proxy says in the server's place; None: something is done to the server's own answer, or to the connection.
FAULTS: dict[str, bytes | None] = {
    "refuse": None,
    "reset": None,
    "stall": None,
    "truncate": None,
    "drip": None,
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "html": _OK + b"text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(HTML), HTML),
    "endless": _OK + b"application/json\r\n\r\n[",
    "endless chunks": _OK + b"application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    "redirect": b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "twice": None,
}


KEEPING = ("500", "html", "redirect")
"""Faults after which the connection stays: one that is closed without a word may meet the next request."""


class FaultProxy:
    """A TCP proxy in front of a server. ``fault`` is None while it hands on what it gets, or the name of a fault, which
    befalls connections that are already open as well. ``requests`` counts what has come, ``connections`` too."""

    def __init__(self, target: int) -> None:
        self.fault: str | None = None
        self.requests = 0
        self.connections = 0
        self._target = target
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, args=(self._listener,))]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def refuse(self) -> None:
        """Stop listening and drop every connection."""
        self._listener.close()
        with self._lock:
            for sock in self._open:
                _end(sock)
        # accept() in another thread keeps a closed listener alive until somebody comes.
        with socket.socket() as knock:
            knock.connect_ex(("127.0.0.1", self.port))

    def recover(self) -> None:
        """Listen again, on the same port."""
        self.fault = None
        self._listener = self._listen(self.port)
        self._threads.append(threading.Thread(target=self._accept, args=(self._listener,)))
        self._threads[-1].start()

    def close(self) -> None:
        self._ended.set()
        self.refuse()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        listener.settimeout(0.05)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while not self._ended.is_set() and listener.fileno() >= 0:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._target)) if self._alive() else None
        with self._lock:
            self._open.add(near)
        try:
            with near:
                self._relay(near, far)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(near)
            if far is not None:
                far.close()

    def _alive(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self._target)) == 0

    def _relay(self, near: socket.socket, far: socket.socket | None) -> None:
        with selectors.DefaultSelector() as ready:
            for sock in (near, far):
                if sock is not None:
                    ready.register(sock, selectors.EVENT_READ)
            while not self._ended.is_set():
                for key, _ in ready.select(0.05):
                    data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is near:
                        self.requests += data.startswith(b"POST ")
                        fault = self.fault  # another one may be ordered as soon as this one was seen
                        if self._befall(near, data):
                            if fault not in KEEPING:
                                return
                        elif far is not None:
                            far.sendall(data)
                    elif not self._spoil(near, data):
                        return

    def _befall(self, near: socket.socket, request: bytes) -> bool:
        """Do what the fault does instead of handing on the request; whether it was that."""
        if self.fault == "reset":
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return True
        if self.fault == "stall":
            self._ended.wait(20)
            return True
        said = FAULTS.get(self.fault or "")
        if said is None:
            return False
        near.sendall(said)
        while self.fault in ("endless", "endless chunks") and not self._ended.is_set():
            near.sendall(b"1," * 8192 if self.fault == "endless" else b"4000\r\n" + b" " * 16_384 + b"\r\n")
        return True

    def _spoil(self, near: socket.socket, answer: bytes) -> bool:
        """Hand on the server's answer, or what the fault makes of it; whether the connection goes on."""
        if self.fault == "truncate":
            near.sendall(answer[:-3])
            return False
        if self.fault == "twice":
            near.sendall(answer + answer)
            return True
        if self.fault == "drip":
            for index in range(len(answer)):
                if self._ended.wait(0.1):
                    break
                near.sendall(answer[index : index + 1])
            return False
        near.sendall(answer)
        return True


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
