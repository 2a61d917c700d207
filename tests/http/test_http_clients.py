"""requests, aiohttp, WSGI, gRPC and FastAPI: the same promises through other libraries."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from wire import BOB_KEY, HOP, grown, inline, keys, report, service, serving, signed

from kest.core import Passport, kest_verified
from kest.core.context import caller_var, get_current_passport, lineage
from kest.errors import PassportTooLargeError
from kest.http import KestWSGIMiddleware


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(service(trust_store=keys())) as base:
        yield base


# --- requests ---


def test_requests_session(url: str) -> None:
    pytest.importorskip("requests")
    from kest.http.requests import attach

    with attach() as session, lineage(grown(3)) as passport:
        answer = session.post(f"{url}/work", headers={"Baggage": "v=1;p"})
        assert answer.json()["entries"][:-1] == passport.entries
        assert answer.request.headers["baggage"].endswith(",v=1;p")
        assert attach(session).get_adapter("http://x") is session.get_adapter("http://x")
    with attach(allowed_hosts=["other.example"]) as session, lineage(grown(1)):
        assert len(session.post(f"{url}/work").json()["entries"]) == 1
    with attach() as session, lineage(grown(60)), pytest.raises(PassportTooLargeError):
        session.post(f"{url}/work")


def test_requests_redirects_and_tokens() -> None:
    pytest.importorskip("requests")
    from kest.http.requests import attach

    seen: dict[str, dict[str, str]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen[scope["path"]] = {k.decode(): v.decode() for k, v in scope["headers"]}
        location = [(b"location", f"{other}/away".encode())] if scope["path"] == "/" else []
        await send({"type": "http.response.start", "status": 302 if location else 200, "headers": location})
        await send({"type": "http.response.body", "body": b""})

    with serving(app, lifespan="off") as base, serving(app, lifespan="off") as other:
        port = base.rpartition(":")[2]
        token = caller_var.set(type(caller_var.get())(jwt="tok"))
        try:
            with (
                attach(allowed_hosts=[f"127.0.0.1:{port}"], token_hosts=[f"127.0.0.1:{port}"]) as session,
                lineage(grown(1)),
            ):
                session.get(base)
        finally:
            caller_var.reset(token)
    assert seen["/"]["authorization"] == "Bearer tok"
    assert "kest.passport" in seen["/"]["baggage"]
    assert "authorization" not in seen["/away"]
    assert "baggage" not in seen["/away"]


# --- aiohttp ---


async def test_aiohttp_session(url: str) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    from kest.http.aiohttp import KestClientMiddleware

    async with aiohttp.ClientSession(middlewares=(KestClientMiddleware(),)) as session:
        with lineage(grown(3)) as passport:
            async with session.post(f"{url}/work", headers={"baggage": "v=1;p"}) as answer:
                assert (await answer.json())["entries"][:-1] == passport.entries
                assert answer.request_info.headers["baggage"].endswith(",v=1;p")
        with lineage(grown(60)), pytest.raises(PassportTooLargeError):
            await session.post(f"{url}/work")
    async with aiohttp.ClientSession(middlewares=(KestClientMiddleware(allowed_hosts=["other.example"]),)) as session:
        with lineage(grown(3)):
            async with session.post(f"{url}/work") as answer:
                assert len((await answer.json())["entries"]) == 1


async def test_aiohttp_redirects_and_tokens() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    from kest.http.aiohttp import KestClientMiddleware

    seen: dict[str, dict[str, str]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen[scope["path"]] = {k.decode(): v.decode() for k, v in scope["headers"]}
        location = [(b"location", f"{other}/away".encode())] if scope["path"] == "/" else []
        await send({"type": "http.response.start", "status": 302 if location else 200, "headers": location})
        await send({"type": "http.response.body", "body": b""})

    with serving(app, lifespan="off") as base, serving(app, lifespan="off") as other:
        host = [f"127.0.0.1:{base.rpartition(':')[2]}"]
        token = caller_var.set(type(caller_var.get())(jwt="tok"))
        try:
            with lineage(grown(1)):
                async with aiohttp.ClientSession(
                    middlewares=(KestClientMiddleware(allowed_hosts=host, token_hosts=host),)
                ) as session:
                    (await session.get(base)).close()
        finally:
            caller_var.reset(token)
    assert seen["/"]["authorization"] == "Bearer tok"
    assert "kest.passport" in seen["/"]["baggage"]
    assert "authorization" not in seen["/away"]
    assert "baggage" not in seen["/away"]


# --- WSGI ---


@contextlib.contextmanager
def wsgi(app: Any) -> Iterator[str]:
    class Threaded(socketserver.ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, app, Threaded, Quiet)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_wsgi(allowed: Any) -> None:
    @kest_verified(policy="work", identity=HOP)
    def work() -> dict[str, Any]:
        return report()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "application/json")])
        if environ["PATH_INFO"] == "/stream":
            return (json.dumps(len(work()["entries"])).encode() + b"\n" for _ in range(3))
        return [json.dumps(work()).encode()]

    def raising(environ: Any, start_response: Any) -> Any:
        body = json.dumps(work()).encode()
        start_response("200 OK", [])
        return [body]

    passport = grown(2, user="alice ü")
    header = {"baggage": inline(passport.entries, user="alice ü")}
    with wsgi(KestWSGIMiddleware(KestWSGIMiddleware(app), trust_store=keys())) as base:
        for _ in range(2):
            answer = httpx.post(f"{base}/", headers=header).json()
            assert answer["entries"][:-1] == passport.entries
            assert answer["user"] == "alice ü"
            assert httpx.get(f"{base}/stream", headers=header).text.split() == ["3", "4", "5"]
            assert len(httpx.post(f"{base}/").json()["entries"]) == 1
        refused = httpx.post(f"{base}/", headers={"baggage": inline([signed(key=BOB_KEY)])})
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
        assert httpx.post(f"{base}/", headers=[(b"baggage", b"kest.user=\xff")]).status_code == 400
    with wsgi(KestWSGIMiddleware(raising, trust_store=keys())) as base:
        allowed.answer = False
        assert httpx.post(f"{base}/").status_code == 403


def test_wsgi_flask() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("app")
    app.wsgi_app = KestWSGIMiddleware(app.wsgi_app, trust_store=keys())

    @app.post("/work")
    @kest_verified(policy="work", identity=HOP)
    def work() -> Any:
        return report()

    passport = grown(2)
    with wsgi(app) as base:
        assert (
            httpx.post(f"{base}/work", headers={"baggage": inline(passport.entries)}).json()["entries"][:-1]
            == passport.entries
        )


# --- gRPC ---

METHODS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@kest_verified(policy="work", identity=HOP)
def govern() -> bytes:
    return json.dumps(report()).encode()


@kest_verified(policy="work", identity=HOP)
async def agovern() -> bytes:
    return json.dumps(report()).encode()


def _handlers(grpc: Any, asynchronous: bool) -> Any:
    def unary(request: Any, context: Any) -> bytes:
        for _ in [request] if isinstance(request, bytes) else request:
            pass
        return govern()

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        for _ in [request] if isinstance(request, bytes) else request:
            pass
        for _ in range(2):
            yield govern()

    async def aunary(request: Any, context: Any) -> bytes:
        if not isinstance(request, bytes):
            async for _ in request:
                pass
        return await agovern()

    async def astream(request: Any, context: Any) -> Any:
        if not isinstance(request, bytes):
            async for _ in request:
                pass
        for _ in range(2):
            yield await agovern()

    handlers = {}
    for method in METHODS:
        behaviour = (
            (astream if asynchronous else stream) if method.endswith("stream") else (aunary if asynchronous else unary)
        )
        handlers[method] = getattr(grpc, f"{method}_rpc_method_handler")(behaviour)
    return grpc.method_handlers_generic_handler("test.Service", handlers)


def _requests(method: str) -> Any:
    return iter([b"a", b"b"]) if method.startswith("stream") else b"a"


def test_grpc_sync(allowed: Any) -> None:
    grpc = pytest.importorskip("grpc")
    from kest.http.grpc import KestClientInterceptor, KestServerInterceptor

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), interceptors=[KestServerInterceptor(keys())])
    server.add_generic_rpc_handlers((_handlers(grpc, False),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    passport = grown(3)

    def call(channel: Any, method: str, metadata: Any = None) -> list[Any]:
        answer = getattr(channel, method)(f"/test.Service/{method}")(_requests(method), metadata=metadata, timeout=10)
        return [json.loads(item) for item in ([answer] if isinstance(answer, bytes) else answer)]

    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
            channel = grpc.intercept_channel(
                plain, KestClientInterceptor(f"127.0.0.1:{port}", allowed_hosts=["127.0.0.1"])
            )
            with lineage(passport):
                for method in METHODS:
                    answers = call(channel, method, [("x", "y"), ("baggage", "v=1,kest.user=mallory")])
                    assert answers[0]["entries"][:3] == passport.entries
                    assert [len(a["entries"]) for a in answers] == [4, 5][: len(answers)]
                other = grpc.intercept_channel(plain, KestClientInterceptor("x.example:1", allowed_hosts=["127.0.0.1"]))
                assert len(call(other, "unary_unary")[0]["entries"]) == 1
            for method in METHODS:
                with pytest.raises(grpc.RpcError) as refused:
                    call(plain, method, [("baggage", inline([signed(key=BOB_KEY)]))])
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
                with pytest.raises(grpc.RpcError) as refused:
                    call(plain, method, [("baggage", "kest.passport=%zz")])
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            allowed.answer = False
            for method in METHODS:
                with pytest.raises(grpc.RpcError) as refused:
                    call(plain, method)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    finally:
        server.stop(None).wait(5)


def _denied(error: Any, method: str) -> bool:
    """Refused, or: the client was still writing when the refusal came, and reports its own failed write instead."""
    if method.startswith("stream") and error.code().name == "INTERNAL":
        return "execute_batch" in error.debug_error_string()
    return bool(error.code().name == "PERMISSION_DENIED")


async def test_grpc_aio(allowed: Any) -> None:
    grpc = pytest.importorskip("grpc")
    from kest.http.grpc import KestAioServerInterceptor, aio_client_interceptors

    server = grpc.aio.server(interceptors=[KestAioServerInterceptor(keys())])
    server.add_generic_rpc_handlers((_handlers(grpc, True),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    passport = grown(3)

    async def call(channel: Any, method: str, metadata: Any = None) -> list[Any]:
        request = _requests(method)
        if method.startswith("stream"):

            async def items() -> Any:
                for item in (b"a", b"b"):
                    yield item

            request = items()
        answer = getattr(channel, method)(f"/test.Service/{method}")(request, metadata=metadata, timeout=10)
        if method.endswith("stream"):
            return [json.loads(item) async for item in answer]
        return [json.loads(await answer)]

    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=aio_client_interceptors()) as channel:
            with lineage(passport):
                for method in METHODS:
                    answers = await call(channel, method, (("x", "y"), ("baggage", "v=1,kest.user=mallory")))
                    assert answers[0]["entries"][:3] == passport.entries
                    assert [len(a["entries"]) for a in answers] == [4, 5][: len(answers)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as plain:
            for method in METHODS:
                with pytest.raises(grpc.RpcError) as refused:
                    await call(plain, method, (("baggage", inline([signed(key=BOB_KEY)])),))
                assert _denied(refused.value, method)
            allowed.answer = False
            for method in METHODS:
                with pytest.raises(grpc.RpcError) as refused:
                    await call(plain, method)
                assert _denied(refused.value, method)
    finally:
        await server.stop(None)


# --- FastAPI ---


class Item(BaseModel):
    name: str
    size: int = 3


def test_fastapi_dependency_and_problems(allowed: Any) -> None:
    from kest.errors import ConfigurationError, VerificationError
    from kest.http.fastapi import current_caller, current_passport, install

    app = FastAPI()
    install(app, trust_store=keys())

    @app.get("/passport")
    async def passport_of(passport: Passport = Depends(current_passport), caller: Any = Depends(current_caller)) -> Any:
        return {"n": len(passport), "user": caller.user}

    @app.get("/denied")
    @kest_verified(policy="p", identity=HOP)
    def denied() -> None:
        raise AssertionError("ran")

    @app.get("/error/{kind}")
    async def error(kind: str) -> None:
        raise {"config": ConfigurationError("secret path"), "verify": VerificationError("no", index=2, reason="r")}[
            kind
        ]

    passport = grown(2, user="alice")
    with serving(app) as base:
        answer = httpx.get(f"{base}/passport", headers={"baggage": inline(passport.entries, user="alice")})
        assert answer.json() == {"n": 2, "user": "alice"}
        allowed.answer = False
        answer = httpx.get(f"{base}/denied")
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
        assert answer.json()["policy"] == "p"
        answer = httpx.get(f"{base}/error/verify")
        assert (answer.status_code, answer.json()["index"]) == (403, 2)
        answer = httpx.get(f"{base}/error/config")
        assert answer.status_code == 500
        assert "secret" not in answer.text


def test_fastapi_schema_is_unchanged() -> None:
    def build(decorate: Any) -> dict[str, Any]:
        app = FastAPI()

        @app.post("/a/{key}", status_code=201)
        @decorate
        async def create(key: int, item: Item, q: str | None = None) -> Item:
            """Makes one."""
            return item

        @app.get("/b")
        @decorate
        def listing(limit: int = 10) -> list[Item]:
            """Lists."""
            return []

        return app.openapi()

    assert build(kest_verified(policy="p")) == build(lambda fn: fn)


def test_fastapi_handlers_take_their_true_arguments() -> None:
    app = FastAPI()

    @app.post("/a/{key}")
    @kest_verified(policy="p", identity=HOP)
    async def create(key: int, item: Item, q: str | None = None) -> Any:
        return [key, item.name, q, len(get_current_passport())]

    with serving(app) as base:
        assert httpx.post(f"{base}/a/7?q=x", json={"name": "n"}).json() == [7, "n", "x", 1]
        assert httpx.post(f"{base}/a/x", json={"name": "n"}).status_code == 422


def test_modules_import_without_their_libraries(run_python: Any) -> None:
    code = """
import sys
ABSENT = {"httpx", "starlette", "fastapi", "opentelemetry", "jwt", "redis", "grpc", "requests", "aiohttp"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from kest.core import KestHttpxInterceptor, KestIdentityMiddleware, KestMiddleware
from kest.http import Edge, KestWSGIMiddleware
KestMiddleware(None); KestWSGIMiddleware(None); KestHttpxInterceptor()
from kest.errors import MissingExtraError
needing = [lambda: KestIdentityMiddleware(None, jwks_uri="https://x/jwks")]
needing += [lambda: __import__("kest.http.grpc"), lambda: __import__("kest.http.requests")]
for make in needing:
    try:
        make()
    except MissingExtraError as error:
        assert "pip install" in str(error)
    else:
        raise AssertionError(make)
"""
    run_python(code)
