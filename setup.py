"""Builds the C extension. What is where comes from pkg-config; KEST_SANITIZE=1 builds with ASan, UBSan and allocations
that fail on demand, KEST_WERROR=1 turns warnings into errors, KEST_COVERAGE=1 instruments for gcov."""

import os
import shutil
import subprocess
import sys
from glob import glob

from setuptools import Extension, setup

# pkg-config name: what Debian, Fedora and Homebrew call the package with its header
LIBRARIES = {
    "libsodium": ("libsodium-dev", "libsodium-devel", "libsodium"),
    "zlib": ("zlib1g-dev", "zlib-devel", "zlib"),
    "libcrypto": ("libssl-dev", "openssl-devel", "openssl@3"),
}


def pkg_config(*args: str) -> list[str] | None:
    """The flags, or None when the library is not there."""
    command = os.environ.get("PKG_CONFIG", "pkg-config")
    if not shutil.which(command):
        sys.exit(
            "kest: pkg-config is needed to build the C extension.\n"
            "  Debian/Ubuntu: apt install pkg-config\n  Fedora: dnf install pkgconf\n  macOS: brew install pkgconf"
        )
    done = subprocess.run([command, *args], capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else None


def flags(kind: str) -> list[str]:
    return [flag for name in LIBRARIES for flag in pkg_config(kind, name) or []]


def missing() -> list[str]:
    return [name for name in LIBRARIES if pkg_config("--exists", name) is None]


def extension() -> Extension:
    lacking = missing()
    if lacking:
        lines = [f"kest: header of {', '.join(lacking)} not found by pkg-config. Install it and try again:"]
        for system, at, command in (
            ("Debian/Ubuntu", 0, "apt install"),
            ("Fedora", 1, "dnf install"),
            ("macOS", 2, "brew install"),
        ):
            lines.append(f"  {system}: {command} " + " ".join(LIBRARIES[name][at] for name in lacking))
        sys.exit("\n".join(lines))
    compile_args = [
        "-std=c11",
        "-D_DEFAULT_SOURCE",
        "-O2",
        "-g",
        "-fvisibility=hidden",
        "-pthread",
        "-fno-strict-aliasing",
        "-fstack-protector-strong",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wshadow",
        "-Wvla",
        "-Wstrict-prototypes",
    ]
    link_args = ["-pthread", "-lm"]
    macros: list[tuple[str, str | None]] = []
    measuring: list[str] = []
    if sys.platform.startswith("linux"):
        macros.append(("_FORTIFY_SOURCE", "2"))
        link_args.append("-Wl,-z,relro,-z,now")
    if os.environ.get("KEST_WERROR") == "1":
        compile_args.append("-Werror")
    if os.environ.get("KEST_SANITIZE") == "1":
        macros = [m for m in macros if m[0] != "_FORTIFY_SOURCE"]
        macros.append(("KEST_FAULTS", None))  # allocations that fail when a test asks for it
        compile_args += [
            "-O1",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer",
        ]
        link_args += ["-fsanitize=address,undefined"]
    if os.environ.get("KEST_COVERAGE") == "1":
        macros = [m for m in macros if m[0] != "_FORTIFY_SOURCE"]
        macros.append(("KEST_FAULTS", None))
        # One branch of the object code for one of the source; counts stay right when threads count at once.
        compile_args += ["-O0", "--coverage", "-fprofile-update=atomic"]
        link_args += ["--coverage"]
        measuring.append("tools/measuring/gcov_flush.c")
    return Extension(
        "kest._kestcore",
        sources=sorted(glob("csrc/core/*.c") + glob("csrc/python/*.c")) + measuring,
        depends=sorted(glob("csrc/core/*.h") + glob("csrc/python/*.h")),
        define_macros=macros,
        extra_compile_args=compile_args + flags("--cflags"),
        extra_link_args=flags("--libs") + link_args,
    )


setup(ext_modules=[extension()])
