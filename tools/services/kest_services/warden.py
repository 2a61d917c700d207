"""Runs a command that starts processes of its own, and kills them all when the parent dies: ``warden.py PARENT COMMAND …``

The kernel tells only a child that its parent has died, not the child's children. This is the child that is told; it shares a
process group with the rest. When it is itself killed it is together with the group.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1


def _orphaned(number: int, frame: FrameType | None) -> None:
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    """The command's exit status."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group gets it too; this waits for the command
    signal.signal(signal.SIGHUP, _orphaned)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
    if os.getppid() != int(sys.argv[1]):
        return 1  # it died before we could ask to be told
    child = subprocess.Popen(sys.argv[2:], restore_signals=True, preexec_fn=_as_usual)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _as_usual() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
