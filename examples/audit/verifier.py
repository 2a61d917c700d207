"""A stranger with three files: a proof, the log's key, the signers' keys. No log, and no network: using one is an error.

Prints what the proof has proved as JSON; exit status 1 if it proves nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def no_network(event: str, _: tuple[Any, ...]) -> None:
    """An audit hook (PEP 578)."""
    if event.startswith("socket."):
        raise PermissionError(f"{event}: this verifier is offline")


def main() -> int:
    """``verifier.py PROOF VKEY KEYS``."""
    sys.addaudithook(no_network)
    from kest import TrustStore
    from kest.audit import verify_proof
    from kest.errors import AuditProofError

    proof, vkey, keys = (Path(name).read_text("utf-8") for name in sys.argv[1:])
    try:
        proved = verify_proof(proof, vkey, TrustStore.from_jwks(json.loads(keys)))
    except AuditProofError as error:
        print(json.dumps({"refused": str(error)}))
        return 1
    record = proved.record
    said = {
        "verdict": proved.verdict.value,
        "index": record.index,
        "operation": record.operation,
        "signer": record.signer,
        "entry_hash": record.entry_hash,
        "origin": proved.checkpoint.origin,
        "size": proved.checkpoint.size,
    }
    print(json.dumps(said))
    return 0 if proved.verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
