"""The time of the bare libsodium primitive, measured in C: `raw.c`, compiled at run time."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["sign_ns", "sodium_version", "verify_ns"]


@cache
def _library() -> ctypes.CDLL:
    compiler = shlex_first(os.environ.get("CC")) or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise SystemExit("a C compiler is needed to measure the bare primitive (Debian: apt install gcc)")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libsodium"], check=True, capture_output=True, text=True
    ).stdout.split()
    with tempfile.TemporaryDirectory(prefix="kest-raw-") as folder:
        target = Path(folder) / "raw.so"
        source = Path(__file__).with_name("raw.c")
        subprocess.run([compiler, "-O2", "-fPIC", "-shared", "-o", target, source, *flags], check=True)
        library = ctypes.CDLL(str(target))  # stays mapped after the file is gone
    library.raw_sign.restype = library.raw_verify.restype = ctypes.c_uint64
    library.raw_sign.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p]
    library.raw_verify.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64]
    library.raw_version.restype = ctypes.c_char_p
    return library


def shlex_first(command: str | None) -> str | None:
    """The program in a CC that may carry flags."""
    return shutil.which(command.split()[0]) if command and command.split() else None


def sign_ns(seed: bytes, message: bytes, times: int) -> float:
    """Nanoseconds of one crypto_sign_detached over ``message``."""
    signature = ctypes.create_string_buffer(64)
    spent = _library().raw_sign(seed, message, len(message), times, signature)
    if not spent:
        raise RuntimeError("crypto_sign_detached failed")
    return float(spent) / times


def verify_ns(public_key: bytes, message: bytes, signature: bytes, times: int) -> float:
    """Nanoseconds of one crypto_sign_verify_detached."""
    spent = _library().raw_verify(public_key, message, len(message), signature, times)
    if not spent:
        raise RuntimeError("the signature does not hold")
    return float(spent) / times


def sodium_version() -> str:
    return str(_library().raw_version().decode())
