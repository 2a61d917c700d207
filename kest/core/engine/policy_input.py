"""The policy input as text: JSON for Rego and OPA, Cedar's JSON dialect for Cedar.

Cedar has neither ``null`` nor binary floating point, its integers are 64 bits wide, and three member names are escapes
in its JSON. The context that Cedar policies see is therefore the policy input with these changes:

- every top-level member stays (``context.trust_score``, ``context.taints``, ``context.subject.user`` …), and
  ``workload`` from ``subject`` and ``parent_hash``, ``policy_names``, ``policy_tier``, ``active_deviations`` from
  ``environment`` appear at the top level too, unless the input already has a member of that name: nothing is
  overwritten;
- a member that is ``None`` is left out at every depth (ask ``context has user``); ``None`` in a list is refused, because
  a shorter list can be a weaker label;
- a float becomes a Cedar ``decimal`` (``context.args.amount.lessThan(decimal("100.0"))``) if its shortest decimal form
  has at most four fractional digits and fits; otherwise, and an integer beyond 64 bits, becomes that text as a string:
  comparing it is then an evaluation error, which denies, where rounding might have allowed;
- lists, tuples and sets become Cedar sets; dicts with ``str`` keys become records; str, int and bool stay;
- a dict with a member named ``__entity``, ``__extn`` or ``__expr`` is refused: an argument must not be able to
  impersonate an entity. So is a dict with a key that is not a string, and any type that JSON does not have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

from kest.errors import PolicyEngineError

__all__ = ["cedar_context", "cedar_context_json", "cedar_uid", "input_json", "resource_id", "utf8", "workload_id"]

_INT64 = 1 << 63
_MAX_DECIMAL = 922_337_203_685_477.0  # Cedar's decimal is a 64-bit count of ten-thousandths
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,4}")
_RESERVED = frozenset(("__entity", "__extn", "__expr"))
_LIFTED: dict[str, tuple[str, ...]] = {
    "subject": ("workload",),
    "environment": ("parent_hash", "policy_names", "policy_tier", "active_deviations"),
    "object": (),
}
# Where plain JSON may hold something that Cedar's dialect says differently: null, a float, a long integer, a reserved
# name. A false alarm (a string that contains ``,null``) costs a second, slower pass and changes nothing.
_NOT_CEDAR = re.compile(r"[:,\[](?:null|-?[0-9]+[.e]|-?[0-9]{19})")
_LIKE_A_FLOAT = re.compile(r"[0-9](?:[.e]|[0-9]{18})")


def _needs_care(text: str) -> bool:
    if '"__e' in text:
        return True
    # Searched in two steps, because the first needs a fifth of the second's time and mostly settles it.
    return ("null" in text or _LIKE_A_FLOAT.search(text) is not None) and _NOT_CEDAR.search(text) is not None


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# Sorted: a dict that holds both 1 and "1", which JSON cannot tell apart, fails to sort and is refused.
_encode = json.JSONEncoder(
    allow_nan=False, separators=(",", ":"), sort_keys=True, ensure_ascii=False, default=_to_plain
).encode


def input_json(context: Mapping[str, Any]) -> str:
    """The policy input as compact JSON text (not ASCII-only: encode it as UTF-8).

    Raises:
        PolicyEngineError: it has no JSON form (NaN, an object of another type, mixed keys, a cycle).
    """
    try:
        return _encode(context)
    except (TypeError, ValueError, RecursionError) as error:
        _no_json_form(error)


def utf8(text: str) -> bytes:
    """``text`` as UTF-8.

    Raises:
        PolicyEngineError: it holds a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise PolicyEngineError("the policy input holds a lone surrogate, which is no Unicode text") from None


def cedar_context_json(context: Mapping[str, Any]) -> str:
    """The context of a Cedar request as JSON text; the module's docstring says what changes and why.

    Raises:
        PolicyEngineError: a reserved member name, or a value that has no JSON form.
    """
    try:
        # Fast path: most inputs need nothing but their None members dropped, and C writes JSON faster than we walk.
        text = _encode(_flattened(context))
        if not _needs_care(text):
            return text
    except ValueError:
        pass  # NaN or an infinity somewhere; a cycle fails again below
    except (TypeError, RecursionError) as error:
        _no_json_form(error)
    return _encode(cedar_context(context))


def cedar_context(context: Mapping[str, Any]) -> dict[str, Any]:
    """The context of a Cedar request as Python objects in Cedar's JSON dialect (``__extn`` for decimals)."""
    try:
        return {str(name): _cedar_value(value) for name, value in _flattened(context).items()}
    except (TypeError, ValueError, RecursionError) as error:
        _no_json_form(error)


def _flattened(context: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in context.items():
        if value is None:
            continue
        if name in _LIFTED and isinstance(value, Mapping):
            value = {key: item for key, item in value.items() if item is not None}
            for lifted in _LIFTED[name]:
                if lifted in value and lifted not in context:
                    flat[lifted] = value[lifted]
        flat[name] = value
    return flat


def _cedar_value(value: Any) -> Any:
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(int(value))
    if isinstance(value, float):
        value = float(value) + 0.0  # -0.0 is 0.0
        text = repr(value)
        if _DECIMAL.fullmatch(text) and abs(value) < _MAX_DECIMAL:
            return {"__extn": {"fn": "decimal", "arg": text}}
        return text
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError("a dict key is not a string")
        if not _RESERVED.isdisjoint(value):
            raise PolicyEngineError(
                "the policy input has a member named __entity, __extn or __expr, which Cedar would read as an entity "
                "or an extension value; rename it before it reaches a policy"
            )
        return {name: _cedar_value(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple, AbstractSet)):
        if None in value:
            raise PolicyEngineError(
                "the policy input has None in a list, which Cedar cannot say; leave it out or name it"
            )
        return [_cedar_value(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no Cedar form")


def _no_json_form(error: Exception) -> NoReturn:
    # The kind only: json's messages may quote keys and characters of the input.
    raise PolicyEngineError(
        f"the policy input has no JSON form ({type(error).__name__}); "
        "give policies only str, int, finite float, bool, None, lists, and dicts with str keys"
    ) from None


def workload_id(context: Mapping[str, Any]) -> str:
    """The caller's workload id: ``identity``, else ``subject.workload``.

    Raises:
        PolicyEngineError: the input names no workload.
    """
    workload = context.get("identity")
    if workload is None:
        subject = context.get("subject")
        workload = subject.get("workload") if isinstance(subject, Mapping) else None
    if isinstance(workload, str) and workload:
        return workload
    raise PolicyEngineError("the policy input names no workload (identity, or subject.workload); configure an identity")


def resource_id(context: Mapping[str, Any]) -> str:
    """What is acted upon: ``object.id``, else ``operation``, else the empty string."""
    target = context.get("object")
    name = target.get("id") if isinstance(target, Mapping) else None
    if name is None:
        name = context.get("operation")
    return "" if name is None else str(name)


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
_TO_ESCAPE = re.compile(r'[\\"\x00-\x1f\x7f]')


def cedar_uid(entity_type: str, entity_id: str) -> str:
    """An entity reference in Cedar's text syntax: ``Workload::"spiffe://…"``, with the id escaped."""

    def escape(match: re.Match[str]) -> str:
        character = match.group()
        return _ESCAPES.get(character) or f"\\u{{{ord(character):x}}}"

    return f'{entity_type}::"{_TO_ESCAPE.sub(escape, entity_id)}"'
