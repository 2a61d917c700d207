"""What `configure`, ``KEST_CONFIG`` and the application's hooks set, and what is unsafe about it."""

from __future__ import annotations

from typing import Any

from kest.core.config import Settings
from kest.doctor.application import hooks_of, middlewares
from kest.doctor.environment import is_local
from kest.doctor.findings import Report
from kest.doctor.redact import redacted
from kest.errors import KestError

__all__ = ["check_settings"]

SECTION = "configuration"
TIERS = ("enterprise", "platform", "app")


def check_settings(report: Report, app: Any = None) -> None:
    """Add the configuration in force. ``app``: the application that has been imported, or None."""
    from kest.core.config import settings

    try:
        current = settings()
    except KestError as error:
        report.find(
            "danger", "KEST_CONFIG", redacted(str(error)), "correct the file: nothing that uses Kest starts with it"
        )
        return
    known = app is not None  # otherwise code may still set what is missing here
    _engine(report, current.engine, known)
    _identity(report, current, known)
    _trust(report, current, known)
    _audit(report, current.audit, known)
    _cache(report, current.cache)
    _tiers(report, current)
    if known:
        _hooks(report, app)


def _missing(known: bool) -> str:
    return "none" if known else "none here (an application sets it in code: kest doctor module:app)"


def _engine(report: Report, engine: Any, known: bool) -> None:
    if engine is None:
        report.fact(SECTION, "policy engine", _missing(known))
        if known:
            report.find(
                "warning",
                "policy engine",
                "none is configured: only functions with an engine of their own can be called",
                "configure(engine=...)",
            )
        return
    name = type(engine).__name__
    where = _server_of(engine)
    report.fact(SECTION, "policy engine", f"{name} at {where}" if where else name)
    if name == "MockPolicyEngine":
        answer = "everything" if getattr(engine, "allow", True) else "nothing"
        report.find(
            "danger",
            "policy engine",
            f"{name} allows {answer}, whatever is asked",
            "a real engine, such as OPA or Cedar",
        )
    if where.startswith("http://") and not is_local(where):
        report.find(
            "warning",
            "policy engine",
            "decisions cross the network unencrypted: whoever is in between can allow everything",
            "https, a Unix socket, or an engine on this machine",
        )


def _server_of(engine: Any) -> str:
    """Where a remote engine is, without credentials; "" for a local one."""
    target = getattr(getattr(engine, "_server", None), "_target", None)
    if target is None:
        return ""
    if getattr(target, "uds", None):
        return f"unix:{target.uds}"
    scheme = "https" if getattr(target, "tls", None) is not None else "http"
    return f"{scheme}://{getattr(target, 'host', '?')}:{getattr(target, 'port', '?')}"


def _identity(report: Report, current: Settings, known: bool) -> None:
    from kest.core.identity.base import principal_of
    from kest.core.identity.detect import explain_default_identity

    identity = current.identity
    if identity is None:
        chosen = next(source for source in explain_default_identity() if source.chosen)
        report.fact(SECTION, "identity", f"found when it is first needed: {chosen.source} ({redacted(chosen.reason)})")
        if chosen.source == "local":
            report.find(
                "warning" if known else "note",
                "identity",
                "unless code sets one, it is an ephemeral key: nobody can verify the entries once the process has ended",
                "SPIFFE_ENDPOINT_SOCKET, KEST_KMS_KEY_ID, or configure(identity=StaticIdentity(...)); see kest keygen",
            )
        elif "not: using it is an error" in chosen.reason:
            report.find("danger", "identity", chosen.reason, "set KEST_KMS_KEY_ID to an asymmetric KMS key")
        return
    name = type(identity).__name__
    try:
        principal = principal_of(identity)
    except KestError as error:
        report.fact(SECTION, "identity", name)
        report.find("danger", "identity", f"it does not answer: {redacted(str(error))}", "see kest identity --explain")
        return
    report.fact(SECTION, "identity", f"{name}, {principal}")
    if name == "MockIdentityProvider":
        report.find(
            "danger",
            "identity",
            "the key of a MockIdentityProvider can be computed by anybody from its name",
            "StaticIdentity, SPIREProvider or AWSWorkloadIdentity",
        )
    elif name == "LocalEd25519Provider":
        report.find(
            "warning",
            "identity",
            "the key is in memory only: nobody can verify the entries once the process has ended",
            "StaticIdentity(principal, key_file=...), SPIREProvider or AWSWorkloadIdentity",
        )


def _trust(report: Report, current: Settings, known: bool) -> None:
    store = current.trust_store
    report.fact(SECTION, "on_unverified", current.on_unverified)
    if current.on_unverified == "accept":
        report.find(
            "danger", "on_unverified", "forged lineage is believed", 'on_unverified="reject", and a trust store'
        )
    if not store:
        report.fact(SECTION, "trust store", _missing(known) if store is None else "empty: nobody is believed")
        if known and current.on_unverified == "degrade":
            report.find(
                "warning",
                "trust store",
                "lineage that comes in cannot be verified: it is kept, but counts as from the internet (trust 10 at most)",
                'configure(trust_store=TrustStore.from_jwks(...)), or on_unverified="reject"',
            )
        return
    grants = store.grants()
    report.fact(SECTION, "trust store", f"{len(store)} keys of {len({grant[0] for grant in grants})} principals")
    lasting = sorted({grant[0] for grant in grants if grant[2] == 100 and grant[3]})
    if len(lasting) > 1:
        report.find(
            "note",
            "trust store",
            f"{len(lasting)} principals may claim full trust and sanitise: each can clear taints if it is taken over",
            "store.add(principal, key, max_trust=..., may_sanitise=False), or kest_max_trust in the JWK set",
        )
    _keys(report, grants)


def _keys(report: Report, grants: Any) -> None:
    import time

    from kest._kestcore import Signer
    from kest.core.identity.mock import MockIdentityProvider

    now = time.time_ns() // 1_000_000
    over = sorted({grant[0] for grant in grants if grant[5] < now})
    if over:
        report.find(
            "note",
            "trust store",
            f"the time of {len(over)} keys is over ({redacted(over[0])}): they verify only what is older",
            "nothing, if old passports are to verify; otherwise remove them",
        )
    message = b"kest doctor"
    for principal, key, *_ in grants:
        mock = MockIdentityProvider(principal).signer
        if isinstance(mock, Signer) and key.alg == "EdDSA" and key.verify(message, mock.sign(message)):
            report.find(
                "danger",
                "trust store",
                f"the key of {principal} is that of a MockIdentityProvider: anybody can compute it",
                "replace it",
            )


def _audit(report: Report, sink: Any, known: bool) -> None:
    report.fact(SECTION, "audit sink", type(sink).__name__ if sink is not None else _missing(known))
    if sink is None and known:
        report.find(
            "warning",
            "audit sink",
            "entries leave with the passport, and denials and outcomes are kept nowhere",
            "configure(audit=...)",
        )


def _cache(report: Report, cache: Any) -> None:
    report.fact(
        SECTION, "cache", type(cache).__name__ if cache is not None else "none: passports that do not fit are errors"
    )
    if type(cache).__name__ == "SimpleCache":
        report.find(
            "note",
            "cache",
            "a SimpleCache is in this process: other processes cannot redeem its claim checks",
            "RedisCache(url)",
        )
    url = getattr(cache, "_url", None)
    if isinstance(url, str) and url.startswith("redis://") and not is_local(url):
        report.find("warning", "cache", "passports cross the network unencrypted", "rediss://")


def _tiers(report: Report, current: Settings) -> None:
    for name in TIERS:
        report.fact(SECTION, f"{name} policies", ", ".join(current.tier(name)) or "none")
    for deviation in current.deviations:
        report.fact(SECTION, "deviation", f"{deviation.policy} ({deviation.tier}) for {deviation.scope}")
        report.find(
            "note",
            "deviation",
            f"{deviation.policy} is not asked for {deviation.scope}: {deviation.reason} (approved by {deviation.approver})",
            "take it back when its reason is gone",
        )
    report.fact(SECTION, "user ids", "as they are" if current.user_salt is None else "salted hashes")
    report.fact(SECTION, "entries in a flow", current.max_entries)


def _hooks(report: Report, app: Any) -> None:
    hooks = hooks_of(app)
    report.fact(SECTION, "hooks", ", ".join(hooks) or "none")
    if not any(name in hooks for name in ("KestMiddleware", "KestWSGIMiddleware")):
        report.find(
            "warning",
            "hooks",
            "no Kest middleware was found around the application: nothing verifies the lineage of requests",
            "app.add_middleware(KestMiddleware)",
        )
    for cls, instance, given in middlewares(app):
        if cls.__name__ == "KestIdentityMiddleware":
            required = given.get("required", False) or getattr(instance, "_required", False)
            report.fact(SECTION, "tokens", "required" if required else "verified if present")
        gate = given.get("gate", getattr(instance, "http", None))
        if given.get("trust_header_identity") or getattr(gate, "_trusts_headers", False):
            report.find(
                "warning",
                cls.__name__,
                "trust_header_identity: whoever can send X-Principal-Id is believed to be whom it names",
                "verify tokens instead (KestIdentityMiddleware), or let only a proxy that sets these headers reach it",
            )
