"""Labels of an entry: those that only Kest sets, and what an identity may say about itself."""

from __future__ import annotations

from typing import Any

from kest.errors import IdentityError

__all__ = ["RESERVED", "identity_labels"]

RESERVED = frozenset(
    (
        "principal",
        "trace_id",
        "kest.identity",
        "kest.actors",
        "kest.resource_id",
        "kest.resource_attr",
        "kest.opaque_args",
        "kest.root",
        "kest.trust_override",
        "kest.continues",
        "kest.decision",
    )
)

MAX_LABELS = 16


def identity_labels(own: Any) -> dict[str, str]:
    """What an identity says about itself (an OIDC issuer, say); it cannot speak for Kest or name another principal."""
    try:
        labels = own() if callable(own) else own
    except Exception as error:
        raise IdentityError(f"labels() of the identity raised {type(error).__name__}") from error
    if not isinstance(labels, dict) or len(labels) > MAX_LABELS:
        raise IdentityError(f"labels() of the identity must return a dict of at most {MAX_LABELS} str to str")
    for name, value in labels.items():
        if type(name) is not str or type(value) is not str:
            raise IdentityError("labels() of the identity must return a dict of str to str")
        if name in RESERVED:
            raise IdentityError(f"labels() of the identity sets {name!r}, which only Kest sets")
    return labels
