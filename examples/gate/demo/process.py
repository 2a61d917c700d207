"""What the processes of the demo have in common: settings on standard input, and a command a line, answered in a line."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from kest.gate import Gate, KeyPair, RedisInvalidationBroadcaster, RedisRateLimitStore, RedisSessionStore

__all__ = ["Shared", "answer", "serve", "settings_of"]

CHANNEL = "refunds:invalidation"


def answer(value: object) -> None:
    """One line of JSON."""
    print(json.dumps(value), flush=True)


def settings_of(keypair: KeyPair) -> dict[str, Any]:
    """Publish the public keys, and take the settings: nothing secret is in an argument list or in the environment."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    answer(keypair.public_keys().to_json())
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    return settings


def serve(commands: object) -> None:
    """Do what each line says, until standard input ends."""
    for line in sys.stdin:
        name, options = json.loads(line)
        answer(getattr(commands, name)(**options))


class Shared:
    """What all replicas share through Redis: counters, sessions, and what is over."""

    def __init__(self, settings: dict[str, Any]) -> None:
        url = settings["redis"]
        self.rates = RedisRateLimitStore(url)
        self.sessions = RedisSessionStore(url)
        self.broadcaster = RedisInvalidationBroadcaster(url, CHANNEL, key=bytes.fromhex(settings["key"]))

    def gate(self, policies: Any, **options: Any) -> Gate:
        """A gate on them."""
        return Gate(
            policies, rate_store=self.rates, session_store=self.sessions, broadcaster=self.broadcaster, **options
        )

    def close(self) -> None:
        """Close all connections."""
        for one in (self.broadcaster, self.rates, self.sessions):
            one.close()
