"""A wheel tried as somebody without a compiler would: installed, imported, and run through the demo and the tests."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from kest_wheels import sbom
from kest_wheels.commands import Failed, environment, make_environment, run

# What the tests and the demo call from a shell or by name: no compiler, no pkg-config, no linker.
_COMMANDS = (
    "bash",
    "cat",
    "chmod",
    "cp",
    "env",
    "false",
    "kill",
    "ls",
    "mkdir",
    "mv",
    "openssl",
    "rm",
    "sh",
    "sleep",
    "true",
    "uname",
)
_IMPORTED = """
import re, sys
from importlib.resources import files
from kest import MockPolicyEngine, PassportVerifier, StaticIdentity, configure, kest_verified
from kest.core.context import get_current_passport

me = StaticIdentity("spiffe://kest.test/wheel")
configure(engine=MockPolicyEngine(), identity=me)

@kest_verified("work")
def work():
    return 1

assert work() == 1
assert PassportVerifier.verify(get_current_passport(), {me.get_identity(): me}).trust_score == 100
assert files("kest.core.policies").joinpath("__init__.py").is_file()
with open("/proc/self/maps") as maps:
    libraries = set(re.findall(r"/\\S*lib(?:sodium|crypto)\\S*", maps.read()))
print("\\n".join(sorted(libraries)))
"""


def check(
    wheel: Path, python: Path, tree: Path, folder: Path, *, tests: list[str], vectors: str, tools: Path, epoch: int
) -> dict[str, str]:
    """Install ``wheel`` into a fresh environment and try it there; figures of what was done.

    Args:
        tree: The exported tree, in which nothing is built: a test that found its ``kest`` would fail to import it.
        tests: Paths under ``tree`` for pytest.
        vectors: KEST_VECTORS for the tests, or "".
        tools: The commands of the environment with cyclonedx-py.
        epoch: The time that the bill of materials, written beside the wheel, bears.
    """
    folder.mkdir(parents=True)
    bare = folder / "commands"
    bare.mkdir()
    for name in _COMMANDS:
        if found := shutil.which(name):
            (bare / name).symlink_to(found)
    commands = make_environment(python, folder / "env")
    no = shutil.which("false") or "/bin/false"
    env = environment(PATH=f"{commands}{os.pathsep}{bare}", CC=no, CXX=no, PKG_CONFIG=no, PIP_ONLY_BINARY=":all:")
    if vectors:
        env["KEST_VECTORS"] = vectors
    pip = (commands / "python", "-m", "pip", "install", "-q")
    version = wheel.name.split("-")[1]
    run(*pip, "--no-index", "--no-deps", "--find-links", wheel.parent, f"kest=={version}", cwd=folder, env=env)
    run(*pip, wheel, cwd=folder, env=env)  # now what it depends on
    libraries = run(commands / "python", "-W", "error", "-c", _IMPORTED, cwd=folder, env=env).split()
    only_bundled(libraries, commands.parent)

    report = folder / "resolved.json"
    resolving = ("--dry-run", "--ignore-installed", "--report", report)
    run(*pip, *resolving, f"kest[all] @ {wheel.as_uri()}", cwd=folder, env=env)
    resolved = len(json.loads(report.read_bytes())["install"])

    # Nothing but a plain installation is there yet: that is what the bill lists.
    bill = sbom.describe(wheel, commands / "python", tree, tools=tools, epoch=epoch)
    # A gigabyte for the tests, of which they import a part: only that is compiled to byte code.
    run(*pip, "--no-compile", f"kest[dev] @ {wheel.as_uri()}", cwd=folder, env=env)
    run(*pip, "--no-compile", "--no-deps", "-r", tree / "examples/requirements.txt", cwd=folder, env=env)
    run(commands / "python", tree / "examples/demo.py", cwd=folder, env=env)
    said = run(commands / "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=tree, env=env)
    lines = said.strip().splitlines()
    shutil.rmtree(folder)  # a gigabyte
    skips = "".join(f"\n{line}" for line in lines if line.startswith("SKIPPED"))
    return {"components": str(bill), "resolved": str(resolved), "tests": lines[-1].strip("= "), "skips": skips}


def only_bundled(libraries: list[str], environment: Path) -> None:
    """libsodium and libcrypto are those of the wheel, not the machine's."""
    inside = [path for path in libraries if Path(path).is_relative_to(environment) and "/kest.libs/" in path]
    if len(inside) != 2 or any("libsodium" in path for path in set(libraries) - set(inside)):
        raise Failed(f"the libraries that kest loads are not those of the wheel: {libraries}")
