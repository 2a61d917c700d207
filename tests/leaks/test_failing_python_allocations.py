"""Each allocation of the interpreter fails once while the native module works: a MemoryError or a value, and never a crash.

CPython's own test module makes them fail; where it is not installed, the C core's allocations are still covered
(test_failing_allocations.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from every_binding import CALLS, GROUPS, INSTANCES

pytest.importorskip("_testcapi")

HERE = str(Path(__file__).parent)
SCRIPT = r"""
import gc, sys
sys.path.insert(0, sys.argv[1])
import _testcapi
from every_binding import CALLS, GROUPS, INSTANCES, attributes, fresh_module

def readings(thing):
    names = [*attributes(thing), "__class__"]
    def read():
        for name in names: getattr(thing, name)
        repr(thing), hash(thing), thing == thing
        if hasattr(thing, "__len__"): len(thing)
    return read

def works(group):
    if group == "the module itself":
        return {group: fresh_module}
    if group == "what is read":
        return {name: readings(make()) for name, make in INSTANCES.items()}
    return {name: CALLS[name] for name in GROUPS[group]}

def rounds(name, work):
    work()  # what it keeps for later is made now
    failed = 0
    gc.freeze()
    for n in range(4000):
        gc.collect()  # empties the lists of free objects, which need no allocation
        try:
            _testcapi.set_nomemory(n, n + 1)
            try:
                work()
            finally:
                _testcapi.remove_mem_hooks()
        except MemoryError:
            failed += 1
            continue
        except SystemError as error:
            sys.exit(f"{name}, allocation {n}: {error}")
        except Exception:  # an error of ours whose message could not be had
            failed += 1
            continue
        if n > failed + 40:
            break
    work()
    return failed

total = 0
for name, work in works(sys.argv[2]).items():
    print(name, file=sys.stderr, flush=True)  # what a crash was in
    total += rounds(name, work)
print(total)
"""


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
@pytest.mark.parametrize("group", [*GROUPS, "the module itself", "what is read"])
def test_every_allocation_of_the_interpreter_fails_once(group: str, run_python: Any) -> None:
    done = run_python(SCRIPT, HERE, group, timeout=500)
    assert int(done.stdout) > 0


def test_no_group_is_empty() -> None:
    assert sum(map(len, GROUPS.values())) == len(CALLS) > 100
    assert all(GROUPS.values())
    assert len(INSTANCES) > 10
