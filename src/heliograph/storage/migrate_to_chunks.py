"""Schema 2 to 3: what stood in one row for each key is gathered into chunks (ADR 0046). No secret is opened.

Each ciphertext goes over as it is, with the position in its segment that it was encrypted under.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from typing import Any

__all__ = ["REMEDY", "UnknownRow", "gather_keys"]


class UnknownRow(Exception):
    """A row in a form that the old program never wrote; the text names it and the remedy."""


_CHUNK_KEYS = 128
_PENDING, _DELIVERABLE = 0, 1
REMEDY = (
    "nothing was changed; with the release that wrote the store, let its keys be fetched or expire and migrate then, "
    "or destroy them all with `heliograph store erase`"
)
_FATES = {"delivered": 4, "expired": 5, "discarded": 6}

_Form = Callable[[Any], bool]


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_flag(value: object) -> bool:
    return value in {0, 1}


def _is_time(value: object) -> bool:
    return isinstance(value, int | float)


# What the old program wrote into each column; in another form a row was changed by somebody else, or the disk.
_FORMS: dict[str, dict[str, _Form]] = {
    "key_records": {
        "key_id": _is_uuid,
        "segment": lambda value: isinstance(value, int),
        "position": lambda value: isinstance(value, int) and 0 <= value < 1 << 32,
        "master": _is_name,
        "slave": _is_name,
        "owner_here": _is_flag,
        "state": lambda value: value in {_PENDING, _DELIVERABLE, 2, 3},
        "created_at": _is_time,
        "ciphertext": lambda value: isinstance(value, bytes) and value != b"",
    },
    "key_tombstones": {
        "key_id": _is_uuid,
        "master": _is_name,
        "slave": _is_name,
        "owner_here": _is_flag,
        "epoch": lambda value: isinstance(value, int),
        "fate": lambda value: value in _FATES,
        "at": _is_time,
    },
}


def _check(connection: sqlite3.Connection, table: str, forms: dict[str, _Form], *, joined: bool) -> None:
    names = ", ".join(forms)
    for row in connection.execute(f"SELECT {names} FROM {table}"):  # noqa: S608  - constants above
        for column, value in zip(forms, row, strict=True):
            if not forms[column](value):
                # Key_IDs and names are no secrets; what else stands in a wrong place is not shown.
                shown = f" is {value!r:.60}" if column == "key_id" else " has an unknown form"
                raise UnknownRow(f"{table}, key_ID {row[0]!r:.60}: {column}{shown}; {REMEDY}")
    if table == "key_records":
        missing = "segment NOT IN (SELECT segment FROM key_segments)" if joined else "1"
        lost = connection.execute(f"SELECT key_id FROM key_records WHERE {missing} LIMIT 1").fetchone()  # noqa: S608
        if lost is not None:
            raise UnknownRow(f"key_records, key_ID {lost[0]!r:.60}: its segment is not there; {REMEDY}")


# As schema 3 was when it came; later changes are steps of their own.
_TABLES = (
    """CREATE TABLE key_audiences(
  audience INTEGER PRIMARY KEY, master TEXT NOT NULL, slave TEXT NOT NULL, owner_here INTEGER NOT NULL,
  pending INTEGER NOT NULL DEFAULT 0, deliverable INTEGER NOT NULL DEFAULT 0, damaged INTEGER NOT NULL DEFAULT 0,
  released INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0, UNIQUE(master, slave, owner_here))""",
    """CREATE TABLE key_chunks(
  chunk INTEGER PRIMARY KEY, segment INTEGER REFERENCES key_segments(segment), epoch INTEGER NOT NULL,
  audience INTEGER NOT NULL, first INTEGER NOT NULL, positions BLOB, state INTEGER NOT NULL, created_at REAL NOT NULL,
  changed_at REAL NOT NULL, waiting INTEGER NOT NULL, fates BLOB NOT NULL, key_ids BLOB NOT NULL)""",
    """CREATE TABLE key_ciphertexts(
  chunk INTEGER PRIMARY KEY REFERENCES key_chunks(chunk), ciphertexts BLOB NOT NULL)""",
    """CREATE TABLE key_names(
  name INTEGER NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY(name, chunk)) WITHOUT ROWID""",
    """CREATE INDEX key_supply ON key_chunks(audience, state, chunk, created_at) WHERE waiting > 0""",
    """CREATE INDEX key_kept ON key_chunks(segment, chunk, created_at, audience) WHERE segment IS NOT NULL""",
)
_VIEWS = (
    """CREATE VIEW key_list AS
  WITH RECURSIVE place(at) AS (SELECT 0 UNION ALL SELECT at + 1 FROM place WHERE at < 127),
  named AS (SELECT key_chunks.*, at, lower(hex(substr(key_ids, 16 * at + 1, 16))) AS h,
    CAST(hex(substr(fates, at + 1, 1)) AS INTEGER) AS fate FROM key_chunks JOIN place ON at < length(fates))
  SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-' || substr(h, 17, 4) || '-'
    || substr(h, 21) AS key_id, chunk, at AS place, segment, epoch, master, slave, owner_here, state, fate, created_at,
    changed_at, substr(ciphertexts, 1 + at * (length(ciphertexts) / length(fates)),
      length(ciphertexts) / length(fates)) AS ciphertext
  FROM named JOIN key_audiences USING (audience) LEFT JOIN key_ciphertexts USING (chunk)""",
    """CREATE VIEW key_records AS
  SELECT key_id, chunk, place, segment, master, slave, owner_here, CASE fate WHEN 0 THEN state ELSE fate END AS state,
    created_at, ciphertext FROM key_list WHERE fate < 4""",
    """CREATE VIEW key_tombstones AS
  SELECT key_id, master, slave, owner_here, epoch,
    CASE fate WHEN 4 THEN 'delivered' WHEN 5 THEN 'expired' WHEN 6 THEN 'discarded' ELSE 'handed over' END AS fate,
    changed_at AS at
  FROM key_list WHERE fate >= 4""",
)


def gather_keys(connection: sqlite3.Connection) -> None:
    """Carry the keys and the tombstones over inside the open transaction. Raises sqlite3.Error.

    Raises UnknownRow, before anything is changed, for a row that would be lost or not be the same after it.
    """
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, checks in _FORMS.items():
        if table in found:
            _check(connection, table, checks, joined="key_segments" in found)
    if "key_segments" not in found:
        connection.execute(
            """CREATE TABLE key_segments(
  segment INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, block INTEGER NOT NULL,
  sealed_key BLOB NOT NULL, metadata TEXT NOT NULL, UNIQUE(epoch, block))"""
        )
    for table in ("key_records", "key_tombstones"):
        if table in found:
            connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for name in ("key_supply", "key_fates"):
        connection.execute(f"DROP INDEX IF EXISTS {name}")
    for statement in _TABLES:
        connection.execute(statement)
    if "key_records" in found:
        _gather_kept(connection)
        connection.execute("DROP TABLE old_key_records")
    if "key_tombstones" in found:
        _gather_gone(connection)
        connection.execute("DROP TABLE old_key_tombstones")
    for statement in _VIEWS:
        connection.execute(statement)


def _gather_kept(connection: sqlite3.Connection) -> None:
    rows = connection.execute(
        "SELECT segment, epoch, master, slave, owner_here, state = 0, created_at, length(ciphertext), "
        "key_id, position, state FROM old_key_records JOIN key_segments USING (segment) "
        "ORDER BY segment, master, slave, owner_here, state = 0, created_at, length(ciphertext), position"
    )
    for same, keys in groupby(rows, key=lambda row: row[:8]):
        segment, epoch, *audience, pending, created_at, _ = same
        for part in _parts(keys):
            # A key that waits is 0; one set aside, or released, keeps its number.
            fates = bytes(0 if row[10] in {_PENDING, _DELIVERABLE} else row[10] for row in part)
            state = _PENDING if pending else _DELIVERABLE
            chunk = _insert(connection, segment, epoch, audience, state, created_at, created_at, fates, part, 8, 9)
            # One by one: sorted with the rest, ciphertexts would go through a temporary file that nobody overwrites.
            sealed = b"".join(_ciphertext(connection, row[8]) for row in part)
            connection.execute("INSERT INTO key_ciphertexts VALUES (?, ?)", (chunk, sealed))


def _ciphertext(connection: sqlite3.Connection, key_id: str) -> bytes:
    return bytes(connection.execute("SELECT ciphertext FROM old_key_records WHERE key_id = ?", (key_id,)).fetchone()[0])


def _gather_gone(connection: sqlite3.Connection) -> None:
    rows = connection.execute(
        "SELECT epoch, master, slave, owner_here, at, key_id, fate FROM old_key_tombstones "
        "ORDER BY epoch, master, slave, owner_here, at, key_id"
    )
    for same, keys in groupby(rows, key=lambda row: row[:4]):
        epoch, *audience = same
        for part in _parts(keys):
            fates = bytes(_FATES[row[6]] for row in part)
            _insert(connection, None, epoch, audience, _DELIVERABLE, part[0][4], part[-1][4], fates, part, 5, None)


def _insert(
    connection: sqlite3.Connection,
    segment: int | None,
    epoch: int,
    audience: list[Any],
    state: int,
    created_at: float,
    changed_at: float,
    fates: bytes,
    part: list[Any],
    key_id: int,
    position: int | None,
) -> int:
    waiting = fates.count(0)
    numbers = (
        waiting if state == _PENDING else 0,
        waiting if state == _DELIVERABLE else 0,
        fates.count(2),
        fates.count(3),
        fates.count(4),
    )
    (where,) = connection.execute(
        "INSERT INTO key_audiences(master, slave, owner_here, pending, deliverable, damaged, released, delivered) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(master, slave, owner_here) DO UPDATE SET "
        "pending = pending + excluded.pending, deliverable = deliverable + excluded.deliverable, "
        "damaged = damaged + excluded.damaged, released = released + excluded.released, "
        "delivered = delivered + excluded.delivered RETURNING audience",
        (*audience, *numbers),
    ).fetchone()
    ids = [bytes.fromhex(row[key_id].replace("-", "")) for row in part]
    places = None if position is None else b"".join(row[position].to_bytes(4, "big") for row in part)
    chunk = connection.execute(
        "INSERT INTO key_chunks(segment, epoch, audience, first, positions, state, created_at, changed_at, waiting, "
        "fates, key_ids) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
        (segment, epoch, where, places, state, created_at, changed_at, waiting, fates, b"".join(ids)),
    ).lastrowid
    connection.executemany(
        "INSERT OR IGNORE INTO key_names VALUES (?, ?)",
        [(int.from_bytes(raw[:8], "big", signed=True), chunk) for raw in ids],
    )
    return int(chunk or 0)


def _parts(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while part := list(islice(rows, _CHUNK_KEYS)):
        yield part
