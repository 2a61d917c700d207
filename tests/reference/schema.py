"""What an entry's payload must look like (PRODUCT section 4). Says nothing about what it claims."""

from __future__ import annotations

import re
from typing import Any

from .entry import CLASSIFICATIONS, ROOT, SCHEMA_VERSION, TIERS

MEMBERS = frozenset(
    [
        "schema_version",
        "runtime",
        "entry_id",
        "operation",
        "classification",
        "trust_score",
        "parent_ids",
        "added_taints",
        "removed_taints",
        "taints",
        "labels",
        "policy_context",
        "environment",
        "otel_context",
        "metadata",
        "content_hash",
        "input_hash",
        "timestamp_ms",
    ]
)
MAX_PARENTS = 1024
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_HASH = re.compile(r"[0-9a-f]{64}")


def is_int(value: object) -> bool:
    return type(value) is int  # bool is not a number here


def is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_object(value: object, members: set[str]) -> bool:
    return isinstance(value, dict) and set(value) == members


def is_taints(value: object) -> bool:
    """Non-empty strings, each once, in code point order."""
    return isinstance(value, list) and is_strings(value) and "" not in value and value == sorted(set(value))


def is_parents(value: object) -> bool:
    if value == [ROOT]:
        return True
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_PARENTS
        and all(is_hash(item) for item in value)
        and len(set(value)) == len(value)
    )


def is_labels(value: object) -> bool:
    return isinstance(value, dict) and is_strings(list(value.values())) and bool(value.get("principal"))


def is_deviation(value: object) -> bool:
    members = {"policy", "tier", "reason", "approver"}
    return isinstance(value, dict) and set(value) == members and is_strings(list(value.values()))


def is_policy_context(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {*TIERS, "deviations"}
        and all(is_strings(value[tier]) for tier in TIERS)
        and isinstance(value["deviations"], list)
        and all(is_deviation(item) for item in value["deviations"])
    )


def is_payload(p: Any) -> bool:
    """Everything but the type and range of ``trust_score``, which has a reason of its own."""
    return (
        isinstance(p, dict)
        and set(p) == MEMBERS
        and p["schema_version"] == SCHEMA_VERSION
        and is_object(p["runtime"], {"name", "version"})
        and is_strings(list(p["runtime"].values()))
        and isinstance(p["entry_id"], str)
        and _UUID7.fullmatch(p["entry_id"]) is not None
        and isinstance(p["operation"], str)
        and p["operation"] != ""
        and p["classification"] in CLASSIFICATIONS
        and is_parents(p["parent_ids"])
        and all(is_taints(p[name]) for name in ("added_taints", "removed_taints", "taints"))
        and is_labels(p["labels"])
        and is_policy_context(p["policy_context"])
        and p["environment"] == {}
        and p["otel_context"] == {}
        and p["metadata"] is None
        and p["content_hash"] == ""
        and (p["input_hash"] == "" or is_hash(p["input_hash"]))
        and is_int(p["timestamp_ms"])
        and p["timestamp_ms"] >= 0
    )
