"""What the five services have in common: whom they trust, who may call, and how they call each other."""

from __future__ import annotations

import contextvars
import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from tokens import Refused, TokenClient

from kest import (
    CedarLocalEngine,
    KestHttpxInterceptor,
    KestIdentityMiddleware,
    KestMiddleware,
    Passport,
    PassportVerifier,
    RegoLocalEngine,
    TrustStore,
)
from kest.core.context import continue_with, get_current_actors, get_current_claims, get_current_passport
from kest.http.fastapi import install_problem_handlers
from kest.http.problem import CONTENT_TYPE

__all__ = [
    "PROCESS_DATA",
    "SERVICES",
    "Issuer",
    "Job",
    "JsonLines",
    "Service",
    "arrived",
    "engine",
    "facts",
    "job_id",
    "principal_of",
    "proof",
    "start",
]

DOMAIN = "spiffe://delegation.example"
PROCESS_DATA = "task:process-data"
POLICIES = Path(__file__).parent / "policies"
SERVICES = {"kest-agent": "agent", "kest-gateway": "gateway", "hop1": "hop", "hop2": "hop", "hop3": "hop"}
"""Each service, and the module that it lives in."""
MAX_HEADER = 3072
"""Bytes that the baggage header may take here, as behind a proxy that caps headers: longer lineage waits in Redis."""


class Job(BaseModel):
    """What is to be done, and to what."""

    task: str = Field(pattern=r"^[a-z-]{1,32}$")
    readings: list[float] = Field(min_length=1, max_length=1000)


def job_id(job: Job) -> str:
    """A name for exactly this job, so that what is executed can be compared with what was authorised."""
    return f"job:{hashlib.sha256(job.model_dump_json().encode()).hexdigest()[:32]}"


def principal_of(name: str) -> str:
    """The SPIFFE id of a workload."""
    return f"{DOMAIN}/{name}"


# --- what policies are told besides ---


def facts() -> dict[str, Any]:
    """What the verified token and the verified lineage of this request say; part of the signed entry.

    ``act``: the actors, the current one first; ``scopes``; ``sender``: who signed the last entry; ``authorised``: what that
    entry was about.
    """
    tip = last_entry(get_current_passport())
    return {
        "act": list(get_current_actors()),
        "scopes": get_current_claims().get("scope", "").split(),
        "sender": tip.get("principal", ""),
        "authorised": tip.get("kest.resource_id", ""),
    }


def last_entry(passport: Passport) -> dict[str, str]:
    """The labels of the entry that a passport ends in."""
    entries = passport.decode()
    return entries[-1]["labels"] if entries else {}


# --- a service ---


class Refusal(Exception):
    """Another service refused; its answer goes on to whoever asked."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.request.url.path}: {response.status_code}")
        self.response = response


@dataclass(frozen=True)
class Service:
    """One of the five: its name, its clients, and what it needs to know of the others."""

    name: str
    store: TrustStore
    peers: dict[str, str]
    http: httpx.AsyncClient
    tokens: TokenClient

    async def call(self, peer: str, path: str, body: Any, token: str) -> dict[str, Any]:
        """Ask another service; the current passport goes along."""
        response = await self.http.post(
            f"{self.peers[peer]}{path}", json=body, headers={"authorization": f"Bearer {token}"}
        )
        if response.status_code != 200:
            raise Refusal(response)
        answer: dict[str, Any] = response.json()
        return answer

    def returned(self, answer: dict[str, Any]) -> Passport:
        """Continue from the lineage that came back: verified like any other, and only if it goes on from what was sent."""
        sent = get_current_passport()
        came = PassportVerifier.verify(answer["passport"], self.store, chain_tip=answer["chain_tip"])
        if came.entries[: len(sent)] != sent.entries:
            raise ValueError("the lineage that came back is not a continuation of what was sent")
        return continue_with(came)


def proof() -> dict[str, str]:
    """The current lineage, as it goes back to the caller."""
    passport = get_current_passport()
    return {"passport": passport.serialize(), "chain_tip": passport.chain_tip}


# --- how lineage arrived, for the table ---

_arrived: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("arrived", default=None)
_FORMS = {"kest.passport": "header", "kest.passport_z": "header, zlib", "kest.claim_check": "claim check"}


class _Observer:
    """Notes in which form lineage arrives."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        header = b",".join(value for name, value in scope.get("headers", ()) if name == b"baggage").decode("latin-1")
        keys = {member.split("=")[0].strip() for member in header.split(",")}
        form = next((form for key, form in _FORMS.items() if key in keys), "-")
        _arrived.set({"at": self.name, "path": scope.get("path", ""), "form": form, "bytes": len(header)})
        await self.app(scope, receive, send)


def arrived() -> list[dict[str, Any]]:
    """How the lineage of this request came."""
    return [seen] if (seen := _arrived.get()) else []


# --- start ---


class JsonLines:
    """An audit sink: every signed entry, denial and outcome, one line each."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def record(self, kind: str, jws: str) -> None:
        """Called by Kest."""
        self._file.write(json.dumps({"kind": kind, "jws": jws}) + "\n")


def engine(name: str) -> Any:
    """The gateway decides with Cedar, the others with Rego; both in process."""
    kind, suffix = (CedarLocalEngine, "cedar") if name == "kest-gateway" else (RegoLocalEngine, "rego")
    return kind({file.stem: file.read_text("utf-8") for file in POLICIES.glob(f"*.{suffix}")})


@dataclass(frozen=True)
class Issuer:
    """Whose tokens count, and what they look like.

    Attributes:
        url: the issuer identifier.
        keys: where its public keys are.
        tokens: its token endpoint.
        actors: whether its tokens say who acts (RFC 8693, ``act``).
        agent_claims: what names the agent where they do not.
    """

    url: str
    keys: str
    tokens: str
    actors: bool = True
    agent_claims: tuple[str, ...] = ()


def start(name: str, store: TrustStore, issuer: Issuer, secret: str, peers: dict[str, str], **options: Any) -> FastAPI:
    """The service, ready to be served; Kest is configured already.

    Args:
        store: whose lineage is believed.
        secret: of this client of the issuer.
        peers: URLs of the services that it calls.
        options: for its HTTP client.
    """
    http = httpx.AsyncClient(
        # The issuer is asked with the same client, and gets no lineage: it is not on the list.
        transport=KestHttpxInterceptor(
            allowed_hosts=[url.removeprefix("http://") for url in peers.values()], max_header=MAX_HEADER
        ),
        timeout=10.0,
        **options,
    )
    tokens = TokenClient(http, issuer.tokens, name, secret, actors=issuer.actors)
    service = Service(name, store, peers, http, tokens)

    app = FastAPI(title=name, openapi_url=None)
    app.add_exception_handler(Refusal, _pass_on)
    app.add_exception_handler(Refused, _issuer_refused)
    install_problem_handlers(app)
    build: Callable[[FastAPI, Service], None] = importlib.import_module(SERVICES[name]).build
    build(app, service)
    # Only the agent is called by people, who bring no lineage.
    app.add_middleware(KestMiddleware, require_passport=name != "kest-agent")
    app.add_middleware(
        KestIdentityMiddleware,
        jwks_uri=issuer.keys,
        issuer=issuer.url,
        audience=name,
        algorithms=("EdDSA", "ES256", "RS256"),
        agent_claims=issuer.agent_claims,  # none: an agent is who an act claim names, and nobody else
        required=True,
    )
    app.add_middleware(_Observer, name=name)
    return app


async def _pass_on(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return JSONResponse(error.response.json(), error.response.status_code, media_type=CONTENT_TYPE)


async def _issuer_refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    document = {"title": "Refused by the issuer", "status": 403, "detail": str(error)}
    return JSONResponse(document, 403, media_type=CONTENT_TYPE)
