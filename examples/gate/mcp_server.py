"""An MCP server whose tools run only when a gate permits it. Over stdio, for the program that starts it:

    python mcp_client.py

or over streamable HTTP, for whoever has a token that one of these keys signed:

    kest keygen --principal https://login.example --out login.key --jwks login.jwks.json
    python mcp_server.py --port 8000 --jwks login.jwks.json
"""

from __future__ import annotations

import argparse
import asyncio

from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings

from kest.errors import TokenError
from kest.gate import Gate
from kest.gate.mcp import McpGate, current_permit
from kest.http.jwks import KeySet
from kest.http.jwt_verifier import JWTVerifier

ISSUER, AUDIENCE = "https://login.example", "shop"
POLICY = {
    "policies": [
        {"name": "orders_are_open", "effect": "permit", "conditions": [{"action": "read_order"}]},
        {
            "name": "small_refunds",
            "effect": "permit",
            "conditions": [
                {"action": "refund"},
                {"identity_role": "support"},
                {"param_max": {"field": "amount", "max": 100}},
                {"rate_limit": {"max": 5, "window": "1h"}},
            ],
        },
    ],
}


class Tokens(TokenVerifier):
    """Has Kest verify bearer tokens for the SDK."""

    def __init__(self, jwks: str) -> None:
        self._verifier = JWTVerifier(KeySet(jwks), issuer=ISSUER, audience=AUDIENCE)

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            caller = await asyncio.to_thread(self._verifier.verify, token)
        except TokenError:
            return None
        claims = {} if caller.claims is None else caller.claims.all()
        return AccessToken(
            token=token,
            client_id=caller.agent or "",
            subject=caller.user,
            scopes=[],
            expires_at=claims["exp"],
            claims=claims,
        )


def server(jwks: str | None = None) -> MCPServer:
    auth = AuthSettings(issuer_url=ISSUER, resource_server_url=None) if jwks else None
    shop = MCPServer("shop", log_level="WARNING", auth=auth, token_verifier=Tokens(jwks) if jwks else None)

    @shop.tool()
    def read_order(order: str) -> str:
        return f"{order}: one lamp, 42 EUR"

    @shop.tool()
    def refund(order: str, amount: float) -> str:
        return f"{order}: {amount} EUR paid back under permit {current_permit().token_id}"

    # Over stdio it is the program that started this one who calls; over HTTP, whom the token names.
    McpGate(Gate.from_dict(POLICY), caller_id="desktop-agent", roles=["support"]).install(shop)
    return shop


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int)
    options.add_argument("--jwks")
    given = options.parse_args()
    if given.port is None:
        server().run("stdio")
    else:
        server(given.jwks).run("streamable-http", port=given.port)
