"""Alice hands a task to an agent; a gateway checks it; three hops carry it out: seven processes, six signed entries.

    alice → kest-agent → kest-gateway /authorise → task token → kest-gateway /execute-task → hop1 → hop2 → hop3

Then the same flow is attacked, and every attack has to be refused. Run it with ``make demo-delegation``. It is a test too:
it exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(2, str(Path(__file__).resolve().parents[2] / "tools/services"))

import demo
import httpx
from attacks import Attack, Attacker, tip_of
from cluster import REPORTS, Cluster
from demo import expect, heading, kest, note, paint, say, shown
from kest_services.processes import ProcessError, Processes
from tokens import TokenClient
from workload import PROCESS_DATA, SERVICES, principal_of

from kest import Passport
from kest.cli.terminal import Column, fold, table

JOB = {"task": "process-data", "readings": [21.4, 21.9, 22.3, 999.0, 21.7, 20.8, -40.0, 22.1, 21.5]}
REPORT = {"count": 7, "mean": 21.67, "highest": 22.3}
# Service, operation, trust, policy, and the actors that its token named, the current one first.
EXPECTED: list[tuple[str, str, int, str, list[str]]] = [
    ("kest-agent", "delegate", 10, "delegation_policy", []),
    ("kest-gateway", "authorise", 100, "gateway_policy", ["kest-agent"]),
    ("kest-gateway", "execute-task", 100, "task_policy", ["kest-agent"]),
    ("hop1", "hop1.process", 100, "workload_user_policy", ["kest-gateway", "kest-agent"]),
    ("hop2", "hop2.process", 100, "workload_user_policy", ["hop1", "kest-gateway", "kest-agent"]),
    ("hop3", "hop3.process", 100, "workload_user_policy", ["hop2", "hop1", "kest-gateway", "kest-agent"]),
]
TITLES = ("#", "service", "for", "trust", "policy", "came by")
FILES = {
    "passport.json": "the proof: six signed entries",
    "keys.jwks.json": "public keys, and what each may claim",
    "shortened.json": "the proof without its last entry",
    "attacks.json": "what was tried, and what came of it",
    "records": "all that each service has signed",
    "logs": "what each process had to say",
}


async def honest_run(cluster: Cluster, http: httpx.AsyncClient) -> tuple[str, dict[str, Any]]:
    """Alice signs in, and asks the agent; her token, and the answer."""
    portal = TokenClient(http, cluster.token_endpoint, "portal", cluster.secrets["portal"])
    alice = await portal.login("alice", "kest-agent", f"delegate {PROCESS_DATA} {REPORTS}")
    response = await http.post(
        f"{cluster.urls['kest-agent']}/delegate", json=JOB, headers={"authorization": f"Bearer {alice}"}
    )
    if response.status_code != 200:
        cluster.check()
        raise ProcessError(f"the honest run was answered with {response.status_code}: {response.text[:400]}")
    return alice, response.json()


def show_lineage(passport: Passport, carried: list[dict[str, Any]]) -> None:
    """The table: who, for whom, with what trust, by which policy; and who acted."""
    rows, notes = [], []
    for number, (payload, came) in enumerate(zip(passport.decode(), carried, strict=True), 1):
        labels = payload["labels"]
        identity, attributes = json.loads(labels["kest.identity"]), json.loads(labels["kest.resource_attr"])
        service = labels["principal"].rpartition("/")[2]
        rows.append(
            [
                str(number),
                f"{service} {came['path']}",
                identity["user"],
                str(payload["trust_score"]),
                " ".join(payload["policy_context"]["function_policies"]),
                came["form"],
            ]
        )
        notes.append(_notes(payload, identity["user"], attributes))
    lines = table([Column(title, right=title in ("#", "trust")) for title in TITLES], rows, demo.columns, paint.more)
    print(paint.dim("  ".join(lines[0]).rstrip()))
    for line, payload, said in zip(lines[1:], passport.decode(), notes, strict=True):
        line[3] = paint.trust(payload["trust_score"], line[3])
        print("  ".join(line).rstrip())
        for text in said:
            note(text, paint.dim)


def _notes(payload: dict[str, Any], user: str, attributes: dict[str, Any]) -> list[str]:
    acting = f"act {' < '.join(attributes['act'])}" if attributes["act"] else "no actor"
    said = [f"token: {user}, {acting}; scope {' '.join(attributes['scopes'])}"]
    if raised := payload["labels"].get("kest.trust_override"):
        said.append(f"sanitiser: trust raised from 10 to {raised}, taint {' '.join(payload['removed_taints'])} removed")
    return said


def check_lineage(passport: Passport, answer: dict[str, Any]) -> None:
    """Six linked entries, as the table says."""
    entries = passport.decode()
    expect(answer["report"] == REPORT, f"the task was done: {answer['report']}")
    expect(len(entries) == len(EXPECTED), f"there are six entries, not {len(entries)}")
    parent = "0"
    for jws, payload, (service, operation, trust, policy, act) in zip(passport.entries, entries, EXPECTED, strict=True):
        labels = payload["labels"]
        identity, attributes = json.loads(labels["kest.identity"]), json.loads(labels["kest.resource_attr"])
        got = labels["principal"], payload["operation"], payload["trust_score"]
        expect(
            got == (principal_of(service), operation, trust), f"{operation}: by {service} with trust {trust}, not {got}"
        )
        expect(payload["policy_context"]["function_policies"] == [policy], f"{operation}: {policy} has decided")
        expect(attributes["act"] == act, f"{operation}: acting are {act}, not {attributes['act']}")
        chain = json.loads(labels.get("kest.actors", "[]"))
        expect(chain == (act if len(act) > 1 else []), f"{operation}: the entry says so, not {chain}")
        current = act[0] if act else "kest-agent"
        expect((identity["user"], identity["agent"]) == ("alice", current), f"{operation}: {current}, for alice")
        expect(payload["parent_ids"] == [parent], f"{operation}: linked to the entry before")
        expect(
            ("kest.trust_override" in labels) == (operation == "authorise"), f"{operation}: who raises trust says so"
        )
        parent = tip_of(jws)
    expect(answer["chain_tip"] == parent, "the tip is the last entry")
    scopes = [json.loads(payload["labels"]["kest.resource_attr"])["scopes"] for payload in entries]
    expect(scopes[2:] == [[PROCESS_DATA]] * 4, "from the task token on, the scope is the task's and nothing else")
    expect((passport.trust_score, passport.taints) == (100, ()), "the flow ends with trust 100 and no taint")
    forms = [came["form"] for came in answer["carried"]]
    expect(forms[0] == "-" and "claim check" in forms, f"some lineage waited in Redis: {forms}")


def check_records(cluster: Cluster, passport: Passport, counts: dict[str, int]) -> None:
    """What the services wrote down is what the passport says, and nothing else was signed."""
    signed = [jws for file in cluster.records.values() for kind, jws in records(file) if kind == "entry"]
    expect(all(jws in signed for jws in passport.entries), "each entry stands in the records of who signed it")
    for kind, count in counts.items():
        found = sum(1 for file in cluster.records.values() for known, _ in records(file) if known == kind)
        expect(found == count, f"the services have recorded {count} x {kind}, not {found}")


def records(file: Path) -> list[tuple[str, str]]:
    """Kind and JWS of each record."""
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [(line["kind"], line["jws"]) for line in lines]


def verify(passport: Passport, out: Path) -> None:
    """Hand the proof to a stranger, whole and shortened."""
    (out / "passport.json").write_text(passport.serialize(), encoding="utf-8")
    (out / "shortened.json").write_text(Passport(passport.entries[:-1]).serialize(), encoding="utf-8")
    files = [shown(out / name) for name in ("passport.json", "shortened.json", "keys.jwks.json")]
    heading("Somebody else checks it, in another process, with the published keys")
    done = kest("verify", files[0], "--trust", files[2], "--chain-tip", passport.chain_tip)
    expect(done.returncode == 0 and "verified: 6 entries" in done.stdout, "the passport verifies")
    heading("The same without the last entry")
    done = kest("verify", files[1], "--trust", files[2], "--chain-tip", passport.chain_tip)
    expect(done.returncode == 1 and "tip of the chain" in done.stderr, "the shortened passport is refused")


def show_attack(attack: Attack, group: str) -> None:
    """What was tried, and the answer."""
    if attack.group != group:
        print(f"  {paint.bold(attack.group)}")
    status = (paint.good if attack.refused else paint.bad)(str(attack.status))
    print(f"{demo.MARGIN}{status}  {attack.what}")
    for line in fold(f"{attack.at}: {attack.reason}", demo.columns - 9):
        print(f"{' ' * 9}{paint.dim(line)}")
    wanted, words = attack.expected
    expect(attack.refused, f"{attack.what}: {wanted} with '{words}', not {attack.status}")


async def story(cluster: Cluster, out: Path) -> list[str]:
    """The honest run, the proof, the attacks; every token that was seen."""
    async with httpx.AsyncClient(timeout=20.0, trust_env=False) as http:
        alice, answer = await honest_run(cluster, http)
        passport = Passport.deserialize(answer["passport"])
        heading("What was signed, and where trust comes from")
        show_lineage(passport, answer["carried"])
        print(f"{demo.MARGIN}report: {json.dumps(answer['report'])}")
        check_lineage(passport, answer)
        check_records(cluster, passport, {"entry": 6, "outcome": 6, "denial": 0})
        verify(passport, out)

        heading("The same flow, attacked")
        attacker = Attacker(cluster, http, passport, JOB)
        attacks: list[Attack] = []
        async for attack in attacker.all(alice):
            show_attack(attack, attacks[-1].group if attacks else "")
            attacks.append(attack)
    told = [{**vars(attack), "refused": attack.refused} for attack in attacks]
    (out / "attacks.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    # With too little scope, the agent's own part is allowed and fails when the gateway denies: no other entry is new.
    check_records(cluster, passport, {"entry": 7, "outcome": 7, "denial": 3})
    return [alice, *attacker.tokens]


def check_secrets(cluster: Cluster, tokens: list[str], out: Path) -> None:
    """No token, no secret and no private key in anything that was written; no lineage at the issuer."""
    hidden = [token.rpartition(".")[2] for token in tokens] + list(cluster.secrets.values())
    texts = {file: file.read_text("utf-8", "replace") for file in out.rglob("*") if file.is_file()}
    for file, text in texts.items():
        expect(not any(secret in text for secret in hidden), f"no token or secret in {shown(file)}")
        expect(file.parent.name != "logs" or "eyJ" not in text, f"no token of any kind in {shown(file)}")
        expect('"d":' not in text and "PRIVATE" not in text, f"no private key in {shown(file)}")
    expect("with lineage" not in texts[out / "logs/oidc-issuer.log"], "no lineage went to the issuer")


def prepare(out: Path) -> None:
    """Folders, without what an earlier run has left there."""
    for name in FILES:
        target = out / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
    for name in ("records", "logs"):
        (out / name).mkdir(parents=True)
    for name in SERVICES:
        (out / "records" / f"{name}.jsonl").touch()


def run(out: Path) -> None:
    """All of it, with everything stopped at the end."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kest-delegation-") as scratch, Processes(out / "logs") as processes:
        cluster = Cluster(processes, out, Path(scratch))
        cluster.start()
        took = time.monotonic() - started
        what = f"Redis, an OpenID Connect issuer, {', '.join(SERVICES)}"
        say(f"{len(cluster)} processes on 127.0.0.1: {what} ({took:.1f} s)")
        tokens = asyncio.run(story(cluster, out))
        cluster.check()
        statuses = processes.stop()
        expect(all(status in (0, -signal.SIGTERM) for status in statuses.values()), f"orderly ends: {statuses}")
    check_secrets(cluster, tokens, out)


def summary(out: Path, seconds: float) -> None:
    """Where everything is, and the verdict."""
    heading("Files")
    for name, what in FILES.items():
        print(f"{demo.MARGIN}{shown(out / name):<{len(shown(out)) + 17}} {paint.dim(what)}")
    failed = len(demo.failures)
    verdict = f"{failed} of {demo.checks} checks FAILED" if failed else f"{demo.checks} of {demo.checks} checks hold"
    print(f"\n{(paint.bad if failed else paint.good)(verdict)} {paint.dim(f'({seconds:.1f} s)')}")


def main() -> int:
    """Run it all; 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).resolve().parents[2] / "out/delegation"
    parser.add_argument("--out", type=Path, default=default, help="folder for the files (out/delegation)")
    out: Path = parser.parse_args().out.resolve()
    missing = [name for name in ("node", "npm", "redis-server") if shutil.which(name) is None]
    if missing:
        print(f"missing: {', '.join(missing)} (on Debian: apt-get install nodejs npm redis-server)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    say("Kest demo: a delegation across five services, and its proof", paint.bold)
    prepare(out)
    try:
        run(out)
    except ProcessError as error:
        print(f"{paint.bad('FAILED')}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    summary(out, time.monotonic() - started)
    return 1 if demo.failures else 0


if __name__ == "__main__":
    sys.exit(main())
