"""The dense form that Kest writes is read by the specification, and the other way round; hostile bytes are refused alike."""

from __future__ import annotations

from types import ModuleType

from hypothesis import given, settings
from hypothesis import strategies as st
from reference import b64, dense

from .strategies import Suspect, passports
from .values import SETTINGS

LIMITS = (8 * 1024 * 1024, 4096)
some = passports(max_size=10, min_size=1)


def specified(entries: list[str]) -> str | None:
    try:
        return dense.pack(entries)
    except dense.NotDense:
        return None


@settings(SETTINGS)
@given(some)
def test_each_reads_what_the_other_writes(kest_core: ModuleType, kestcore: ModuleType, suspect: Suspect) -> None:
    entries = list(suspect.entries)
    ours = kestcore.pack_dense(kest_core.Passport(entries))
    theirs = specified(entries)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert dense.unpack(ours) == entries
        assert kestcore.unpack_dense(theirs, *LIMITS).entries == entries


@settings(SETTINGS)
@given(some, st.data())
def test_changed_bytes_are_refused_or_read_alike(
    kest_core: ModuleType, kestcore: ModuleType, errors: ModuleType, suspect: Suspect, data: st.DataObject
) -> None:
    packed = kestcore.pack_dense(kest_core.Passport(suspect.entries))
    if packed is None:
        return
    raw = bytearray(b64.decode(packed))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    text = b64.encode(bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw))
    try:
        ours = kestcore.unpack_dense(text, *LIMITS).entries
    except errors.BaggageError:
        ours = None
    if ours is not None:  # ours is the stricter reader: what it takes, the specification takes and reads the same way
        assert dense.unpack(text) == ours
