"""The same flow, attacked: forged lineage, stolen tokens, dropped entries, too little scope. Each has to be refused."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from cluster import REPORTS, Cluster
from tokens import Refused, TokenClient
from workload import PROCESS_DATA, principal_of

from kest import BaggageManager, KestEntry, Passport, RedisCache, StaticIdentity, sign_entry
from kest._kestcore import b64url_decode, b64url_encode, sha256

__all__ = ["Attack", "Attacker"]


@dataclass(frozen=True)
class Attack:
    """An attempt, what should come of it, and what did.

    Attributes:
        group: which part of the flow is attacked.
        what: what was tried.
        at: who had to refuse.
        expected: the status, and words of the reason.
        status: what came.
        reason: what came.
    """

    group: str
    what: str
    at: str
    expected: tuple[int, str]
    status: int
    reason: str

    @property
    def refused(self) -> bool:
        """Whether it was refused with the right status, for the right reason."""
        return self.status == self.expected[0] and self.expected[1] in self.reason


class Attacker:
    """Somebody on the network who sees what passes, can write to Redis, and has a workload of their own (batch-report).

    Args:
        cluster: what is attacked. The tokens that an attacker would have stolen are made with its secrets.
        http: an ordinary client, without Kest.
        honest: the passport of an honest run, as it passed by.
        job: what is asked for.
    """

    def __init__(self, cluster: Cluster, http: httpx.AsyncClient, honest: Passport, job: dict[str, Any]) -> None:
        self._cluster, self._http, self._job = cluster, http, job
        self._honest = honest.entries
        self.tokens: list[str] = []

    async def all(self, alice: str) -> AsyncIterator[Attack]:
        """Every attack, one after the other; ``alice`` is her token for the agent."""
        group = "forged passport"
        for what, entries, expected in self._forgeries():
            yield await self._attack(group, what, "kest-agent", "/delegate", alice, carry(entries), expected)

        group = "stolen token"
        what, expected = "alice's token for the agent, used at the gateway", (401, "another audience")
        own = carry([self._own_entry(10)])
        yield await self._attack(group, what, "kest-gateway", "/authorise", alice, own, expected)
        yield await self._exchange_stolen(group, alice)
        obo = await self._obtained("kest-agent", alice, "kest-gateway")
        what = "the agent's token, used by batch-report with lineage of its own"
        expected = (403, "policy 'gateway_policy' (function) denied operation 'authorise'")
        yield await self._attack(group, what, "kest-gateway", "/authorise", obo, own, expected)
        what, expected = "the agent's token, without lineage", (403, "takes no request without lineage")
        yield await self._attack(group, what, "kest-gateway", "/authorise", obo, "", expected)
        task = await self._obtained("kest-gateway", obo, "kest-gateway", act=False)
        what = "the task token, used by batch-report with lineage of its own"
        expected = (403, "policy 'task_policy' (function) denied operation 'execute-task'")
        yield await self._attack(group, what, "kest-gateway", "/execute-task", task, own, expected)
        onward = await self._obtained("kest-gateway", task, "hop1")
        what = "the token for hop1, with genuine lineage, used at hop3"
        passed = carry(self._honest[:3])
        yield await self._attack(group, what, "hop3", "/process", onward, passed, (401, "another audience"))

        group = "dropped entry"
        tip = tip_of(self._honest[2])
        what = "the last of three entries dropped on the way to hop1"
        expected = (400, "kest.chain_tip is not the tip of the passport")
        yield await self._attack(group, what, "hop1", "/process", onward, carry(self._honest[:2], tip), expected)
        what = "the entry in the middle dropped on the way to hop1"
        expected = (403, "parent")
        without = [self._honest[0], self._honest[2]]
        yield await self._attack(group, what, "hop1", "/process", onward, carry(without, tip), expected)
        what = "the record of a claim check exchanged in Redis for a shorter one"
        expected = (400, "kest.chain_tip is not the tip of the passport")
        yield await self._attack(group, what, "hop1", "/process", onward, self._exchanged_claim(), expected)

        group = "too little scope"
        little = await self._login(f"delegate {REPORTS}")
        what, expected = "alice agrees to reading reports, and asks to process data", (403, "policy 'gateway_policy'")
        yield await self._attack(group, what, "kest-agent", "/delegate", little, "", expected)

    # --- lineage ---

    def _forgeries(self) -> list[tuple[str, list[str], tuple[int, str]]]:
        impostor = StaticIdentity(principal_of("kest-gateway"))  # the gateway's name, but not its key
        forged = sign_entry(KestEntry("authorise", trust_score=100), impostor)
        first, second = self._honest[:2]
        wrong, too_much = (403, "the signature does not match"), (403, "trust is above the maximum")
        return [
            ("trust 100, signed in the gateway's name with another key", [forged], wrong),
            ("genuine entries, alice changed to clara in the last", [first, altered(second, "alice", "clara")], wrong),
            ("a genuine entry, its trust changed from 10 to 100", [altered(first, '":10}', '":100}')], too_much),
            ("a root with trust 100, signed by batch-report", [self._own_entry(100)], too_much),
            ("a genuine entry, its algorithm changed to none", [unsigned(first)], (403, "alg")),
        ]

    def _own_entry(self, trust: int) -> str:
        """What batch-report can sign: it has a key that everybody knows, and little to say."""
        return sign_entry(KestEntry("batch.report", trust_score=trust), self._cluster.rogue)

    def _exchanged_claim(self) -> str:
        cache = RedisCache(self._cluster.redis)
        try:
            genuine, shorter = Passport(self._honest[:3]), Passport(self._honest[:2])
            values = BaggageManager.pack(genuine, cache, limit=128)
            record = f"{genuine.chain_tip}\n{shorter.serialize()}"
            cache.set(values["kest.claim_check"], record, 60)
            return header(values)
        finally:
            cache.close()

    # --- tokens ---

    def _client(self, name: str) -> TokenClient:
        return TokenClient(self._http, self._cluster.token_endpoint, name, self._cluster.secrets[name])

    async def _obtained(self, client: str, subject: str, audience: str, act: bool = True) -> str:
        """The token that this client gets in the honest flow, as it could leak from there."""
        token = await self._client(client).exchange(subject, audience, scope=PROCESS_DATA, act=act)
        self.tokens.append(token)
        return token

    async def _login(self, scope: str) -> str:
        token = await self._client("portal").login("alice", "kest-agent", scope)
        self.tokens.append(token)
        return token

    async def _exchange_stolen(self, group: str, token: str) -> Attack:
        what = "alice's token, exchanged by batch-report with its own credentials"
        expected = (400, "not issued to this client")
        try:
            await self._client("batch-report").exchange(token, "kest-gateway")
        except Refused as refused:
            return Attack(group, what, "oidc-issuer", expected, refused.status, str(refused))
        return Attack(group, what, "oidc-issuer", expected, 200, "a token")

    # --- requests ---

    async def _attack(
        self, group: str, what: str, at: str, path: str, token: str, baggage: str, expected: tuple[int, str]
    ) -> Attack:
        headers = {"authorization": f"Bearer {token}"}
        if baggage:
            headers["baggage"] = baggage
        body = {"readings": self._job["readings"]} if at.startswith("hop") else self._job
        response = await self._http.post(f"{self._cluster.urls[at]}{path}", json=body, headers=headers)
        problem = response.json()
        reason = problem.get("detail") or problem.get("title") or "nothing was refused"
        return Attack(group, what, at, expected, response.status_code, f"{reason}")


def carry(entries: list[str], tip: str | None = None) -> str:
    """A baggage header with these entries, whatever they are; ``tip`` of the last one by default."""
    packed = b64url_encode(zlib.compress(json.dumps(entries, separators=(",", ":")).encode(), 1))
    return header({"kest.passport_z": packed, "kest.chain_tip": tip or tip_of(entries[-1])})


def header(values: dict[str, str]) -> str:
    """Baggage members, percent-encoded (W3C Baggage, section 3.3)."""
    return ",".join(f"{key}={quote(value, safe='')}" for key, value in values.items())


def tip_of(jws: str) -> str:
    """The hash that names an entry."""
    return sha256(jws.encode()).hex()


def altered(jws: str, old: str, new: str) -> str:
    """The entry with another payload and its old signature."""
    head, payload, signature = jws.split(".")
    changed = b64url_decode(payload).replace(old.encode(), new.encode())
    assert changed != b64url_decode(payload)
    return f"{head}.{b64url_encode(changed)}.{signature}"


def unsigned(jws: str) -> str:
    """The entry with a header that says that nothing needs to be verified (RFC 7515, appendix A.5)."""
    head, payload, signature = jws.split(".")
    changed = re.sub(rb'"alg":"\w+"', b'"alg":"none"', b64url_decode(head))
    return f"{b64url_encode(changed)}.{payload}.{signature}"
