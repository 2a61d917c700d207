"""Calls the tools of mcp_server.py: one that starts with this program, or the one at a URL, as the bearer of a token:

python mcp_client.py
python mcp_client.py http://127.0.0.1:8000/mcp TOKEN
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

CALLS = [
    ("read_order", {"order": "A-1"}),
    ("refund", {"order": "A-1", "amount": 42}),
    ("refund", {"order": "A-1", "amount": 4200}),  # too much
    ("refund", {"order": "A-1", "amount": "42"}),  # the gate compares numbers, and this is none
]


async def main(url: str | None = None, token: str = "") -> None:
    if url is None:
        script = str(Path(__file__).with_name("mcp_server.py"))
        await talk(Client(StdioServerParameters(command=sys.executable, args=[script], env=dict(os.environ))))
        return
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(headers=headers) as http:
        await talk(Client(streamable_http_client(url, http_client=http)))


async def talk(client: Client) -> None:
    async with client:
        for tool, arguments in CALLS:
            result = await client.call_tool(tool, arguments)
            print("refused " if result.is_error else "ran     ", tool, result.content[0].text)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
