"""The integration lab: SPIRE, OPA, Keycloak, Redis, an OpenTelemetry collector and five services that trust no one.

    lab.py up | down | status | ask | stop PART | start PART

``make lab-up``, ``make lab-test`` and ``make lab-down`` are the usual ways in; docs/lab.md says what there is to see.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tools/services"))

from kest_services import components
from parts import DOMAIN
from state import MARK, LabError, State

__all__ = ["bundle", "down", "main", "up"]

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "out/lab"
PATIENCE = 400.0  # seconds that all of it may take to start: Keycloak alone 300 on a machine that is busy
AN_END = 30.0  # seconds that an orderly end may take


def up(state: State, issuer: str = "") -> None:
    """Start the lab, or what of it does not run, and wait until all of it is up; LabError says what did not start.

    Args:
        issuer: a realm of a Keycloak that runs already; "" for one of the lab's own.
    """
    if state.supervisor() is not None:
        said = _settled(state)
        if said["state"] == "up":
            for part in _missing(said):
                print(f"starting {part} again")
                state.ask(f"start {part}")
            print("the lab is up already")
            _show(state.read())
            return
    down(state)
    begun = time.monotonic()
    state.folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, MARK: str(state.folder)}
    command = [sys.executable, str(HERE / "supervisor.py"), str(state.folder), *filter(None, [issuer])]
    with state.early_log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    said = _settled(state, child)
    if said["state"] != "up":
        message = said.get("message") or _text(state.early_log) or "it was stopped"
        down(state)
        raise LabError(f"the lab did not start: {message}")
    state.early_log.rename(state.log)
    print(f"the lab is up ({time.monotonic() - begun:.0f} s)")
    _show(said)


def down(state: State) -> None:
    """Stop the lab, whatever state it is in, and remove its folder; LabError if anything of it survives."""
    supervisor = state.supervisor()
    if supervisor is not None:
        os.kill(supervisor, signal.SIGTERM)
        deadline = time.monotonic() + AN_END
        while state.supervisor() is not None and time.monotonic() < deadline:
            time.sleep(0.02)
    # After a crash the kernel has ended the rest, or is about to.
    deadline = time.monotonic() + 2
    while state.processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    for number, command in state.kill().items():
        print(f"killed what was left: {number} {command}")
    state.remove()


def status(state: State) -> None:
    """Show what runs, and where."""
    if state.supervisor() is None:
        raise LabError("no lab is up: make lab-up")
    said = state.read()
    missing = ", ".join(_missing(said))
    print(f"the lab is {said['state']}{f', without {missing}' if missing else ''}")
    _show(said)


def ask(state: State, user: str, out: Path) -> None:
    """Sign in as a person, hand a task to the agent, keep the proof."""
    import httpx  # here, so that down needs no more than Python
    from people import delegate, sign_in

    addresses = _addresses(state)
    try:
        answer = delegate(addresses["kest-agent"], sign_in(addresses["issuer"], user))
    except httpx.HTTPError as error:
        raise LabError(f"no answer ({type(error).__name__}: {error}); is every part up? make lab-up") from None
    if answer.status_code != 200:
        raise LabError(f"{answer.status_code}: {answer.text}")
    done = answer.json()
    passport, authorities = out / "passport.json", out / "bundle.json"
    passport.write_text(done["passport"], "utf-8")
    authorities.write_text(bundle(addresses), "utf-8")
    print(f"report: {done['report']}\n\nto check the proof:\n")
    tip = f"--chain-tip {done['chain_tip']}"
    print(f"kest verify {passport} --spiffe-bundle {authorities} --trust-domain {DOMAIN} {tip}")


def bundle(addresses: dict[str, str]) -> str:
    """The trust domain's bundle as the SPIRE server has it now (SPIFFE Trust Domain and Bundle, section 4)."""
    command = [str(components.folder("spire") / "spire-server"), "bundle", "show", "-format", "spiffe"]
    done = subprocess.run([*command, "-socketPath", addresses["spire-server"]], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"spire-server bundle show: {done.stderr.strip()}")
    return done.stdout


def _settled(state: State, child: subprocess.Popen[bytes] | None = None) -> dict[str, Any]:
    """What the supervisor says once it is not starting any more; shows meanwhile what is ready."""
    begun, shown = time.monotonic(), 0
    while True:
        ended = state.supervisor() is None if child is None else child.poll() is not None
        said = state.read()
        if said["state"] == "starting" or child is not None:
            for name in said.get("ready", [])[shown:]:
                print(f"  {name:<14} after {time.monotonic() - begun:4.1f} s", flush=True)
                shown += 1
        if said["state"] != "starting":
            return said
        if ended:
            return {**said, "state": "crashed"}
        if time.monotonic() - begun > PATIENCE:
            raise LabError(f"the lab is not up after {PATIENCE:.0f} seconds; see {state.folder}, then make lab-down")
        time.sleep(0.05)


def _missing(said: dict[str, Any]) -> list[str]:
    """What should run and does not, in the order in which it was started."""
    return [name for name in said.get("ready", ()) if name not in said.get("running", ())]


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _show(said: dict[str, Any]) -> None:
    for name, address in said.get("addresses", {}).items():
        print(f"  {name:<14} {'(stopped) ' if name not in said['running'] and name != 'issuer' else ''}{address}")
    if said.get("addresses"):
        print(f"  {'spans':<14} {said['spans']}\n  {'records':<14} {said['records']}")


def _addresses(state: State) -> dict[str, str]:
    if state.supervisor() is None:
        raise LabError("no lab is up: make lab-up")
    found: dict[str, str] = _settled(state).get("addresses", {})
    return found


def main(given: list[str] | None = None) -> int:
    """The command line; 0 if it could be done."""
    parser = argparse.ArgumentParser(description="The integration lab: see docs/lab.md.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where it keeps everything (out/lab)")
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start it, or what of it has ended")
    starting.add_argument(
        "--issuer", default="", help="a realm like config/realms/lab-realm.json that is there already"
    )
    commands.add_parser("down", help="stop it, whatever state it is in")
    commands.add_parser("status", help="what runs, and where")
    asking = commands.add_parser("ask", help="sign in and hand a task to the agent")
    asking.add_argument("--user", default="alice", choices=("alice", "bob"))
    asking.add_argument("--out", type=Path, default=Path(), help="folder for passport.json and bundle.json (here)")
    for name in ("stop", "start"):
        commands.add_parser(name, help=f"{name} one part").add_argument("part")
    arguments = parser.parse_args(given)
    state = State(arguments.folder)
    try:
        if arguments.command == "ask":
            ask(state, arguments.user, arguments.out)
        elif arguments.command in ("stop", "start"):
            state.ask(f"{arguments.command} {arguments.part}")
        elif arguments.command == "up":
            up(state, arguments.issuer)
        else:
            {"down": down, "status": status}[arguments.command](state)
    except (LabError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
