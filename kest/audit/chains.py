"""Keys that nobody gave a verifier: certificates in the records' headers prove them (``x5c``, RFC 7515, section 4.1.6).

Chains are judged as those of entries in passports are (`TrustStore`, docs/design.md, "Certificates and time"): a principal
of a trust domain with authorities that sends a chain needs a good one, whatever else is known of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kest._kestcore import RecordKeys, sha256
from kest.core.x5c import ChainError

if TYPE_CHECKING:
    from kest.audit.keys import KeyLife
    from kest.core.grants import Grant
    from kest.core.truststore import TrustStore

__all__ = ["ChainKey", "Chains"]

SHORTEST = 400
"""No header with a certificate in it is shorter; those of other records are about 100 characters long."""
REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class ChainKey:
    """What a chain has proved: a key, for `record_check` to verify this one signer's records with."""

    life: KeyLife
    keys: RecordKeys


class Chains:
    """The chains in the headers of a log's records, each looked at once.

    Args:
        store: whose authorities count.
        add: makes a `KeyLife` of a grant.
    """

    def __init__(self, store: TrustStore, add: Callable[[Grant], KeyLife]) -> None:
        self._store, self._add = store, add
        self._known: OrderedDict[bytes, ChainKey | str | None] = OrderedDict()

    @staticmethod
    def header_of(record: bytes) -> bytes | None:
        """The header of a record, if it can hold a chain."""
        if record.find(b".", 0, SHORTEST) >= 0:
            return None
        end = record.find(b".", SHORTEST)
        return None if end < 0 else record[:end]

    def of(self, record: bytes) -> ChainKey | str | None:
        """The key that a record's chain proves; why it proves nothing (a str); None where keys are known by name alone."""
        header = self.header_of(record)
        if header is None:
            return None
        digest = sha256(header)
        if digest in self._known:
            self._known.move_to_end(digest)
            return self._known[digest]
        self._known[digest] = found = self._look(header)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def groups(self, records: Iterable[tuple[int, bytes]]) -> dict[bytes, list[tuple[int, bytes]]]:
        """Records that may have a chain, by their headers."""
        found: dict[bytes, list[tuple[int, bytes]]] = {}
        for index, record in records:
            if (header := self.header_of(record)) is not None:
                found.setdefault(header, []).append((index, record))
        return found

    def _look(self, header: bytes) -> ChainKey | str | None:
        try:
            grant = self._store.chain_grant(header.decode("ascii"))
        except UnicodeDecodeError:
            return None
        except ChainError as error:
            return f"its certificate chain (x5c) {error}"
        if grant is None:
            return None
        return ChainKey(self._add(grant), RecordKeys([(grant[0], grant[1])]))
