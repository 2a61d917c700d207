"""The service that is called. README.md says how to run it."""

from typing import Annotated

from fastapi import Depends, FastAPI

from kest import (
    CedarLocalEngine,
    KestIdentityMiddleware,
    KestMiddleware,
    Passport,
    StaticIdentity,
    TrustStore,
    configure,
    kest_verified,
)
from kest.core.context import get_current_passport
from kest.http.fastapi import current_passport

ALICE = 'permit(principal, action, resource) when { context.user == "alice" && context.trust_score >= 40 };'
configure(
    identity=StaticIdentity("spiffe://shop.example/stock", key_file="stock.key"),
    engine=CedarLocalEngine({"reserve": ALICE}),
    trust_store=TrustStore.from_jwks("front.jwks.json"),  # whose lineage is believed
)
app = FastAPI()
app.add_middleware(KestMiddleware, require_passport=True)
app.add_middleware(
    KestIdentityMiddleware, jwks_uri="login.jwks.json", issuer="https://login.example", audience="stock", required=True
)


@kest_verified("reserve")
def reserve(item: str) -> None:
    print("reserved", item)


@app.post("/reserve/{item}")
async def take(item: str, arrived: Annotated[Passport, Depends(current_passport)]) -> list[str]:
    print("asked by", [entry["labels"]["principal"] for entry in arrived.decode()])
    reserve(item)
    return get_current_passport().entries  # the proof: what came, and what was done here
