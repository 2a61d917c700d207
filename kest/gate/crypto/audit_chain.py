"""SignedAuditChain: append-only, signed, verifiable by anybody who has the public keys."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, final

from kest.errors import AuditChainError, GateInputError, SigningError
from kest.gate.crypto import cbor, clock, cose
from kest.gate.crypto.audit_entry import AuditEntry
from kest.gate.crypto.audit_format import (
    CHECKPOINT,
    GENESIS,
    MAX_BATCH,
    MODES,
    Mode,
    Seal,
    entry_body,
    join_lines,
    line_bytes,
    make_seal,
    split_lines,
)
from kest.gate.crypto.audit_verify import verify_lines, verify_segments
from kest.gate.crypto.bundles import PublicKeyBundle
from kest.gate.crypto.keys import KeyPair
from kest.gate.crypto.merkle import leaf_hash
from kest.locks import Lock

__all__ = ["SignedAuditChain"]

log = logging.getLogger("kest.gate")


@final
class SignedAuditChain:
    """A chain of decisions: each entry names the hash of the one before, and signatures cover all of it. Thread-safe.

    ``append`` signs each entry; ``append_batch`` signs up to 4,096 together, which is what a busy service should do.

    Args:
        keypair: signs; nothing is appended once it has expired.
        hybrid: Ed25519 and ML-DSA-65 (the default), or ML-DSA-65 alone.
    """

    def __init__(self, keypair: KeyPair, hybrid: bool = True) -> None:
        if not isinstance(keypair, KeyPair):
            raise TypeError(f"a KeyPair is expected, not {type(keypair).__name__}")
        self._keypair = keypair
        self._mode: Mode = "hybrid" if hybrid else "pq"
        self._lock = Lock()
        self._lines: list[bytes] = []
        self._hashes: list[str] = []
        self._base, self._anchor = 0, GENESIS

    @classmethod
    def resume(
        cls, keypair: KeyPair, data: bytes, hybrid: bool = True, checkpoint: bytes | None = None
    ) -> SignedAuditChain:
        """A chain that goes on where an exported one ends, after that one has been verified.

        Raises:
            AuditChainError: it does not verify.
        """
        chain = cls(keypair, hybrid)
        length, head = verify_lines(split_lines(data), keypair.public_keys(), hybrid, checkpoint)
        chain._base, chain._anchor = length, head
        return chain

    # --- appending ---

    def append(self, entry: AuditEntry) -> int:
        """Sign an entry and append it; returns the new length.

        Raises:
            SigningError: the key has expired.
        """
        return self.append_batch([entry])

    def append_batch(self, entries: Iterable[AuditEntry]) -> int:
        """Append entries under one signature; returns the new length. All of them or none.

        Raises:
            GateInputError: more than 4,096, or one that has no JSON form.
            SigningError: the key has expired.
        """
        batch = list(entries)
        if any(not isinstance(entry, AuditEntry) for entry in batch):
            raise TypeError("an audit chain is made of AuditEntry objects")
        if len(batch) > MAX_BATCH:
            raise GateInputError(f"a batch has at most {MAX_BATCH} entries, not {len(batch)}")
        keys = self._keypair.signing_keys(MODES[self._mode])
        with self._lock:
            if not batch:
                return self._length()
            first, before, now = self._length(), self._head(), int(clock.now() * 1000)
            bodies, leaves = [], []
            for index, entry in enumerate(batch, first):
                body = entry_body(index, before, keys.key_id, self._mode, now, entry.to_dict())
                leaf = leaf_hash(body)
                before = leaf.hex()
                bodies.append(body)
                leaves.append(leaf)
            seal: Seal = make_seal(keys, first, leaves)
            self._lines += [line_bytes(body, None) for body in bodies[:-1]]
            self._lines.append(line_bytes(bodies[-1], seal))
            self._hashes += [leaf.hex() for leaf in leaves]
            return self._length()

    # --- what it is ---

    def _length(self) -> int:
        return self._base + len(self._lines)

    def _head(self) -> str:
        return self._hashes[-1] if self._hashes else self._anchor

    @property
    def length(self) -> int:
        """How many entries were ever appended."""
        return self._length()

    def __len__(self) -> int:
        return self._length()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended yet."""
        return self._length() == 0

    @property
    def is_hybrid(self) -> bool:
        """Whether both algorithms sign."""
        return self._mode == "hybrid"

    @property
    def head_hash(self) -> str:
        """Hash of the last entry; ``genesis`` before the first."""
        with self._lock:
            return self._head()

    @property
    def base_index(self) -> int:
        """Index of the first entry that is still here."""
        return self._base

    @property
    def anchor_hash(self) -> str:
        """Hash of the last entry that was pruned; ``genesis`` while there is none."""
        return self._anchor

    @property
    def resident_entries(self) -> int:
        """How many entries are still here."""
        return len(self._lines)

    # --- verifying ---

    def verify(self, bundle: PublicKeyBundle) -> None:
        """Verify everything, by the public keys alone.

        Raises:
            AuditChainError: it does not verify, or part of it was pruned (verify the segments then).
        """
        with self._lock:
            lines, base = list(self._lines), self._base
        if base:
            raise AuditChainError(
                "audit chain verification failed: full-chain verification expects the chain to start at index 0, "
                f"got {base}: verify its segments with verify_jsonl_segments"
            )
        verify_lines(lines, bundle, self.is_hybrid)

    @staticmethod
    def verify_jsonl(
        data: bytes, bundle: PublicKeyBundle, hybrid: bool | None = None, checkpoint: bytes | None = None
    ) -> int:
        """Verify an exported chain; returns the number of entries.

        Args:
            data: JSON lines.
            bundle: the keys that must have signed.
            hybrid: False for a chain that ML-DSA-65 alone signs. Otherwise, also when not given, both must.
            checkpoint: of `checkpoint`; without one a missing tail cannot be noticed.

        Raises:
            AuditChainError: (a ValueError) naming the first entry that is wrong; its ``kind`` says what happened.
        """
        return verify_lines(split_lines(data), bundle, hybrid, checkpoint)[0]

    @staticmethod
    def verify_jsonl_segments(
        segments: Iterable[bytes], bundle: PublicKeyBundle, hybrid: bool | None = None, checkpoint: bytes | None = None
    ) -> int:
        """Verify a chain in pieces that follow each other from index 0; see `verify_jsonl`."""
        return verify_segments(segments, bundle, hybrid, checkpoint)

    def checkpoint(self) -> bytes:
        """A signed statement of length and head, to be kept elsewhere: with it, truncation and rewriting show."""
        keys = self._keypair.signing_keys(MODES[self._mode])
        with self._lock:
            members: dict[int | str, Any] = {
                "head": self._head(),
                "length": self._length(),
                "time_ms": int(clock.now() * 1000),
            }
        payload = cbor.encode(members)
        protected, signatures = cose.sign(keys, CHECKPOINT, payload)
        return cose.build(protected, payload, signatures)

    # --- exporting and pruning ---

    def export_jsonl(self) -> bytes:
        """The entries that are here as JSON lines."""
        with self._lock:
            return join_lines(self._lines)

    def entries_since_jsonl(self, index: int) -> bytes:
        """The entries from an index on; empty beyond the end.

        Raises:
            GateInputError: they were pruned.
        """
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"an index is an int, not {type(index).__name__}")
        with self._lock:
            if index < self._base:
                raise GateInputError(f"entries before {self._base} were pruned; {index} is not here any more")
            return join_lines(self._lines[index - self._base :])

    def prune_before(self, index: int) -> int:
        """Forget the entries before an index, which somebody has stored; returns how many. The chain goes on as before."""
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"an index is an int, not {type(index).__name__}")
        with self._lock:
            count = max(0, min(index, self._length()) - self._base)
            if count:
                self._anchor = self._hashes[count - 1]
                gone, self._lines = self._lines[:count], self._lines[count:]
                self._hashes = self._hashes[count:]
                self._base += count
                while gone:  # a few at a time: freeing many at once takes long
                    del gone[-256:]
            return count

    def __repr__(self) -> str:
        return (
            f"SignedAuditChain(key_id={self._keypair.id!r}, length={self.length}, hybrid={str(self.is_hybrid).lower()})"
        )

    def __reduce__(self) -> Any:
        raise SigningError("an audit chain is not pickled: export_jsonl() it, and resume() from there")
