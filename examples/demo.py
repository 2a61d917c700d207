"""The demo: a pipeline is governed, signed and chained; another process verifies it; one changed byte is refused.

Run it with ``make demo``. It is a test too: it exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kest import Passport, PolicyDeniedError
from kest.cli.terminal import Paint, clip, fold, pad, terminal_width
from kest.core.context import get_current_passport, join, lineage

REQUEST = '{"measure": "body_mass_g", "by": ["species", "sex"], "note": "for Friday\'s talk :-)"}'
WIDTHS = (2, 14, 9, 5, 32, 8)  # 80 columns with gaps of two
MARGIN = " " * 4
FILES = {
    "report.json": "what was published",
    "passport.json": "the proof of where it comes from",
    "keys.jwks.json": "public keys of the workloads",
    "tampered.json": "the proof with one byte changed",
    "records.jsonl": "all that was signed, denials and outcomes too",
}

paint = Paint()
columns = min(terminal_width(), 120)
failures: list[str] = []
checks = 0


def expect(condition: bool, what: str) -> None:
    """Note what is not as it should be; the demo goes on, and fails at its end."""
    global checks
    checks += 1
    if not condition:
        failures.append(what)
        print(f"{MARGIN}{paint.bad('NOT AS EXPECTED')}: {what}")


def say(text: str, style: Any = str) -> None:
    """A paragraph."""
    for line in fold(text, columns):
        print(style(line))


def heading(text: str) -> None:
    """A part of the demo begins."""
    print(f"\n{paint.bold(text)}")


def payload_of(jws: str) -> dict[str, Any]:
    """A record is a compact JWS (RFC 7515): its second part is JSON in base64url."""
    part = jws.split(".")[1]
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return payload


class Ledger:
    """An audit sink: receives what Kest signs (entries, denials, outcomes), and shows it as it happens."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str]] = []

    def count(self, kind: str) -> int:
        """How many records of this kind there are."""
        return sum(1 for known, _ in self.records if known == kind)

    def record(self, kind: str, jws: str) -> None:
        """Called by Kest: for an entry, before its function runs."""
        self.records.append((kind, jws))
        payload = payload_of(jws)
        if kind == "entry":
            self._row(payload, paint.good("allowed"))
            self._notes(payload)
        elif kind == "denial":
            self._row(payload, paint.bad("DENIED"))
            engine = "Cedar" if payload["operation"] == "export_report" else "Rego"
            note(f"{engine}, {payload['policy']} ({payload['tier']} tier): {payload['reason']}", paint.bad)

    def _row(self, payload: dict[str, Any], decision: str) -> None:
        step = str(self.count("entry") + self.count("denial"))
        trust = payload["trust_score"]
        principal = payload.get("principal") or payload["labels"]["principal"]  # a denial, or an entry
        workload = principal.rpartition("/")[2]
        line = cells(step, payload["operation"], workload, str(trust), " ".join(payload["taints"]) or "-")
        line[3] = paint.trust(trust, line[3])
        line[4] = line[4] if not payload["taints"] else paint.warn(line[4])
        print("  ".join([*line, decision]))

    def _notes(self, payload: dict[str, Any]) -> None:
        for deviation in payload["policy_context"]["deviations"]:
            note("deviation: {policy} not asked, {reason}; approved by {approver}".format_map(deviation), paint.warn)
        if raised := payload["labels"].get("kest.trust_override"):
            note(f"trust raised to {raised}, taints removed: {', '.join(payload['removed_taints'])}", paint.dim)
        if len(payload["parent_ids"]) > 1:
            note(f"{len(payload['parent_ids'])} flows meet here: the weakest counts", paint.dim)


def cells(*texts: str) -> list[str]:
    """One line of the table, without its last column."""
    columns_here = enumerate(zip(texts, WIDTHS, strict=False))
    return [pad(clip(text, wide, paint.more), wide, right=i in (0, 3)) for i, (text, wide) in columns_here]


def note(text: str, style: Any) -> None:
    """What there is to say about a line of the table."""
    for line in fold(text, columns - len(MARGIN)):
        print(f"{MARGIN}{style(line)}")


def denied(policy: str, function: Any, *arguments: Any) -> None:
    """Call something that must not happen."""
    try:
        function(*arguments)
    except PolicyDeniedError as error:
        expect(error.policy == policy, f"{policy} should have denied, not {error.policy}")
    else:
        expect(False, f"{function.__name__} ran, although {policy} should have denied it")


def run_pipeline(pipeline: Any, out: Path) -> tuple[Passport, list[dict[str, Any]]]:
    """The pipeline, with two attempts that policy stops; the passport of what was published, and the report."""
    heading("What is called, and what policy says")
    print(paint.dim("  ".join([*cells("#", "call", "by", "trust", "taints"), "decision"])))

    with lineage():
        penguins = pipeline.load_penguins()
        data = get_current_passport()
    with lineage():
        request = pipeline.read_request(REQUEST, author="dana")
        asked = get_current_passport()
    expect(len(penguins) == 344, "there are 344 penguins")
    expect((data.trust_score, asked.trust_score) == (60, 40), "third-party data has trust 60, user input 40")

    with lineage():
        join(data, asked)  # what comes next continues from both
        records = pipeline.select_records(penguins, request)
        expect(get_current_passport().trust_score == 40, "the weakest of two flows counts")

        with lineage(get_current_passport()):  # a branch: what the model says stays out of the report's own flow
            suggestions = pipeline.suggest_sex(records)
            expect(get_current_passport().trust_score == 0, "a model's output has trust 0")
            denied("penguins/change", pipeline.fill_in_sex, records, suggestions)
        unknown = sum(1 for penguin in records if penguin["sex"] is None)
        expect(len(suggestions) == 9 and unknown == 11, "nine of eleven gaps had a suggestion, and all are still gaps")

        report_file = out / "report.json"
        denied("penguins/export", pipeline.export_report, records, report_file)
        expect(not report_file.exists(), "nothing was published by the denied export")

        clean, clean_request = pipeline.sanitise(records, request)
        report = pipeline.summarise(clean, clean_request)
        pipeline.export_report(report, report_file)
        passport = get_current_passport()
    expect(len(clean) == 333, "333 records are complete")
    expect((passport.trust_score, passport.taints) == (90, ()), "the published report has trust 90 and no taint")
    expect(json.loads(report_file.read_text("utf-8")) == report, "the report was published as it was made")
    return passport, report


def show_report(report: list[dict[str, Any]]) -> None:
    """What was published."""
    heading("What was published: mean body mass")
    longest = max(group["mean"] for group in report)
    block = "█" if paint.more == "…" else "#"
    for group in report:
        bar = block * round(30 * group["mean"] / longest)
        facts = "{species:<10} {sex:<7} {penguins:>4}  {mean:>7.1f} g".format_map(group)
        print(f"{MARGIN}{facts}  {paint.dim(bar)}")


def kest(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own that shares nothing with this one but the files."""
    print(*command_lines(arguments), sep="\n", flush=True)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    environment.pop("KEST_CONFIG", None)
    command = [sys.executable, "-m", "kest", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120)
    style = paint.good if done.returncode == 0 else paint.bad
    for line in (done.stdout + done.stderr).splitlines():
        print(f"  {style(line) if 'verified' in line else line}")
    print(f"  {paint.dim(f'exit status {done.returncode}')}")
    return done


def command_lines(arguments: tuple[str, ...]) -> list[str]:
    """The command as one would type it, broken before an option where it is too long."""
    words = ["$ kest"]
    for word in arguments:
        if word.startswith("--"):
            words.append(word)
        else:
            words[-1] += f" {shlex.quote(word)}"
    lines = words[:1]
    for option in words[1:]:
        if len(lines[-1]) + len(option) + 5 > columns:
            lines[-1] += " \\"
            lines.append(option)
        else:
            lines[-1] += f" {option}"
    return [f"  {lines[0]}", *(f"    {line}" for line in lines[1:])]


def shown(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def change_one_byte(text: str, entry: str, old: str, new: str) -> str:
    """``text`` with one byte of ``entry`` changed, so that its payload reads ``new`` instead of ``old``."""
    header, payload, signature = entry.split(".")
    raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    forged = base64.urlsafe_b64encode(raw.replace(old.encode(), new.encode())).decode().rstrip("=")
    changed = text.replace(entry, f"{header}.{forged}.{signature}")
    expect(sum(a != b for a, b in zip(text, changed, strict=True)) == 1, "exactly one byte of the file is changed")
    return changed


def verify(passport: Passport, pipeline: Any, out: Path) -> None:
    """Hand the proof to a stranger; then tamper with it."""
    signers = (pipeline.INGEST, pipeline.PORTAL, pipeline.ASSISTANT, pipeline.CURATOR, pipeline.PUBLISHER)
    keys = [dict(signer.public_jwk()) for signer in signers]
    for key in keys:  # what each may claim: only the curator may raise trust and remove taints
        key["kest_may_sanitise"] = key["kid"] == pipeline.CURATOR.get_identity()
    text = passport.serialize()
    (out / "passport.json").write_text(text, encoding="utf-8")
    (out / "keys.jwks.json").write_text(json.dumps({"keys": keys}, indent=2) + "\n", encoding="utf-8")

    heading("Somebody else checks it, in another process, with the public keys")
    files = [shown(out / name) for name in ("passport.json", "keys.jwks.json", "tampered.json")]
    done = kest("verify", files[0], "--trust", files[1], "--chain-tip", passport.chain_tip)
    expect(done.returncode == 0, "the passport verifies")

    heading("One byte is changed: it was 'lana' who asked for the report, not 'dana'")
    index = next(i for i, entry in enumerate(passport.decode()) if entry["operation"] == "read_request")
    # d is 0x64 and l is 0x6c: they differ in one bit, so in one character of base64 wherever it falls.
    tampered = change_one_byte(text, passport.entries[index], "dana", "lana")
    (out / "tampered.json").write_text(tampered, encoding="utf-8")
    done = kest("verify", files[2], "--trust", files[1])
    expect(done.returncode == 1, "the tampered passport is refused")
    expect(f"entry {index}: the signature does not match" in done.stderr, "the refusal names the entry and the reason")


def summary(passport: Passport, ledger: Ledger, out: Path, seconds: float) -> None:
    """Counts, and where everything is."""
    heading("In short")
    calls = ledger.count("entry") + ledger.count("denial")
    entries = passport.decode()
    principals = {entry["labels"]["principal"] for entry in entries}
    deviations = sum(len(entry["policy_context"]["deviations"]) for entry in entries)
    expect((calls, ledger.count("denial"), len(entries), deviations) == (9, 2, 6, 1), "nine calls, two of them denied")
    expect(ledger.count("outcome") == 7, "every call that ran has a signed outcome")
    what = f"{len(entries)} entries, {len(principals)} signers, trust {passport.trust_score}"
    lines = [
        ("calls", f"{calls}: {ledger.count('entry')} allowed, {ledger.count('denial')} denied before they ran"),
        ("passport", f"{what}, {deviations} deviation; none by the model"),
        ("files", ""),
    ]
    for name, text in lines:
        print(f"{MARGIN}{paint.dim(pad(name, 9))} {text}".rstrip())
    for file, what in FILES.items():
        print(f"{MARGIN * 2}{pad(shown(out / file), len(shown(out)) + 16)} {paint.dim(what)}")
    print(f"{MARGIN}{paint.dim(pad('look', 9))} kest inspect {shown(out / 'passport.json')}")
    verdict = f"{checks} of {checks} checks hold" if not failures else f"{len(failures)} of {checks} checks FAILED"
    print(f"\n{(paint.bad if failures else paint.good)(verdict)} {paint.dim(f'({seconds:.1f} s)')}")


def main() -> int:
    """Run it all; 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).resolve().parent.parent / "out"
    parser.add_argument("--out", type=Path, default=default, help="folder for the files (out)")
    out: Path = parser.parse_args().out.resolve()
    try:
        package = version("palmerpenguins")
    except PackageNotFoundError:
        print("the demo's data is missing: pip install -r examples/requirements.txt", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    logging.getLogger("kest").setLevel(logging.ERROR)  # denials are logged as warnings; here the table shows them

    started = time.monotonic()
    say("Kest demo: a report about penguins, and the proof of where it comes from", paint.bold)
    say(
        f"344 penguins of Palmer Station, Antarctica (palmerpenguins {package}, CC0). Rego decides about the data "
        "steps, Cedar about the export. Every call is decided and signed before it runs."
    )
    import penguin_pipeline as pipeline

    ledger = Ledger()
    pipeline.set_up(audit=ledger)
    passport, report = run_pipeline(pipeline, out)
    show_report(report)
    verify(passport, pipeline, out)
    lines = [json.dumps({"kind": kind, "jws": jws}) + "\n" for kind, jws in ledger.records]
    (out / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    summary(passport, ledger, out, time.monotonic() - started)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
