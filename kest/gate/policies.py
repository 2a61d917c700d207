"""Policies as they are written: a dict, JSON, TOML, or a file of either; checked strictly when loaded.

`Policies` is the checked form: what `compile_policies` turns into a set in C, what ``kest gate diff`` compares, what
``digest`` names.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kest._kestcore import canonicalize, parse
from kest.errors import ConfigurationError, GatePolicyError, KestError
from kest.gate.conditions import Condition, Pattern, integer, items, parse_conditions, table, text

__all__ = ["Policies", "Policy", "load_dict", "load_file", "load_json", "load_policies", "load_toml"]

DEFAULT_PRIORITY = 100
MAX_POLICIES = 100_000
MAX_FILE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy; all of its conditions must hold."""

    name: str
    permit: bool
    conditions: tuple[Condition, ...]
    priority: int = DEFAULT_PRIORITY
    description: str | None = None


@dataclass(frozen=True)
class Policies:
    """Checked policies in the order in which they are asked: by priority, then as written."""

    policies: tuple[Policy, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what is enforced; descriptions are left out."""
        state = hashlib.sha256()
        for policy in self.policies:
            _add(state, [policy.name, policy.permit, policy.priority, len(policy.conditions)])
            for condition in policy.conditions:
                _add_condition(state, condition)
        return state.hexdigest()

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the parameters that conditions ask about."""
        found: set[str] = set()
        waiting = [condition for policy in self.policies for condition in policy.conditions]
        while waiting:
            condition = waiting.pop()
            waiting += condition.parts
            if (field := condition.arguments.get("field")) is not None:
                found.add(field)
        return frozenset(found)

    def __len__(self) -> int:
        return len(self.policies)


_PIECE = 256  # values that are written at a time: no step holds the interpreter's lock for long


def _add(state: hashlib._Hash, value: list[Any]) -> None:
    """A piece of what is hashed, with its length before it."""
    piece = canonicalize(value)
    state.update(len(piece).to_bytes(8, "big"))
    state.update(piece)


def _add_condition(state: hashlib._Hash, condition: Condition) -> None:
    _add(state, [condition.name, len(condition.parts), len(condition.arguments)])
    for name, value in condition.arguments.items():
        if isinstance(value, tuple):
            _add(state, [name, len(value)])
            for start in range(0, len(value), _PIECE):
                _add(state, list(value[start : start + _PIECE]))
        else:
            _add(state, [name, [value.mode, value.text] if isinstance(value, Pattern) else value])
    for part in condition.parts:
        _add_condition(state, part)


# --- documents ---


def _policy(value: object, path: str) -> Policy:
    given = table(value, path, ("name", "effect", "conditions"), ("description", "priority"))
    effect = given["effect"]
    if effect not in ("permit", "refuse") or not isinstance(effect, str):
        raise GatePolicyError(f"unknown variant `{str(effect)[:100]}`, expected `permit` or `refuse`", f"{path}.effect")
    description = given.get("description")
    return Policy(
        name=text(given["name"], f"{path}.name", empty=True),
        permit=effect == "permit",
        conditions=parse_conditions(given["conditions"], f"{path}.conditions", empty=True),
        priority=integer(given.get("priority", DEFAULT_PRIORITY), f"{path}.priority", 0, 2**32 - 1),
        description=None if description is None else text(description, f"{path}.description", empty=True),
    )


def _document(value: object) -> Policies:
    given = table(value, "", (), ("policies", "policy"))
    if len(given) == 2:
        raise GatePolicyError("duplicate field `policies`: `policy` is another name for it, use one of them")
    ((name, listed),) = given.items() if given else (("policies", []),)
    if isinstance(listed, (set, frozenset)):
        raise GatePolicyError("a list is expected, not a set", name)
    entries = items(listed, name, MAX_POLICIES, empty=True)
    policies = [_policy(entry, f"{name}[{index}]") for index, entry in enumerate(entries)]
    return Policies(tuple(sorted(policies, key=lambda policy: policy.priority)))


def _checked(value: object, what: str) -> Policies:
    try:
        return _document(value)
    except GatePolicyError as error:
        raise GatePolicyError(f"{what}: {error}", error.path, whole=True) from None


def load_dict(value: Mapping[str, Any]) -> Policies:
    """Policies from a dict; GatePolicyError names the path of what is wrong."""
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise GatePolicyError(f'policy dict parse error: policies are a mapping ({{"policies": [...]}}), not a {kind}')
    return _checked(value, "policy dict parse error")


def load_json(content: str | bytes) -> Policies:
    """Policies from JSON text: RFC 8259, no duplicate keys."""
    try:
        value = parse(content)
    except KestError as error:
        raise GatePolicyError(f"policy JSON parse error: {error}") from None
    return _checked(value, "policy JSON parse error")


def load_toml(content: str) -> Policies:
    """Policies from TOML text; the empty text has none and denies everything."""
    if not isinstance(content, str):
        raise TypeError(f"TOML is a str, not {type(content).__name__}")
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigurationError(
                "reading TOML on Python 3.10 needs the package tomli (pip install tomli); or write policies as JSON"
            ) from None
    try:
        value: object = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        raise GatePolicyError(f"policy parse error: {error}") from None
    return _checked(value, "policy parse error")


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise GatePolicyError(f"policy file {str(path)!r} is larger than {MAX_FILE >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise GatePolicyError(f"policy file {str(path)!r} is not UTF-8: {error.reason} at byte {error.start}") from None


def load_file(path: str | Path, *, json: bool | None = None) -> Policies:
    """Policies from a file: JSON when its name ends in ``.json`` (or ``json`` says so), otherwise TOML.

    Raises:
        OSError: the file cannot be read.
        GatePolicyError: it is not what it should be; the message names the file.
    """
    file = Path(path)
    content = _read(file)
    try:
        return load_json(content) if (file.suffix == ".json" if json is None else json) else load_toml(content)
    except GatePolicyError as error:
        raise GatePolicyError(f"{file}: {error}", error.path, whole=True) from None


def load_policies(source: Policies | Mapping[str, Any] | str | Path) -> Policies:
    """Policies from whatever holds them: a mapping, a path, or text (JSON when it begins with a brace, otherwise TOML)."""
    if isinstance(source, Policies):
        return source
    if isinstance(source, Mapping):
        return load_dict(source)
    if isinstance(source, Path):
        return load_file(source)
    if not isinstance(source, str):
        raise TypeError(f"policies are a mapping, TOML or JSON text, or a Path, not {type(source).__name__}")
    return load_json(source) if source.lstrip().startswith("{") else load_toml(source)
