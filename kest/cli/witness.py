"""``kest witness``: a witness for transparency logs, over HTTP."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from kest.cli.source import UsageError
from kest.cli.terminal import clean

__all__ = ["register"]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "witness",
        help="cosign checkpoints of audit logs that only ever grow",
        description="Serve the witness protocol of c2sp.org/tlog-witness: cosign every checkpoint that extends the one "
        "before, and refuse all others. Put TLS in front of it.",
        epilog="Prints its URL and verifier key, then serves until it is interrupted.",
    )
    parser.add_argument("--state", required=True, metavar="FOLDER", help="where it remembers what it signed")
    parser.add_argument("--name", required=True, help="its name, such as witness.example.org/w1")
    parser.add_argument(
        "--key-file", required=True, metavar="FILE", help="its private key (kest keygen), used for nothing else"
    )
    parser.add_argument(
        "--log", action="append", required=True, metavar="VKEY", help="a log that it watches; again for more"
    )
    parser.add_argument("--listen", default="127.0.0.1:8097", metavar="HOST:PORT", help="(127.0.0.1:8097)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from kest.audit.witness import Witness, WitnessServer
    from kest.core.identity.static import StaticIdentity

    host, colon, port = arguments.listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError("--listen is HOST:PORT")
    identity = StaticIdentity(arguments.name, key_file=arguments.key_file)
    with (
        Witness(arguments.state, arguments.name, identity, arguments.log) as witness,
        WitnessServer(witness, host, int(port)) as server,
    ):

        def stop(number: int, frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, stop)
        print(f"{clean(server.url)} {clean(witness.vkey)}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("kest: the witness ends", file=sys.stderr)
    return 0
