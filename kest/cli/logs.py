"""What the commands that read audit logs have in common: which files are one, whose key counts, and what can go wrong."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kest.cli.source import UsageError
from kest.cli.terminal import clean
from kest.errors import AuditCorruptError, AuditError, AuditProofError, KestError

if TYPE_CHECKING:
    from kest.audit import AuditReader, Checkpoint, NoteKey

__all__ = [
    "add_key_arguments",
    "earlier_checkpoint",
    "holds_proof",
    "key_of",
    "open_log",
    "read_proof",
    "reading",
    "witnesses_of",
]

MAX_KEY_FILE = 64 << 10
MAX_PROOF_FILE = 128 << 20
NO_KEY = "pass --log-key VKEY, the log's verifier key (AuditLog.key.vkey), or a file that holds it"


def add_key_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which log it has to be, and who must have seen it."""
    parser.add_argument(
        "--log-key", metavar="VKEY", help="the log's verifier key, name+hash+base64, or a file that holds it"
    )
    parser.add_argument(
        "--witness", metavar="VKEY", action="append", default=[], help="a witness to believe; may be repeated"
    )
    parser.add_argument(
        "--quorum", metavar="N", type=_quorum, help="how many of them must have cosigned (default: all that are given)"
    )


def _quorum(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 3:
        raise argparse.ArgumentTypeError("a number from 0 to 999")
    return int(text)


def holds_proof(name: str) -> bool:
    """Whether file ``name`` begins as a proof file does. Standard input is none."""
    from kest.audit.proof import HEADER

    try:
        if name == "-" or not stat.S_ISREG(os.stat(name).st_mode):
            return False  # a pipe can be read once
        with open(name, "rb") as file:
            return file.read(len(HEADER) + 1) == HEADER.encode() + b"\n"
    except (OSError, ValueError):
        return False  # whoever reads it says why


def key_of(text: str | None, option: str = "--log-key") -> NoteKey:
    """The key that an option names.

    Raises:
        UsageError: none is given, or it is no key.
    """
    from kest.audit import NoteKey

    if text is None:
        raise UsageError(f"whose log is it? {NO_KEY}")
    if text.count("+") < 2:
        text = _read(text, MAX_KEY_FILE, option).decode("utf-8", "replace").strip()
    try:
        return NoteKey.parse(text)
    except KestError as error:
        raise UsageError(f"{option}: {clean(error, 300)}") from None


def witnesses_of(arguments: argparse.Namespace) -> tuple[list[NoteKey], int]:
    """Their keys, and how many of them must have cosigned."""
    keys = [key_of(text, "--witness") for text in arguments.witness]
    quorum = len(keys) if arguments.quorum is None else int(arguments.quorum)
    if quorum > len(keys):
        raise UsageError(f"--quorum {quorum}, and {len(keys)} --witness: nobody could ever be enough")
    return keys, quorum


def open_log(name: str, arguments: argparse.Namespace, *, unverified: bool = False) -> AuditReader:
    """The log in folder ``name``, up to its checkpoint.

    Args:
        arguments: with what `add_key_arguments` adds.
        unverified: whether it is opened without a key, too.

    Raises:
        UsageError: it is none, it cannot be read, or no key is given.
        AuditProofError: its checkpoint is not signed as it should be.
    """
    from kest.audit import AuditReader
    from kest.audit.reader import UnverifiedReader

    with reading(name):
        _check_folder(name)
        if unverified and arguments.log_key is None:
            if arguments.witness or arguments.quorum:
                raise UsageError(f"--witness and --quorum verify, and without a key nothing is verified: {NO_KEY}")
            return UnverifiedReader(name)
        key = key_of(arguments.log_key)
        witnesses, quorum = witnesses_of(arguments)
        return AuditReader(name, key, witnesses=witnesses, quorum=quorum)


def _check_folder(name: str) -> None:
    path = Path(name)
    if not path.exists():
        raise UsageError(f"there is no {clean(name, 200)}")
    if not path.is_dir():
        raise UsageError(f"{clean(name, 200)} is a file, and an audit log is a folder")


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns what goes wrong on reading a log into errors of the command: no log is wrong usage, a damaged one is not."""
    try:
        yield
    except (AuditCorruptError, AuditProofError):
        raise
    except AuditError as error:
        raise UsageError(str(error)) from None
    except (OSError, ValueError) as error:
        if isinstance(error, KestError) or (isinstance(error, OSError) and error.filename is None):
            raise  # the output's: what is read has a name
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or name
        raise UsageError(f"cannot read {clean(where, 300)}: {reason}") from None


def earlier_checkpoint(name: str, key: NoteKey, witnesses: list[NoteKey]) -> Checkpoint:
    """The checkpoint in a file: a signed note, or a proof file, which ends in one.

    Raises:
        UsageError: the file holds neither, or is not signed by the log.
    """
    from kest.audit import Checkpoint
    from kest.audit.proof import Proof

    data = _read(name, MAX_PROOF_FILE, "--checkpoint")
    try:
        note = Proof.parse(data).checkpoint.encode() if holds_proof(name) else data
        return Checkpoint.verify(note, key, witnesses)
    except AuditProofError as error:
        raise UsageError(f"--checkpoint {clean(name, 200)}: {clean(error, 300)}") from None


def read_proof(name: str) -> bytes:
    """The content of a proof file."""
    return _read(name, MAX_PROOF_FILE, "a proof")


def _read(name: str, limit: int, what: str) -> bytes:
    try:
        with open(name, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{what}: cannot read {clean(name, 200)}: {reason}") from None
    if len(data) > limit:
        raise UsageError(f"{what}: {clean(name, 200)} is larger than {limit >> 10} KiB")
    return data
