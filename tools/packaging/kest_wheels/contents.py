"""What a wheel and a source distribution must contain, and what they must not, held against the tree they came from."""

from __future__ import annotations

import base64
import csv
import hashlib
import tarfile
import zipfile
from pathlib import Path

_LEFT_OUT = (".pyc", ".so", ".pyd")  # what a build in place leaves in the tree


def package_files(tree: Path) -> set[str]:
    """Every file of the package, of whatever kind."""
    return _files(tree, "kest")


def wheel_problems(wheel: Path, tree: Path, *, repaired: bool = True) -> list[str]:
    """What is wrong with a wheel of ``tree``; nothing is the good answer. ``repaired``: by auditwheel."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    info = next((name.partition("/")[0] for name in files if name.endswith(".dist-info/RECORD")), "")
    if not info:
        return ["there is no RECORD"]
    expected = package_files(tree)
    inside = {name for name in files if not name.startswith((f"{info}/", "kest.libs/"))}
    extensions = {name for name in inside if name.startswith("kest/_kestcore.") and name.endswith(".so")}
    problems = [f"{name} is missing" for name in sorted(expected - inside)]
    problems += [f"{name} does not belong there" for name in sorted(inside - expected - extensions)]
    problems += [
        f"{name} differs from the tree's"
        for name in sorted(expected & inside)
        if files[name] != (tree / name).read_bytes()
    ]
    if len(extensions) != 1:
        problems.append(f"{len(extensions)} extensions, not one")
    needed = [f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"]
    if repaired:
        needed.append(f"{info}/sboms/auditwheel.cdx.json")
        libraries = sorted(name.partition("/")[2].partition("-")[0] for name in files if name.startswith("kest.libs/"))
        if libraries != ["libcrypto", "libsodium"]:
            problems.append(f"the libraries in it are {libraries}, not libcrypto and libsodium")
        if sum(name.startswith(f"{info}/licenses/") for name in files) < 1 + len(libraries):
            problems.append("a library in it is without its licence")
    problems += [f"{name} is missing" for name in needed if name not in files]
    return problems + _record_problems(files, f"{info}/RECORD")


def sdist_problems(sdist: Path, tree: Path) -> list[str]:
    """What is wrong with a source distribution: all that a build and the core's own tests need is there."""
    with tarfile.open(sdist) as archive:
        inside = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    expected = (
        package_files(tree)
        | _files(tree, "csrc")
        | {"LICENSE", "README.md", "pyproject.toml", "setup.py", "MANIFEST.in"}
    )
    problems = [f"{name} is missing" for name in sorted(expected - inside)]
    return problems + [f"{name} does not belong there" for name in sorted(inside) if name.endswith(_LEFT_OUT)]


def _files(tree: Path, folder: str) -> set[str]:
    found = (path for path in (tree / folder).rglob("*") if path.is_file() and not path.name.endswith(_LEFT_OUT))
    return {path.relative_to(tree).as_posix() for path in found}


def _record_problems(files: dict[str, bytes], record: str) -> list[str]:
    rows = {name: (digest, size) for name, digest, size in csv.reader(files[record].decode().splitlines())}
    problems = [f"{name} is not as RECORD says" for name in sorted(rows.keys() ^ files.keys())]
    for name in sorted((rows.keys() & files.keys()) - {record}):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        if rows[name] != (f"sha256={digest}", str(len(files[name]))):
            problems.append(f"{name} is not as RECORD says")
    return problems
