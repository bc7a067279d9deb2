"""Rows of keys in the delivery server, and the steps of one transaction with them: find, hold against a request, erase.

What each step means is what ``storage/key_rows.py`` says of a site's own file; here several front ends do them at once.
A row that another front end works on is passed over, never waited for: nobody stands in a queue behind a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heliograph.errors import KeyNotFound, KeySupplyError, NotPermitted, StoreUnavailable
from heliograph.protocol.audience import audience_members
from heliograph.storage.key_contexts import TAG_BYTES
from heliograph.storage.key_rows import DELIVERABLE, RELEASED

if TYPE_CHECKING:
    import psycopg

__all__ = [
    "PgRow",
    "bury",
    "bury_where",
    "forget_empty",
    "held_rows",
    "is_known",
    "master_rows",
    "only_size",
    "serve_share",
    "without_shares",
]

_SELECT = (
    "SELECT k.key_id, k.segment, s.epoch, s.block, k.position, k.master, k.slave, k.owner_here, k.state, k.created_at, "
    "s.metadata, k.ciphertext FROM key_records k JOIN key_segments s USING (segment) "
)


@dataclass(frozen=True, slots=True)
class PgRow:
    """One key that waits, sealed."""

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


def only_size(cursor: psycopg.Cursor[Any], master: str, slave: str) -> int:
    """Return the one size of the keys that this site owns for a pair, in bytes; 0 if it has none to hand out.

    Raises KeySupplyError if there are several: one has to be named.
    """
    found = cursor.execute(
        "SELECT DISTINCT octet_length(ciphertext) FROM key_records "
        "WHERE master = %s AND slave = %s AND owner_here = 1 AND state = %s ORDER BY 1",
        (master, slave, DELIVERABLE),
    ).fetchall()
    if len(found) > 1:
        sizes = ", ".join(str(8 * (length - TAG_BYTES)) for (length,) in found)
        raise KeySupplyError(f"there are keys of {sizes} bits for this pair: name a size")
    return int(found[0][0]) - TAG_BYTES if found else 0


def master_rows(
    cursor: psycopg.Cursor[Any], front_end: str, pool: tuple[str, str, int], since: float, limit: int
) -> list[PgRow]:
    """Return the ``limit`` oldest deliverable rows that this front end can open and nobody works on.

    ``pool``: master, slaves, bytes of each key. A ciphertext says how large its key is, so that no column has to.
    """
    master, slave, size = pool
    found = cursor.execute(
        _SELECT + "JOIN segment_holders h ON h.epoch = s.epoch AND h.block = s.block AND h.front_end = %s "
        "WHERE k.master = %s AND k.slave = %s AND k.owner_here = 1 AND k.state = %s "
        "AND octet_length(k.ciphertext) = %s AND k.created_at >= %s "
        "ORDER BY k.segment, k.position LIMIT %s FOR UPDATE OF k SKIP LOCKED",
        (front_end, master, slave, DELIVERABLE, size + TAG_BYTES, since, limit),
    )
    return [PgRow(*row) for row in found]


def held_rows(
    cursor: psycopg.Cursor[Any], slave: str, master: str, key_ids: Sequence[str], *, lock: bool
) -> list[PgRow]:
    """Return the rows of keys held for ``slave``, in the order named; all or none.

    ``lock``: they are to be taken. Raises NotPermitted if one was allocated to other slave SAEs (ETSI GS QKD 014 5.4),
    KeyNotFound if one is not here for this pair, KeySupplyError for a repeated or absent key_ID, StoreUnavailable if
    another front end is at work on one.
    """
    if not key_ids or len(set(key_ids)) != len(key_ids):
        raise KeySupplyError("key_IDs: at least one is needed, and each only once")
    ids, locked = list(key_ids), set(key_ids)
    if lock:
        # First: what is read below is then what nobody else changes, also who has fetched a share.
        statement = "SELECT key_id FROM key_records WHERE key_id = ANY(%s) FOR UPDATE SKIP LOCKED"
        locked = {row[0] for row in cursor.execute(statement, (ids,)).fetchall()}
    found = {row[0]: PgRow(*row) for row in cursor.execute(_SELECT + "WHERE k.key_id = ANY(%s)", (ids,)).fetchall()}
    buried = dict(cursor.execute("SELECT key_id, slave FROM key_tombstones WHERE key_id = ANY(%s)", (ids,)).fetchall())
    shares = cursor.execute(
        "SELECT key_id FROM key_shares WHERE key_id = ANY(%s) AND sae = %s AND served_at IS NULL", (ids, slave)
    )
    waiting = {row[0] for row in shares.fetchall()}
    missing = False
    for key_id in key_ids:
        row = found.get(key_id)
        if slave not in audience_members(row.slave if row else buried.get(key_id, slave)):
            raise NotPermitted("one or more keys specified were not allocated to this SAE")
        missing = missing or row is None or row.master != master or not _waits_for(row, slave, waiting)
    if missing:
        raise KeyNotFound("one or more keys specified are not found on KME")
    if len(locked) != len(ids):
        raise StoreUnavailable("another front end is handing out one of these keys; try again")
    return [found[key_id] for key_id in key_ids]


def _waits_for(row: PgRow, slave: str, waiting: set[str]) -> bool:
    if row.state != (RELEASED if row.owner_here else DELIVERABLE):
        return False
    return row.slave == slave or row.key_id in waiting  # a pair's key: the row itself is the one copy


def serve_share(cursor: psycopg.Cursor[Any], rows: Sequence[PgRow], slave: str, now: float) -> list[PgRow]:
    """Note that ``slave`` has these keys now. Returns the rows that nobody of this site waits for any more."""
    groups = _of_groups(rows)
    if groups:
        cursor.execute(
            "UPDATE key_shares SET served_at = %s WHERE key_id = ANY(%s) AND sae = %s AND served_at IS NULL",
            (now, groups, slave),
        )
    return without_shares(cursor, rows)


def without_shares(cursor: psycopg.Cursor[Any], rows: Sequence[PgRow]) -> list[PgRow]:
    """Return the rows of which no slave of this site has a share to fetch."""
    groups = _of_groups(rows)
    if not groups:
        return list(rows)
    found = cursor.execute(
        "SELECT DISTINCT key_id FROM key_shares WHERE key_id = ANY(%s) AND served_at IS NULL", (groups,)
    )
    waiting = {row[0] for row in found.fetchall()}
    return [row for row in rows if row.key_id not in waiting]


def _of_groups(rows: Sequence[PgRow]) -> list[str]:
    return [row.key_id for row in rows if len(audience_members(row.slave)) > 1]


def is_known(cursor: psycopg.Cursor[Any], key_id: str) -> bool:
    """Tell whether a key of that key_ID is here, or was."""
    query = "SELECT 1 FROM key_records WHERE key_id = %s UNION ALL SELECT 1 FROM key_tombstones WHERE key_id = %s"
    return cursor.execute(query, (key_id, key_id)).fetchone() is not None


# One statement, since each costs a delivery a round trip: the keys leave, their tombstones come, and which blocks seem
# empty now. What else is in a block is seen as it was when the statement began.
_BURY = """
WITH gone AS (DELETE FROM key_records k USING key_segments s WHERE k.key_id = ANY(%s) AND s.segment = k.segment
              RETURNING k.key_id, k.segment, k.master, k.slave, k.owner_here, s.epoch),
buried AS (INSERT INTO key_tombstones SELECT key_id, master, slave, owner_here, epoch, %s, %s FROM gone)
SELECT DISTINCT segment FROM gone g
WHERE NOT EXISTS (SELECT 1 FROM key_records k WHERE k.segment = g.segment AND k.key_id <> ALL(%s))
"""


def bury(cursor: psycopg.Cursor[Any], rows: Sequence[PgRow], fate: str, now: float) -> list[tuple[int, int]]:
    """Erase the rows and leave tombstones. Returns (epoch, block) of the blocks of which no key is left."""
    if not rows:
        return []
    ids = [row.key_id for row in rows]
    found = cursor.execute(_BURY, (ids, fate, now, ids)).fetchall()
    if groups := _of_groups(rows):
        cursor.execute("DELETE FROM key_shares WHERE key_id = ANY(%s)", (groups,))
    return _forget_empty(cursor, "segment = ANY(%s) AND", ([segment for (segment,) in found],)) if found else []


def bury_where(
    cursor: psycopg.Cursor[Any], condition: str, arguments: tuple[object, ...], fate: str, now: float
) -> int:
    """Erase the rows for which ``condition`` (SQL over ``k`` and ``s``) holds. Returns how many.

    A row that a front end is handing out stays, and is gone by itself.
    """
    gone = _bury(cursor, condition, arguments, fate, now)
    if gone:
        cursor.execute(
            "DELETE FROM key_shares h WHERE NOT EXISTS (SELECT 1 FROM key_records k WHERE k.key_id = h.key_id)"
        )
    forget_empty(cursor)
    return gone


def _bury(cursor: psycopg.Cursor[Any], condition: str, arguments: tuple[object, ...], fate: str, now: float) -> int:
    statement = (  # the condition is a constant of the module that calls
        "WITH chosen AS (SELECT k.key_id FROM key_records k JOIN key_segments s USING (segment) "  # noqa: S608
        "WHERE " + condition + " FOR UPDATE OF k SKIP LOCKED), "
        "gone AS (DELETE FROM key_records k USING chosen c, key_segments s WHERE k.key_id = c.key_id "
        "AND s.segment = k.segment RETURNING k.key_id, k.master, k.slave, k.owner_here, s.epoch) "
        "INSERT INTO key_tombstones SELECT key_id, master, slave, owner_here, epoch, %s, %s FROM gone"
    )
    return cursor.execute(statement, (*arguments, fate, now)).rowcount


def forget_empty(cursor: psycopg.Cursor[Any]) -> None:
    """Forget the blocks of which no key is left, also those that two front ends emptied, each blind to the other."""
    _forget_empty(cursor, "", ())


def _forget_empty(cursor: psycopg.Cursor[Any], condition: str, arguments: tuple[object, ...]) -> list[tuple[int, int]]:
    found = cursor.execute(  # the condition is one of two constants above
        f"DELETE FROM key_segments s WHERE {condition} NOT EXISTS "  # noqa: S608
        "(SELECT 1 FROM key_records k WHERE k.segment = s.segment) RETURNING epoch, block",
        arguments,
    ).fetchall()
    for epoch, block in found:
        cursor.execute("DELETE FROM segment_holders WHERE epoch = %s AND block = %s", (epoch, block))
    return [(int(epoch), int(block)) for epoch, block in found]
