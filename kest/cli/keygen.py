"""``kest keygen``: a new signing key in a file of its owner, and the public half for everybody else."""

from __future__ import annotations

import argparse
import os
import secrets
import sys

from kest.cli.source import UsageError
from kest.cli.terminal import clean, json_text
from kest.errors import ConfigurationError, IdentityError

__all__ = ["register"]

DEFAULT_FILE = "kest-key.pem"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "keygen",
        help="make an Ed25519 key: the private one into a file, the public one as a JWK set",
        description="Make an Ed25519 key: the private one into a file that only its owner reads, the public one as a "
        "JWK set for kest verify --trust. Use it with StaticIdentity(principal, key_file=...).",
    )
    parser.add_argument("--principal", metavar="NAME", help="who signs with it, such as spiffe://example.org/report")
    parser.add_argument(
        "--out", metavar="KEYFILE", default=DEFAULT_FILE, help="where the private key goes (%(default)s)"
    )
    parser.add_argument("--jwks", metavar="JWKSFILE", help="where the public JWK set goes (standard output)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from kest.core.identity.base import checked_principal
    from kest.core.identity.keys import write_private_key
    from kest.core.identity.local import DEFAULT_PRINCIPAL

    out, jwks = arguments.out, arguments.jwks
    if out == "-":
        raise UsageError("a private key is not written to standard output: --out is a file")
    given = DEFAULT_PRINCIPAL if arguments.principal is None else arguments.principal
    try:
        principal = checked_principal(given, "--principal")
    except IdentityError as error:
        raise UsageError(str(error).replace("returned", "is", 1)) from None
    seed = secrets.token_bytes(32)
    public = json_text({"keys": [_public(principal, seed)]}) + "\n"
    # The public file first: were it the second and failed, a key would be left that nobody can verify.
    if jwks is not None:
        _write_new(jwks, public)
    try:
        write_private_key(out, seed)
    except ConfigurationError as error:
        if jwks is not None:
            os.unlink(jwks)
        raise UsageError(str(error)) from None
    print(f"private key of {clean(principal)}: {clean(out, 300)} (mode 0600: it is its owner's alone)", file=sys.stderr)
    if jwks is None:
        sys.stdout.write(public)
    else:
        print(f"public JWK set: {clean(jwks, 300)}", file=sys.stderr)
    return 0


def _public(principal: str, seed: bytes) -> dict[str, object]:
    from kest._kestcore import Signer
    from kest.core.identity.keys import public_jwk

    return public_jwk(Signer(principal, seed).public_key, principal)


def _write_new(name: str, text: str) -> None:
    try:
        with open(name, "x", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{clean(name, 300)} exists already and is not overwritten") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot write {clean(name, 300)}: {reason}") from None
