"""The pipeline of ``make demo`` writes an audit log and is killed twenty times; then the log is verified, and tampered with.

Run it with ``make demo-audit``. It is a test too: it exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import demo
from demo import expect, heading, note, paint, say, shown
from lives import Life, Place, Tail
from tamper import tamperings

from kest import StaticIdentity, TrustStore
from kest.audit import AuditReader, LogReport, NoteKey, Record
from kest.cli.terminal import fold
from kest.errors import KestError
from kest.viz import Source, SourceRecord, graph_of, to_html

HERE = Path(__file__).resolve().parent
LONGEST = 0.4
"""Seconds for which a process lives at most, once it opens the log."""
FILES = {
    "log": "the log itself: c2sp.org/tlog-tiles",
    "log.vkey": "the log's public key",
    "keys.jwks.json": "public keys of the workloads",
    "entry.tlog-proof": "the proof of one entry",
    "lineage.html": "the picture",
    "writer.log": "what the killed processes had to say",
}
DESCRIPTION = (
    "A process runs the demo's pipeline into an audit log and says which records are acknowledged. It is killed "
    "(SIGKILL) at random points, also while it opens the log, and the next one resumes. Its disk is slow, so that "
    "a kill may leave half a record."
)


# --- kill and resume ---


def kill_and_resume(place: Place, kills: int, chance: random.Random) -> list[Life]:
    """The lives of the writer: killed ones, then two that end by themselves; a copy of the log is made between those."""
    heading(f"The writer is killed {kills} times")
    print(paint.dim("  kill  alive for  runs  acknowledged  found on opening"))
    lives: list[Life] = []
    for _ in range(kills):
        lives.append(Life.live(place, kill_after=chance.uniform(0.0, LONGEST)))
        _show_life(lives)
    lives.append(Life.live(place, runs=1))
    _show_life(lives)
    shutil.copytree(place.log, place.scratch / "earlier")
    lives.append(Life.live(place, runs=1))
    _show_life(lives)
    for life in lives:
        ended = -signal.SIGKILL if life.after_ms is not None else 0
        expect(life.status == ended, f"the writer ends with {ended}, not {life.status}: see writer.log")
        expect(not life.failures, f"the pipeline does what it does without a log: {life.failures}")
    expect(lives[-1].runs == lives[-2].runs == 1, "after all kills, the log takes whole runs again")
    return lives


def _show_life(lives: list[Life]) -> None:
    """The last one."""
    life = lives[-1]
    name, alive = ("-", "to the end") if life.after_ms is None else (str(len(lives)), f"{life.after_ms:.0f} ms")
    found = "killed before it was open"
    if life.opened is not None:
        known = {tail for before in lives[:-1] for tail in before.torn}
        torn = sum(tail.size for tail in life.torn if tail not in known)
        found = f"{life.opened['found']:>4} records" + (f", {paint.warn(f'{torn} bytes torn')}" if torn else "")
    print(f"  {name:>4}  {alive:>10}  {life.runs:>4}  {len(life.acknowledged):>12}  {found}")


# --- verify ---


def names_of(records: list[Record]) -> set[str]:
    """What each record is acknowledged by: an entry's hash, or the hash of a payload."""
    names = set()
    for record in records:
        part = record.jws.split(".")[1]
        names.add(hashlib.sha256(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).hexdigest())
        names.add(record.entry_hash if record.kind == "entry" else "")
    return names


def verify(reader: AuditReader, store: TrustStore, lives: list[Life]) -> LogReport:
    """Every record, every promise that was made, every write that was cut off, every call that was."""
    heading("What a verifier says, with the log's files and public keys")
    report = reader.verify(store)
    records = list(reader.records())
    kinds = ", ".join(f"{count} x {kind}" for kind, count in report.kinds.items())
    _fact("records", f"{report.checkpoint.size} under a signed checkpoint: {kinds}")
    verdicts = ", ".join(f"{count} x {verdict.value}" for verdict, count in report.verdicts.items())
    _fact("verdict", f"{verdicts}; {report.problem_count} problems")
    expect(report.ok, f"the log verifies: {report.problems[:3]}")
    expect(report.journal_bytes == 0, "nothing is left beside the tiles after an orderly end")

    promised = [name for life in lives for name in life.acknowledged]
    lost = set(promised) - names_of(records)
    _fact("kept", f"{len(promised) - len(lost)} of {len(promised)} acknowledged records are there")
    expect(len(promised) >= 32 and len(set(promised)) == len(promised), "each is acknowledged once, and some are")
    expect(not lost, f"every acknowledged record is in the log; these are not: {sorted(lost)[:3]}")

    torn_tails(report, records, lives)
    cut_off(report, records)
    return report


def torn_tails(report: LogReport, records: list[Record], lives: list[Life]) -> None:
    """Writes that did not come to their end: what each opening found stands in the log."""
    opened = [r.payload for r in records if r.kind == "log" and r.payload["event"] == "opened"]
    logged = {Tail(**tail) for said in opened for tail in said["torn"]}
    told = {tail for life in lives for tail in life.torn}
    expect(told <= logged, "every torn tail that was found on opening is reported in the log")
    expect(report.torn == sum(len(said["torn"]) for said in opened), "the verifier counts them")
    known = sum(life.opened is not None for life in lives)
    expect(known <= report.opened <= len(lives), f"the log was opened {known} to {len(lives)} times: {report.opened}")
    size = sum(tail.size for tail in logged)
    what = f", {size} bytes, nothing of which was acknowledged" if size else ""
    _fact("torn", f"{len(logged)} writes cut off{what}; the log was opened {report.opened} times")


def cut_off(report: LogReport, records: list[Record]) -> None:
    """Calls whose intention is in the log, and no outcome: by name."""
    calls: dict[str, list[str]] = {}
    for call in report.missing:
        calls.setdefault(call.operation, []).append(str(call.index))
    named = "; ".join(f"{operation} {' '.join(indexes)}" for operation, indexes in sorted(calls.items()))
    _fact("cut off", f"{report.missing_count} calls without an outcome, by record: {named or 'none'}")
    expect(all(call.lost and call.entry_id and call.operation for call in report.missing), "each is named, and is over")
    last = max(r.index for r in records if r.kind == "log" and r.payload["event"] == "opened")
    expect(all(call.index < last for call in report.missing), "after the last resumption every call has an outcome")
    counts = Counter(record.kind for record in records)
    without = counts["entry"] - counts["outcome"]
    expect(report.missing_count == without, f"{without} entries have no outcome, not {report.missing_count}")


def _fact(name: str, text: str) -> None:
    first, *rest = fold(text, demo.columns - 12)
    print(f"  {paint.dim(f'{name:<8}')}  {first}")
    for line in rest:
        print(f"{' ' * 12}{line}")


# --- prove ---


def prove(reader: AuditReader, lives: list[Life], out: Path, scratch: Path, chance: random.Random) -> None:
    """One entry, acknowledged by a process that was killed, to somebody who has three files and no network."""
    heading("One entry is proven to a stranger who has no log and no network")
    entries = {record.entry_hash: record for record in reader.records() if record.kind == "entry"}
    killed = [name for life in lives if life.after_ms is not None for name in life.acknowledged if name in entries]
    chosen = chance.choice(killed or sorted(entries))
    (out / "entry.tlog-proof").write_text(reader.prove(entries[chosen].jws), encoding="utf-8")
    away = scratch / "stranger"
    away.mkdir()
    names = ("entry.tlog-proof", "log.vkey", "keys.jwks.json")
    for name in names:
        shutil.copy(out / name, away)
    size = (away / names[0]).stat().st_size
    print(f"  $ verifier.py {' '.join(names)}")
    answer = stranger(away, *names)
    expect(answer.returncode == 0 and not answer.stderr, f"the proof verifies: {answer.stdout}{answer.stderr}")
    said = json.loads(answer.stdout or "{}")
    print(f"  {paint.good(said.get('verdict', 'refused'))}: {said.get('operation')}, record {said.get('index')}")
    note(f"of {said.get('size')} in {said.get('origin')}, signed by {said.get('signer')}; {size:,} bytes", paint.dim)
    expect(said.get("entry_hash") == chosen and said.get("verdict") == "valid", "it is the entry that was acknowledged")

    text = (away / names[0]).read_text("utf-8")
    index = next(line for line in text.splitlines() if line.startswith("index "))
    (away / "other.tlog-proof").write_text(text.replace(index, f"index {int(index[6:]) ^ 1}", 1), encoding="utf-8")
    answer = stranger(away, "other.tlog-proof", *names[1:])
    refused = json.loads(answer.stdout or "{}").get("refused", "")
    print(f"  {paint.bad('refused')}: the same, for the place beside it")
    note(refused, paint.dim)
    expect(answer.returncode == 1 and "does not lead" in refused, f"another place is refused: {answer.stdout}")


def stranger(folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """The verifier in a process of its own, in a folder with nothing but these files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEST_")}
    command = [sys.executable, str(HERE / "verifier.py"), *files]
    return subprocess.run(
        command, cwd=folder, env={**environment, "PYTHONIOENCODING": "utf-8"},
        capture_output=True, text=True, encoding="utf-8", timeout=60,
    )  # fmt: skip


# --- tamper, draw ---


def tamper(place: Place, key: NoteKey, store: TrustStore) -> None:
    """Six ways, each with its verdict."""
    heading("The log is tampered with in six ways, each time on a copy")
    other = Place(place.scratch / "other", place.scratch, place.errors)
    expect(Life.live(other, runs=1).status == 0, "there is another log to take records from")
    done = 0
    for done, one in enumerate(
        tamperings(place.log, other.log, place.scratch / "earlier", key, store, place.scratch), 1
    ):
        style = paint.bad if one.noticed else paint.good
        first, *rest = fold(one.what, demo.columns - 14)
        print(f"  {done}  {style('refused' if one.noticed else 'PASSED '):<7}  {first}")
        for line in rest:
            print(f"{' ' * 14}{line}")
        for verdict in one.verdicts:
            for line in fold(verdict, demo.columns - 14):
                print(f"{' ' * 14}{paint.dim(line)}")
        expect(one.as_expected, f"noticed, and for its reason: {one.what}")
    expect(done == 6, "there are six ways")


def draw(reader: AuditReader, report: LogReport, store: TrustStore, out: Path) -> Path:
    """The runs that a kill has cut off, and the last one, which is whole."""
    runs: list[list[Record]] = []
    for record in reader.records():
        if record.kind == "log" or (record.kind == "entry" and record.operation == "load_penguins"):
            runs.append([])
        runs[-1].append(record)
    cut = {call.index for call in report.missing}
    last = max(at for at, run in enumerate(runs) if len(run) > 1)
    drawn = [run for at, run in enumerate(runs) if at == last or any(record.index in cut for record in run)]
    source = Source([SourceRecord(r.jws, origin=f"record {r.index}") for run in drawn for r in run], outcomes=True)
    graph = graph_of(source, store)
    file = out / "lineage.html"
    file.write_text(to_html(graph, "What was cut off by a kill, and a whole run"), encoding="utf-8")
    heading("The picture")
    shown_calls = graph.count("entry") + graph.count("denial")
    _fact("drawn", f"{shown_calls} calls of {len(drawn)} runs, {graph.count('missing')} of them without an outcome")
    _fact("file", shown(file))
    expect(graph.count("missing") == report.missing_count, "every call that was cut off is marked in the picture")
    expect(graph.count("invalid") + graph.count("unknown_key") + graph.count("broken") == 0, "nothing else is wrong")
    return file


def show(file: Path) -> None:
    """In the browser, where somebody is looking."""
    screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.stdout.isatty() and screen:
        import webbrowser

        webbrowser.open(file.resolve().as_uri())


# --- all of it ---


def publish_keys(place: Place, out: Path) -> tuple[NoteKey, TrustStore]:
    """What verifiers are given: the log's key, and those of the workloads with what each may claim."""
    os.environ["PENGUIN_KEYS"] = str(place.keys)
    import penguin_pipeline as pipeline
    from writer import ORIGIN

    signers = (pipeline.INGEST, pipeline.PORTAL, pipeline.ASSISTANT, pipeline.CURATOR, pipeline.PUBLISHER)
    keys = [dict(signer.public_jwk()) for signer in signers]
    for key in keys:
        key["kest_may_sanitise"] = key["kid"] == pipeline.CURATOR.get_identity()
    (out / "keys.jwks.json").write_text(json.dumps({"keys": keys}, indent=2) + "\n", encoding="utf-8")
    log = StaticIdentity(f"spiffe://{ORIGIN}", key_file=place.keys / "log.key")
    note_key = NoteKey(ORIGIN, log.signer.public_key)
    (out / "log.vkey").write_text(note_key.vkey + "\n", encoding="utf-8")
    return note_key, TrustStore.from_jwks({"keys": keys})


def run(out: Path, kills: int, seed: int) -> Path:
    """The story; the picture's file."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kest-audit-") as scratch:
        place = Place(out / "log", Path(scratch), out / "writer.log")
        place.keys.mkdir(mode=0o700)
        key, store = publish_keys(place, out)
        lives = kill_and_resume(place, kills, chance)
        reader = AuditReader(place.log, key)
        report = verify(reader, store, lives)
        prove(reader, lives, out, place.scratch, chance)
        tamper(place, key, store)
        expect(reader.refresh().size == report.checkpoint.size, "the log itself is as it was")
        return draw(reader, report, store, out)


def main() -> int:
    """Run it all; 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).resolve().parents[2] / "out/audit"
    parser.add_argument("--out", type=Path, default=default, help="folder for the files (out/audit)")
    parser.add_argument("--kills", type=int, default=20, help="how often the writer is killed (20)")
    parser.add_argument("--seed", type=int, help="of all that is random here (a new one each time)")
    parser.add_argument("--no-open", action="store_true", help="do not show the picture in a browser")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    try:
        version("palmerpenguins")
    except PackageNotFoundError:
        print("the demo's data is missing: pip install -r examples/requirements.txt", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for name in FILES:
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    say("Kest demo: an audit log that survives kills, and shows tampering", paint.bold)
    say(DESCRIPTION)
    print(f"seed {seed} {paint.dim('(--seed draws the same moments again)')}")
    try:
        file = run(out, arguments.kills, seed)
    except (TimeoutError, subprocess.TimeoutExpired, KestError) as error:
        print(f"{paint.bad('FAILED')}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    heading("Files")
    for name, what in FILES.items():
        print(f"{demo.MARGIN}{shown(out / name):<{len(shown(out)) + 18}} {paint.dim(what)}")
    failed = len(demo.failures)
    verdict = f"{failed} of {demo.checks} checks FAILED" if failed else f"{demo.checks} of {demo.checks} checks hold"
    print(f"\n{(paint.bad if failed else paint.good)(verdict)} {paint.dim(f'({time.monotonic() - started:.1f} s)')}")
    if not arguments.no_open:
        show(file)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
