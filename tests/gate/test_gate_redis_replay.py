"""Permits that are used once, whichever replica they are shown to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("redis", reason="redis-py is not installed")

from kest.errors import ReplayStoreError
from kest.gate import (
    DirectoryTokenVerifier,
    KeyPair,
    PermitError,
    PqTokenSigner,
    PublicKeyDirectory,
    RedisReplayStore,
    ReplayStore,
)

Make = Callable[..., Any]


def test_one_use_for_all_replicas(shared: SimpleNamespace, closing: Make, permitting: Make, context: Make) -> None:
    keypair = KeyPair.generate()
    gate = permitting(token_signer=PqTokenSigner.from_keypair_hybrid(keypair))
    directory = PublicKeyDirectory.in_memory([keypair.public_keys()])
    stores = [closing(RedisReplayStore(shared.url, prefix=shared.prefix)) for _ in range(2)]
    verifiers = [DirectoryTokenVerifier(directory, replay_store=store) for store in stores]
    permit = gate.evaluate(context()).permit_token
    assert verifiers[0].verify(permit, permit.signature)
    for verifier in verifiers:
        with pytest.raises(PermitError, match="replay"):
            verifier.verify(permit, permit.signature)
    other = gate.evaluate(context()).permit_token
    assert verifiers[1].verify(other, other.signature)


def test_threads_and_expiry(shared: SimpleNamespace, closing: Make) -> None:
    store = closing(RedisReplayStore.from_url(shared.url, prefix=shared.prefix))
    assert isinstance(store, ReplayStore)
    first: list[bool] = []

    def use() -> None:
        first.extend(store.first_use(bytes(31) + bytes([n]), time.time() + 30) for n in range(25))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(first), sum(first)) == (100, 25)
    for key in shared.client.keys(shared.prefix + "*"):
        assert 3_600_000 < shared.client.pttl(key) <= 3_630_000
    assert store.first_use(b"x" * 32, 0.0)
    assert not store.first_use(b"x" * 32, 0.0)


def test_no_redis_no_use(own_redis: Make, closing: Make, stopped: Make) -> None:
    server = own_redis()
    store = closing(RedisReplayStore(server.url, timeout=0.2))
    other = closing(RedisReplayStore(server.url))
    with stopped(server), pytest.raises(ReplayStoreError):
        store.first_use(b"k" * 32, time.time() + 30)
    assert other.first_use(b"k" * 32, time.time() + 30), "what nobody waited for was not used"
    server.stop()
    with pytest.raises(ReplayStoreError):
        store.first_use(b"l" * 32, time.time() + 30)
