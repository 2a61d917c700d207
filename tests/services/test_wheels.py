"""What `make wheels` holds a wheel and a source distribution against, and that its archives depend on their files alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fresh_environment import TIMEOUT, make
from kest_wheels.archives import normalise_sdist, normalise_wheel
from kest_wheels.checking import only_bundled
from kest_wheels.commands import Failed
from kest_wheels.contents import package_files, sdist_problems, wheel_problems

SDIST = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
EPOCH = 1_700_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A copy of the sources, its source distribution, and a wheel made from that: nothing but it is at hand."""
    folder = tmp_path_factory.mktemp("wheels")
    _, tree = make(folder)

    def run(*command: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CFLAGS")}
        done = subprocess.run(
            [sys.executable, *command], cwd=tree, env=env, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("-c", SDIST)
    (sdist,) = (tree / "dist").iterdir()
    run("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder / "wheel"), str(sdist))
    (wheel,) = (folder / "wheel").iterdir()
    return tree, sdist, wheel


def rewritten(wheel: Path, to: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Another wheel, of whose files ``change`` made something else: in another order, and of another time."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files, reverse=True):
            archive.writestr(zipfile.ZipInfo(name, (2001, 2, 3, 4, 5, 6)), files[name])
    return to


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path, Path]) -> None:
    tree, sdist, wheel = built
    files = package_files(tree)
    for each in ("py.typed", "_kestcore.pyi", "viz/assets/page.js", "core/policies/biba.rego"):
        assert f"kest/{each}" in files, each
    assert "kest/core/policies/biba.cedar" in files
    assert sdist_problems(sdist, tree) == []
    assert wheel_problems(wheel, tree, repaired=False) == []
    # Not what make wheels would publish: no library is in it.
    assert "the libraries in it are [], not libcrypto and libsodium" in wheel_problems(wheel, tree)


def test_what_is_wrong_with_a_wheel_is_named(built: tuple[Path, Path, Path], tmp_path: Path) -> None:
    tree, _, wheel = built

    def spoil(files: dict[str, bytes]) -> None:
        del files["kest/py.typed"], files["kest/viz/assets/page.css"]
        files["tests/test_left.py"] = files["kest/__pycache__/errors.cpython-311.pyc"] = b""
        files["kest/errors.py"] += b"\n"

    said = wheel_problems(rewritten(wheel, tmp_path / wheel.name, spoil), tree, repaired=False)
    assert said[:5] == [
        "kest/py.typed is missing",
        "kest/viz/assets/page.css is missing",
        "kest/__pycache__/errors.cpython-311.pyc does not belong there",
        "tests/test_left.py does not belong there",
        "kest/errors.py differs from the tree's",
    ]
    assert "kest/errors.py is not as RECORD says" in said[5:]


def test_a_header_that_the_source_distribution_lacks_is_named(built: tuple[Path, Path, Path]) -> None:
    tree, sdist, _ = built
    header = tree / "csrc/core/added.h"
    header.touch()
    try:
        assert sdist_problems(sdist, tree) == ["csrc/core/added.h is missing"]
    finally:
        header.unlink()


def test_archives_depend_on_their_files_alone(built: tuple[Path, Path, Path], tmp_path: Path) -> None:
    tree, sdist, wheel = built
    one = Path(shutil.copy(wheel, tmp_path / "one.whl"))
    two = rewritten(wheel, tmp_path / "two.whl", lambda files: None)
    other = rewritten(wheel, tmp_path / "three.whl", lambda files: files.update({"kest/py.typed": b"\n"}))
    assert one.read_bytes() != two.read_bytes()
    for each in (one, two, other):
        normalise_wheel(each, EPOCH, {"libexample.txt": b"of whoever wrote it"})
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    assert wheel_problems(one, tree, repaired=False) == []
    with zipfile.ZipFile(one) as archive:
        (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        assert archive.read(f"{info}/licenses/libexample.txt") == b"of whoever wrote it"
        assert b"\nLicense-File: LICENSE\nLicense-File: libexample.txt\n" in archive.read(f"{info}/METADATA")
        assert {member.date_time for member in archive.infolist()} == {time.gmtime(EPOCH)[:6]}
        assert archive.namelist()[-1] == f"{info}/RECORD"

    first, second = (Path(shutil.copy(sdist, tmp_path / name)) for name in ("1.tar.gz", "2.tar.gz"))
    normalise_sdist(first, EPOCH)
    assert first.read_bytes() != second.read_bytes()
    normalise_sdist(second, EPOCH)
    assert first.read_bytes() == second.read_bytes()
    assert sdist_problems(first, tree) == []


def test_only_the_libraries_of_the_wheel_are_loaded(tmp_path: Path) -> None:
    ours = [str(tmp_path / f"lib/kest.libs/{name}") for name in ("libcrypto-7c.so.3", "libsodium-70.so.23")]
    only_bundled(ours, tmp_path)
    only_bundled([*ours, "/usr/lib/libcrypto.so.3"], tmp_path)  # Python's own, for hashlib and ssl
    for loaded in ([*ours, "/usr/lib/libsodium.so.23"], ours[:1], ours[1:], ["/usr/lib/libcrypto.so.3", ours[1]]):
        with pytest.raises(Failed, match="not those of the wheel"):
            only_bundled(loaded, tmp_path)
