"""What is attacked: a URL, or an ASGI application in this process, where what it believed can be seen."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kest.core import context
from kest.doctor.application import hooks_of
from kest.doctor.probes import Headers
from kest.doctor.redact import redacted
from kest.errors import KestError

__all__ = ["Answer", "Seen", "Target", "TargetError", "application_target", "checked_url", "url_target"]

TIMEOUT = 15.0
MAX_BODY = 1 << 20


class TargetError(KestError):
    """The target may not be attacked, does not answer, or does not answer an honest request."""


@dataclass(frozen=True)
class Seen:
    """What an application in this process knew when its own code began.

    ``edge`` and ``gated``: whether a Kest edge, and a gate, saw the request. ``names``: on whose behalf it would have acted.
    """

    edge: bool
    gated: bool
    entries: int
    trust: int
    taints: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What came back. ``status`` None: the connection ended without an answer, ``error`` says how."""

    status: int | None
    body: bytes = b""
    error: str = ""
    seconds: float = 0.0
    seen: Seen | None = None
    ran: bool | None = None

    @property
    def ok(self) -> bool:
        """Whether the application served it."""
        return self.status is not None and 200 <= self.status < 300


class _Observer:
    """The innermost middleware: notes what is current when the application's own code begins."""

    def __init__(self, app: Any, seen: list[Seen]) -> None:
        self.app, self._seen = app, seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self._seen.append(_look(scope))
        await self.app(scope, receive, send)


def _look(scope: Any) -> Seen:
    from kest.http.middleware import ARRIVAL

    passport = context.get_current_passport()
    names: tuple[str | None, ...] = (
        context.get_current_user(),
        context.get_current_agent(),
        context.get_current_task(),
    )
    try:
        trust, taints = passport.trust_score, passport.taints
    except KestError:  # entries that are none: nothing refused them
        trust, taints = 100, ()
    gate = sys.modules.get("kest.gate.current")  # where nobody has imported it, there is no gate
    verdict = None if gate is None else gate.verdict_var.get()
    if verdict is not None:
        names = (*names, verdict.context.principal_id)
    known = tuple(str(name) for name in names if name)
    return Seen(ARRIVAL in scope, verdict is not None, len(passport), trust, tuple(taints), known)


class Target:
    """Sends requests, one after the other."""

    def __init__(self, client: Any, method: str, url: str, headers: Headers, seen: list[Seen] | None) -> None:
        self._client, self._method, self._url, self._headers, self._seen = client, method, url, headers, seen
        self.hooks: list[str] | None = None

    async def send(self, headers: Headers) -> Answer:
        """One request with these headers besides its own, which they replace."""
        import httpx

        if self._seen is not None:
            self._seen.clear()
        given = {name for name, _ in headers}
        every = [pair for pair in self._headers if pair[0] not in given] + headers
        started = time.monotonic()
        try:
            async with self._client.stream(self._method, self._url, headers=every) as answer:
                body = b""
                async for piece in answer.aiter_raw():
                    body = (body + piece)[:MAX_BODY]
                    if len(body) == MAX_BODY:
                        break
                status: int | None = answer.status_code
                error = ""
        except httpx.HTTPError as failure:
            status, body, error = None, b"", f"{type(failure).__name__}: {redacted(str(failure))[:200]}"
        took = time.monotonic() - started
        seen = self._seen[-1] if self._seen else None
        return Answer(status, body, error, took, seen, None if self._seen is None else seen is not None)


# --- a URL ---


def checked_url(url: str, owned: str | None = None) -> tuple[str, str | None]:
    """The URL with the address that was checked in place of the name, and the name for the Host header.

    Raises:
        TargetError: it is not on this machine, and ``owned`` is not its host.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise TargetError(f"{redacted(url)[:200]} is not a URL") from None
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise TargetError(f"{redacted(url)[:200]} is not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise TargetError("a target's URL has no user name and password; use --header or --token-env")
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port or 80, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise TargetError(f"{host} has no address: {error.strerror or error}") from None
    local = all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)
    if not local and owned != host:
        raise TargetError(
            f"{host} is not this machine, and attacks go only to what is yours: add --i-own-this-target {host} if it is"
        )
    # Connected to is what was checked: the name is not looked up again.
    address = sorted(found)[0]
    netloc = f"[{address}]" if ":" in address else address
    shown = host if ":" not in host else f"[{host}]"
    suffix = "" if port is None else f":{port}"
    return parts._replace(netloc=netloc + suffix, fragment="").geturl(), shown + suffix


@contextlib.asynccontextmanager
async def url_target(url: str, method: str, headers: Headers, owned: str | None = None) -> AsyncIterator[Target]:
    """An application behind a URL."""
    import httpx

    address, host = checked_url(url, owned)
    extensions = {"sni_hostname": urlsplit(url).hostname} if url.startswith("https:") else {}
    own: Headers = [(b"host", (host or "").encode("idna" if not (host or "").isascii() else "ascii")), *headers]
    # No proxy of the environment's, and no redirect: nothing else is sent to.
    # The system's authorities, or those of SSL_CERT_FILE.
    tls: Any = ssl.create_default_context() if extensions else True
    async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, follow_redirects=False, verify=tls) as client:
        client.headers.clear()
        yield Target(_Extended(client, extensions), method, address, own, None)


class _Extended:
    """A client whose requests carry extensions."""

    def __init__(self, client: Any, extensions: dict[str, Any]) -> None:
        self._client, self._extensions = client, extensions

    def stream(self, method: str, url: str, headers: Headers) -> Any:
        return self._client.stream(method, url, headers=headers, extensions=self._extensions)


# --- an application in this process ---


@contextlib.asynccontextmanager
async def application_target(app: Any, method: str, path: str, headers: Headers) -> AsyncIterator[Target]:
    """An ASGI application, started as a server would (ASGI lifespan), and observed from the inside while this lasts."""
    import httpx

    if hasattr(app, "wsgi_app") or not callable(app):
        raise TargetError(
            "an application that is attacked in this process is an ASGI one; start others, and give their URL"
        )
    seen: list[Seen] = []
    hooks = hooks_of(app)
    with _observed(app, seen) as observed:
        async with _lifespan(observed):
            transport = httpx.ASGITransport(app=observed, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT, trust_env=False) as client:
                client.headers.clear()
                target = Target(client, method, f"http://127.0.0.1{path}", [(b"host", b"127.0.0.1"), *headers], seen)
                target.hooks = hooks
                yield target


@contextlib.contextmanager
def _observed(app: Any, seen: list[Seen]) -> Any:
    """The application with an observer as its innermost middleware; as it was afterwards."""
    outer, holder = app, None
    while callable(inner := getattr(app, "app", None)):
        holder, app = app, inner
    if hasattr(app, "user_middleware") and hasattr(app, "middleware_stack"):  # Starlette, FastAPI
        from starlette.middleware import Middleware

        given, stack = list(app.user_middleware), app.middleware_stack
        app.user_middleware, app.middleware_stack = [*given, Middleware(_Observer, seen)], None
        try:
            yield outer
        finally:
            app.user_middleware, app.middleware_stack = given, stack
    elif holder is not None:
        holder.app = _Observer(app, seen)
        try:
            yield outer
        finally:
            holder.app = app
    else:
        yield _Observer(app, seen)


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    """Start-up and shutdown, where the application knows them."""
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    outbox: asyncio.Queue[str] = asyncio.Queue()

    async def send(message: Any) -> None:
        await outbox.put(str(message["type"]) + ":" + str(message.get("message", "")))

    async def run() -> None:
        try:
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, inbox.get, send)
        except Exception as error:  # an application without lifespan raises, as the specification has it
            await outbox.put(f"unsupported:{type(error).__name__}")
        else:
            await outbox.put("ended:")

    task = asyncio.create_task(run())
    await inbox.put({"type": "lifespan.startup"})
    try:
        said = await asyncio.wait_for(outbox.get(), TIMEOUT)
        if said.startswith("lifespan.startup.failed"):
            raise TargetError(f"the application does not start: {said.partition(':')[2][:300]}")
        yield
        if said.startswith("lifespan.startup.complete"):
            await inbox.put({"type": "lifespan.shutdown"})
            await asyncio.wait_for(outbox.get(), TIMEOUT)
    except asyncio.TimeoutError:
        raise TargetError("the application does not start or end in time") from None
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
