"""UUIDv7 (RFC 9562, section 5.7): form, order, uniqueness across threads and processes."""

from __future__ import annotations

import itertools
import sys
import threading
import time
import uuid
from typing import Any

import pytest

from kest._kestcore import stamp, uuid7


def milliseconds(text: str) -> int:
    return int(text.replace("-", "")[:12], 16)


def test_form() -> None:
    for _ in range(1000):
        text = uuid7()
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


def test_time() -> None:
    before = time.time_ns() // 1_000_000
    text, at = stamp()
    after = time.time_ns() // 1_000_000
    assert milliseconds(text) == at
    assert before <= at <= after + 1


def test_strictly_increasing() -> None:
    made = [uuid7() for _ in range(100_000)]
    assert all(a < b for a, b in itertools.pairwise(made))


def test_increasing_in_every_thread_and_unique_among_them() -> None:
    made: list[list[str]] = [[] for _ in range(8)]

    def work(mine: list[str]) -> None:
        for _ in range(10_000):
            mine.append(uuid7())

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({text for mine in made for text in mine}) == 80_000


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_distinct_after_fork(run_python: Any) -> None:
    done = run_python(
        "import os, sys\n"
        "from kest._kestcore import uuid7\n"
        "uuid7()\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        os.write(1, ''.join(uuid7() + '\\n' for _ in range(100)).encode())\n"
        "        os._exit(0)\n"
        "os.write(1, ''.join(uuid7() + '\\n' for _ in range(100)).encode())\n"
        "for _ in range(4):\n"
        "    os.wait()\n"
    )
    made = done.stdout.split()
    assert len(made) == len(set(made)) == 500  # 3,700 bytes each: what a pipe takes in one piece
    nodes = {text[-12:] for text in made}
    assert len(nodes) == 5, sys.version  # each process draws its own


def test_distinct_in_subinterpreters_or_refused(run_python: Any) -> None:
    run_python(
        "import sys\n"
        "try:\n"
        "    import _interpreters as interpreters\n"
        "except ImportError:\n"
        "    try: import _xxsubinterpreters as interpreters\n"
        "    except ImportError: raise SystemExit(0)\n"
        "from kest._kestcore import uuid7\n"
        "uuid7()\n"
        "made = interpreters.create()\n"
        "code = 'try:\\n from kest._kestcore import uuid7\\n uuid7()\\nexcept ImportError: pass'\n"
        "for _ in range(3):\n"
        "    error = (getattr(interpreters, 'run_string', None) or interpreters.exec)(made, code)\n"
        "    assert error is None, error\n"
        "interpreters.destroy(made)\n"
        "uuid7()\n"
    )
