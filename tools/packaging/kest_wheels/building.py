"""One build: the source distribution of an exported tree, and from it a wheel for each Python, repaired and normalised."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

from kest_wheels import archives
from kest_wheels.commands import Failed, environment, run

_SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def export(root: Path, tree: Path) -> int:
    """What is committed, and nothing else, into ``tree``; the time of the commit in seconds since 1970."""
    tree.mkdir(parents=True)
    archive = tree.parent / f"{tree.name}.tar"
    run("git", "archive", "--format=tar", "-o", archive, "HEAD", cwd=root, env=environment())
    run("tar", "-xf", archive, "-C", tree, cwd=root, env=environment())
    archive.unlink()
    return int(run("git", "log", "-1", "--format=%ct", cwd=root, env=environment()))


def build(tree: Path, folder: Path, *, epoch: int, tools: Path, pythons: Mapping[str, Path], jobs: int) -> list[Path]:
    """Build into ``folder``; the source distribution first, then the wheels by Python.

    Args:
        tree: An exported tree, in which setuptools leaves its own files.
        epoch: The time of everything in the archives.
        tools: The commands of the environment with auditwheel and setuptools.
        pythons: For each version its interpreter, in an environment with setuptools.
    """
    for name in ("out", "raw", "repaired", "tmp"):
        (folder / name).mkdir(parents=True)
    env = environment(
        SOURCE_DATE_EPOCH=str(epoch),
        LDFLAGS="-Wl,--build-id=none",  # made from debug information too, which names the folder of the build
        TMPDIR=str(folder / "tmp"),
        PATH=f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    )
    run(tools / "python", "-c", _SDIST, folder / "out", cwd=tree, env=env)
    (sdist,) = (folder / "out").iterdir()
    archives.normalise_sdist(sdist, epoch)

    def wheel(version: str) -> Path:
        raw = folder / "raw" / version
        pip = (pythons[version], "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir")
        run(*pip, "-w", raw, sdist, cwd=folder, env=env)
        (built,) = raw.iterdir()
        repaired = folder / "repaired" / version
        run(tools / "auditwheel", "repair", "--strip", "-w", repaired, built, cwd=folder, env=env)
        (found,) = repaired.iterdir()
        archives.normalise_wheel(found, epoch, licences(found))
        return Path(shutil.move(found, folder / "out"))

    with ThreadPoolExecutor(jobs) as pool:
        return [sdist, *pool.map(wheel, pythons)]


def bundled(wheel: Path) -> list[dict[str, str]]:
    """The packages whose libraries auditwheel put into a wheel, as its own bill of materials names them."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/sboms/auditwheel.cdx.json"))
        components: list[dict[str, str]] = json.loads(archive.read(name))["components"]
    return [each for each in components if each["name"] != "kest"]


def licences(wheel: Path) -> dict[str, bytes]:
    """The licence of each library that is passed on with the wheel: the file that Debian ships with its package."""
    found = {}
    for component in bundled(wheel):
        name = unquote(component["name"])
        text = Path("/usr/share/doc") / name / "copyright"
        if not text.is_file():
            raise Failed(
                f"{text} is missing: whoever passes {name} on passes its licence on. Build the wheels on Debian."
            )
        found[f"{name}.txt"] = text.read_bytes()
    return found
