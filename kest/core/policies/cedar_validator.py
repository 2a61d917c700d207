"""Validation of Cedar policy sets by current Cedar (cedarpy), which says what is wrong but not where: that is found here."""

from __future__ import annotations

import bisect
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kest.core.policies.problem import Problem, located, optional, refuse, too_deep
from kest.errors import ConfigurationError, MissingExtraError

__all__ = ["CedarValidator"]

MAX_DEPTH = 100
"""cedarpy 4.12 overflows the stack, which ends the process, at about 1,000 nested brackets; on a thread's stack sooner."""

_CEDAR_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
      | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<word>[A-Za-z_]\w*|\d+)
      | (?P<operator>::|==|!=|<=|>=|&&|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_NAMED = re.compile(r"`([^`]+)`|: (\w+)$")
_POLICY = re.compile(r"for policy `[^`]*`, ")
_INCOMPLETE = "unexpected end of input"


def _blank(token: re.Match[str]) -> str:
    return " " * len(token.group()) if token.lastgroup in ("skip", "string") else token.group()


class _Token(NamedTuple):
    start: int
    end: int
    text: str


class CedarValidator:
    """Validates Cedar policy sets with current Cedar; with ``schema`` (Cedar or JSON schema) also their types."""

    def __init__(self, schema: str | Mapping[str, Any] | None = None) -> None:
        self._schema = schema if schema is None or isinstance(schema, str) else json.dumps(dict(schema))

    def validate(self, text: str) -> list[Problem]:
        """The problems of ``text``, at most one for each policy while it does not parse; empty when it loads.

        Raises:
            MissingExtraError: cedarpy is not installed.
            ConfigurationError: the schema itself is not valid.
        """
        cedarpy = optional("cedarpy")
        if cedarpy is None:
            raise MissingExtraError('Cedar validation needs cedarpy: pip install "kest[cedar]"')

        deep = too_deep(_CEDAR_TOKEN.sub(_blank, text), MAX_DEPTH)
        if deep is not None:
            return [located(text, deep, f"brackets nested more than {MAX_DEPTH} deep")]

        def refusal(source: str) -> str | None:
            try:
                cedarpy.PolicySet.from_str(source)
            except ValueError as error:
                return str(error).strip() or "the policy does not parse"
            return None

        whole = refusal(text)
        policies = list(_cedar_policies(text))
        if whole is not None:
            found = (_cedar_problem(text, policy, refusal) for policy in policies)
            return [problem for problem in found if problem is not None] or [located(text, 0, whole)]
        if not policies:
            return [located(text, 0, "the text contains no policy")]
        return self._schema_problems(cedarpy, text, policies)

    def check(self, text: str) -> None:
        """Raise ConfigurationError, listing every problem, when ``text`` does not load."""
        refuse("Cedar", self.validate(text))

    def _schema_problems(self, cedarpy: Any, text: str, policies: list[list[_Token]]) -> list[Problem]:
        if self._schema is None:
            return []
        try:
            cedarpy.Schema.from_str(self._schema)
        except ValueError as error:
            raise ConfigurationError(f"the Cedar schema is not valid: {error}") from None
        problems: list[Problem] = []
        for found in cedarpy.validate_policies(text, self._schema).errors:
            # Cedar names policies by position: policy0, policy1, …
            number = found.policy_id.removeprefix("policy")
            index = int(number) if number.isdigit() else -1
            message = str(found.error)
            at = self._at(cedarpy, text, policies[index], message) if 0 <= index < len(policies) else 0
            problems.append(located(text, at, message))
        return sorted(problems)

    def _at(self, cedarpy: Any, text: str, policy: list[_Token], message: str) -> int:
        """Where the first condition starts that Cedar complains of when the policy is cut off after it."""
        start, at = policy[0].start, policy[0].start
        # Alone it is policy0, and messages name their policy.
        wanted = _POLICY.sub("", message)
        for first, last in _conjuncts(policy):
            cut = text[start:last] + ("" if text[last - 1] == ";" else "};")
            try:
                errors = cedarpy.validate_policies(cut, self._schema).errors
            except ValueError:
                continue  # cut within an expression that cannot end there
            if any(_POLICY.sub("", str(error.error)) == wanted for error in errors):
                return first
        return at


def _cedar_policies(text: str) -> Iterator[list[_Token]]:
    """The tokens of each policy: what lies between top-level semicolons (Cedar has no others)."""
    policy: list[_Token] = []
    for match in _CEDAR_TOKEN.finditer(text):
        if match.lastgroup == "skip":
            continue
        policy.append(_Token(match.start(), match.end(), match.group()))
        if policy[-1].text == ";":
            yield policy
            policy = []
    if policy:
        yield policy


def _conjuncts(policy: list[_Token]) -> Iterator[tuple[int, int]]:
    """Start and end of the scope, and of each part of a condition that a top-level ``&&`` separates."""
    depth, start = 0, policy[0].start
    for token, after in itertools.pairwise(policy):
        if token.text == "{" and depth == 0:
            start = after.start
        if token.text in ("(", "[", "{"):
            depth += 1
        elif token.text in (")", "]", "}"):
            depth -= 1
            if depth == 0 and token.text == "}":
                yield start, token.start
        elif token.text == "&&" and depth == 1:
            yield start, token.start
            start = after.start
    yield policy[0].start, policy[-1].end


def _cedar_problem(text: str, policy: list[_Token], refusal: Callable[[str], str | None]) -> Problem | None:
    """Where one policy fails. cedarpy says what is wrong but not where."""
    start, end = policy[0].start, policy[-1].end
    message = refusal(text[start:end])
    if message is None:
        return None
    if message == _INCOMPLETE:
        return located(text, end, message)

    # Up to the offending token every prefix is merely incomplete, from there on it is wrong: bisect for it.
    def wrong(count: int) -> bool:
        prefix = refusal(text[start : policy[count - 1].end])
        return prefix is not None and prefix != _INCOMPLETE

    first = min(bisect.bisect_left(range(1, len(policy) + 1), True, key=wrong), len(policy) - 1)
    message = refusal(text[start : policy[first].end]) or message
    # Where the grammar holds but a name does not, that shows only later, and the message names it.
    name = _NAMED.search(message)
    named = [token for token in policy[: first + 1] if name and token.text == (name[1] or name[2])]
    return located(text, (named[-1] if named else policy[first]).start, message)
