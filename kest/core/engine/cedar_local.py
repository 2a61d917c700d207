"""Cedar policies evaluated in this process by cedarpy.

What cedarpy 4.12 does (measured), and what this engine makes of it:

- ``PolicySet``, ``Entities`` and ``Schema`` handles are parsed once, immutable, and safe to share: ``is_authorized``
  holds the GIL from start to end and keeps no state between calls, so threads neither mix inputs nor gain from a
  second copy. A decision on parsed handles takes half as long as one that parses its text again, with 500 policies a
  tenth. Most of it goes into reading the context, so a larger input costs more than a larger policy set.
- A request that cannot be built (null, float, integer beyond 64 bits, lone surrogate) is no exception: it comes back as
  ``NoDecision`` with an error text. Here it denies.
- A policy whose evaluation fails is skipped, and the others may still allow. Here any error denies, since the policy
  that failed may have been the one that forbids.
- Entity ids given as ``{"type": …, "id": …}`` need no escaping; ids in Cedar's text syntax do.
- Parse errors carry a message and no position, so the position of the statement that fails is found here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kest.core.engine.base import DecidingEngine, Decision, refuse_names
from kest.core.engine.policy_input import cedar_context_json, resource_id, workload_id
from kest.errors import ConfigurationError, MissingExtraError, PolicyEngineError

if TYPE_CHECKING:
    import cedarpy

__all__ = ["CedarLocalEngine"]


class CedarLocalEngine(DecidingEngine):
    """Decides with Cedar policies held in memory.

    Each policy name is asked as principal ``Workload::"<workload id>"``, action ``Action::"<policy name>"``, resource
    ``Resource::"<resource id or operation>"``, with the policy input flattened for Cedar as context (see
    `kest.core.engine.policy_input`: None members are left out, floats are decimals). All names must allow.

    Args:
        policies: a list of Cedar texts forms one policy set, in which a ``forbid`` overrides every ``permit``; a dict
            selects one set by policy name, and a name that is not in it denies.
        entities: Cedar entities, as a list of dicts or as JSON text; parsed once.
        schema: a Cedar schema, as Cedar text, JSON text or a dict. Policies and entities are validated against it here.
        validate_requests: also validate every request against ``schema``; it must then declare the whole context.

    Raises:
        ConfigurationError: policies, entities or schema do not parse or do not fit each other; says which and where.
        MissingExtraError: cedarpy is not installed.
    """

    in_process = True

    def __init__(
        self,
        policies: Sequence[str] | Mapping[str, str],
        entities: Sequence[Mapping[str, Any]] | str | None = None,
        schema: str | Mapping[str, Any] | None = None,
        *,
        validate_requests: bool = False,
    ) -> None:
        try:
            import cedarpy
        except ImportError as error:
            raise MissingExtraError('CedarLocalEngine needs cedarpy: pip install "kest[cedar]"') from error
        self._is_authorized = cedarpy.is_authorized
        self._schema = None if schema is None else _parse_schema(schema)
        self._request_schema = self._schema if validate_requests else None
        if validate_requests and schema is None:
            raise ConfigurationError("validate_requests=True needs a schema")
        self._entities = _parse_entities(entities, self._schema)
        self._by_name: dict[str, cedarpy.PolicySet] | None = None
        self._one_set: cedarpy.PolicySet | None = None
        if isinstance(policies, Mapping):
            if not policies:
                raise ConfigurationError("CedarLocalEngine was given no policies")
            self._by_name = {
                name: _parse_policies(f"policies[{name!r}]", text, self._schema) for name, text in policies.items()
            }
        else:
            if isinstance(policies, str):
                raise ConfigurationError("policies must be a list of Cedar texts or a dict of them, not one string")
            if not policies:
                raise ConfigurationError("CedarLocalEngine was given no policies")
            for index, text in enumerate(policies):
                _parse_policies(f"policies[{index}]", text, self._schema)  # for an error that names the text
            self._one_set = _parse_policies("policies", "\n".join(policies), self._schema)

    def decide(self, entry_id: str, policy_names: Sequence[str], context: Mapping[str, Any]) -> Decision:
        """Ask Cedar once per policy name; ``ids`` are the policies that determined the answer (``@id``, else position).

        Raises:
            PolicyEngineError: the context cannot be said in Cedar, or Cedar fails.
        """
        refused = refuse_names(policy_names)
        if refused is not None:
            return refused
        request = {
            "principal": {"type": "Workload", "id": workload_id(context)},
            "resource": {"type": "Resource", "id": resource_id(context)},
            "context": cedar_context_json(context),
        }
        ids: list[str] = []
        for name in policy_names:
            policy_set = self._one_set if self._by_name is None else self._by_name.get(name)
            if policy_set is None:
                return Decision(False, f"no Cedar policies are named {name!r}", name)
            request["action"] = {"type": "Action", "id": name}
            try:
                answer = self._is_authorized(request, policy_set, self._entities, self._request_schema)
            except Exception as error:  # cedarpy's text may quote the input, so neither message nor cause is kept
                raise PolicyEngineError(f"Cedar failed on policy {name!r} ({type(error).__name__})") from None
            diagnostics = answer.diagnostics
            named = diagnostics.id_annotations_by_reason
            determining = [named.get(policy_id) or policy_id for policy_id in diagnostics.reasons]
            if diagnostics.errors:
                return Decision(False, _describe(diagnostics.errors), name, tuple(determining))
            if answer.allowed is not True:
                reason = "forbidden by " + ", ".join(determining) if determining else "no Cedar policy permits it"
                return Decision(False, reason, name, tuple(determining))
            ids += determining
        return Decision(True, "", None, tuple(ids))

    def __repr__(self) -> str:
        sets = "one policy set" if self._by_name is None else f"{len(self._by_name)} named policy sets"
        return f"<CedarLocalEngine with {sets}>"


_POLICY_IN_ERROR = re.compile(r"while evaluating policy `([^`]*)`")
_SAFE_DETAIL = re.compile(r"(?:record does not have the attribute `\w+`|type error: expected [a-z]+, got [a-z]+)")


def _describe(errors: Sequence[str]) -> str:
    """Cedar's evaluation errors without what they quote: an extension error repeats its argument, which is input."""
    parts: list[str] = []
    for text in errors:
        policy = _POLICY_IN_ERROR.search(text)
        detail = _SAFE_DETAIL.search(text)
        if policy is None:
            parts.append("the request could not be built" + (" for the schema" if "schema" in text else ""))
        else:
            parts.append(f"policy {policy.group(1)} failed" + (f": {detail.group()}" if detail else ""))
    return "Cedar could not evaluate every policy, which denies (" + "; ".join(parts[:8]) + ")"


def _parse_schema(schema: str | Mapping[str, Any]) -> cedarpy.Schema:
    import cedarpy

    try:
        if isinstance(schema, str):
            if schema.lstrip().startswith("{"):
                return cedarpy.Schema.from_json_str(schema)
            return cedarpy.Schema.from_str(schema)
        return cedarpy.Schema.from_json_str(json.dumps(schema))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the Cedar schema does not parse: {error}") from error


def _parse_entities(
    entities: Sequence[Mapping[str, Any]] | str | None, schema: cedarpy.Schema | None
) -> cedarpy.Entities:
    import cedarpy

    try:
        if entities is None:
            entities = "[]"
        text = entities if isinstance(entities, str) else json.dumps(list(entities))
        return cedarpy.Entities.from_json_str(text, schema)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the Cedar entities cannot be used: {error}") from error


def _parse_policies(label: str, text: str, schema: cedarpy.Schema | None) -> cedarpy.PolicySet:
    import cedarpy

    if not isinstance(text, str):
        raise ConfigurationError(f"{label} must be Cedar text, not {type(text).__name__}")
    try:
        policy_set = cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise ConfigurationError(f"{label} is not valid Cedar: {error}{_locate(text)}") from error
    if len(policy_set) == 0:
        raise ConfigurationError(f"{label} contains no Cedar policy; a set without one denies everything")
    if schema is not None:
        result = cedarpy.validate_policies(text, schema)
        if not result.validation_passed:
            problems = "; ".join(str(problem) for problem in result.errors[:5])
            raise ConfigurationError(f"{label} does not fit the schema: {problems}")
    return policy_set


_STATEMENT = re.compile(r'(?://[^\n]*|"(?:\\.|[^"\\])*"|[^;"/]|/)*(?:;|\Z)', re.DOTALL)
_LEADING = re.compile(r"(?:\s|//[^\n]*(?:\n|\Z))*")


def _locate(text: str) -> str:
    """Where the first statement starts that does not parse alone, as ' (in the policy at line L, column C)'."""
    import cedarpy

    position = 0
    while position < len(text):
        match = _STATEMENT.match(text, position)
        if match is None or match.end() == position:
            break
        lead = _LEADING.match(text, position)
        start = lead.end() if lead else position
        try:
            cedarpy.PolicySet.from_str(text[position : match.end()])
        except ValueError:
            line = text.count("\n", 0, start) + 1
            column = start - (text.rfind("\n", 0, start) + 1) + 1
            return f" (in the policy that starts at line {line}, column {column})"
        position = match.end()
    return ""
