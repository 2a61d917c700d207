"""Two agents, a payment service, a gate before the money, one Redis: what is permitted, refused, ended, and proven.

    agent-1, agent-2                                         payments
      gate: policies, limits,      -- signed permit -->        verifies it, pays, and
      sessions, invariants                                     keeps an audit chain
             \\________ Redis: counters, sessions, who is over ________/

Run it with ``make demo-gate``. It is a test too: it exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
sys.path.insert(2, str(Path(__file__).resolve().parents[3] / "tools/services"))

import demo
import httpx
from demo import expect, heading, paint, say
from kest_services.processes import Process, ProcessError, Processes
from kest_services.redis import Redis
from kest_services.service import wait_until
from process import CHANNEL

from kest import Passport, PassportVerifier
from kest.cli.terminal import fold
from kest.gate import KeyPair, PublicKeyBundle, RedisInvalidationBroadcaster, SignedAuditChain

HERE = Path(__file__).resolve().parent
BANGALORE = {"country_code": "IN", "city": "Bangalore", "latitude": 12.97, "longitude": 77.59}
CHENNAI = {"country_code": "IN", "city": "Chennai", "latitude": 13.08, "longitude": 80.27}
NEW_YORK = {"country_code": "US", "city": "New York", "latitude": 40.71, "longitude": -74.01}
SUPERVISOR = {"principal_id": "sara", "principal_kind": "user", "roles": ["supervisor"]}
SUPPORT = {"principal_id": "dana", "principal_kind": "user", "roles": ["support"]}
SESSIONS = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(3)]

Answer = dict[str, Any]


class Asked:
    """A process that answers commands."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.keys = PublicKeyBundle.from_json(json.loads(process.line()))

    def settle(self, settings: Answer) -> None:
        self.process.send(json.dumps(settings) + "\n")

    def __call__(self, command: str, **options: Any) -> Any:
        self.process.send(json.dumps([command, options]) + "\n")
        return json.loads(self.process.line())


def detail(text: str) -> None:
    """Why, below what."""
    for line in fold(text, demo.columns - 13):
        print(f"{' ' * 13}{paint.dim(line)}")


def shown(title: str, answer: Answer, verdict: str, says: str = "", code: str | None = None) -> Answer:
    """Print one scenario and its outcome, which must be the one that is expected."""
    kind = answer["verdict"]
    style = {"permit": paint.good, "refuse": paint.bad, "invalidate": paint.warn}[kind]
    print(f"  {style(f'{kind:<10}')} {title}")
    reason = answer.get("reason") or (f"policy {answer['policy']!r}" if answer["policy"] else "whatever policy says")
    if answer.get("code"):
        reason = f"[{answer['code']}] {answer['evaluator']}: {reason}"
    elif kind == "invalidate":
        reason = f"{answer['evaluator']}: {reason}"
    detail(reason)
    wanted = f"{verdict} {code or ''} '{says}'"
    expect(kind == verdict and (code is None or answer["code"] == code) and says in reason, f"{title}: {wanted}")
    paid = answer.get("paid")
    if paid:
        outcome(f"payments: paid {paid.get('paid')}" if paid["status"] == 200 else "payments", paid, 200)
    return answer


def outcome(title: str, answer: Answer, status: int, says: str = "") -> None:
    """Print what the payment service did with a permit."""
    refused = answer.get("refused")
    print(f"  {(paint.bad if refused else paint.good)('refused   ' if refused else 'honoured  ')} {title}")
    text = refused or f"permit {answer['permit']}, signed by {answer['signed_by']}"
    detail(text)
    expect(answer["status"] == status and says in text, f"{title}: {status} '{says}', not {answer['status']}")


# --- the scenarios ---


def decisions(one: Asked, other: Asked) -> None:
    """Policies, invariants, and a limit that two processes share."""
    heading("What the gate decides")
    shown("an agent refunds 500", one("refund", order="1", amount=500), "permit", "agents make small refunds")
    shown("an agent refunds 5,000", one("refund", order="2", amount=5000), "refuse", code="NO_POLICY_MATCH")
    shown("a supervisor refunds 20,000", one("refund", order="2", amount=20_000, **SUPERVISOR), "permit")
    cap = "INVARIANT_VIOLATION"
    shown(
        "a supervisor refunds 60,000", one("refund", order="3", amount=60_000, **SUPERVISOR), "refuse", "hard_cap", cap
    )
    shown("a supervisor names no amount", one("refund", order="3", **SUPERVISOR), "refuse", "hard_cap", cap)
    shown('an agent refunds "500", a text', one("refund", order="4", amount="500"), "refuse", code="NO_POLICY_MATCH")
    user = {"principal_id": "carl", "principal_kind": "user"}
    shown(
        "a customer refunds himself 10", one("refund", order="5", amount=10, **user), "refuse", code="NO_POLICY_MATCH"
    )
    many = [(one, other)[n % 2]("refund", order=f"6-{n}", amount=1, pay=False) for n in range(5)]
    expect(all(answer["verdict"] == "permit" for answer in many), "six refunds an hour are permitted")
    limit = other("refund", order="7", amount=1)
    shown("the seventh in an hour, by the other agent", limit, "refuse", "at most 6 per 1h", "RATE_LIMIT_EXCEEDED")
    observed = one("observe", amount=5000)
    shown("5,000 at a gate that only observes", observed, "permit", "whatever")
    shown("  … which would have decided", observed["observed"], "refuse", code="NO_POLICY_MATCH")


def permits(one: Asked) -> None:
    """What the other side believes."""
    heading("What the payment service believes")
    who = {"principal_id": "agent-two"}
    answer = one("refund", order="8", amount=100, pay=False, **who)
    expect(answer["verdict"] == "permit", "there is a permit to try things with")
    outcome("the amount was changed on the way", one("present", amount=900), 403, "params")
    outcome("another order", one("present", order="9"), 403, "resource")
    outcome("by somebody else", one("present", principal="agent-bot"), 403, "principal")
    outcome("as it was signed: hybrid, Ed25519 and ML-DSA-65", one("present"), 200)
    outcome("once more", one("present"), 403, "replay")
    outcome("signed with a key that is in no directory", one("forge", how="another key"), 403, "public key not found")
    outcome("signed with ML-DSA-65 alone", one("forge", how="without Ed25519"), 403, "hybrid")
    outcome("signed a week ago", one("forge", how="of last week"), 403, "expired")


def sessions(one: Asked, other: Asked) -> None:
    """Where sessions are, and when they end."""
    heading("Sessions")
    here = {**SUPPORT, "session_id": SESSIONS[0], "ip": "10.0.0.1", "place": BANGALORE, "device": "laptop"}
    shown("support reads a report in Bangalore", one("report", **here), "permit")
    near = {**here, "ip": "10.9.0.1", "place": CHENNAI}
    shown("in Chennai, 290 km away, at the other agent", other("report", **near), "permit")
    far = {**here, "ip": "203.0.113.9", "place": NEW_YORK}
    shown("in New York, a moment later", one("report", **far), "invalidate", "13368")
    shown("back in Bangalore, at the other agent", other("report", **here), "refuse", "invalidated", "SESSION_INVALID")
    fresh = {**here, "session_id": SESSIONS[1]}
    shown("a new session", one("report", **fresh), "permit")
    shown("from another device", other("report", **{**fresh, "device": "phone"}), "invalidate", "device")
    seller = {**SUPERVISOR, "session_id": SESSIONS[2], "ip": "10.0.0.1"}
    answer = one("refund", order="10", amount=50, pay=False, **seller)
    expect(answer["verdict"] == "permit", "there is a permit of a session")
    shown("a supervisor's session moves", other("report", **{**seller, "roles": ["support"], "ip": "10.7.7.7"}),
          "invalidate", "unverifiable")  # fmt: skip
    outcome("the permit that its session got before", one("present"), 403, "session was invalidated")


def operations(one: Asked, other: Asked, redis: Redis, policies: Path, key: bytes) -> None:
    """What operators do, and what happens to them."""
    heading("Operations")
    rogue = {"principal_id": "agent-rogue"}
    shown("an agent before the kill switch", one("refund", order="11", amount=5, pay=False, **rogue), "permit")
    operator = RedisInvalidationBroadcaster(redis.url, CHANNEL, key=key)
    operator.publish("principal", "agent-rogue", "caught selling refunds", "operator")
    operator.close()
    eventually(
        lambda: all(a("refund", order="12", amount=5, pay=False, **rogue)["verdict"] == "refuse" for a in (one, other))
    )
    over = "SESSION_INVALID"
    shown("… and after it", one("refund", order="12", amount=5, **rogue), "refuse", "principal was invalidated", over)
    shown("… at the other agent", other("refund", order="12", amount=5, **rogue), "refuse", code=over)
    outcome("… with the permit that it has", one("present"), 403, "principal was invalidated")

    before = one("policies")["digest"]
    replace(policies, "[[policies]]\nname = 'typo'\neffect = 'permit'\nconditions = [{ identity_knd = 'agent' }]\n")
    eventually(lambda: bool(one("policies")["error"]) and bool(other("policies")["error"]))
    expect(one("policies")["digest"] == before, "policies that are wrong change nothing")
    print(f"  {paint.bad('refused   ')} policies with a typo")
    detail(one("policies")["error"].rpartition("policies.toml: ")[2])
    new = {"principal_id": "agent-new"}
    shown("a refund under the last good ones", one("refund", order="13", amount=500, **new), "permit")
    text = (HERE / "policies.toml").read_text("utf-8").replace("max = 1000", "max = 100")
    replace(policies, text)
    eventually(lambda: one("policies")["digest"] == other("policies")["digest"] != before)
    shown("after a reload: at most 100", one("refund", order="14", amount=500, **new), "refuse", code="NO_POLICY_MATCH")
    replace(policies, "")
    eventually(lambda: one("policies")["digest"] not in (before, "") and one("policies")["error"] is None)
    shown("an empty file", refused_by_empty(one), "refuse", code="NO_POLICY_MATCH")
    replace(policies, (HERE / "policies.toml").read_text("utf-8"))
    eventually(lambda: one("policies")["digest"] == other("policies")["digest"] == before)

    redis.running.end(signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = one("refund", order="15", amount=5, **new)
        waited = time.monotonic() - began
    finally:
        redis.running.end(signal.SIGCONT)
    shown("Redis does not answer", answer, "refuse", "unavailable")
    expect(waited < 3, f"a refusal comes soon: after {waited:.1f} s")
    shown("Redis answers again", one("refund", order="16", amount=5, **new), "permit")


def refused_by_empty(one: Asked) -> Answer:
    """The verdict once the empty file is in force."""
    answers: list[Answer] = []

    def refused() -> bool:
        answers.append(one("refund", order="14", amount=5, pay=False, principal_id=f"agent-{len(answers)}"))
        return bool(answers[-1]["verdict"] == "refuse")

    eventually(refused)
    return answers[-1]


def evidence(one: Asked, payments: Asked, url: str) -> None:
    """What is left to be verified by others."""
    heading("What can be proven afterwards, with public keys and nothing else")
    got = httpx.get(f"{url}/audit", trust_env=False, timeout=10).json()
    chain, checkpoint = got["chain"].encode(), bytes.fromhex(got["checkpoint"])
    entries = SignedAuditChain.verify_jsonl(chain, payments.keys, hybrid=True, checkpoint=checkpoint)
    print(f"  {paint.good('verified  ')} the payment service's audit chain: {entries} entries")
    lines = chain.splitlines(keepends=True)
    expect(entries == len(lines) == 14, "it holds every payment and every refusal")
    altered = b"".join([*lines[:3], lines[3].replace(b"refuse", b"permit", 1), *lines[4:]])
    for title, data, word in (
        ("one entry altered", altered, "entry 3"), ("one entry removed", b"".join([*lines[:3], *lines[4:]]), "entry 3"),
        ("its end cut off", b"".join(lines[:-2]), "truncated"),
    ):  # fmt: skip
        try:
            SignedAuditChain.verify_jsonl(data, payments.keys, hybrid=True, checkpoint=checkpoint)
            expect(False, f"{title}: refused")
        except ValueError as error:
            print(f"  {paint.bad('refused   ')} {title}")
            detail(str(error))
            expect(word in str(error), f"{title}: '{word}'")

    got = one("governed", order="17", amounts=[20.0, 60_000.0, 30.0])
    passport = Passport.deserialize(got["passport"])
    PassportVerifier.verify(passport, {got["jwk"]["kid"]: got["jwk"]})
    decisions = [entry["labels"]["kest.decision"] for entry in passport.decode()]
    print(
        f"  {paint.good('verified  ')} the lineage of decorated calls: {len(decisions)} entries, which name their permits"
    )
    for decision in decisions:
        detail(decision)
    expect(
        len(decisions) == 2 and all("permit=" in text and "policy_set=" in text for text in decisions), "named permits"
    )
    expect(len(got["denied"]) == 1 and "NO_POLICY_MATCH" in got["denied"][0], f"60,000 was denied: {got['denied']}")

    first, again = one("send", text="the books are closed", times=2)
    print(f"  {paint.good('received  ')} a sealed message; the second time it was refused")
    expect(first == {"received": "the books are closed"}, f"it arrives: {first}")
    expect("replay" in again.get("refused", ""), f"and not twice: {again}")
    detail(again.get("refused", ""))


# --- the processes ---


def replace(file: Path, text: str) -> None:
    """As editors and ConfigMaps do it: at once."""
    scratch = file.with_suffix(".new")
    scratch.write_text(text, encoding="utf-8")
    scratch.rename(file)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    wait_until(condition, 20)


@contextmanager
def cluster(logs: Path) -> Iterator[tuple[Asked, Asked, Asked, Redis, str, Path, bytes]]:
    """Redis, two agents and the payment service; all are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kest-gate-") as name, Processes(logs) as processes:
        scratch = Path(name)
        agents = [processes.start(f"agent-{n}", [sys.executable, str(HERE / "agent.py")]) for n in (1, 2)]
        service = processes.start("payments", [sys.executable, str(HERE / "payments.py")])
        redis = Redis(processes, scratch / "redis", password=secrets.token_urlsafe(24))
        redis.start()
        one, other, payments = (Asked(process) for process in (*agents, service))
        root, key = KeyPair.generate(), secrets.token_bytes(32)
        directory, policies = scratch / "directory.kest", scratch / "policies.toml"
        directory.write_bytes(root.build_signed_manifest([one.keys, other.keys, payments.keys]))
        shutil.copy(HERE / "policies.toml", policies)
        settings = {"redis": redis.url, "key": key.hex(), "policies": str(policies), "directory": str(directory)}
        payments.settle({**settings, "root": root.public_keys().to_json(), "writer": one.keys.id})
        url = json.loads(service.line())
        for agent in (one, other):
            agent.settle({**settings, "payments": url, "payments_keys": payments.keys.to_json()})
        yield one, other, payments, redis, url, policies, key
        for process in (*agents, service):
            process.send("", last=True)
            expect(process.ended(10) == 0, f"{process.name} ends in order")


def main() -> int:
    """Run it all; 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).resolve().parents[3] / "out/gate"
    parser.add_argument("--out", type=Path, default=default, help="folder for the logs (out/gate)")
    out: Path = parser.parse_args().out.resolve()
    if shutil.which("redis-server") is None:
        print("missing: redis-server (on Debian: apt-get install redis-server)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    say("Kest demo: a gate between agents and money", paint.bold)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        with cluster(out) as (one, other, payments, redis, url, policies, key):
            say(f"Redis, two agents and a payment service on 127.0.0.1 ({time.monotonic() - started:.1f} s)")
            decisions(one, other)
            permits(one)
            sessions(one, other)
            operations(one, other, redis, policies, key)
            evidence(one, payments, url)
    except (ProcessError, TimeoutError) as error:
        print(f"{paint.bad('FAILED')}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    failed = len(demo.failures)
    verdict = f"{failed} of {demo.checks} checks FAILED" if failed else f"{demo.checks} of {demo.checks} checks hold"
    print(f"\n{(paint.bad if failed else paint.good)(verdict)} {paint.dim(f'({time.monotonic() - started:.1f} s)')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
