"""Each call of libsodium, libcrypto, zlib and pthread_create fails once below each binding: an error, never a crash.

And never a forgery that passes: a key that cannot be tried for want of memory is not a key that agrees.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from every_binding import FORGED, GROUPS

HERE = Path(__file__).parent
SCRIPT = r"""
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from every_binding import CALLS, FORGED, GROUPS
from kest.errors import KestError
fail = ctypes.CDLL(sys.argv[2]).kest_fail_call
fail.argtypes, fail.restype = [ctypes.c_size_t], ctypes.c_size_t

def rounds(name, work, check):
    check(work())
    raised = 0
    for n in range(1, 2000):
        fail(n)
        result = None
        try: result = work()
        except (KestError, MemoryError, RuntimeError): raised += 1
        except Exception as error: raise SystemExit(f"{name}, call {n}: {error!r}")
        finally: made = fail(0)
        check(result)
        if made < n: break  # it was not reached any more
    check(work())
    return raised

def never(result):
    assert not result, result

total = 0
if sys.argv[3] == "forged":
    for name, work in FORGED.items():
        print(name, file=sys.stderr, flush=True)  # what a crash was in
        def quiet(work=work):
            try: return work()
            except KestError: return None
        total += 1 + rounds(name, quiet, never)
else:
    for name in GROUPS[sys.argv[3]]:
        print(name, file=sys.stderr, flush=True)
        total += rounds(name, CALLS[name], lambda result: None)
print(total)
"""
NONE_FAILS = {
    "ActionContext", "GateCore", "GatePolicySet", "InMemoryRateLimitStore", "InMemorySessionStore", "KestEntry", "KeyRing",
    "RecordKeys", "Verdict",
}  # fmt: skip
"""Groups that call nothing of those libraries that can fail."""


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process in which calls can fail; LIBRARY says where the switch is."""
    made = tmp_path_factory.mktemp("failing") / "failing_libraries.so"
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libsodium", "zlib", "libcrypto"],
        check=True,
        capture_output=True,
        text=True,
    )
    compiler = shlex.split(os.environ.get("CC", "cc"))
    source = HERE / "failing_libraries.c"
    # Linked with the libraries, so that they are loaded before anything that asks for them, and found as the next ones.
    options = [
        "-O1",
        "-shared",
        "-fPIC",
        "-w",
        str(source),
        "-o",
        str(made),
        "-Wl,--no-as-needed",
        *found.stdout.split(),
        "-ldl",
    ]
    subprocess.run([*compiler, *options], check=True)
    before = os.environ.get("LD_PRELOAD", "")
    # At the end of such a process the leak detector, which starts a thread of its own, now and then gives up.
    quieter = {name: f"{value}:detect_leaks=0" for name, value in os.environ.items() if name == "ASAN_OPTIONS"}
    return {"LD_PRELOAD": f"{before} {made}".strip(), "LIBRARY": str(made), **quieter}


@pytest.mark.parametrize("group", [*GROUPS, "forged"])
def test_e5_every_call_of_a_library_fails_once(group: str, preloaded: Mapping[str, str], run_python: Any) -> None:
    done = run_python(SCRIPT, str(HERE), preloaded["LIBRARY"], group, env=preloaded, timeout=300)
    assert int(done.stdout) > 0 or group in NONE_FAILS


def test_nothing_of_the_forged_is_true() -> None:
    assert len(FORGED) > 10
