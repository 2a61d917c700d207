"""Policies for the classical access-control models, each in Rego v1 and in Cedar.

The texts are package data (``importlib.resources.files("kest.core.policies") / "biba.rego"``); `load` reads one
by name. Each Rego module is ``package kest.policies.<name>`` with the rule ``allow`` and a set ``reasons`` that says
what denied; each Cedar text is one policy set for any action. ``docs/policies/<name>.md`` lists attributes and rules.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from kest.errors import ConfigurationError
from kest.lazy import lazy

if TYPE_CHECKING:
    from kest.core.policies.validators import CedarValidator, Problem, RegoValidator

__all__ = ["LANGUAGES", "NAMES", "CedarValidator", "Language", "Problem", "RegoValidator", "load"]

Language = Literal["rego", "cedar"]

LANGUAGES: tuple[Language, ...] = ("rego", "cedar")

NAMES: tuple[str, ...] = (
    "bell_lapadula",
    "biba",
    "brewer_nash",
    "clark_wilson",
    "financial",
    "goguen_meseguer",
    "security",
)

# Validators drag in an engine each when used; reading a policy text should not even import their module.
__getattr__, __dir__ = lazy(
    globals(),
    {
        "CedarValidator": ".validators",
        "Problem": ".validators",
        "RegoValidator": ".validators",
    },
)


def load(name: str, language: Language = "rego") -> str:
    """The text of one policy of the pack.

    Args:
        name: one of `NAMES`.
        language: ``"rego"`` or ``"cedar"``.

    Raises:
        ConfigurationError: the pack has no such policy or language.
    """
    if name not in NAMES:
        raise ConfigurationError(f"no policy {name!r} in the pack; use one of: {', '.join(NAMES)}")
    if language not in LANGUAGES:
        raise ConfigurationError(f"no policy language {language!r} in the pack; use one of: {', '.join(LANGUAGES)}")
    return files(__name__).joinpath(f"{name}.{language}").read_text(encoding="utf-8")
