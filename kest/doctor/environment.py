"""What the environment says: KEST_* and OTEL_* variables, and the files that they name."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from urllib.parse import urlsplit

from kest.doctor.findings import Report
from kest.doctor.redact import shown_variable

__all__ = ["check_environment", "is_local"]

SECTION = "environment"
LONG_TTL = 60.0


def check_environment(report: Report, environ: Mapping[str, str] = os.environ) -> None:
    """Add what is set, redacted, and what is unsafe about it."""
    for name in sorted(environ):
        if name.startswith(("KEST_", "OTEL_")) or name in ("SPIFFE_ENDPOINT_SOCKET", "AWS_ROLE_ARN"):
            report.fact(SECTION, name, shown_variable(name, environ[name]))
    if environ.get("KEST_INSECURE_NO_VERIFY", "").lower() == "true":
        report.find(
            "danger",
            "KEST_INSECURE_NO_VERIFY",
            "forged lineage and unsigned tokens may be accepted",
            "unset it; configure a trust store and jwks_uri",
        )
    if environ.get("KEST_ALLOWED_HOSTS") is None:
        report.find(
            "warning",
            "KEST_ALLOWED_HOSTS",
            "it is not set: wherever no allowed_hosts is given in code, passports go to every host that Kest is attached to",
            "KEST_ALLOWED_HOSTS=api.example.org,*.internal.example.org",
        )
    elif "*" in (part.strip() for part in environ["KEST_ALLOWED_HOSTS"].split(",")):
        report.find("warning", "KEST_ALLOWED_HOSTS", "* sends passports to every host", "name the hosts that need them")
    _check_ttl(report, environ.get("KEST_POLICY_CACHE_TTL"))
    _check_file(report, environ.get("KEST_CONFIG", "").strip())
    _check_otel(report, environ)


def _check_ttl(report: Report, text: str | None) -> None:
    if text is None:
        return
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        report.find(
            "danger",
            "KEST_POLICY_CACHE_TTL",
            "it is no number of seconds",
            "a number such as 5; 0 switches the cache off",
        )
    elif seconds > LONG_TTL:
        report.find(
            "warning",
            "KEST_POLICY_CACHE_TTL",
            f"a permission that was taken back counts for up to {seconds:g} s more",
            "5 s is the default",
        )


def _check_file(report: Report, name: str) -> None:
    if not name:
        return
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return  # that it cannot be read is said where it is read
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        report.find(
            "danger",
            "KEST_CONFIG",
            "others than its owner may write the file: whoever can, decides which policies apply",
            "chmod go-w, and let root or the operator own it",
        )


def _check_otel(report: Report, environ: Mapping[str, str]) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        url = environ.get(name, "")
        if url.startswith("http://") and not is_local(url):
            report.find(
                "warning",
                name,
                "spans, which say who did what on whose behalf, cross the network unencrypted",
                "an https:// endpoint, or a collector on this machine",
            )
    propagators = environ.get("OTEL_PROPAGATORS")
    if propagators is not None and "kest" not in {part.strip() for part in propagators.split(",")}:
        report.find(
            "note",
            "OTEL_PROPAGATORS",
            "kest is not among them: where no Kest hook is attached, lineage is carried by the baggage propagator alone",
            "add kest",
        )


def is_local(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host == "::1" or host.startswith("127.")
