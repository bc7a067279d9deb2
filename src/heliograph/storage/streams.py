"""Key streams at rest (ETSI GS QKD 004): who opened what, and which chunks wait. A chunk is erased before it leaves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from heliograph.errors import KeyNotFound
from heliograph.kme.etsi004 import Qos
from heliograph.kme.stream_records import Chunk, Stream
from heliograph.storage.database import Database
from heliograph.storage.store_seal import StoreSeal

__all__ = ["SCHEMA", "StreamRecords", "destroy_streams"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS streams(
  ksid BLOB PRIMARY KEY, local_sae TEXT NOT NULL, remote_sae TEXT NOT NULL, source TEXT NOT NULL,
  destination TEXT NOT NULL, qos TEXT NOT NULL, owner_here INTEGER NOT NULL, created_at REAL NOT NULL,
  opened_here INTEGER NOT NULL, opened_there INTEGER NOT NULL, closed_here INTEGER NOT NULL,
  closed_there INTEGER NOT NULL, next_index INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream_chunks(
  ksid BLOB NOT NULL, position INTEGER NOT NULL, key_ids TEXT NOT NULL, agreed INTEGER NOT NULL, at REAL NOT NULL,
  sealed BLOB, PRIMARY KEY(ksid, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message_attempts(
  key_id TEXT PRIMARY KEY, attempts INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = (
    "ksid, local_sae, remote_sae, source, destination, qos, owner_here, created_at, opened_here, opened_there, "
    "closed_here, closed_there, next_index"
)


class StreamRecords:
    """Implements ``kme.stream_records.StreamStore``. ``seal``: counts what leaves outside the store too."""

    def __init__(self, database: Database, seal: StoreSeal | None = None) -> None:
        self._database = database
        self._seal = seal
        database.define(SCHEMA)

    def find(self, ksid: bytes) -> Stream | None:
        """Return a stream."""
        with self._database.reading() as cursor:
            row = cursor.execute(f"SELECT {_COLUMNS} FROM streams WHERE ksid = ?", (ksid,)).fetchone()  # noqa: S608
        return None if row is None else _stream(row)

    def all(self) -> list[Stream]:
        """Return every stream."""
        with self._database.reading() as cursor:
            return [_stream(row) for row in cursor.execute(f"SELECT {_COLUMNS} FROM streams").fetchall()]  # noqa: S608

    def save(self, stream: Stream) -> None:
        """Insert or replace a stream."""
        with self._database.transaction() as cursor:
            cursor.execute(
                f"INSERT OR REPLACE INTO streams({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (
                    stream.ksid,
                    stream.local_sae,
                    stream.remote_sae,
                    stream.source,
                    stream.destination,
                    msgspec.json.encode(stream.qos).decode(),
                    int(stream.owner_here),
                    stream.created_at,
                    int(stream.opened_here),
                    int(stream.opened_there),
                    int(stream.closed_here),
                    int(stream.closed_there),
                    stream.next_index,
                ),
            )

    def add_chunks(self, ksid: bytes, chunks: list[Chunk], next_index: int) -> None:
        """Add chunks, sealed, and move the stream's end, in one transaction."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                "INSERT INTO stream_chunks VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        ksid,
                        chunk.index,
                        json.dumps(chunk.key_ids),
                        int(chunk.agreed),
                        chunk.at,
                        self._database.vault.seal(chunk.material, _context(ksid, chunk.index))
                        if chunk.material
                        else None,
                    )
                    for chunk in chunks
                ],
            )
            cursor.execute("UPDATE streams SET next_index = ? WHERE ksid = ?", (next_index, ksid))

    def chunk(self, ksid: bytes, index: int) -> Chunk | None:
        """Return a chunk without its material."""
        with self._database.reading() as cursor:
            row = cursor.execute(
                "SELECT position, key_ids, agreed, at FROM stream_chunks WHERE ksid = ? AND position = ?", (ksid, index)
            ).fetchone()
        return None if row is None else _chunk(row)

    def chunks(self, ksid: bytes) -> list[Chunk]:
        """Return all chunks that wait, by index, without their material."""
        with self._database.reading() as cursor:
            return _waiting(cursor, ksid)

    def agree(self, ksid: bytes, indices: list[int]) -> None:
        """Mark chunks as acknowledged by the other site."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                "UPDATE stream_chunks SET agreed = 1 WHERE ksid = ? AND position = ?", [(ksid, i) for i in indices]
            )

    def take(self, ksid: bytes, index: int) -> bytes:
        """Erase a chunk durably, then return its material (empty where it is not kept). Raises KeyNotFound."""
        with self._database.transaction() as cursor:
            row = cursor.execute(
                "DELETE FROM stream_chunks WHERE ksid = ? AND position = ? RETURNING sealed", (ksid, index)
            ).fetchone()
            if row is None:
                raise KeyNotFound("the chunk was handed out before")
            # Opened inside: a chunk that does not open is not lost by it, it stays and is refused again.
            material = b"" if row[0] is None else self._database.vault.unseal(row[0], _context(ksid, index))
            mark = self._seal.mark(cursor) if self._seal and material else 0
        if mark and self._seal:
            self._seal.witness(mark)
        return material

    def drop(self, ksid: bytes) -> list[Chunk]:
        """Erase all chunks of a stream and return what they were."""
        with self._database.transaction() as cursor:
            chunks = _waiting(cursor, ksid)
            cursor.execute("DELETE FROM stream_chunks WHERE ksid = ?", (ksid,))
        return chunks

    def attempt(self, key_ids: Sequence[str], now: float) -> int:
        """Note one more attempt on each key; return the most that any of them has had now."""
        with self._database.transaction() as cursor:
            return max(
                int(
                    cursor.execute(
                        "INSERT INTO message_attempts VALUES (?, 1, ?) ON CONFLICT(key_id) "
                        "DO UPDATE SET attempts = attempts + 1, at = excluded.at RETURNING attempts",
                        (key_id, now),
                    ).fetchone()[0]
                )
                for key_id in key_ids
            )

    def forget_attempts(self, before: float) -> None:
        """Drop the counts of keys that nobody tried since ``before``."""
        with self._database.transaction() as cursor:
            cursor.execute("DELETE FROM message_attempts WHERE at < ?", (before,))

    def forget(self, ksid: bytes) -> None:
        """Erase a stream."""
        with self._database.transaction() as cursor:
            cursor.execute("DELETE FROM stream_chunks WHERE ksid = ?", (ksid,))
            cursor.execute("DELETE FROM streams WHERE ksid = ?", (ksid,))


def destroy_streams(database: Database) -> None:
    """Forget every stream after a rollback: chunks of them may have been handed out already (security.md 4)."""
    database.define(SCHEMA)
    with database.transaction() as cursor:
        cursor.execute("DELETE FROM stream_chunks")
        cursor.execute("DELETE FROM streams")


def _waiting(cursor: sqlite3.Cursor, ksid: bytes) -> list[Chunk]:
    rows = cursor.execute(
        "SELECT position, key_ids, agreed, at FROM stream_chunks WHERE ksid = ? ORDER BY position", (ksid,)
    )
    return [_chunk(row) for row in rows.fetchall()]


def _stream(row: tuple[Any, ...]) -> Stream:
    ksid, local, remote, source, destination, qos, owner, created, *flags, next_index = row
    here, there, closed_here, closed_there = (bool(flag) for flag in flags)
    return Stream(
        bytes(ksid),
        str(local),
        str(remote),
        str(source),
        str(destination),
        msgspec.json.decode(str(qos), type=Qos),
        bool(owner),
        float(created),
        here,
        there,
        closed_here,
        closed_there,
        int(next_index),
    )


def _chunk(row: tuple[int, str, int, float]) -> Chunk:
    position, key_ids, agreed, at = row
    return Chunk(position, tuple(json.loads(key_ids)), bool(agreed), at)


def _context(ksid: bytes, index: int) -> bytes:
    return b"heliograph/1 stream chunk " + ksid + index.to_bytes(4, "big")
