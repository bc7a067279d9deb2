"""Rows of keys at rest, and the steps of one transaction with them: find, hold against a request, erase."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from heliograph.errors import KeyNotFound, KeySupplyError, NotPermitted
from heliograph.protocol.audience import audience_members

__all__ = [
    "DAMAGED",
    "DELIVERABLE",
    "PENDING",
    "RELEASED",
    "SCHEMA",
    "Row",
    "bury",
    "held_rows",
    "is_known",
    "rows_of",
    "serve_share",
    "without_shares",
]

SCHEMA = """
CREATE TABLE IF NOT EXISTS key_segments(
  segment INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, block INTEGER NOT NULL,
  sealed_key BLOB NOT NULL, metadata TEXT NOT NULL, UNIQUE(epoch, block));
CREATE TABLE IF NOT EXISTS key_records(
  key_id TEXT PRIMARY KEY, segment INTEGER NOT NULL REFERENCES key_segments(segment), position INTEGER NOT NULL,
  master TEXT NOT NULL, slave TEXT NOT NULL, owner_here INTEGER NOT NULL, state INTEGER NOT NULL,
  created_at REAL NOT NULL, ciphertext BLOB NOT NULL, UNIQUE(segment, position)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS key_supply ON key_records(master, slave, owner_here, state, segment, position);
CREATE TABLE IF NOT EXISTS key_tombstones(
  key_id TEXT PRIMARY KEY, master TEXT NOT NULL, slave TEXT NOT NULL, owner_here INTEGER NOT NULL,
  epoch INTEGER NOT NULL, fate TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_shares(
  key_id TEXT NOT NULL, sae TEXT NOT NULL, served_at REAL, PRIMARY KEY(key_id, sae)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS key_fates ON key_tombstones(fate, owner_here);
"""

# RELEASED: the master here has its copy, slaves of the same site have theirs still to fetch.
PENDING, DELIVERABLE, DAMAGED, RELEASED = 0, 1, 2, 3
_SELECT = (
    "SELECT key_id, segment, epoch, block, position, master, slave, owner_here, state, created_at, metadata, "
    "ciphertext, sealed_key FROM key_records JOIN key_segments USING (segment) "
)


@dataclass(frozen=True, slots=True)
class Row:
    """One key that waits, sealed, with its segment's sealed key."""

    key_id: str
    segment: int
    epoch: int
    block: int
    position: int
    master: str
    slave: str
    owner_here: int
    state: int
    created_at: float
    metadata: str
    ciphertext: bytes = field(repr=False)
    sealed_key: bytes = field(repr=False)


def rows_of(cursor: sqlite3.Cursor, condition: str, arguments: tuple[object, ...]) -> list[Row]:
    """Return the rows for which ``condition`` (SQL) holds."""
    return [Row(*found) for found in cursor.execute(_SELECT + condition, arguments).fetchall()]


def held_rows(cursor: sqlite3.Cursor, slave: str, master: str, key_ids: Sequence[str]) -> list[Row]:
    """Return the rows of keys held for ``slave``, in the order named; all or none.

    A key of a group is held for each of its slaves of this site until that one has fetched it.
    Raises NotPermitted if one was allocated to other slave SAEs (ETSI GS QKD 014 5.4), KeyNotFound if one is not
    here for this pair, KeySupplyError for a repeated or absent key_ID.
    """
    if not key_ids or len(set(key_ids)) != len(key_ids):
        raise KeySupplyError("key_IDs: at least one is needed, and each only once")
    rows: list[Row] = []
    missing = False
    for key_id in key_ids:
        found = rows_of(cursor, "WHERE key_id = ?", (key_id,))
        if slave not in audience_members(found[0].slave if found else _buried_for(cursor, key_id) or slave):
            raise NotPermitted("one or more keys specified were not allocated to this SAE")
        missing = missing or not found or found[0].master != master or not _waits_for(cursor, found[0], slave)
        rows.extend(found)
    if missing:
        raise KeyNotFound("one or more keys specified are not found on KME")
    return rows


def _buried_for(cursor: sqlite3.Cursor, key_id: str) -> str | None:
    """Return whom a key that is gone was allocated to: who was not named stays refused after the delivery (5.4)."""
    found = cursor.execute("SELECT slave FROM key_tombstones WHERE key_id = ?", (key_id,)).fetchone()
    return None if found is None else str(found[0])


def _waits_for(cursor: sqlite3.Cursor, row: Row, slave: str) -> bool:
    if row.state != (RELEASED if row.owner_here else DELIVERABLE):
        return False
    if row.slave == slave:  # a pair's key: the row itself is the one copy
        return True
    share = "SELECT 1 FROM key_shares WHERE key_id = ? AND sae = ? AND served_at IS NULL"
    return cursor.execute(share, (row.key_id, slave)).fetchone() is not None


def serve_share(cursor: sqlite3.Cursor, rows: Sequence[Row], slave: str, now: float) -> list[Row]:
    """Note that ``slave`` has these keys now. Returns the rows that nobody of this site waits for any more."""
    cursor.executemany(
        "UPDATE key_shares SET served_at = ? WHERE key_id = ? AND sae = ? AND served_at IS NULL",
        [(now, row.key_id, slave) for row in rows],
    )
    return without_shares(cursor, rows)


def without_shares(cursor: sqlite3.Cursor, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of which no slave of this site has a share to fetch."""
    waiting = "SELECT 1 FROM key_shares WHERE key_id = ? AND served_at IS NULL LIMIT 1"
    return [row for row in rows if cursor.execute(waiting, (row.key_id,)).fetchone() is None]


def is_known(cursor: sqlite3.Cursor, key_id: str) -> bool:
    """Tell whether a key of that key_ID is here, or was in this epoch."""
    query = "SELECT 1 FROM key_records WHERE key_id = ? UNION ALL SELECT 1 FROM key_tombstones WHERE key_id = ?"
    return cursor.execute(query, (key_id, key_id)).fetchone() is not None


def bury(cursor: sqlite3.Cursor, rows: Sequence[Row], fate: str, now: float) -> bool:
    """Erase the rows, leave tombstones, and erase the segment keys that nothing needs any more.

    Returns whether a segment key was erased.
    """
    cursor.executemany(
        "INSERT INTO key_tombstones VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(row.key_id, row.master, row.slave, row.owner_here, row.epoch, fate, now) for row in rows],
    )
    cursor.executemany("DELETE FROM key_records WHERE key_id = ?", [(row.key_id,) for row in rows])
    groups = [(row.key_id,) for row in rows if len(audience_members(row.slave)) > 1]
    cursor.executemany("DELETE FROM key_shares WHERE key_id = ?", groups)
    return (
        cursor.executemany(
            "DELETE FROM key_segments WHERE segment = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM key_records WHERE key_records.segment = ?1)",
            [(segment,) for segment in {row.segment for row in rows}],
        ).rowcount
        > 0
    )
