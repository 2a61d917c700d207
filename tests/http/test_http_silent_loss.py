"""ATTACKS, rows B1 to B4 over real sockets: the whole passport arrives, or a clear error does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from wire import BOB, BOB_KEY, HOP, grown, header_of, inline, keys, report, service, serving, serving_h2, signed, until

from kest.core import BaggageManager, SimpleCache, configure, kest_verified
from kest.core.context import get_current_passport, lineage, wrap
from kest.errors import PassportTooLargeError
from kest.http import KestHttpxInterceptor, KestMiddleware

ODD = 'Ärzte, "a;b" = 100 % + \\ 日本 😀'


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(service(trust_store=keys())) as base:
        yield base


@contextlib.contextmanager
def flow(n: int = 2, **settings: Any) -> Iterator[list[str]]:
    """A flow of n entries, current in here."""
    passport = grown(n, **settings)
    with lineage(passport):
        yield passport.entries


# --- B1 ---


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_b1_interceptor_to_middleware_sync(http: str, n: int) -> None:
    with serving(service(trust_store=keys()), http=http) as base, flow(n) as entries:
        with httpx.Client(transport=KestHttpxInterceptor()) as client:
            assert client.post(f"{base}/work").json()["entries"][:-1] == entries
        with httpx.Client(event_hooks={"request": [KestHttpxInterceptor()]}) as client:
            assert client.post(f"{base}/work").json()["entries"][:-1] == entries


async def test_b1_interceptor_to_middleware_async(url: str) -> None:
    with flow(3) as entries:
        async with httpx.AsyncClient(transport=KestHttpxInterceptor()) as client:
            assert (await client.post(f"{url}/work")).json()["entries"][:-1] == entries
        async with httpx.AsyncClient(event_hooks={"request": [KestHttpxInterceptor()]}) as client:
            assert (await client.post(f"{url}/work")).json()["entries"][:-1] == entries


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # hypercorn, when a client hangs up
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_b1_http_2() -> None:
    with serving_h2(service(trust_store=keys())) as base, flow(3) as entries:
        with httpx.Client(transport=KestHttpxInterceptor(http1=False, http2=True)) as client:
            answer = client.post(f"{base}/work")
        assert answer.http_version == "HTTP/2"
        assert answer.json()["entries"][:-1] == entries


def test_b1_odd_characters_in_values(url: str) -> None:
    @kest_verified(policy="p", user=ODD, agent="a b+c", task="read:x write:y,z")
    def call() -> Any:
        with httpx.Client(transport=KestHttpxInterceptor()) as client:
            return client.post(f"{url}/work").json()

    answer = call()
    assert (answer["user"], answer["agent"], answer["task"]) == (ODD, "a b+c", "read:x write:y,z")


def test_b1_otel_propagator_to_middleware(url: str) -> None:
    from opentelemetry import propagate
    from opentelemetry.baggage import propagation, set_baggage
    from opentelemetry.context import attach, detach

    from kest.http import live_baggage

    assert propagation
    token = attach(set_baggage("vendor", "x y"))
    try:
        live = live_baggage.attach()
        assert live is not None
        assert live_baggage.attach() is None  # live already

        @kest_verified(policy="p", user=ODD)
        def call() -> Any:
            headers: dict[str, str] = {}
            propagate.inject(headers)
            assert "vendor=x+y" in headers["baggage"]
            return httpx.post(f"{url}/work", headers=headers).json(), get_current_passport().entries

        with lineage():
            for n in range(1, 4):
                answer, entries = call()
                assert len(entries) == n
                assert answer["entries"][:-1] == entries
                assert answer["user"] == ODD
        live_baggage.detach(live)
    finally:
        detach(token)


def test_b1_interceptor_to_otel_extractor() -> None:
    from opentelemetry.baggage import get_all
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context

    seen: list[dict[str, Any]] = []

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        carrier = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        seen.append(dict(get_all(W3CBaggagePropagator().extract(carrier, Context()))))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with serving(plain, lifespan="off") as base:
        for n in (1, 2, 5):
            with flow(n, user=ODD) as entries, httpx.Client(transport=KestHttpxInterceptor()) as client:
                client.get(base, headers={"baggage": "vendor=1"})
                assert BaggageManager.unpack(seen[-1]).entries == entries
                assert seen[-1]["vendor"] == "1"


def test_b1_foreign_members_pass_byte_for_byte() -> None:
    seen: list[bytes] = []

    async def far(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value for key, value in scope["headers"] if key == b"baggage")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    app = FastAPI()
    app.add_middleware(KestMiddleware)

    @app.post("/work")
    @kest_verified(policy="p", identity=HOP)
    async def work() -> None:
        async with httpx.AsyncClient(transport=KestHttpxInterceptor()) as client:
            await client.post(f"{far_url}/x", headers={"baggage": "own = 2 ;p;q=1"})

    foreign = [b"a=%E4%BD%A0;prop=1;flag", b"b==x%2Cy", b"c=\xff\xfe", b"no-equals", b"d = spaced ; p = 1"]
    with serving(far, lifespan="off") as far_url, serving(app) as base:
        lines = [(b"baggage", b", ".join(foreign[:3])), (b"baggage", b" , ".join(foreign[3:]) + b", ,")]
        lines.append((b"baggage", inline(grown(1).entries).encode()))
        assert httpx.post(f"{base}/work", headers=lines).status_code == 200
    members = seen[0].split(b",")
    assert len(seen) == 1
    assert [m for m in members if not m.startswith(b"kest.")] == [b"own = 2 ;p;q=1", *foreign]
    assert {m.partition(b"=")[0] for m in members if m.startswith(b"kest.")} == {b"kest.passport", b"kest.chain_tip"}


# --- B2 ---


@pytest.mark.parametrize("n", [1, 2, 4, 16, 17, 50, 1000])
async def test_b2_any_number_of_hops_with_a_cache(n: int) -> None:
    configure(cache=SimpleCache(), max_entries=2000)
    with serving(service(trust_store=keys())) as base, flow(n) as entries:
        async with httpx.AsyncClient(transport=KestHttpxInterceptor(), timeout=30) as client:
            answer = await client.post(f"{base}/work")
            assert answer.status_code == 200, answer.text
            assert answer.json()["entries"][:-1] == entries


@pytest.mark.parametrize("n", [50, 1000])
def test_b2_claim_checks_of_a_sync_client(n: int) -> None:
    configure(cache=SimpleCache(), max_entries=2000)
    site, client = serving(service(trust_store=keys())), httpx.Client(transport=KestHttpxInterceptor(), timeout=30)
    with site as base, flow(n) as entries, client:
        assert client.post(f"{base}/work").json()["entries"][:-1] == entries


@pytest.mark.parametrize("n", [1, 2, 4, 16, 17, 50, 1000])
def test_b2_any_number_of_hops_without_a_cache_arrive_or_do_not_leave(url: str, n: int) -> None:
    with flow(n) as entries, httpx.Client(transport=KestHttpxInterceptor()) as client:
        if n < 50:
            assert client.post(f"{url}/work").json()["entries"][:-1] == entries
        else:
            with pytest.raises(PassportTooLargeError, match="cache"):
                client.post(f"{url}/work")


def test_b2_a_chain_of_services_one_entry_each() -> None:
    """Sixteen hops through one service that calls itself: each hop continues from what the one before sent."""
    app = FastAPI()
    app.add_middleware(KestMiddleware, trust_store=keys())

    @app.post("/hop/{left}")
    @kest_verified(policy="hop", identity=HOP)
    async def hop(left: int) -> Any:
        if left == 0:
            return report()
        async with httpx.AsyncClient(transport=KestHttpxInterceptor()) as client:
            return (await client.post(f"{base}/hop/{left - 1}")).json()

    with serving(app) as base:
        for left in (0, 1, 3, 15):
            answer = httpx.post(f"{base}/hop/{left}", timeout=30).json()
            assert len(answer["entries"]) == left + 1, answer


def test_b2_one_generation_only(url: str) -> None:
    """What an older generation left in a request's headers never travels beside or instead of the current one."""
    old = grown(8, user="mallory")
    stale = header_of({**BaggageManager.pack(old, dense=True), "kest.user": "mallory", "kest.old": "1"})
    seen: list[str] = []

    def keep(request: httpx.Request) -> None:
        seen.extend(request.headers.get_list("baggage"))

    with flow(1, user="alice") as entries:
        transport = KestHttpxInterceptor(httpx.MockTransport(lambda r: (keep(r), httpx.Response(200))[1]))
        with httpx.Client(transport=transport) as client:
            client.get("http://x.test/", headers=[("baggage", f"{stale},v=1"), ("Baggage", "kest.task=t")])
    assert len(seen) == 1
    names = [member.partition("=")[0] for member in seen[0].split(",")]
    assert names == ["kest.passport", "kest.chain_tip", "v"]
    assert httpx.post(f"{url}/work", headers={"baggage": seen[0]}).json()["entries"][:-1] == entries


def test_b2_two_generations_at_once_are_refused(url: str) -> None:
    passport = grown(1)
    both = {**BaggageManager.pack(passport), "kest.claim_check": str(uuid.uuid4())}
    assert httpx.post(f"{url}/work", headers={"baggage": header_of(both)}).status_code == 400
    twice = f"{inline(passport.entries)},{inline(grown(1).entries)}"
    assert httpx.post(f"{url}/work", headers={"baggage": twice}).status_code == 400


def test_b2_a_proxy_that_caps_headers() -> None:
    configure(cache=SimpleCache())
    sizes: list[int] = []

    def far(request: httpx.Request) -> httpx.Response:
        sizes.append(len(request.headers["baggage"]))
        return httpx.Response(200)

    with flow(3), httpx.Client(transport=KestHttpxInterceptor(httpx.MockTransport(far), max_header=1024)) as client:
        client.get("http://x.test/")
        client.get("http://x.test/", headers={"baggage": "v=" + "x" * 600})
    assert max(sizes) <= 1024
    with flow(3), httpx.Client(transport=KestHttpxInterceptor(httpx.MockTransport(far))) as client:
        client.get("http://x.test/", headers={"baggage": "v=" + "x" * 4000 + ",w=" + "y" * 3800})
        assert sizes[-1] <= 8192
        with pytest.raises(PassportTooLargeError):
            client.get("http://x.test/", headers={"baggage": "v=" + "x" * 4000 + ",w=" + "y" * 4150})
        with pytest.raises(PassportTooLargeError):
            client.get("http://x.test/", headers={"baggage": ",".join(f"v{i}=1" for i in range(179))})


# --- B3 ---


def _bad() -> dict[str, str | list[tuple[bytes, bytes]]]:
    passport = grown(1)
    tip = passport.chain_tip
    whole = inline(passport.entries)
    z = BaggageManager.pack(grown(6))["kest.passport_z"]
    return {
        "json cut": whole[: len(whole) // 2],
        "empty value": f"kest.passport=,kest.chain_tip={tip}",
        "no value": f"kest.passport,kest.chain_tip={tip}",
        "not json": header_of({"kest.passport": "hello", "kest.chain_tip": tip}),
        "object": header_of({"kest.passport": "{}", "kest.chain_tip": tip}),
        "numbers": header_of({"kest.passport": "[1,2]", "kest.chain_tip": tip}),
        "null": header_of({"kest.passport": "null", "kest.chain_tip": tip}),
        "empty list": header_of({"kest.passport": "[]", "kest.chain_tip": tip}),
        "empty list alone": header_of({"kest.passport": "[]"}),
        "nested": header_of({"kest.passport": "[" * 3000, "kest.chain_tip": tip}),
        "z cut": header_of({"kest.passport_z": z[:-10]}),
        "z corrupt": header_of({"kest.passport_z": z[:40] + "AAAA" + z[44:]}),
        "z not base64": header_of({"kest.passport_z": "====="}),
        "z of nothing": header_of({"kest.passport_z": "eJwDAAAAAAE"}),
        "dense garbage": header_of({"kest.passport_d": "AAAA"}),
        "claim not a uuid": header_of({"kest.claim_check": "../../etc/passwd", "kest.chain_tip": tip}),
        "bad escape": f"kest.passport=%5B%2,kest.chain_tip={tip}",
        "bad escape 2": "kest.passport=%zz",
        "not utf-8": "kest.passport=%ff%fe",
        "raw quote": 'kest.passport=["x"]',
        "encoded key": f"kest%2Epassport=1,kest.chain_tip={tip}",
        "tip only": f"kest.chain_tip={tip}",
        "raw bytes": [(b"baggage", b"kest.passport=\xff\xfe")],
        "raw bytes in the key": [(b"baggage", b"kest.\xff=1")],
        "two lines": [(b"baggage", whole.encode()), (b"baggage", b"kest.chain_tip=" + b"0" * 64)],
    }


@pytest.mark.parametrize("kind", sorted(_bad()))
@pytest.mark.parametrize("store", [True, False])
def test_b3_corrupt_members(url: str, kind: str, store: bool) -> None:
    header = _bad()[kind]
    headers: Any = {"baggage": header} if isinstance(header, str) else header
    ran: list[Any] = []
    with serving(service(ran, trust_store=keys() if store else None)) as base:
        answer = httpx.post(f"{base}/work", headers=headers)
    assert answer.status_code in (400, 403, 424), answer.text
    assert answer.json()["detail"]
    assert not ran


def test_b3_missing_expired_and_swapped_claims(url: str) -> None:
    cache = SimpleCache()
    passport, other = grown(2), grown(2)
    claim = str(uuid.uuid4())

    def asked(record: str | None, tip: str | None = passport.chain_tip) -> httpx.Response:
        if record is not None:
            cache.set(claim, record, 300)
        members = {"kest.claim_check": claim} | ({} if tip is None else {"kest.chain_tip": tip})
        return httpx.post(f"{base}/work", headers={"baggage": header_of(members)})

    good = f"{passport.chain_tip}\n{passport.serialize()}"
    with serving(service(trust_store=keys(), cache=cache)) as base:
        assert asked(None).status_code == 424
        assert asked(good).status_code == 200
        assert asked(good, None).status_code == 424
        assert asked(f"{other.chain_tip}\n{other.serialize()}").status_code == 424
        assert asked(f"{passport.chain_tip}\n{other.serialize()}").status_code == 400
        for record in ("", "x", "\n", f"{passport.chain_tip}\n", f"{passport.chain_tip}\n[", good[:-20], "\xff" * 10):
            assert asked(record).status_code in (400, 403, 424)
        cache.set(claim, good, 0.001)
        threading.Event().wait(0.01)
        assert asked(None).status_code == 424
    # No cache where the claim arrives:
    assert httpx.post(f"{url}/work", headers={"baggage": header_of(
        {"kest.claim_check": claim, "kest.chain_tip": passport.chain_tip})}).status_code == 424  # fmt: skip


def test_b3_members_split_over_header_lines(url: str) -> None:
    passport = grown(2)
    lines = [(b"baggage", member.encode()) for member in inline(passport.entries).split(",")]
    assert httpx.post(f"{url}/work", headers=[(b"baggage", b"v=1"), *lines]).json()["entries"][:-1] == passport.entries


def test_b3_foreign_garbage_is_nobodys_business(url: str) -> None:
    junk = b"\xff\xfe=1, ;;;, =, %zz=%zz, a=b;c=d;=, \x7f, kest=1, kestrel.x=%, Kest.passport=1, x=%ff, %"
    answer = httpx.post(f"{url}/work", headers=[(b"baggage", junk)])
    assert answer.status_code == 200
    assert len(answer.json()["entries"]) == 1
    passport = grown(1)
    answer = httpx.post(f"{url}/work", headers=[(b"baggage", junk), (b"baggage", inline(passport.entries).encode())])
    assert answer.json()["entries"][:-1] == passport.entries


# --- B4 ---


def _app(done: list[Any]) -> FastAPI:
    app = FastAPI()

    @kest_verified(policy="p", identity=HOP)
    def step() -> int:
        return len(get_current_passport())

    @kest_verified(policy="p", identity=HOP)
    async def astep() -> int:
        return len(get_current_passport())

    @app.get("/sync")
    @kest_verified(policy="p", identity=HOP)
    def sync() -> Any:
        return [len(get_current_passport()), step()]

    @app.get("/thread")
    @kest_verified(policy="p", identity=HOP)
    async def thread() -> Any:
        pool = concurrent.futures.ThreadPoolExecutor(1)
        with pool:
            wrapped = pool.submit(wrap(step)).result()
            bare = pool.submit(step).result()
        return [await asyncio.to_thread(step), wrapped, bare, step()]

    @app.get("/tasks")
    @kest_verified(policy="p", identity=HOP)
    async def tasks() -> Any:
        return [*await asyncio.gather(astep(), astep(), asyncio.create_task(astep())), await astep()]

    @app.get("/timeout")
    @kest_verified(policy="p", identity=HOP)
    async def timeout() -> Any:
        @kest_verified(policy="p", identity=HOP)
        async def slow() -> None:
            await asyncio.sleep(30)

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(slow(), 0.01)
        return [await astep()]

    @app.get("/stream")
    @kest_verified(policy="p", identity=HOP)
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{await astep()}\n"

        return StreamingResponse(lines())

    @app.get("/background")
    @kest_verified(policy="p", identity=HOP)
    async def background(tasks: BackgroundTasks) -> Any:
        tasks.add_task(lambda: done.append(step()))
        tasks.add_task(astep)
        return [len(get_current_passport())]

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            await websocket.send_json({"n": await astep(), **report()})

    return app


@pytest.mark.parametrize("base_http", [False, True])
def test_b4_context_everywhere(base_http: bool) -> None:
    done: list[Any] = []
    app = _app(done)
    if base_http:  # runs the application in a task of its own

        async def through(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    app.add_middleware(KestMiddleware, trust_store=keys())
    passport = grown(2)
    headers = {"baggage": inline(passport.entries)}
    with serving(app) as base, httpx.Client(base_url=base, headers=headers) as client:
        for _ in range(2):  # requests share nothing: the second sees what the first saw
            assert client.get("/sync").json() == [3, 4]
            assert client.get("/thread").json() == [4, 4, 1, 4]
            assert client.get("/tasks").json()[:3] == [4, 4, 4]
            assert client.get("/timeout").json() == [4]
            assert client.get("/stream").text.split() == ["4", "5", "6"]
            assert client.get("/background").json() == [3]
            until(lambda: bool(done))
            assert done.pop() == 4
        assert client.get("/sync", headers={"baggage": ""}).json() == [1, 2]


def test_b4_requests_at_the_same_time_share_nothing() -> None:
    app = FastAPI()
    app.add_middleware(KestMiddleware, trust_store=keys())

    @app.get("/")
    @kest_verified(policy="p", identity=HOP)
    async def handler() -> Any:
        await asyncio.sleep(0.005)
        return report()

    passports = [grown(n % 4 + 1, user=f"user{n}", added_taints=[f"t{n}"]) for n in range(16)]

    async def all_of_them() -> None:
        async with httpx.AsyncClient(base_url=base) as client:
            for _ in range(3):
                answers = await asyncio.gather(
                    *(
                        client.get("/", headers={"baggage": inline(p.entries, user=f"user{n}")})
                        for n, p in enumerate(passports)
                    )
                )
                for n, answer in enumerate(answers):
                    assert answer.json()["entries"][:-1] == passports[n].entries
                    assert answer.json()["user"] == f"user{n}"
                    assert answer.json()["taints"] == [f"t{n}"]

    with serving(app) as base:
        asyncio.run(all_of_them())


async def test_b4_websockets() -> None:
    from websockets.asyncio.client import connect

    app = _app([])
    app.add_middleware(KestMiddleware, trust_store=keys())
    passport = grown(2)
    with serving(app) as base:
        url = base.replace("http", "ws") + "/ws"
        async with connect(url, additional_headers={"baggage": inline(passport.entries)}) as socket:
            for n in (3, 4):
                await socket.send("x")
                answer = json.loads(await socket.recv())
                assert answer["n"] == n
                assert answer["entries"][:2] == passport.entries
        from websockets.exceptions import InvalidStatus

        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, additional_headers={"baggage": inline([signed(key=BOB_KEY)])}):
                pass
        assert refused.value.response.status_code == 403


def test_lifespan_is_untouched() -> None:
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(KestMiddleware)
    with serving(app):
        assert seen == ["up"]
    assert seen == ["up", "down"]


def test_registered_twice_it_works_once() -> None:
    app = service(trust_store=keys())
    app.add_middleware(KestMiddleware, trust_store=keys())
    passport = grown(1, identity=BOB)
    with serving(app) as base:
        assert (
            httpx.post(f"{base}/work", headers={"baggage": inline(passport.entries)}).json()["entries"][:-1]
            == passport.entries
        )


def test_a_denial_is_a_403_problem(allowed: Any) -> None:
    ran: list[Any] = []
    with serving(service(ran)) as base:
        allowed.answer = False
        answer = httpx.post(f"{base}/work")
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["policy"] == "work"
    assert not ran
