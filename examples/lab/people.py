"""What a person does: sign in at Keycloak with a browser, and hand a task to the agent."""

from __future__ import annotations

import html
import re
import secrets
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from kest._kestcore import b64url_encode

__all__ = ["JOB", "REPORT", "SCOPE", "delegate", "sign_in"]

JOB = {"task": "process-data", "readings": [21.4, 21.9, 22.3, 999.0, 21.7, 20.8, -40.0, 22.1, 21.5]}
REPORT = {"count": 7, "mean": 21.67, "highest": 22.3}
SCOPE = "delegate task:process-data"
PORTAL = "http://127.0.0.1/signed-in"  # where the browser would be sent back to; nobody needs to listen there


def sign_in(issuer: str, user: str, scope: str = SCOPE) -> str:
    """An access token for the agent: authorization code with PKCE (RFC 7636), the login form filled in.

    Args:
        issuer: the realm's issuer identifier.
        user: alice or bob; the password is ``<user>-password``.
        scope: what the person agrees to.
    """
    endpoints = f"{issuer}/protocol/openid-connect"
    verifier = b64url_encode(secrets.token_bytes(32))
    wanted = {
        "client_id": "portal",
        "response_type": "code",
        "redirect_uri": PORTAL,
        "scope": scope,
        "state": secrets.token_urlsafe(8),
        "code_challenge": b64url_encode(sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
    }
    with httpx.Client(timeout=20.0, trust_env=False) as browser:
        page = browser.get(f"{endpoints}/auth", params=wanted).raise_for_status()
        form = re.search(r'<form[^>]* action="([^"]+)"', page.text)
        if form is None:
            raise ValueError("Keycloak shows no login form")
        # Its cookies are for secure origins. Browsers count 127.0.0.1 among them, Python's cookie jar does not.
        cookies = "; ".join(cookie.partition(";")[0] for cookie in page.headers.get_list("set-cookie"))
        browser.cookies.clear()
        given = {"username": user, "password": f"{user}-password"}
        answer = browser.post(html.unescape(form[1]), data=given, headers={"cookie": cookies})
        if answer.status_code != 302:
            raise ValueError(f"Keycloak did not let {user} in ({answer.status_code})")
        came = parse_qs(urlsplit(answer.headers["location"]).query)
        if came["state"] != [wanted["state"]]:
            raise ValueError("the answer belongs to another sign-in")
        exchanged = {
            "grant_type": "authorization_code",
            "client_id": "portal",
            "code": came["code"][0],
            "redirect_uri": PORTAL,
            "code_verifier": verifier,
        }
        return str(browser.post(f"{endpoints}/token", data=exchanged).raise_for_status().json()["access_token"])


def delegate(agent: str, token: str, job: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    """Hand a job to the agent at this URL."""
    given = {"authorization": f"Bearer {token}", **headers}
    return httpx.post(f"{agent}/delegate", json=job or JOB, headers=given, timeout=20.0, trust_env=False)


if __name__ == "__main__":
    import sys

    answer = delegate(sys.argv[2], sign_in(sys.argv[1], "alice"))
    if answer.status_code != 200:
        sys.exit(f"{answer.status_code}: {answer.text}")
    done = answer.json()
    print(f"report: {done['report']}", file=sys.stderr)
    print(done["passport"])
