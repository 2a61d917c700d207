"""The lab that ``make lab-up`` has started. Without one these tests skip, and say so; ``make lab-test`` fails."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "examples/lab"))
sys.path.insert(2, str(Path(__file__).resolve().parents[2] / "examples/delegation"))

import people
from kest_services import components
from lab import FOLDER, bundle
from service import believe
from state import State

from kest import Passport, PassportVerifier, RedisCache


class Lab:
    """A running lab, as somebody who sits at its machine finds it."""

    def __init__(self, state: State) -> None:
        self.state = state
        said = state.read()
        self.at: dict[str, str] = said["addresses"]
        self.pythons: dict[str, str] = said["pythons"]
        self.spans_file, self.records = Path(said["spans"]), Path(said["records"])
        self._http = httpx.Client(timeout=20.0, trust_env=False)

    def close(self) -> None:
        self._http.close()

    # --- people and their tokens ---

    def sign_in(self, user: str = "alice", scope: str = people.SCOPE) -> str:
        return people.sign_in(self.at["issuer"], user, scope)

    def exchange(self, token: str, client: str, audience: str, scope: str = "task:process-data") -> httpx.Response:
        """RFC 8693, with the secret of a client; what the services do, and whoever has got hold of one."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": audience,
            "scope": scope,
        }
        url = f"{self.at['issuer']}/protocol/openid-connect/token"
        return self._http.post(url, data=form, auth=(client, f"{client}-secret"))

    def token_for(self, token: str, *way: str) -> str:
        """The token that arrives at the end of this way: each exchanges it for one for the next."""
        for client, audience in itertools.pairwise(way):
            answer = self.exchange(token, client, audience)
            assert answer.status_code == 200, answer.text
            token = answer.json()["access_token"]
        return token

    # --- requests ---

    def post(self, service: str, path: str, token: str, baggage: str = "", body: Any = people.JOB) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} | ({"baggage": baggage} if baggage else {})
        return self._http.post(f"{self.at[service]}{path}", json=body, headers=headers)

    def delegate(self, token: str) -> httpx.Response:
        return self.post("kest-agent", "/delegate", token)

    # --- looking around ---

    def verify(self, passport: Passport, authorities: str | None = None, **options: Any) -> Any:
        """With the bundle that the SPIRE server has now, or another."""
        document = json.loads(bundle(self.at) if authorities is None else authorities)
        with believe(document) as store:
            return PassportVerifier.verify(passport, store, **options)

    def bundle(self) -> str:
        return bundle(self.at)

    def spire_server(self, *arguments: str) -> Any:
        """``spire-server``, with its answer as JSON."""
        command = [str(components.folder("spire") / "spire-server"), *arguments]
        done = subprocess.run(
            [*command, "-socketPath", self.at["spire-server"], "-output", "json"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def spans(self) -> list[tuple[str, dict[str, Any]]]:
        """What the collector has written down: the service and the span."""
        whole, _, _ = self.spans_file.read_text("utf-8").rpartition("\n")
        found = []
        for line in whole.splitlines():
            for resource in json.loads(line).get("resourceSpans", ()):
                (name,) = (
                    one["value"]["stringValue"]
                    for one in resource["resource"]["attributes"]
                    if one["key"] == "service.name"
                )
                found += [(name, span) for scope in resource["scopeSpans"] for span in scope["spans"]]
        return found

    def log(self, part: str) -> str:
        return (self.state.folder / "logs" / f"{part}.log").read_text("utf-8", "replace")

    def run_as(self, python: str, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run Python as a workload; to SPIRE a process is what its executable says, whatever it runs."""
        paths = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": self.at["spire-agent"], "PYTHONPATH": paths}
        return subprocess.run(
            [python, *command], input=text, env=environment, capture_output=True, text=True, timeout=60
        )

    def as_batch_report(self, code: str, *arguments: str) -> str:
        """What a registered workload that is none of the five prints."""
        done = self.run_as(self.pythons["batch-report"], "-c", code, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    state = State(Path(os.environ.get("LAB") or FOLDER))
    if state.supervisor() is None or state.read()["state"] != "up":
        pytest.skip("no lab is up: make lab-up")
    one = Lab(state)
    yield one
    one.close()


@pytest.fixture(scope="session")
def alice(lab: Lab) -> str:
    """Her token for the agent."""
    return lab.sign_in()


@pytest.fixture(scope="session")
def honest(lab: Lab, alice: str) -> dict[str, Any]:
    """The answer to a task of hers."""
    answer = lab.delegate(alice)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="session")
def passport(honest: dict[str, Any]) -> Passport:
    return Passport.deserialize(honest["passport"])


@pytest.fixture
def claim_checks(lab: Lab) -> Iterator[RedisCache]:
    """Somebody who can write to Redis."""
    cache = RedisCache(lab.at["redis"])
    yield cache
    cache.close()


@pytest.fixture
def stopped(lab: Lab) -> Iterator[Callable[[str], None]]:
    """Stops a part; when the test ends it runs again."""
    chosen: list[str] = []

    def stop(part: str) -> None:
        lab.state.ask(f"stop {part}")
        chosen.append(part)

    yield stop
    for part in chosen:
        if part not in lab.state.read()["running"]:
            lab.state.ask(f"start {part}")
