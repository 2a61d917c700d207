"""What this machine and this installation have: libraries, the C core, limits, the clock."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
import time
from importlib import metadata

from kest.doctor.findings import Report

__all__ = ["EXTRAS", "detect"]

EXTRAS: dict[str, tuple[str, ...]] = {
    "(always)": ("opentelemetry-api", "httpx"),
    "cedar": ("cedarpy",),
    "rego": ("regopy", "lakera-regorus"),
    "aws": ("boto3",),
    "spiffe": ("spiffe", "cryptography"),
    "oidc": ("PyJWT", "cryptography"),
    "redis": ("redis",),
    "otlp": ("opentelemetry-sdk", "opentelemetry-exporter-otlp"),
    "pq": ("cryptography",),
    "fastapi": ("fastapi",),
    "watch": ("watchfiles",),
    "mcp": ("mcp",),
}
"""The distributions that each extra brings, as in pyproject.toml."""

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_SIZE = 512  # more than struct timex takes on any Linux
_NOT_BEFORE = 1_735_689_600  # 2025-01-01; no machine that runs this version is older


def detect(report: Report) -> None:
    """Add the facts, and what follows from them."""
    _versions(report)
    _core(report)
    _limits(report)
    _clock(report)


def _versions(report: Report) -> None:
    from kest import __version__

    report.fact("installation", "kest", __version__)
    report.fact("installation", "Python", f"{platform.python_implementation()} {platform.python_version()}")
    report.fact("installation", "system", f"{platform.system()} {platform.machine()}")
    for extra, names in EXTRAS.items():
        found = [f"{name} {_version(name) or 'is not installed'}" for name in names]
        report.fact("libraries", extra, ", ".join(found))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _core(report: Report) -> None:
    from kest import _kestcore

    report.fact("C core", "version", _kestcore.__version__)
    report.fact("C core", "lock policy", _kestcore.lock_mode(None))
    hashed = 1 << 24
    data = bytes(hashed)
    started = time.perf_counter()
    _kestcore.sha256(data)
    report.fact("C core", "SHA-256", f"{hashed / (time.perf_counter() - started) / 1e6:.0f} MB/s")
    signer = _kestcore.Signer("spiffe://kest.internal/doctor")
    message = b"kest doctor"
    works = _kestcore.PublicKey.from_raw(signer.public_key).verify(message, signer.sign(message))
    report.fact("C core", "Ed25519", "signs and verifies" if works else "DOES NOT WORK")
    if not works:
        report.find("danger", "C core", "it does not verify what it has signed", "build or install kest again")
    gil = getattr(sys, "_is_gil_enabled", None)  # from Python 3.13 on
    if gil is not None:
        report.fact("C core", "GIL", "on" if gil() else "off")


def _limits(report: Report) -> None:
    try:
        import resource
    except ImportError:
        return
    core, _ = resource.getrlimit(resource.RLIMIT_CORE)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    report.fact("limits", "core dumps", "off" if core == 0 else "on")
    report.fact("limits", "locked memory", "unlimited" if locked == resource.RLIM_INFINITY else f"{locked >> 10} KiB")
    if core != 0:
        report.find(
            "note",
            "core dumps",
            "they are on; key pages are excluded from them where the system permits, other data of requests is not",
            "ulimit -c 0, or LimitCORE=0 in the unit",
        )
    if 0 <= locked < 1 << 16:
        report.find(
            "warning",
            "locked memory",
            "so little may be locked that private keys can be written to swap",
            "ulimit -l 65536, or LimitMEMLOCK=64M in the unit",
        )


def _clock(report: Report) -> None:
    state = _synchronised()
    said = "cannot tell" if state is None else "synchronised" if state else "NOT synchronised"
    report.fact("clock", "time service", said)
    report.fact("clock", "UTC now", time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()))
    if time.time() < _NOT_BEFORE:
        report.find("danger", "clock", "it is wrong by months or years", "set it, and run a time service (NTP)")
    elif state is False:
        report.find(
            "warning",
            "clock",
            "no time service keeps it right: tokens, keys and certificates are judged by it, and entries carry its time",
            "run chrony, systemd-timesyncd or ntpd; in a container, on the host",
        )


def _synchronised() -> bool | None:
    """What the kernel says (adjtimex(2), read only); None where it cannot be asked."""
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        buffer = ctypes.create_string_buffer(_TIMEX_SIZE)  # modes = 0: nothing is set
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
        return None if state < 0 else state != _TIME_ERROR
    return None
