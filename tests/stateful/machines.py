"""How long the state machines run.

``KEST_STATEFUL`` scales how many histories each tries: 1, the default, takes seconds; ``KEST_STATEFUL=100`` is for a night.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SCALE = float(os.environ.get("KEST_STATEFUL", "1"))


def histories(count: int, steps: int) -> settings:
    """So many histories of at most so many steps."""
    return settings(
        max_examples=max(1, int(count * SCALE)),
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
