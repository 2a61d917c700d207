"""What signs, verifies and encrypts lets go of the interpreter's lock while it works.

The switch interval is made so long that no thread is ever asked for the lock: another one runs only when it is let go of.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kest._kestcore import PublicKey, SecretStream, Signer, aead_open, aead_seal, sha256, vault_open, vault_seal
from kest.gate.crypto.pq import MLDSA, MLDSAPublic

KEY, NONCE, SALT, LARGE = b"k" * 32, b"n" * 24, b"s" * 16, os.urandom(1_000_000)
RUNS = 100
NAMES = (
    "ML-DSA-65 sign", "ML-DSA-65 verify", "Ed25519 verify", "Argon2id seal", "Argon2id open", "seal", "open", "stream",
    "hash",
)  # fmt: skip


@contextmanager
def nobody_asks() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def let_go(work: Callable[[], object]) -> int:
    """In how many of the runs another thread got to run while ``work`` did."""
    inside, found = [False], [0]
    go, done = threading.Lock(), threading.Lock()
    go.acquire()
    done.acquire()

    def look() -> None:
        for _ in range(RUNS):
            go.acquire()  # from here on it waits for the interpreter's lock
            found[0] += inside[0]
            done.release()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    with nobody_asks():
        for _ in range(RUNS):
            inside[0] = True
            go.release()
            work()
            inside[0] = False
            done.acquire()
    thread.join()
    return found[0]


def cases() -> dict[str, Callable[[], object]]:
    pq, signer = MLDSA(), Signer("x")
    signature, public = pq.sign(b"m"), MLDSAPublic(pq.public)
    theirs = PublicKey.from_raw(signer.public_key)
    sealed, secret = aead_seal(KEY, NONCE, LARGE, b""), vault_seal(b"pass", SALT, 1, 1 << 22, NONCE, b"x", b"")
    stream = SecretStream(KEY)
    signed = signer.sign(LARGE)
    return {
        "ML-DSA-65 sign": lambda: pq.sign(b"m"),
        "ML-DSA-65 verify": lambda: public.verify(b"m", signature),
        "Ed25519 verify": lambda: theirs.verify(LARGE, signed),
        "Argon2id seal": lambda: vault_seal(b"pass", SALT, 1, 1 << 22, NONCE, b"x", b""),
        "Argon2id open": lambda: vault_open(b"pass", SALT, 1, 1 << 22, NONCE, secret, b""),
        "seal": lambda: aead_seal(KEY, NONCE, LARGE, b""),
        "open": lambda: aead_open(KEY, NONCE, sealed, b""),
        "stream": lambda: stream.push(LARGE, b""),
        "hash": lambda: sha256(LARGE),
    }


@pytest.fixture(scope="module")
def made() -> dict[str, Callable[[], object]]:
    return cases()


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_is_let_go_of(name: str, made: dict[str, Callable[[], object]]) -> None:
    assert let_go(made[name]) > 0


def test_these_are_all(made: dict[str, Callable[[], object]]) -> None:
    assert tuple(made) == NAMES


def test_the_test_can_fail() -> None:
    assert let_go(lambda: sum(range(20_000))) == 0
