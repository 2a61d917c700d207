"""Six ways to change what a log says, each on a copy of it, and what a verifier says then."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forger import rewrite, sign

from kest import StaticIdentity, TrustStore
from kest.audit import AuditReader, NoteKey, Problem, Record, verify_log
from kest.errors import AuditCorruptError, AuditProofError

__all__ = ["Tampering", "tamperings"]


@dataclass(frozen=True)
class Tampering:
    """What was done, what a verifier says, whether it was noticed, and how.

    Attributes:
        verdicts: in words, the first problems that were found.
        noticed: not taken for the log that it was.
        as_expected: noticed for the reason that this tampering must be noticed for.
    """

    what: str
    verdicts: list[str]
    noticed: bool
    as_expected: bool


class Tamperer:
    """A log, one of the same workloads' that is not it, an older copy, and keys; no private key of theirs."""

    def __init__(self, log: Path, other: Path, earlier: Path, key: NoteKey, store: TrustStore, scratch: Path) -> None:
        self.log, self.other, self.earlier, self.key, self.store, self.scratch = (
            log,
            other,
            earlier,
            key,
            store,
            scratch,
        )
        self.records = list(AuditReader(log, key).records())
        self.leaves = [record.leaf for record in self.records]

    def copy(self) -> Path:
        target = self.scratch / "tampered"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.log, target)
        return target

    def judged(self, what: str, log: Path, *wanted: str) -> Tampering:
        """What `verify_log` says of it; each of ``wanted`` must be among its reasons, and nothing may be right."""
        try:
            report = verify_log(log, self.key, self.store)
        except AuditProofError as error:
            reasons, noticed = [str(error)], True
        else:
            reasons = [f"{_where(problem)}: {problem.reason}" for problem in report.problems]
            noticed = not report.ok
        reasons = [reason.replace(f"{log}/", "") for reason in reasons]
        found = all(any(words in reason for reason in reasons) for words in wanted)
        return Tampering(what, _few(reasons), noticed, noticed and found)

    def entry(self, operation: str, which: int = -1) -> Record:
        """An entry of this operation; the last one."""
        return [r for r in self.records if r.kind == "entry" and r.operation == operation][which]

    # --- the six ---

    def alter(self) -> Tampering:
        """A byte of one record, in its bundle and nowhere else."""
        log, record = self.copy(), self.entry("read_request")
        changed = _with(
            record.leaf, b'"user":"dana"' if b'"user":"dana"' in _payload(record.leaf) else b"dana", b"lana"
        )
        for bundle in (log / "tile/entries").rglob("*"):  # partial ones of earlier checkpoints may be there, too
            if bundle.is_file() and record.leaf in (said := bundle.read_bytes()):
                bundle.write_bytes(said.replace(record.leaf, changed))
        return self.judged(
            f"a record is altered: who asked in record {record.index} is 'lana', not 'dana'", log,
            f"record {record.index}: the signature does not match", "do not hash to the root",
        )  # fmt: skip

    def remove(self) -> Tampering:
        """One record, with tiles that fit the rest."""
        log, record = self.copy(), next(r for r in reversed(self.records) if r.kind == "denial")
        leaves = [leaf for leaf in self.leaves if leaf != record.leaf]
        rewrite(log, leaves, len(self.leaves))
        what = f"a record is removed: denial {record.index}, and all tiles are made anew"
        return self.judged(what, log, "bundle: ")

    def truncate(self) -> Tampering:
        """The log as it was, with the checkpoint that was truly signed then."""
        log = self.copy()
        reader = AuditReader(log, self.key)
        newer = reader.checkpoint
        shutil.rmtree(log)
        shutil.copytree(self.earlier, log)
        alone = verify_log(log, self.key, self.store)
        verdicts = [f"alone: {alone.checkpoint.size} records, and nothing is wrong with them"]
        try:
            reader.refresh()
            noticed = False
        except AuditCorruptError as error:
            noticed, reason = True, str(error)
            verdicts.append(f"to one who has seen the checkpoint of {newer.size}: {reason}")
        what = f"the log is cut back to {alone.checkpoint.size} records, with the checkpoint of then"
        expected = noticed and alone.ok and f"went back from {newer.size} to {alone.checkpoint.size}" in reason
        return Tampering(what, verdicts, noticed, expected)

    def swap(self) -> Tampering:
        """Two records; each keeps its valid signature."""
        log = self.copy()
        one, two = self.entry("load_penguins").index, self.entry("read_request").index
        leaves = list(self.leaves)
        leaves[one], leaves[two] = leaves[two], leaves[one]
        rewrite(log, leaves, len(leaves))
        what = f"two records change places: {one} and {two}, and all tiles are made anew"
        return self.judged(what, log, "do not hash to the root")

    def forge(self) -> Tampering:
        """A log without its denials that is whole in itself, under a checkpoint of somebody's own."""
        log, forger = self.copy(), StaticIdentity("spiffe://mallory.example/audit")
        leaves = [record.leaf for record in self.records if record.kind != "denial"]
        sign(log, self.key.name, len(leaves), rewrite(log, leaves, len(leaves)), forger)
        raw = forger.signer.public_key
        tree = AuditReader(log, NoteKey(self.key.name, raw)).verify(self.store).problems
        what = "all denials are gone, and the checkpoint is signed with another key"
        done = self.judged(what, log, "not signed by")
        whole = all(problem.kind != "tree" for problem in tree)
        said = f"to one who believes that key: {'the tree is whole' if whole else 'the tree is broken'}"
        return Tampering(what, [*done.verdicts, said], done.noticed, done.as_expected and whole)

    def splice(self) -> Tampering:
        """The end of another run of the same workloads, signed by them, in the place of this one's."""
        log = self.copy()
        theirs = [r.leaf for r in AuditReader(self.other, self.key).records() if r.operation == "export_report"]
        ours = [record.index for record in self.records if record.operation == "export_report"][-len(theirs) :]
        leaves = list(self.leaves)
        for index, leaf in zip(ours, theirs, strict=True):
            leaves[index] = leaf
        rewrite(log, leaves, len(leaves))
        what = f"{len(theirs)} records are spliced in from another log of the same workloads and the same key"
        return self.judged(what, log, "do not hash to the root")


def tamperings(*arguments: Any) -> Iterator[Tampering]:
    """One after the other."""
    who = Tamperer(*arguments)
    ways: list[Callable[[], Tampering]] = [who.alter, who.remove, who.truncate, who.swap, who.forge, who.splice]
    for way in ways:
        yield way()


def _where(problem: Problem) -> str:
    """A bundle is named in its reason; what is wrong with the tree is wrong with no record in particular."""
    return problem.kind if problem.kind == "bundle" or problem.index is None else f"record {problem.index}"


def _few(reasons: list[str]) -> list[str]:
    """The first, and the last: what is wrong with the tree as a whole comes last."""
    return reasons if len(reasons) <= 3 else [*reasons[:2], f"{len(reasons) - 3} more, and", reasons[-1]]


def _payload(jws: bytes) -> bytes:
    part = jws.split(b".")[1]
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _with(jws: bytes, old: bytes, new: bytes) -> bytes:
    """The record with other words of the same length in its payload."""
    head, _, signature = jws.split(b".")
    changed = _payload(jws).replace(old, new)
    return b".".join([head, base64.urlsafe_b64encode(changed).rstrip(b"="), signature])
