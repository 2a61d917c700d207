"""What may be shown of settings that can hold secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

__all__ = ["redacted", "shown_variable"]

REDACTED = "(set; not shown)"

# Of these, the value itself is no secret. Everything else is only said to be set.
_SHOWN = frozenset(
    (
        "KEST_ALLOWED_HOSTS", "KEST_BACKEND", "KEST_CONFIG", "KEST_INSECURE_NO_VERIFY", "KEST_KMS_KEY_ID",
        "KEST_POLICY_CACHE_TTL", "OTEL_SDK_DISABLED", "OTEL_PROPAGATORS", "OTEL_SERVICE_NAME", "OTEL_TRACES_EXPORTER",
        "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_PYTHON_TRACER_PROVIDER", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    )
)  # fmt: skip
_URLS = re.compile(r"(?:.*_)?(?:ENDPOINT|URL|URI)(?:_SOCKET)?\Z")
_USERINFO = re.compile(r"(//)[^/?#\s]*@")


def redacted(url: str) -> str:
    """A URL without user name, password, query and fragment; other text with whatever looks like ``//user:password@`` cut."""
    try:
        parts = urlsplit(url)
        if parts.scheme and parts.netloc:
            host = parts.netloc.rpartition("@")[2]
            return urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))
    except ValueError:
        return REDACTED
    return _USERINFO.sub(r"\1", url)


def shown_variable(name: str, value: str) -> str:
    """What may be shown of an environment variable."""
    if name in _SHOWN:
        return redacted(value)
    return redacted(value) if _URLS.fullmatch(name) else REDACTED
