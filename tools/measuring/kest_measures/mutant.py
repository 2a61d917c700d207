"""What a mutant is: one file of the source with one small fault in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant", "distinct", "sample"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """``source[start:end]`` of ``path`` (bytes) replaced by ``new``; ``kind`` names the operator that did it."""

    path: Path
    start: int
    end: int
    new: bytes
    kind: str
    source: bytes

    @property
    def mutated(self) -> bytes:
        """The whole file, with the fault."""
        return self.source[: self.start] + self.new + self.source[self.end :]

    @property
    def line(self) -> int:
        """The line it begins on, from 1."""
        return self.source.count(b"\n", 0, self.start) + 1

    @property
    def text(self) -> str:
        """The line or lines as they were, with the change in the middle: ``[was → is]``."""
        first = self.source.rfind(b"\n", 0, self.start) + 1
        last = self.source.find(b"\n", self.end)
        last = len(self.source) if last < 0 else last
        was, new = self.source[self.start : self.end], self.new
        parts = (self.source[first : self.start], b"[", was, " → ".encode(), new, b"]", self.source[self.end : last])
        return " ".join(b"".join(parts).decode().split())

    @property
    def key(self) -> str:
        """Names it among all, for as long as its lines stay as they are; a line that only returns needs the one above."""
        first = self.source.rfind(b"\n", 0, self.start) + 1
        above = b""
        if not self.source[first : self.start].strip():
            above = self.source[:first].rstrip().rpartition(b"\n")[2].strip() + b" "
        return f"{self.path.as_posix()}: {above.decode()}{self.text}"


def distinct(mutants: Iterable[Mutant]) -> list[Mutant]:
    """One of each that change a file in the same way, in their order in the file; none that change nothing."""
    seen: set[tuple[Path, bytes]] = set()
    result = []
    for mutant in sorted(mutants, key=lambda m: (m.start, m.end, m.new)):
        mark = mutant.path, hashlib.sha256(mutant.mutated).digest()
        if mark not in seen and mutant.mutated != mutant.source:
            seen.add(mark)
            result.append(mutant)
    return result


def sample(mutants: list[Mutant], size: int, seed: str = "kest") -> list[Mutant]:
    """``size`` of them (0: all), chosen and ordered by the hash of what they are: an edit elsewhere in a file does not
    choose others, and the first so many of a sample are a sample, too."""

    def rank(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.kind} {mutant.path.as_posix()}: {mutant.text}".encode()).digest()

    return sorted(mutants, key=rank)[: size or None]
