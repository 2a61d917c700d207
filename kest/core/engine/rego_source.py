"""What has to be known about a Rego module before an interpreter sees it: its package, and where its dialect must be
fixed.

Its text is corrected in these ways, none of which moves a line:

- *Keywords for Regorus.* The Regorus build that is to be had for Python (0.1) reads Rego v0 and takes ``if`` for an
  identifier unless it is imported: ``allow if input.ok`` then means two rules, the first of which, ``allow``, is always
  true. Every module gets ``import future.keywords`` unless it imports ``rego.v1``, so that a v1 module means what it
  says. The same build takes an import's alias in a condition for an unsafe variable: aliases are replaced by what they
  stand for.
- *String escapes for rego-cpp.* It compares strings by their escaped spelling, so the literal ``"\\u00e9"`` never
  equals an input ``é``. Literals are respelled the way the input is spelled: non-ASCII characters as themselves.
"""

from __future__ import annotations

import json
import re

from kest.core.engine.reasons import REASON_RULES
from kest.errors import ConfigurationError

__all__ = [
    "entrypoint",
    "for_regorus",
    "masked",
    "misformatted",
    "package_path",
    "query_path",
    "reason_rules",
    "validate_rule",
    "with_plain_strings",
]

_TOKENS = re.compile(r'(?P<comment>#[^\n]*)|(?P<raw>`[^`]*`)|(?P<string>"(?:\\.|[^"\\\n])*")')
_PACKAGE = re.compile(
    r'\A\s*package[ \t]+(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[[ \t]*"[^"\\]+"[ \t]*\])*)(?=\s|;|\Z)'
)
_SEGMENT = re.compile(r'[A-Za-z_]\w*|"[^"\\]+"')
_REGO_V1 = re.compile(r"(?:^|[\n;])[ \t]*import[ \t]+rego\.v1\b")
_IMPORT = re.compile(
    r'(?:^|(?<=[\n;]))[ \t]*import[ \t]+(?P<path>(?:data|input)(?:\.[A-Za-z_]\w*|\["[^"\\\n]+"\])+)'
    r"(?:[ \t]+as[ \t]+(?P<alias>[A-Za-z_]\w*))?(?=[ \t]*(?:\n|;|\Z))"
)
_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_REASON_RULE = re.compile(rf"(?:^|(?<=[\n;]))[ \t]*(?:default[ \t]+)?(?P<rule>{'|'.join(REASON_RULES)})(?!\w|[ \t]*\()")
_SPRINTF = re.compile(r'(?<![\w.])sprintf\s*\(\s*(?P<format>"(?:\\.|[^"\\\n])*"|`[^`]*`)?')
_DROPPED = re.compile(r"%[-+#0-9.\[\]*]*[A-Za-z](?=[ %])")
_encode_plain = json.JSONEncoder(ensure_ascii=False).encode


def masked(source: str, *, strings: bool) -> str:
    """``source`` with comments (and strings) blanked, so that what remains can be searched; same length, same lines."""

    def blank(match: re.Match[str]) -> str:
        if match.lastgroup == "comment" or strings:
            return re.sub(r"[^\n]", " ", match.group())
        return match.group()

    return _TOKENS.sub(blank, source)


def package_path(name: str, source: str) -> tuple[str, ...]:
    """The module's package as segments: ``package kest["allow-all"].x`` gives ``("kest", "allow-all", "x")``.

    Raises:
        ConfigurationError: ``source`` does not start with a package declaration.
    """
    return tuple(segment.strip('"') for segment in _SEGMENT.findall(_package(name, source).group("path")))


def _package(name: str, source: str) -> re.Match[str]:
    match = _PACKAGE.match(masked(source, strings=False))
    if match is None:
        raise ConfigurationError(f"Rego module {name!r} does not begin with a package declaration (package a.b)")
    return match


def validate_rule(rule: str) -> str:
    """``rule`` if it is a Rego identifier; it becomes part of a query.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(rule, str) or not _RULE.match(rule):
        raise ConfigurationError(f"query_rule must be the name of a Rego rule, such as 'allow', not {rule!r}")
    return rule


def reason_rules(source: str) -> tuple[str, ...]:
    """Those of `kest.core.engine.reasons.REASON_RULES` that the module defines (and not as functions)."""
    heads = {match.group("rule") for match in _REASON_RULE.finditer(masked(source, strings=True))}
    return tuple(rule for rule in REASON_RULES if rule in heads)


def misformatted(source: str) -> int:
    """The line of the first ``sprintf`` that Regorus 0.1 gets wrong; 0 if there is none.

    It drops a space that follows a verb (``"%d days"`` gives ``7days``), and cannot be told about formats that are not
    literals.
    """
    code = masked(source, strings=False)
    for call in _SPRINTF.finditer(code):
        text = call.group("format")
        if text is None or _DROPPED.search(text):
            return code.count("\n", 0, call.start()) + 1
    return 0


def query_path(package: tuple[str, ...], rule: str) -> str:
    """The Rego reference to a rule: ``data["kest"]["allow"].allow``."""
    return "data" + "".join(f"[{json.dumps(segment)}]" for segment in package) + "." + rule


def entrypoint(package: tuple[str, ...], rule: str) -> str:
    """The same as an entry point of a compiled bundle: ``kest/allow/allow``."""
    return "/".join((*package, rule))


def for_regorus(name: str, source: str, *, strict: bool = False) -> str:
    """``source`` as Regorus must see it: keywords are keywords, and import aliases are written out.

    ``strict``: as Rego v1 and nothing else, where otherwise v0 and v1 may mix.
    """
    code = masked(source, strings=True)
    aliases: dict[str, str] = {}
    spans: list[tuple[int, int]] = []
    for found in _IMPORT.finditer(masked(source, strings=False)):
        path = found.group("path")
        alias = found.group("alias") or _SEGMENT.findall(path)[-1].strip('"')
        if alias not in ("data", "input") and alias.isidentifier():
            aliases[alias] = path
            spans.append(found.span())
    head = _package(name, source).end("path")
    if aliases:
        words = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, aliases))})(?!\w)")
        pieces: list[str] = []
        position = 0
        for word in words.finditer(code, head):
            if any(start <= word.start() < end for start, end in spans):
                continue
            pieces += source[position : word.start()], aliases[word.group()]
            position = word.end()
        source = "".join((*pieces, source[position:]))
    if _REGO_V1.search(code):
        return source
    return f"{source[:head]} import {'rego.v1' if strict else 'future.keywords'}{source[head:]}"


def with_plain_strings(source: str) -> str:
    """``source`` for rego-cpp: string literals spelled without ``\\u`` and ``\\/`` escapes where JSON allows it."""

    def respell(match: re.Match[str]) -> str:
        text = match.group()
        if match.lastgroup != "string" or ("\\u" not in text and "\\/" not in text):
            return text
        try:
            plain = _encode_plain(json.loads(text))
            plain.encode()
        except (ValueError, UnicodeEncodeError):
            return text  # not a JSON string: left for the interpreter to judge
        return plain

    return _TOKENS.sub(respell, source)
