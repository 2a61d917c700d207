"""Firing the probes, and judging what came back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from kest._kestcore import Signer
from kest.doctor.application import load
from kest.doctor.forge import Forger, inline
from kest.doctor.probes import GROUPS, Headers, Probe, probes
from kest.doctor.target import Answer, Seen, Target, TargetError, application_target, url_target
from kest.http.edge import UNVERIFIED_TAINT, UNVERIFIED_TRUST

__all__ = ["Attack", "Result", "attack"]

BLOCKED, DEGRADED, UNCLEAR, THROUGH = "blocked", "degraded", "unclear", "NOT BLOCKED"
SLOW = 5.0
_REFUSALS = frozenset((400, 401, 403, 413, 422, 424, 431))
NOBODY = "spiffe://kest.invalid/doctor"


class Result(NamedTuple):
    """What became of one probe. ``verdict``: blocked, degraded, unclear (which proves nothing) or NOT BLOCKED."""

    row: str
    name: str
    group: str
    came: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Attack:
    """The settings of an attack.

    Attributes:
        target: an http(s) URL, or ``module:app``.
        owned: the host of a URL that is not on this machine, to say that it is yours.
        method, path: of the request; a URL has its own path.
        headers: of every request, such as a valid token, so that an honest request is served.
        honest: a signer whose entries the target believes.
        principal: whom to impersonate; None: the honest signer's, or one that does not exist.
        groups: which probes to fire.
    """

    target: str
    owned: str | None = None
    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    honest: Signer | None = None
    principal: str | None = None
    groups: Sequence[str] = GROUPS


def attack(settings: Attack, done: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Fire the probes; ``done`` is told of each as it comes.

    Raises:
        TargetError: the target may not be attacked, or does not serve an honest request.
        ApplicationError: there is no such application.
    """
    return asyncio.run(_attack(settings, done))


async def _attack(settings: Attack, done: Callable[[Result], None]) -> list[Result]:
    async with _target(settings) as target:
        principal = settings.principal or (settings.honest.principal if settings.honest else NOBODY)
        forger = Forger(settings.honest, principal)
        honest: Headers = [] if settings.honest is None else [(b"baggage", inline(forger.chain(2)))]
        baseline = await _baseline(target, honest, settings)
        results = []
        for probe in probes(forger, _token(settings)):
            if probe.group in settings.groups:
                results.append(_judged(probe, await target.send(probe.headers), baseline, target))
                done(results[-1])
        after = await target.send(honest)
        if after.status != baseline.status:
            why = "an honest request is not served any more"
            results.append(Result("E1", "an honest request, afterwards", "resource", _came(after), THROUGH, why))
            done(results[-1])
        return results


def _target(settings: Attack) -> AbstractAsyncContextManager[Target]:
    headers = list(settings.headers)
    if "://" in settings.target:
        return url_target(settings.target, settings.method, headers, settings.owned)
    return application_target(load(settings.target), settings.method, settings.path, headers)


async def _baseline(target: Target, honest: Headers, settings: Attack) -> Answer:
    """An honest request must be served, or nothing that follows means anything."""
    answer = await target.send(honest)
    if answer.ok:
        return answer
    hint = "choose a path that is served (--path, --method), and add what it needs (--header, --token-env)"
    if honest:
        bare = await target.send([])
        if bare.ok:
            raise TargetError(
                f"lineage signed by {settings.honest.principal if settings.honest else '?'} is not believed: "
                f"{_came(answer)}. Give a key that is in its trust store, or leave --key out"
            )
    elif answer.status in (401, 403):
        hint = "it wants lineage or a token: give a key that it trusts (--key), or a token (--token-env)"
    raise TargetError(f"an honest request is not served: {_came(answer)}; {hint}")


def _token(settings: Attack) -> str | None:
    """The valid bearer token that honest requests carry, if they do."""
    values = [value for name, value in settings.headers if name == b"authorization"]
    scheme, _, token = values[0].decode("latin-1").partition(" ") if values else ("", "", "")
    return token if scheme.lower() == "bearer" else None


def _came(answer: Answer) -> str:
    if answer.status is None:
        return answer.error
    found = re.search(rb'"(?:reason|detail)":\s*"((?:[^"\\]|\\.){0,160})', answer.body)
    said = "" if found is None else " " + found[1].decode("utf-8", "replace")
    return f"{answer.status}{said}"


def _judged(probe: Probe, answer: Answer, baseline: Answer, target: Target) -> Result:
    verdict, why = _verdict(probe, answer, baseline, target)
    if verdict == BLOCKED and answer.seconds > SLOW:
        verdict, why = THROUGH, f"refused, but it took {answer.seconds:.1f} s"
    return Result(probe.row, probe.name, probe.group, _came(answer), verdict, why)


def _verdict(probe: Probe, answer: Answer, baseline: Answer, target: Target) -> tuple[str, str]:
    if probe.marker and probe.marker.encode() in answer.body and answer.ok:
        return THROUGH, "the answer repeats the name: it was believed"
    if answer.status is None:
        if answer.ran:
            return THROUGH, "the application ran"
        return (BLOCKED, "the server ended the connection") if probe.group == "resource" else (UNCLEAR, "no answer")
    if answer.status in _REFUSALS:
        return (THROUGH, "refused, but only after the application had begun") if answer.ran else (BLOCKED, "refused")
    if answer.status >= 500:
        if answer.ran is False:
            return BLOCKED, "not run, but with a server error in place of a refusal"
        return THROUGH, "a server error is no refusal"
    if not answer.ok:
        return UNCLEAR, "neither served nor refused"
    if answer.seen is not None:
        return _inside(probe, answer, answer.seen, baseline, target)
    return _outside(probe, answer, baseline)


def _inside(probe: Probe, answer: Answer, seen: Seen, baseline: Answer, target: Target) -> tuple[str, str]:
    """The application ran: what did it know?"""
    hooks = target.hooks or []
    if probe.marker and probe.marker in seen.names:
        return THROUGH, "it was believed"
    if probe.group == "token":
        if "KestIdentityMiddleware" not in hooks:
            return UNCLEAR, "no hook of Kest's verifies tokens here; does the application?"
        return THROUGH, "the application ran, as if there were no token"
    if probe.group == "caller":
        if not seen.edge and not seen.gated:
            return UNCLEAR, "no hook of Kest's saw it; the application ran"
        return _ignored(answer, baseline)
    if not seen.edge:
        return THROUGH, "no hook of Kest's saw it; the application ran"
    if probe.harmless and not seen.entries:
        return BLOCKED, "served; nothing of it was believed"
    if seen.entries and seen.trust <= UNVERIFIED_TRUST and UNVERIFIED_TAINT in seen.taints:
        return DEGRADED, f"counts as trust {seen.trust}, tainted {UNVERIFIED_TAINT}"
    if seen.entries:
        return THROUGH, f"believed: trust {seen.trust}"
    return THROUGH, "the application ran, as if nothing had come"


def _outside(probe: Probe, answer: Answer, baseline: Answer) -> tuple[str, str]:
    """The application ran, and only its answer is to be seen."""
    if probe.group == "caller":
        return _ignored(answer, baseline)
    if probe.harmless:
        return BLOCKED, "served without harm"
    if probe.group == "token":
        return THROUGH, "served; a token that does not verify must be refused"
    return THROUGH, "served; if it only degraded the lineage, module:app can show that"


def _ignored(answer: Answer, baseline: Answer) -> tuple[str, str]:
    if answer.status == baseline.status and _stable(answer.body) == _stable(baseline.body):
        return BLOCKED, "ignored: the answer is that to an honest request"
    return UNCLEAR, "another answer than to an honest request"


def _stable(body: bytes) -> bytes:
    """Without what differs from one answer to the next: numbers, ids, hashes."""
    return re.sub(rb"[0-9a-fA-F-]*\d[0-9a-fA-F-]*", b"0", body)
