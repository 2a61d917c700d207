"""Configuration: what `configure` and ``KEST_CONFIG`` set, as one immutable snapshot.

Tiers and deviations belong to operators. What the file named by ``KEST_CONFIG`` sets, code can add to but not take
away: its policies stay first in their tier, and code cannot deviate from them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kest.core.decisions import decisions, ttl_from_environment
from kest.core.tiers import CONFIGURED_TIERS, PolicyDeviation, policy_names
from kest.core.users import checked_salt
from kest.errors import ConfigurationError
from kest.locks import Lock

if TYPE_CHECKING:
    from kest.core.audit import AuditSink
    from kest.core.cache import CacheProvider
    from kest.core.truststore import TrustStore

__all__ = [
    "Settings",
    "configure",
    "get_active_cache",
    "get_active_engine",
    "get_active_identity",
    "get_active_trust_store",
    "settings",
]

log = logging.getLogger("kest")

ON_UNVERIFIED = ("degrade", "reject", "accept")
DEFAULT_MAX_ENTRIES = 1000
SALT_VARIABLE = "KEST_USER_SALT"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `configure` decides. Replaced as a whole, never changed in place."""

    engine: Any = None
    identity: Any = None
    detect_identity: bool = False  # configured without an identity: find one when it is first needed
    cache: CacheProvider | None = None
    enterprise_policies: tuple[str, ...] = ()
    platform_policies: tuple[str, ...] = ()
    app_policies: tuple[str, ...] = ()
    deviations: tuple[PolicyDeviation, ...] = ()
    trust_store: TrustStore | None = None
    on_unverified: str = "degrade"
    audit: AuditSink | None = None
    max_entries: int = DEFAULT_MAX_ENTRIES
    user_salt: bytes | None = field(default=None, repr=False)  # a secret: with it, ids can be guessed from their hashes

    def tier(self, name: str) -> tuple[str, ...]:
        """The configured policies of a tier."""
        return getattr(self, f"{name}_policies")  # type: ignore[no-any-return]


_lock = Lock()
_active: Settings | None = None
_operator = Settings()  # what the file says, as long as it is in force


def settings() -> Settings:
    """The snapshot in force. Reads ``KEST_CONFIG`` on first use."""
    return _active if _active is not None else _start()


def _start() -> Settings:
    global _active, _operator
    with _lock:
        if _active is None:
            _check_backend()
            decisions.ttl = ttl_from_environment()
            path = os.environ.get("KEST_CONFIG", "").strip()
            operator = _from_file(Path(path)) if path else Settings()
            if salt := os.environ.get(SALT_VARIABLE, ""):
                operator = replace(operator, user_salt=_user_salt(salt, SALT_VARIABLE))
            _operator = operator
            _active = _operator
        return _active


def configure(
    engine: Any = None,
    identity: Any = None,
    cache: CacheProvider | None = None,
    enterprise_policies: Sequence[str] | None = None,
    platform_policies: Sequence[str] | None = None,
    app_policies: Sequence[str] | None = None,
    deviations: Iterable[PolicyDeviation | Mapping[str, Any]] | None = None,
    trust_store: TrustStore | Mapping[str, Any] | None = None,
    on_unverified: str | None = None,
    audit: AuditSink | None = None,
    *,
    max_entries: int | None = None,
    user_salt: str | bytes | None = None,
    clear: bool = False,
) -> None:
    """Set what decorated calls use. A call changes only what it names; nothing changes when anything is wrong.

    Args:
        engine: decides; any object with ``evaluate(entry_id, policy_names, context)``.
        identity: signs. Without one, `get_default_identity` chooses when the first call needs it.
        cache: holds passports too large to travel inline (claim checks).
        enterprise_policies, platform_policies, app_policies: policy names asked before a function's own.
        deviations: approved exemptions (`PolicyDeviation` or mappings with policy, tier, scope, reason, approver).
        trust_store: whose keys are believed at the edge; a `TrustStore` or a mapping of principals to keys.
        on_unverified: what an edge without a trust store does with incoming lineage: ``"degrade"`` (trust at most 10,
            tainted ``kest.unverified``), ``"reject"``, or ``"accept"`` (needs ``KEST_INSECURE_NO_VERIFY=true``).
        audit: receives every signed entry, denial and outcome.
        max_entries: a flow this long continues in a new root (default 1,000).
        user_salt: write and send user ids only as salted hashes (see `kest.http.hashed_user`): in entries, audit records
            and the ``kest.user`` header. Policies still see the real user. At least 16 bytes; the same for all services
            that should know each other's users. Also ``KEST_USER_SALT``, which comes before the file that ``KEST_CONFIG``
            names; what either sets cannot be replaced here.
        clear: forget everything first, and read the environment and ``KEST_CONFIG`` again.

    Raises:
        ConfigurationError: naming the argument that is wrong.
    """
    global _active
    with _lock:
        before = _active
        if clear:
            _active = None
        try:
            base = settings()
            _active = _changed(
                base,
                engine,
                identity,
                cache,
                (enterprise_policies, platform_policies, app_policies),
                deviations,
                trust_store,
                on_unverified,
                audit,
                max_entries,
                user_salt,
            )
        except BaseException:
            _active = before
            raise
        decisions.ttl = ttl_from_environment()
        decisions.clear()


def _changed(
    base: Settings,
    engine: Any,
    identity: Any,
    cache: Any,
    tiers: tuple[Sequence[str] | None, ...],
    deviations: Any,
    trust_store: Any,
    on_unverified: str | None,
    audit: Any,
    max_entries: int | None,
    user_salt: str | bytes | None,
) -> Settings:
    changes: dict[str, Any] = {}
    if engine is not None:
        changes["engine"] = _with_method(engine, "evaluate", "engine", "a policy engine such as OPAPolicyEngine(...)")
    if identity is not None:
        changes["identity"] = _with_method(identity, "sign", "identity", "an identity such as StaticIdentity(...)")
    if cache is not None:
        changes["cache"] = _with_method(cache, "get", "cache", "a cache such as RedisCache(...)")
    if audit is not None:
        changes["audit"] = _with_method(audit, "record", "audit", "an audit sink")
    for name, given in zip(CONFIGURED_TIERS, tiers, strict=True):
        if given is not None:
            changes[f"{name}_policies"] = _tier(name, given)
    if deviations is not None:
        changes["deviations"] = _deviations(deviations)
    if trust_store is not None:
        changes["trust_store"] = _trust_store(trust_store)
    if on_unverified is not None:
        changes["on_unverified"] = _on_unverified(on_unverified)
    if max_entries is not None:
        changes["max_entries"] = _max_entries(max_entries)
    if user_salt is not None:
        changes["user_salt"] = _kept_salt(user_salt)
    changed = replace(base, **changes)
    return replace(changed, detect_identity=changed.identity is None and changed.engine is not None)


def _with_method(value: Any, method: str, name: str, example: str) -> Any:
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        raise ConfigurationError(f"configure({name}=...): {type(value).__name__} has no {method}(); pass {example}")
    return value


def _tier(name: str, given: Sequence[str]) -> tuple[str, ...]:
    try:
        if isinstance(given, str):
            raise TypeError(f"{name}_policies is a list of names, not one str")
        names = policy_names(given, f"{name}_policies")
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
    return tuple(dict.fromkeys((*_operator.tier(name), *names)))


def _deviations(given: Any) -> tuple[PolicyDeviation, ...]:
    added = tuple(PolicyDeviation.of(d) for d in given)
    for deviation in added:
        if deviation not in _operator.deviations and deviation.policy in _operator.tier(deviation.tier):
            raise ConfigurationError(
                f"policy {deviation.policy!r} of the {deviation.tier} tier comes from the operator's configuration file; "
                "a deviation from it belongs there too"
            )
    return tuple(dict.fromkeys((*_operator.deviations, *added)))


def _trust_store(given: Any) -> TrustStore:
    from kest.core.truststore import TrustStore

    return given if isinstance(given, TrustStore) else TrustStore(given)


def _on_unverified(given: object) -> str:
    if given not in ON_UNVERIFIED:
        raise ConfigurationError(f"on_unverified is one of {', '.join(ON_UNVERIFIED)}, not {given!r}")
    if given == "accept" and os.environ.get("KEST_INSECURE_NO_VERIFY", "").lower() != "true":
        raise ConfigurationError(
            "on_unverified='accept' believes forged lineage; for development only, set KEST_INSECURE_NO_VERIFY=true"
        )
    return str(given)


def _max_entries(given: object) -> int:
    if type(given) is not int or not 1 <= given <= 1_000_000:
        raise ConfigurationError(f"max_entries is an int from 1 to 1000000, not {given!r}")
    return given


def _user_salt(given: object, name: str) -> bytes:
    try:
        return checked_salt(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _kept_salt(given: object) -> bytes:
    salt = _user_salt(given, "user_salt")
    if _operator.user_salt is not None and salt != _operator.user_salt:
        raise ConfigurationError(
            f"user_salt comes from the operator ({SALT_VARIABLE}, or the file that KEST_CONFIG names); leave it out here"
        )
    return salt


def _check_backend() -> None:
    backend = os.environ.get("KEST_BACKEND", "").strip()
    if backend and backend != "c":
        log.warning(
            "KEST_BACKEND=%s is ignored: there is one backend, the C core, and it needs no switch", backend[:32]
        )


# --- the configuration file ---


def _from_file(path: Path) -> Settings:
    values = _read(path)
    known = {
        *(f"{name}_policies" for name in CONFIGURED_TIERS),
        "deviations",
        "on_unverified",
        "max_entries",
        "trust_store",
        "user_salt",
    }
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigurationError(f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    try:
        result = Settings()
        for name in CONFIGURED_TIERS:
            if f"{name}_policies" in values:
                names = values[f"{name}_policies"]
                if not isinstance(names, list):
                    raise ConfigurationError(f"{name}_policies is a list of names")
                tier: dict[str, Any] = {f"{name}_policies": policy_names(names, f"{name}_policies")}
                result = replace(result, **tier)
        if "deviations" in values:
            result = replace(result, deviations=tuple(PolicyDeviation.of(d) for d in values["deviations"]))
        if "on_unverified" in values:
            result = replace(result, on_unverified=_on_unverified(values["on_unverified"]))
        if "max_entries" in values:
            result = replace(result, max_entries=_max_entries(values["max_entries"]))
        if "user_salt" in values:
            result = replace(result, user_salt=_user_salt(values["user_salt"], "user_salt"))
        if "trust_store" in values:
            result = replace(result, trust_store=_store_from_file(path, values["trust_store"]))
    except (ConfigurationError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return result


def _store_from_file(path: Path, given: object) -> TrustStore:
    from kest.core.fetch import is_url
    from kest.core.truststore import TrustStore

    if not isinstance(given, str) or not given:
        raise ConfigurationError("trust_store is the path of a JWKS file, or an https URL")
    return TrustStore.from_jwks(given if is_url(given) else path.parent / given)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"KEST_CONFIG names {path}, which cannot be read: {error}") from None
    try:
        values = json.loads(text) if path.suffix == ".json" else _toml(text)
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid {path.suffix.lstrip('.') or 'toml'}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: settings are a table")
    return values


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigurationError(
                "reading TOML on Python 3.10 needs the package tomli (pip install tomli); or write KEST_CONFIG as .json"
            ) from None
    values: dict[str, Any] = tomllib.loads(text)
    return values


# --- getters ---


def get_active_engine() -> Any:
    """The configured policy engine; ConfigurationError when there is none."""
    engine = settings().engine
    if engine is None:
        raise ConfigurationError(
            "no policy engine: call kest.core.configure(engine=...) once at start-up, or pass engine= to @kest_verified"
        )
    return engine


def get_active_identity() -> Any:
    """The configured identity, found by `get_default_identity` if `configure` was called without one."""
    global _active
    current = settings()
    if current.identity is not None:
        return current.identity
    if not current.detect_identity:
        raise ConfigurationError(
            "no identity: call kest.core.configure(identity=...) once at start-up, or pass identity= to @kest_verified"
        )
    with _lock:
        current = settings()
        if current.identity is None and current.detect_identity:
            from kest.core.identity import get_default_identity

            current = replace(current, identity=get_default_identity())
            _active = current
        return current.identity


def get_active_cache() -> CacheProvider | None:
    """The configured cache for claim checks, or None."""
    return settings().cache


def get_active_trust_store() -> TrustStore | None:
    """The configured trust store, or None."""
    return settings().trust_store
