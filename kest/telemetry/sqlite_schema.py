"""The database that ``exporter_type="sqlite"`` writes: one table, whose columns for queries are computed from the attributes.

Computed, so that no column can say something else than the span does. Documented in ``docs/telemetry.md``.
"""

from __future__ import annotations

import sqlite3

from kest.errors import TelemetryError

__all__ = ["APPLICATION_ID", "COLUMNS", "INSERT", "VERSION", "check_schema", "create_schema"]

APPLICATION_ID = 0x4B455354
"""``KEST``: what ``PRAGMA application_id`` says, and ``file`` shows."""
VERSION = 1
"""``PRAGMA user_version``."""

_COMPUTED = (
    ("operation", "TEXT", "kest.operation"),
    ("entry_id", "TEXT", "kest.entry_id"),
    ("workload_id", "TEXT", "kest.workload_id"),
    ("trust_score", "INTEGER", "kest.trust_score"),
    ("taints", "TEXT", "kest.taints"),
    ("allowed", "INTEGER", "kest.allowed"),
    ("policy_ids", "TEXT", "kest.policy_ids"),
    ("parent_hash", "TEXT", "kest.parent_hash"),
    ("chain_tip", "TEXT", "kest.chain_tip"),
    ("signature", "TEXT", "kest.signature"),
)

COLUMNS = (
    "name", "trace_id", "span_id", "parent_span_id", "scope", "scope_version", "kind", "start_ns", "end_ns", "status",
    "status_description", "attributes", "resource",
)  # fmt: skip
"""Those that are stored, which are the fields of `SpanRecord`; attributes and resource are JSON objects."""

_TABLE = (
    "CREATE TABLE spans (\n"
    "  id INTEGER PRIMARY KEY,\n"
    "  name TEXT NOT NULL,\n"
    "  trace_id TEXT NOT NULL,\n"
    "  span_id TEXT NOT NULL,\n"
    "  parent_span_id TEXT NOT NULL,\n"
    "  scope TEXT NOT NULL,\n"
    "  scope_version TEXT NOT NULL,\n"
    "  kind TEXT NOT NULL,\n"
    "  start_ns INTEGER NOT NULL,\n"
    "  end_ns INTEGER NOT NULL,\n"
    "  status TEXT NOT NULL,\n"
    "  status_description TEXT NOT NULL,\n"
    "  attributes TEXT NOT NULL,\n"
    "  resource TEXT NOT NULL,\n"
    "  service TEXT AS (json_extract(resource, '$.\"service.name\"')),\n"
    + "".join(f"  {name} {kind} AS (json_extract(attributes, '$.\"{key}\"')),\n" for name, kind, key in _COMPUTED)
    + "  UNIQUE (trace_id, span_id)\n)"
)

_INDEXES = (
    "CREATE INDEX spans_start ON spans (start_ns)",
    "CREATE INDEX spans_operation ON spans (operation, start_ns)",
    "CREATE INDEX spans_workload ON spans (workload_id, start_ns)",
    "CREATE INDEX spans_entry ON spans (entry_id)",
    "CREATE INDEX spans_tip ON spans (chain_tip)",
    "CREATE INDEX spans_denied ON spans (start_ns) WHERE allowed = 0",
)

INSERT = f"INSERT OR IGNORE INTO spans ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


def create_schema(connection: sqlite3.Connection) -> None:
    """Make the table and its indexes in an empty database; one that has them already is left as it is.

    Raises:
        TelemetryError: it is a database of something else.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in (_TABLE, *_INDEXES):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        check_schema(connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")  # writes, whatever is there: a full disk shows now
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_schema(connection: sqlite3.Connection) -> None:
    """Raise TelemetryError unless the table is ours, word for word: a made-up one could compute anything when read."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise TelemetryError("it is an SQLite database, but not one of Kest's telemetry")
    found = {(name, sql) for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master") if sql}
    if found != {("spans", _TABLE), *((statement.split()[2], statement) for statement in _INDEXES)}:
        raise TelemetryError(
            f"its tables are not those of version {VERSION}: another version of Kest wrote it, or somebody changed them"
        )
