"""Hands each block's keys over from the link's own file to the delivery server; repeating it does no harm.

Keys are stored with their block, in the transaction that makes the commit known, as ever. Then, before the message that
tells the peer so leaves, they go to the server: by (epoch, block), once for ever. So a key is deliverable at its owner
only when both sites have handed the block over, and no message had to be added for it (security.md 3). What the server
is given is ciphertext; the block's key stays here, sealed, until every front end has it (ADR 0047).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.storage.database import Database
from heliograph.storage.key_chunks import POSITION_MAX, Chunk, KeyChanges, Place
from heliograph.storage.key_contexts import TAG_BYTES, segment_context
from heliograph.storage.key_places import kept_of, runs_of
from heliograph.storage.key_rows import DAMAGED, DELIVERABLE, HANDED_OVER, PENDING, WAITING
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.pg_server import PgServer

if TYPE_CHECKING:
    import psycopg

__all__ = ["SCHEMA", "Outbox", "require_nothing_under_way"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox_segments(
  epoch INTEGER NOT NULL, block INTEGER NOT NULL, sealed_key BLOB NOT NULL, PRIMARY KEY(epoch, block)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox_acknowledged(
  epoch INTEGER NOT NULL, block INTEGER NOT NULL, PRIMARY KEY(epoch, block)) WITHOUT ROWID;
"""
_TOMBSTONES_AT_ONCE = 1000  # our choice
# What names no block was altered: the server would refuse it, and with it all that comes after. It stays here.
_NAMED = "typeof(epoch) = 'integer' AND typeof(block) = 'integer'"


class Outbox:
    """Takes a block's keys as ``KeyRecords`` does, and brings them to the ``server``.

    ``front_ends``: who must have a block's key before it is erased here.
    """

    def __init__(
        self,
        database: Database,
        keys: KeyRecords,
        server: PgServer,
        front_ends: Sequence[str],
        now: Callable[[], float],
    ) -> None:
        self._database = database
        self._keys = keys
        self._server = server
        self._front_ends = tuple(front_ends)
        self._now = now
        database.define(SCHEMA)

    def add(self, cursor: sqlite3.Cursor, epoch: int, block: int, rows: Sequence[NewKey], metadata: str = "{}") -> None:
        """Store a committed block's keys inside the caller's transaction, as ``KeyRecords.add``."""
        self._keys.add(cursor, epoch, block, rows, metadata)

    def acknowledge(self, cursor: sqlite3.Cursor, epoch: int, block: int) -> int:
        """Make a block's keys deliverable, wherever they are by now. Returns how many of them are still here."""
        cursor.execute("INSERT OR IGNORE INTO outbox_acknowledged VALUES (?, ?)", (epoch, block))
        return self._keys.acknowledge(cursor, epoch, block)

    def push(self) -> int:
        """Bring everything that waits here to the server. Returns how many keys. Raises StoreUnavailable.

        Until this has returned, nothing that says that a block's keys are in place may leave.
        """
        with self._database.reading() as cursor:
            blocks = cursor.execute(
                f"SELECT epoch, block FROM key_segments WHERE {_NAMED} ORDER BY segment"  # noqa: S608  - a constant
            ).fetchall()
            acknowledged = cursor.execute(
                f"SELECT epoch, block FROM outbox_acknowledged WHERE {_NAMED}"  # noqa: S608  - the same
            ).fetchall()
        moved = sum(self._hand_over(epoch, block) for epoch, block in blocks)
        for epoch, block in acknowledged:
            self._acknowledge(epoch, block)
        if blocks:
            self._empty_log()
        return moved

    def upkeep(self) -> int:
        """Erase the keys of blocks that every front end has; offer the others again. Returns how many wait still.

        The server forgets what it holds of them when it crashes: it writes them to no log.
        """
        with self._database.reading() as cursor:
            waiting = cursor.execute(
                f"SELECT epoch, block, CAST(sealed_key AS BLOB) FROM outbox_segments WHERE {_NAMED}"  # noqa: S608
            ).fetchall()
        done = []
        with self._server.transaction() as server:
            for epoch, block, sealed in waiting:
                if self._settled(server, epoch, block):
                    done.append((epoch, block))
                else:
                    _offer(server, epoch, block, sealed)
        with suppress(StoreUnavailable), self._server.transaction() as server:
            self._empty(server)
        if done:
            with self._database.transaction() as cursor:
                cursor.executemany("DELETE FROM outbox_segments WHERE epoch = ? AND block = ?", done)
            self._empty_log()
        return len(waiting) - len(done)

    def push_tombstones(self) -> int:
        """Tell the server which keys left this store before: who asks for one is answered as ever. Returns how many."""
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT key_id, master, slave, owner_here, epoch, CASE fate WHEN 4 THEN 'delivered' "
                "WHEN 5 THEN 'expired' ELSE 'discarded' END, changed_at, key_id FROM key_list WHERE fate IN (4, 5, 6)"
            ).fetchall()
        for begin in range(0, len(found), _TOMBSTONES_AT_ONCE):
            with self._server.transaction() as server:
                server.executemany(
                    # A key that is alive there is not buried, whatever this file says.
                    "INSERT INTO key_tombstones SELECT %s, %s, %s, %s::integer, %s::bigint, %s, %s::double precision "
                    "WHERE NOT EXISTS (SELECT 1 FROM key_records WHERE key_id = %s) ON CONFLICT DO NOTHING",
                    found[begin : begin + _TOMBSTONES_AT_ONCE],
                )
        return len(found)

    # -- steps ---------------------------------------------------------------------------------------------------

    def _hand_over(self, epoch: int, block: int) -> int:
        with self._database.reading() as cursor:
            places = kept_of(KeyChanges(cursor), epoch, block)
            shares = [
                share
                for chunk, at in places
                if chunk.is_group
                for share in cursor.execute(
                    "SELECT key_id, sae, served_at FROM key_shares WHERE key_id = ?", (chunk.key_id(at),)
                )
            ]
        if not places:
            return 0
        any_chunk = places[0][0]
        self._set_aside_unless_it_opens(places)
        # (0) Noted first: from here on the keys may be in the server, so no site without one may hand them out.
        with self._database.transaction() as cursor:
            cursor.execute(
                "INSERT OR IGNORE INTO outbox_segments VALUES (?, ?, ?)", (epoch, block, any_chunk.sealed_key)
            )
        # (1) The server has the block, or had it before: then whatever became of its keys there is what counts.
        with self._server.transaction() as server:
            found = server.execute(
                "INSERT INTO handed_over(epoch, block) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING segment",
                (epoch, block),
            ).fetchone()
            if found is not None:
                (segment,) = found
                server.execute(
                    "INSERT INTO key_segments VALUES (%s, %s, %s, %s)",
                    (segment, epoch, block, (any_chunk.metadata or "{}").replace("\0", " ")),
                )
                taken = set[int]()
                server.executemany(
                    "INSERT INTO key_records VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    [_row(chunk, at, segment, number, taken) for number, (chunk, at) in enumerate(places)],
                )
                server.executemany("INSERT INTO key_shares VALUES (%s, %s, %s)", shares)
                _offer(server, epoch, block, any_chunk.sealed_key)
        # (2) Only then do they leave this file, all but the block's key. A crash before this repeats (1), which finds
        # the block there.
        with self._database.transaction() as cursor:
            changes = KeyChanges(cursor)
            changes.put(runs_of(kept_of(changes, epoch, block)), HANDED_OVER, self._now())
            changes.write()
        return len(places)

    def _set_aside_unless_it_opens(self, places: Sequence[Place]) -> None:
        """Mark the places as damaged if their block's key was altered: no front end could open them either.

        That this is the store's key-encryption key was seen when the store was opened. Only what is handed over is
        marked; this file forgets the keys next.
        """
        chunk = places[0][0]
        try:
            self._database.vault.unseal(chunk.sealed_key or b"", segment_context(chunk.epoch, chunk.block or 0))
        except StoreUnavailable:
            for damaged, at in places:
                damaged.fates[at] = DAMAGED

    def _acknowledge(self, epoch: int, block: int) -> None:
        with self._server.transaction() as server:
            server.execute(
                "UPDATE key_records SET state = %s WHERE state = %s AND segment = "
                "(SELECT segment FROM handed_over WHERE epoch = %s AND block = %s)",
                (DELIVERABLE, PENDING, epoch, block),
            )
        with self._database.transaction() as cursor:
            cursor.execute("DELETE FROM outbox_acknowledged WHERE epoch = ? AND block = ?", (epoch, block))

    def _settled(self, server: psycopg.Cursor[Any], epoch: int, block: int) -> bool:
        """Tell whether nobody needs the block's key from here: every front end has it, or no key of it is left."""
        there = server.execute("SELECT 1 FROM key_segments WHERE epoch = %s AND block = %s", (epoch, block)).fetchone()
        if there is None:
            return True
        found = server.execute(
            "SELECT front_end FROM segment_holders WHERE epoch = %s AND block = %s", (epoch, block)
        ).fetchall()
        return {name for (name,) in found} >= set(self._front_ends)

    def _empty(self, server: psycopg.Cursor[Any]) -> None:
        """Throw the server's copies away as a file, once every front end has all of them: rows would stay legible."""
        server.execute("LOCK TABLE segment_keys IN ACCESS EXCLUSIVE MODE NOWAIT")
        left = server.execute("SELECT epoch, block FROM segment_keys").fetchall()
        if left and all(self._settled(server, epoch, block) for epoch, block in left):
            server.execute("TRUNCATE segment_keys")

    def _empty_log(self) -> None:
        with suppress(StoreUnavailable):  # the next checkpoint does it
            self._database.checkpoint()


def require_nothing_under_way(database: Database) -> None:
    """Return if no block is half-way to a delivery server. Raises ConfigurationError: its keys may be there too."""
    with database.reading() as cursor:
        if not cursor.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox_segments'").fetchone():
            return
        found = cursor.execute(
            "SELECT block FROM outbox_segments JOIN key_segments USING (epoch, block) ORDER BY epoch, block LIMIT 1"
        ).fetchone()
    if found:
        raise ConfigurationError(
            f"[delivery] is missing, and keys of block {found[0]} may be in the delivery server too: put it back"
        )


def _row(chunk: Chunk, at: int, segment: int, number: int, taken: set[int]) -> tuple[object, ...]:
    """Return the server's row of one key that is kept here, the ``number``-th of its block.

    ``taken``: the positions of those before it. What an altered chunk has left goes as set aside, under a name and a
    position that no key has: a column that the server refuses would keep this block, and all behind it, here.
    """
    sealed = chunk.ciphertexts or b""
    size = len(sealed) // len(chunk.fates)
    position = chunk.positions_of([at])[0] if chunk.fits else -1
    fits = chunk.fits and 0 <= position <= POSITION_MAX and position not in taken
    taken.add(position)
    # Of another length it would be of another size there, and in a pool of its own that nobody looks into.
    whole = fits and len(sealed) == (chunk.size + TAG_BYTES) * len(chunk.fates)
    fate = chunk.fates[at] if whole else DAMAGED
    return (
        chunk.key_id(at) if fits else f"altered {chunk.epoch} {chunk.block} {number}",
        segment,
        position if fits else -1 - number,
        chunk.master.replace("\0", " "),  # the one character that the server takes in no text
        chunk.slave.replace("\0", " "),
        int(chunk.owner_here == 1),
        chunk.state if fate == WAITING else fate,
        chunk.created_at if chunk.is_dated else 0.0,
        sealed[at * size : (at + 1) * size],
    )


def _offer(server: psycopg.Cursor[Any], epoch: int, block: int, sealed_key: bytes | None) -> None:
    """Put the block's key where the front ends fetch it, unless it is there.

    As the data of a COPY: a parameter of a statement could stand in the server's log of statements, for ever, by its
    administrator's settings (log_statement, log_min_duration_statement, log_parameter_max_length_on_error). In the
    binary format an error does not quote the row either.
    """
    if server.execute("SELECT 1 FROM segment_keys WHERE epoch = %s AND block = %s", (epoch, block)).fetchone():
        return
    with server.copy("COPY segment_keys(epoch, block, sealed_key) FROM STDIN (FORMAT BINARY)") as data:
        data.set_types(["int8", "int8", "bytea"])
        data.write_row((epoch, block, sealed_key))
