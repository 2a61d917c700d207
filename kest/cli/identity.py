"""``kest identity``: which identity a process in this environment would sign with, and why."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from kest.cli.terminal import Paint, clean, json_text

__all__ = ["register"]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "identity",
        help="show which identity a process in this environment would sign with",
        description="Show which identity get_default_identity() chooses in this environment, with its principal and "
        "public key. It is really asked for: SPIRE or AWS must answer. Secrets are never shown.",
        epilog="Exit status: 0 there is one, 1 the configured source does not answer, 2 wrong usage.",
    )
    parser.add_argument("--explain", action="store_true", help="all sources, in the order in which they are tried")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from kest.core.identity.base import principal_of
    from kest.core.identity.detect import explain_default_identity, get_default_identity

    sources = explain_default_identity()
    chosen = next(source for source in sources if source.chosen)
    if arguments.explain and not arguments.json:
        _explain(sources)  # before anything is connected: it is most useful when that fails
    logging.getLogger("kest.identity").setLevel(logging.ERROR)  # what it would warn of is said below
    identity = get_default_identity()
    principal, jwk = principal_of(identity), _public(identity.public_jwk())
    if arguments.json:
        document: dict[str, Any] = {
            "source": chosen.source,
            "reason": chosen.reason,
            "principal": principal,
            "public_jwk": jwk,
        }
        if arguments.explain:
            document["sources"] = [source._asdict() for source in sources]
        print(json_text(document))
        return 0
    paint = Paint()
    print(f"{paint.dim('source   ')}  {clean(chosen.source)}: {clean(chosen.reason, 500)}")
    print(f"{paint.dim('principal')}  {paint.bold(clean(principal, 500))}")
    print(f"{paint.dim('public key')}\n{json_text(jwk)}")
    if chosen.source == "local":
        print(
            paint.warn("This key ends with this process; every process makes its own. For one that lasts: kest keygen")
        )
    return 0


def _public(jwk: Any) -> dict[str, Any]:
    """The JWK without the secret members that a foreign provider might have left in it (RFC 7518, section 6)."""
    return {
        name: value for name, value in dict(jwk).items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
    }


def _explain(sources: Any) -> None:
    paint = Paint()
    for number, source in enumerate(sources, 1):
        mark = paint.good("chosen") if source.chosen else paint.dim("no    ")
        print(f"{number}. {clean(source.source):<6} {mark}  {clean(source.reason, 500)}")
    print()
