"""A FastAPI application behind a gate: uvicorn refunds:app"""

from fastapi import FastAPI, Request

from kest.gate import Gate
from kest.gate.http import GateMiddleware
from kest.http import KestIdentityMiddleware

gate = Gate.from_dict(
    {
        "policies": [
            {
                "name": "small_refunds",
                "effect": "permit",
                "conditions": [
                    {"action": "refunds.create"},
                    {"identity_role": "support"},
                    {"param_max": {"field": "amount", "max": 100}},
                    {"rate_limit": {"max": 20, "window": "1h"}},
                ],
            }
        ]
    }
)
app = FastAPI()
app.add_middleware(GateMiddleware, gate=gate)
app.add_middleware(
    KestIdentityMiddleware, jwks_uri="login.jwks.json", issuer="https://login.example", audience="shop", required=True
)


@app.post("/refunds")
async def create(request: Request, refund: dict[str, float]) -> dict[str, str]:
    return {"paid": f"{refund['amount']:.2f}", "permit": request.state.kest_permit.token_id}
