"""Trees, tiles and proofs of the C core against the slow statement of RFC 9162."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import tlog as ref

from kest._kestcore import (
    LogTree,
    tlog_consistency_path,
    tlog_fold,
    tlog_inclusion_path,
    tlog_leaf,
    tlog_root,
    tlog_verify_consistency,
    tlog_verify_inclusion,
)

LEAVES = [ref.leaf_hash(str(i).encode()) for i in range(70_000)]

sizes = st.one_of(
    st.integers(0, 600), st.sampled_from([255, 256, 257, 511, 512, 513, 1000, 4096, 65_535, 65_536, 65_537, 70_000])
)


def node(level: int, index: int) -> bytes:
    return ref.merkle_tree_hash(LEAVES[index << level : (index + 1) << level])


def proof_of(path: list[list[tuple[int, int]]]) -> list[bytes]:
    return [tlog_fold(b"".join(node(*coord) for coord in element)) for element in path]


@given(st.binary(max_size=300))
def test_leaf_hash(entry: bytes) -> None:
    assert tlog_leaf(entry) == ref.leaf_hash(entry)


@given(st.integers(0, 600))
def test_root(size: int) -> None:
    assert tlog_root(b"".join(LEAVES[:size])) == ref.merkle_tree_hash(LEAVES[:size])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 70_000])
def test_root_of_larger_trees(size: int) -> None:
    assert tlog_root(b"".join(LEAVES[:size])) == ref.merkle_tree_hash(LEAVES[:size])


@settings(max_examples=25, deadline=None)
@given(sizes, st.randoms(use_true_random=False))
def test_growing_in_batches_gives_every_tile_once(size: int, rnd: random.Random) -> None:
    tree, at = LogTree(), 0
    made: dict[tuple[int, int], bytes] = {}
    while at < size:
        step = min(size - at, rnd.choice([1, 3, 255, 256, 257, 5_000, 66_000]))
        for level, index, hashes in tree.append(b"".join(LEAVES[at : at + step])):
            assert (level, index) not in made
            made[level, index] = hashes
        at += step
    for level, index, hashes in tree.partials():
        assert (level, index) not in made
        made[level, index] = hashes
    assert tree.size == size
    assert tree.root() == ref.merkle_tree_hash(LEAVES[:size])
    assert made == {place: b"".join(row) for place, row in ref.tiles(LEAVES[:size]).items()}
    # and it can be taken up again from what is on the disk
    rows = [b""] * 8
    for level, _, hashes in tree.partials():
        rows[level] = hashes
    again = LogTree(size, rows)
    assert again.root() == tree.root()
    again.append(LEAVES[0])
    tree.append(LEAVES[0])
    assert again.root() == tree.root()


def test_rows_that_do_not_fit_the_size() -> None:
    with pytest.raises(ValueError, match="tile level 0"):
        LogTree(3, [b"x" * 32])
    with pytest.raises(ValueError, match="tile level 1"):
        LogTree(256, [b"", b""])
    with pytest.raises(ValueError, match="records"):
        LogTree(2**63)


@settings(deadline=None)
@given(st.integers(1, 700), st.data())
@example(1, None)
def test_inclusion(size: int, data: st.DataObject | None) -> None:
    index = 0 if data is None else data.draw(st.integers(0, size - 1))
    leaves, root = LEAVES[:size], ref.merkle_tree_hash(LEAVES[:size])
    proof = proof_of(tlog_inclusion_path(index, size))
    assert proof == ref.inclusion_proof(index, leaves)
    assert tlog_verify_inclusion(index, size, leaves[index], b"".join(proof), root)


@settings(deadline=None)
@given(st.integers(1, 700), st.data())
def test_consistency(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    leaves = LEAVES[:size]
    before, root = ref.merkle_tree_hash(leaves[:old]), ref.merkle_tree_hash(leaves)
    proof = proof_of(tlog_consistency_path(old, size))
    assert proof == ref.consistency_proof(old, leaves)
    assert tlog_verify_consistency(old, size, before, b"".join(proof), root)
    assert ref.verify_consistency(old, size, before, proof, root)


def mutated(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    """A proof after a few accidents, often the same."""
    hashes = st.sampled_from([*proof, *LEAVES[:3], b"\0" * 32])
    for _ in range(data.draw(st.integers(0, 2))):
        kind = data.draw(st.sampled_from(["drop", "add", "change", "swap"]))
        at = data.draw(st.integers(0, len(proof)))
        if kind == "add":
            proof.insert(at, data.draw(hashes))
        elif proof:
            at %= len(proof)
            if kind == "drop":
                del proof[at]
            elif kind == "change":
                proof[at] = data.draw(hashes)
            else:
                other = data.draw(st.integers(0, len(proof) - 1))
                proof[at], proof[other] = proof[other], proof[at]
    return proof


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_both_verifiers_agree_on_any_inclusion_proof(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    index = data.draw(st.integers(0, size - 1))
    proof = mutated(data, ref.inclusion_proof(index, LEAVES[:size]))
    root = ref.merkle_tree_hash(LEAVES[:size])
    said, of = (
        data.draw(st.sampled_from([index, (index + 1) % size, size])),
        data.draw(st.sampled_from([size, size + 1, size - 1, 0])),
    )
    assert tlog_verify_inclusion(said, of, LEAVES[index], b"".join(proof), root) == ref.verify_inclusion(
        said, of, LEAVES[index], proof, root
    )


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_both_verifiers_agree_on_any_consistency_proof(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    old = data.draw(st.integers(0, size))
    proof = mutated(data, ref.consistency_proof(old, LEAVES[:size]) if old else [])
    before, root = ref.merkle_tree_hash(LEAVES[:old]), ref.merkle_tree_hash(LEAVES[:size])
    said, of = data.draw(st.sampled_from([old, old + 1, 0])), data.draw(st.sampled_from([size, size + 1, size - 1]))
    if of < 0:
        return
    assert tlog_verify_consistency(said, of, before, b"".join(proof), root) == ref.verify_consistency(
        said, of, before, proof, root
    )


def test_paths_of_what_cannot_be() -> None:
    for wrong in ((0, 0), (5, 5), (0, 2**63)):
        with pytest.raises(ValueError):
            tlog_inclusion_path(*wrong)
    for wrong in ((0, 5), (6, 5), (1, 2**63)):
        with pytest.raises(ValueError):
            tlog_consistency_path(*wrong)


def test_the_longest_proofs() -> None:
    size = 2**62 - 1
    assert len(tlog_inclusion_path(0, size)) == 62
    assert len(tlog_inclusion_path(size - 1, size)) == 61
    assert 61 <= len(tlog_consistency_path(2**61 - 1, size)) <= 63


def test_hashes_of_odd_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        tlog_root(b"x" * 33)
    with pytest.raises(ValueError):
        tlog_fold(b"")
    with pytest.raises(ValueError):
        LogTree().append(b"x")
    assert not tlog_verify_inclusion(0, 1, b"short", b"", b"x" * 32)
    assert not tlog_verify_inclusion(0, 1, b"x" * 32, b"x" * 31, b"x" * 32)
