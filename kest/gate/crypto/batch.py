"""Batches: up to 256 permits, each with an Ed25519 signature of its own, share one post-quantum signature.

The ML-DSA signature covers the root of a Merkle tree whose leaves are the permits' protected headers and payloads.
Each permit carries its path; the signed root, the proof, is fetched once for all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from kest.errors import GateInputError
from kest.gate.crypto import cbor
from kest.gate.crypto.claims import PermitClaims
from kest.gate.crypto.cose import (
    ED25519,
    HYBRID,
    CoseError,
    Envelope,
    Kind,
    SigningKeys,
    VerifyingKeys,
    build,
    check,
    parse,
    sign,
)
from kest.gate.crypto.merkle import leaf_hash, paths_of, root_from_path
from kest.locks import Lock

__all__ = ["BATCH", "MAX_BATCH", "PROOF", "BatchProofs", "PermitBatch", "sign_batch"]

PROOF = Kind("kest-permit-batch+cbor", b"kest.gate permit batch v1")
BATCH = "batch"
"""Member of a permit's protected header: its ML-DSA signature is that of the batch."""
MAX_BATCH = 256
KEEP = 256


@final
@dataclass(frozen=True, slots=True)
class PermitBatch:
    """Signed permits in the order in which they were given, and what proves their post-quantum half.

    Attributes:
        permits: envelopes of less than 700 bytes (when their texts are short).
        proof: the signed root; hand it to each verifier once.
    """

    permits: tuple[bytes, ...]
    proof: bytes

    def __len__(self) -> int:
        return len(self.permits)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.permits)


def _leaf(protected: bytes, payload: bytes) -> bytes:
    return leaf_hash(cbor.head(0x40, len(protected)) + protected + cbor.head(0x40, len(payload)) + payload)


def sign_batch(keys: SigningKeys, kind: Kind, claims: Sequence[PermitClaims]) -> PermitBatch:
    """Sign permits together.

    Raises:
        GateInputError: none, more than 256, or the key is not hybrid.
    """
    if keys.algorithm != HYBRID:
        raise GateInputError("a batch needs a hybrid signer: each permit has an Ed25519 signature of its own")
    if not 0 < len(claims) <= MAX_BATCH:
        raise GateInputError(f"a batch is 1 to {MAX_BATCH} permits, not {len(claims)}")
    signed = []
    for one in claims:
        payload = one.to_payload()
        signed.append((payload, *sign(keys, kind, payload, BATCH, only=(ED25519,))))
    size = len(signed)
    root, paths = paths_of([_leaf(protected, payload) for payload, protected, _ in signed])
    permits = tuple(
        build(protected, payload, signatures, cbor.encode({"i": index, "n": size, "path": b"".join(path)}))
        for index, ((payload, protected, signatures), path) in enumerate(zip(signed, paths, strict=True))
    )
    return PermitBatch(permits, build_proof(keys, root, size))


def build_proof(keys: SigningKeys, root: bytes, size: int) -> bytes:
    """The signed root."""
    payload = cbor.encode({"n": size, "root": root})
    protected, signatures = sign(keys, PROOF, payload)
    return build(protected, payload, signatures)


@final
class BatchProofs:
    """The roots whose proofs a verifier has seen and verified; the last 256 of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._roots: OrderedDict[tuple[str, bytes, int], VerifyingKeys] = OrderedDict()

    def check(self, permit: Envelope, keys: VerifyingKeys, proof: bytes | None) -> None:
        """Check a permit's path against a root that is, or now becomes, known.

        Raises:
            CoseError: the path leads elsewhere, or nothing proves the root.
        """
        loose = permit.unprotected
        index, size, path = (loose.get(name) for name in ("i", "n", "path"))
        if (
            set(loose) != {"i", "n", "path"}
            or type(index) is not int
            or type(size) is not int
            or type(path) is not bytes
        ):
            raise CoseError("envelope parse: a malformed batch path")
        if not 0 < size <= MAX_BATCH or len(path) % 32:
            raise CoseError("envelope parse: a malformed batch path")
        steps = [path[at : at + 32] for at in range(0, len(path), 32)]
        root = root_from_path(_leaf(permit.protected, permit.payload), index, size, steps)
        if root is None:
            raise CoseError("envelope parse: a malformed batch path")
        name = (permit.key_id, root, size)
        with self._lock:
            if self._roots.get(name) is keys:
                return
        if proof is None:
            raise CoseError(
                "signature verification failed: ML-DSA-65: the proof of this permit's batch is not known here, or "
                "its path is wrong"
            )
        if _proven(proof, keys) != name:
            raise CoseError("signature verification failed: ML-DSA-65: the proof is of another batch")
        with self._lock:
            self._roots[name] = keys
            while len(self._roots) > KEEP:
                self._roots.popitem(last=False)


def _proven(proof: bytes, keys: VerifyingKeys) -> tuple[str, bytes, int]:
    """The root that a proof vouches for, verified."""
    parsed = parse(proof, PROOF)
    if parsed.algorithm != HYBRID or parsed.key_id != keys.key_id or parsed.header:
        raise CoseError("signature verification failed: the proof is of another key or algorithm")
    check(parsed.protected, parsed.payload, parsed.signatures, keys, PROOF)
    try:
        members = cbor.decode(parsed.payload)
    except cbor.CBORError as error:
        raise CoseError(f"envelope parse: {error}") from None
    if type(members) is not dict or set(members) != {"n", "root"} or type(members["root"]) is not bytes:
        raise CoseError("envelope parse: a malformed batch proof")
    return parsed.key_id, members["root"], members["n"]
