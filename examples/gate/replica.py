"""One of several replicas: whatever it permits, counts or ends, the others know of."""

import os

from kest.gate import (
    ActionContext,
    Gate,
    RedisInvalidationBroadcaster,
    RedisRateLimitStore,
    RedisSessionStore,
    spawn_invalidation_listener,
)

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
KEY = bytes.fromhex(os.environ["INVALIDATION_KEY"])  # 32 random bytes that all replicas share

broadcaster = RedisInvalidationBroadcaster(REDIS_URL, channel="orders:invalidation", key=KEY)
gate = Gate.from_dict(
    {"policies": [{"name": "orders", "effect": "permit", "conditions": [{"rate_limit": {"max": 2, "window": "1h"}}]}]},
    rate_store=RedisRateLimitStore(REDIS_URL),
    session_store=RedisSessionStore(REDIS_URL),
    broadcaster=broadcaster,
    max_session_actions=100,
)
listener = spawn_invalidation_listener(broadcaster, lambda scope: print("over:", scope.target.id, scope.reason))

for _ in range(3):
    verdict = gate.evaluate(ActionContext("alice", "user", "order", session_id="s-1", ip="10.0.0.1"))
    print(verdict.kind, verdict.code or "")
gate.invalidate("alice", "principal", reason="left the company")
print(gate.evaluate(ActionContext("alice", "user", "order")).reason)
listener.abort()
broadcaster.close()
