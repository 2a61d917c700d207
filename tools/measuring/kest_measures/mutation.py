"""Mutation testing: does a test notice a small fault? See docs/testing.md.

A mutant in C is compiled alone and linked to the objects of the rest: first to the C tests, with AddressSanitizer and
UndefinedBehaviorSanitizer, and if those notice nothing to an extension for pytest. One whose object code is that of the
original is no fault. A mutant in Python goes to pytest at once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import queue
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .c_mutants import c_mutants
from .mutant import Mutant, sample
from .python_mutants import python_mutants
from .targets import TARGETS, Target

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build" / "mutants"
LIBRARIES = ("libsodium", "zlib", "libcrypto")
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
C_SECONDS, PYTEST_SECONDS = 20, 120  # of processor time: what takes longer goes on for ever
_EXPLAINED = re.compile(r"^- `(?P<key>[^`]+)`(?P<why>: .+)$", re.M)


@dataclass(frozen=True, slots=True)
class Result:
    """``by`` is the test that noticed, or why there was nothing to notice; empty for a survivor."""

    mutant: Mutant
    target: str
    verdict: str
    by: str
    seconds: float


def run(command: list[str], cpu: int, **environment: str) -> tuple[int, str]:
    """Exit status and output of a command that is allowed ``cpu`` seconds of processor time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}, timeout=cpu * 10,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -9, "no end"
    return done.returncode, done.stdout.decode(errors="replace")


def flags(kind: str) -> list[str]:
    return subprocess.run(["pkg-config", kind, *LIBRARIES], check=True, capture_output=True, text=True).stdout.split()


class Workshop:
    """Objects that all mutants share, and a folder for each worker."""

    def __init__(self) -> None:
        self.compiler = shlex.split(os.environ.get("CC", "cc"))
        self.common = ["-std=c11", "-D_DEFAULT_SOURCE", "-pthread", "-w", f"-I{ROOT / 'csrc/core'}", *flags("--cflags")]
        self.libs = [*flags("--libs"), "-lm"]
        code = [*ROOT.glob("csrc/[cp]*/*.[ch]"), *ROOT.glob("csrc/*/*.h")]  # the core, the bindings, and every header
        self.changed = max(path.stat().st_mtime for path in code)
        include = f"-I{sysconfig.get_path('include')}"
        for source in [*ROOT.glob("csrc/core/*.c"), *ROOT.glob("csrc/python/*.c")]:
            self.current(source, "plain", self.plain(source, BUILD / "plain", include))
        for source in ROOT.glob("csrc/core/*.c"):
            self.current(source, "sanitized", self.sanitized(source, BUILD / "sanitized"))
        for kind in ("tests", "fuzz"):
            for source in ROOT.glob(f"csrc/{kind}/*.c"):
                self.current(source, kind, self.sanitized(source, BUILD / kind))

    def current(self, source: Path, kind: str, command: list[str]) -> None:
        """Compiles it unless that was done since it or any of the code changed."""
        made = BUILD / kind / f"{source.stem}.o"
        made.parent.mkdir(parents=True, exist_ok=True)
        if not made.exists() or made.stat().st_mtime < max(self.changed, source.stat().st_mtime):
            self.must(command)

    def must(self, command: list[str]) -> None:
        status, output = run(command, C_SECONDS)
        if status:
            sys.exit(f"mutants: {' '.join(command)}\n{output}")

    def plain(self, source: Path, folder: Path, *more: str) -> list[str]:
        """As in the extension, without debug information: equal objects do equal things."""
        output = folder / f"{source.stem}.o"
        options = ["-O2", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing"]
        return [*self.compiler, *self.common, *options, *more, "-c", str(source), "-o", str(output)]

    def sanitized(self, source: Path, folder: Path) -> list[str]:
        return [
            *self.compiler, *self.common, "-O1", *SANITIZERS.split(), "-c", str(source), "-o",
            str(folder / f"{source.stem}.o"),
        ]  # fmt: skip

    def program(self, name: str, objects: list[Path], output: Path) -> list[str]:
        """One of csrc/tests, or the replay of a fuzzing harness."""
        harness = name.removeprefix("replay_")
        own = [BUILD / "tests" / f"{name}.o"]
        if harness != name:
            own = [BUILD / "fuzz" / f"{harness}.o", BUILD / "tests" / "replay.o"]
        parts = [*map(str, own), *map(str, objects)]
        return [*self.compiler, "-pthread", *SANITIZERS.split(), *parts, "-o", str(output), *self.libs]

    def extension(self, objects: list[Path], output: Path) -> list[str]:
        return [*self.compiler, "-shared", "-pthread", *map(str, objects), "-o", str(output), *self.libs]


class Worker:
    """Tries one mutant after another in its own copy of the package."""

    def __init__(self, shop: Workshop, number: int) -> None:
        self.seconds: dict[str, int] = {}  # of processor time that the tests of a target may take
        self.shop, self.folder = shop, BUILD / f"{os.getpid()}-{number}"
        self.library = self.folder / "lib"
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "kest", self.library / "kest", ignore=ignore)
        self.so = self.library / "kest" / f"_kestcore{sysconfig.get_config_var('EXT_SUFFIX')}"
        self.original = self.folder / "original.so"
        shop.must(shop.extension(sorted((BUILD / "plain").glob("*.o")), self.original))
        shutil.copy(self.original, self.so)
        # A folder on PYTHONPATH for what tests start; the server itself puts it first on its path.
        paths = [str(self.library), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self.server = subprocess.Popen(
            [sys.executable, "-B", str(Path(__file__).with_name("pytest_server.py"))], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1",
                 "KEST_DIFFERENTIAL_EXAMPLES": os.environ.get("KEST_DIFFERENTIAL_EXAMPLES", "15")},
        )  # fmt: skip

    def objects(self, kind: str, instead: Path) -> list[Path]:
        return [instead if o.name == instead.name else o for o in sorted((BUILD / kind).glob("*.o"))]

    def pytest(self, target: Target) -> str:
        """The first test that fails, or "" when all pass."""
        log = self.folder / "pytest.log"
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--timeout=120", *target.tests]
        order = {
            "library": str(self.library),
            "seconds": self.seconds.get(target.name, PYTEST_SECONDS),
            "arguments": arguments,
            "log": str(log),
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        answer, used = self.server.stdout.readline().split()
        status = int(answer)
        if status == 0:
            # Whatever takes four times as long as the code without a fault does not end.
            self.seconds.setdefault(target.name, int(4 * float(used)) + 5)
            return ""
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(errors="replace"), re.M)
        if failed:
            return failed[1]
        return "no end" if status in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL) else f"status {status}"

    def in_c(self, mutant: Mutant, target: Target) -> tuple[str, str]:
        """Verdict, and by what."""
        source = self.folder / mutant.path.name
        source.write_bytes(mutant.mutated)
        made = self.folder / f"{source.stem}.o"
        if run(self.shop.plain(source, self.folder), C_SECONDS)[0]:
            return "no program", "it does not compile"
        if made.read_bytes() == (BUILD / "plain" / made.name).read_bytes():
            return "equivalent", "the same object code"
        checked = self.folder / "sanitized"
        checked.mkdir(exist_ok=True)
        self.shop.must(self.shop.sanitized(source, checked))
        for name in target.programs:
            program = self.folder / name
            self.shop.must(self.shop.program(name, self.objects("sanitized", checked / made.name), program))
            corpus = [f"csrc/fuzz/corpus/{name.removeprefix('replay_')}"] if name.startswith("replay_") else []
            status, _ = run([str(program), *corpus], C_SECONDS, ASAN_OPTIONS="hard_rss_limit_mb=3000")
            if status:
                return "killed", name
        self.shop.must(self.shop.extension(self.objects("plain", made), self.so))
        by = self.pytest(target)
        shutil.copy(self.original, self.so)
        return ("killed", by) if by else ("survived", "")

    def in_python(self, mutant: Mutant, target: Target) -> tuple[str, str]:
        place = self.library / mutant.path
        place.write_bytes(mutant.mutated)
        by = self.pytest(target)
        place.write_bytes(mutant.source)
        return ("killed", by) if by else ("survived", "")

    def attempt(self, mutant: Mutant, target: Target) -> Result:
        start = time.monotonic()
        verdict, by = (self.in_c if mutant.path.suffix == ".c" else self.in_python)(mutant, target)
        return Result(mutant, target.name, verdict, by, time.monotonic() - start)


def mutants_of(target: Target, only: str) -> tuple[list[Mutant], int]:
    """Those to try, and how many there are."""
    found = []
    for name in target.files:
        path, source = Path(name), (ROOT / name).read_bytes()
        found += (c_mutants if path.suffix == ".c" else python_mutants)(path, source)
    return [m for m in sample(found, target.size) if only in m.key], len(found)


def explained() -> set[str]:
    """The keys of the survivors that docs/testing.md gives a reason for."""
    return {match["key"] for match in _EXPLAINED.finditer((ROOT / "docs" / "testing.md").read_text())}


def attempt_all(todo: list[tuple[Mutant, Target]], workers: list[Worker], until: float) -> list[Result]:
    """Every one, by whichever worker is free, until it is too late; a line for each survivor as it turns up."""
    waiting: queue.SimpleQueue[tuple[Mutant, Target]] = queue.SimpleQueue()
    results: list[Result] = []
    for one in todo:
        waiting.put(one)

    def work(worker: Worker) -> None:
        while time.monotonic() < until:
            try:
                mutant, target = waiting.get_nowait()
            except queue.Empty:
                return
            result = worker.attempt(mutant, target)
            results.append(result)
            if len(results) % 25 == 0:
                print(f"{len(results)}/{len(todo)}", flush=True)
            if result.verdict == "survived":
                print(f"{len(results)}/{len(todo)} survived: {mutant.path}:{mutant.line}: {mutant.text}", flush=True)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        worker.server.communicate()
        shutil.rmtree(worker.folder)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--target", default="", help="only targets whose name contains this")
    parser.add_argument("--only", default="", help="only mutants whose file or line contains this")
    parser.add_argument("--again", action="store_true", help="only those that survived the last time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--minutes", type=float, default=0, help="begin none after so many; the first of a sample are one, too"
    )
    parser.add_argument("--list", action="store_true", help="say which, and try none")
    options = parser.parse_args()
    os.nice(10)
    plan = [(t, *mutants_of(t, options.only)) for t in TARGETS if options.target in t.name]
    if options.again:
        last = json.loads((BUILD / "report.json").read_text())
        left = {one["key"] for one in last if one["verdict"] == "survived"}
        plan = [(target, [m for m in chosen if m.key in left], there) for target, chosen, there in plan]
    if options.list:
        for target, chosen, _ in plan:
            for mutant in chosen:
                print(f"{target.name}: {mutant.kind}: {mutant.key}")
        return 0
    start = time.monotonic()
    shop = Workshop()
    workers = [Worker(shop, number) for number in range(options.jobs)]
    for target, chosen, _ in plan:
        if chosen and (by := workers[0].pytest(target)):
            sys.exit(f"mutants: without a fault, {by} fails")
    print(f"{time.monotonic() - start:.0f} s: everything built, and without a fault all tests pass", flush=True)
    for worker in workers:
        worker.seconds = workers[0].seconds
    # By turns: when time is up, each has had its share.
    turns = itertools.zip_longest(*([(m, target) for m in chosen] for target, chosen, _ in plan))
    todo = [one for turn in turns for one in turn if one is not None]
    results = attempt_all(todo, workers, start + 60 * options.minutes if options.minutes else math.inf)
    reasons = explained()
    unexplained = [r for r in results if r.verdict == "survived" and r.mutant.key not in reasons]
    print(f"\n{'':28}{'mutants':>8}{'tried':>8}{'killed':>8}{'equivalent':>12}{'explained':>11}{'survived':>10}")
    for target, _, there in plan:
        count = Counter(r.verdict for r in results if r.target == target.name)
        alive = sum(r.target == target.name for r in unexplained)
        known = count["survived"] - alive
        tried = count.total() - count["no program"]
        print(f"{target.name:28}{there:8}{tried:8}{count['killed']:8}{count['equivalent']:12}{known:11}{alive:10}")
    print(f"{time.monotonic() - start:.0f} s; build/mutants/report.json has each")
    report = [
        {"target": r.target, "file": str(r.mutant.path), "line": r.mutant.line, "kind": r.mutant.kind,
         "change": r.mutant.text, "key": r.mutant.key, "verdict": r.verdict, "by": r.by, "seconds": round(r.seconds, 1)}
        for r in sorted(results, key=lambda r: r.mutant.key)
    ]  # fmt: skip
    (BUILD / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    for result in unexplained:
        print(f"survived, and docs/testing.md says nothing of it: {result.mutant.kind}: {result.mutant.key}")
    return 1 if unexplained else 0
