"""The service that users call, and that calls another. README.md says how to run it."""

import httpx
from fastapi import FastAPI, Response

from kest import (
    CedarLocalEngine,
    KestHttpxInterceptor,
    KestIdentityMiddleware,
    KestMiddleware,
    StaticIdentity,
    configure,
    kest_verified,
)

configure(
    identity=StaticIdentity("spiffe://shop.example/front", key_file="front.key"),
    engine=CedarLocalEngine({"order": "permit(principal, action, resource) when { context has user };"}),
)
app = FastAPI()
app.add_middleware(KestMiddleware)
app.add_middleware(
    KestIdentityMiddleware, jwks_uri="login.jwks.json", issuer="https://login.example", audience="front", required=True
)
# The passport and, because it is opted in, the caller's token go to this host and to no other.
STOCK = ["127.0.0.1:8002"]
stock = httpx.AsyncClient(transport=KestHttpxInterceptor(allowed_hosts=STOCK, token_hosts=STOCK))


@kest_verified("order", source_type="user_input")
async def order(item: str) -> httpx.Response:
    return await stock.post(f"http://127.0.0.1:8002/reserve/{item}")


@app.post("/order/{item}")
async def place(item: str) -> Response:
    answer = await order(item)
    return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])
