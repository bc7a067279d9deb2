"""A front end's own file: the keys of blocks, which the server keeps in no log, and what tells it an old server.

Each front end counts its deliveries in the server and in an anchor of its own. A server that was restored, cloned, or
promoted without the last transactions is behind the anchor of whoever delivered last; that may be another front end.
So in each run of a server every listed front end has to say once that it is not ahead; before that none hands out a
key, and one that is ahead fences the server for all (ADR 0047).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from heliograph.errors import RollbackDetected, StoreUnavailable
from heliograph.ports import Anchor
from heliograph.storage.database import Database
from heliograph.storage.key_contexts import segment_context
from heliograph.storage.key_rows import DAMAGED
from heliograph.storage.pg_rows import forget_empty
from heliograph.storage.pg_schema import check_schema, fence, fenced
from heliograph.storage.pg_server import SETTINGS, refuse_settings

if TYPE_CHECKING:
    import psycopg

__all__ = ["SCHEMA", "FrontEnd", "run_of"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS front_segments(
  epoch INTEGER NOT NULL, block INTEGER NOT NULL, sealed_key BLOB NOT NULL, PRIMARY KEY(epoch, block)) WITHOUT ROWID;
"""

# Tables that were put back from a dump are other tables.
_TABLE = "'heliograph.store'::regclass::oid::bigint"
# One start of one server: another disk, another start, a promotion or other tables are another run.
_RUN = (
    "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || "  # noqa: S608  - a constant
    "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '/' || "
    "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint || '/' || " + _TABLE
)
_MARK = (
    "UPDATE front_ends SET runs = runs + 1 WHERE name = %s "  # noqa: S608  - two constants
    "RETURNING runs, (SELECT fenced FROM store), " + SETTINGS + ", " + _TABLE
)


def run_of(cursor: psycopg.Cursor[Any]) -> str:
    """Return the name of this run of the server."""
    found = cursor.execute(_RUN).fetchone()
    assert found is not None
    return str(found[0])


class FrontEnd:
    """One front end: ``name`` is one of ``listed``; ``database``: its own file; ``anchor``: outside it.

    ``standby``: as ``ServerEntry``. ``greet`` is what a ``PgServer`` calls in each new session.
    """

    def __init__(
        self, name: str, listed: Sequence[str], database: Database, anchor: Anchor, standby: str | None = None
    ) -> None:
        self.name = name
        self._listed = tuple(sorted(listed))
        self._digest = hashlib.sha256("\0".join(self._listed).encode()).hexdigest()[:32]
        self._database = database
        self._anchor = anchor
        self._standby = standby
        self._run = ""
        self._complete = False
        self._unwitnessed: int | None = None
        database.define(SCHEMA)

    # -- whether this is the server that was there before ----------------------------------------------------------

    def greet(self, cursor: psycopg.Cursor[Any]) -> None:
        """Say that this front end is not ahead of the server. Raises RollbackDetected, having fenced it, if it is."""
        self._complete = False
        check_schema(cursor, self._database.vault)
        seen = self._anchor.read()[0]
        found = cursor.execute("SELECT runs FROM front_ends WHERE name = %s", (self.name,)).fetchone()
        runs = 0 if found is None else int(found[0])
        if runs < seen:
            reason = (
                f"front end {self.name} remembers {seen} uses, the server {runs}: the server is an old copy, a clone, "
                "or a standby that lost the last deliveries"
            )
            fence(cursor, reason)
            raise RollbackDetected(f"{reason}; run `heliograph store reopen`")
        if runs > 1 and not seen:  # 1: it said so once, and crashed before its anchor was there
            raise RollbackDetected(
                f"the server remembers {runs} uses by front end {self.name}, whose anchor is missing: its directory is "
                "new, or a restored backup; run `heliograph store reopen`"
            )
        self.require_unfenced(cursor)
        self._run = run_of(cursor)
        cursor.execute("BEGIN")
        found = cursor.execute(
            # Without an anchor it stays at 1, however often the answer to its COMMIT was lost.
            "INSERT INTO front_ends(name, runs) VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET "
            "runs = front_ends.runs + %s WHERE front_ends.runs = %s RETURNING runs",
            (self.name, int(seen > 0), runs),
        ).fetchone()
        if found is None:
            raise StoreUnavailable(f"another process is the front end {self.name} too; stop one")
        # What earlier runs were told is of no use, and only the latest list of a front end counts.
        cursor.execute("DELETE FROM attests WHERE front_end = %s", (self.name,))
        cursor.execute(
            "INSERT INTO attests(run, front_end, listed) VALUES (%s, %s, %s)", (self._run, self.name, self._digest)
        )
        cursor.execute("COMMIT")
        self._anchor.advance(int(found[0]), 0)
        self._compare_holdings(cursor)

    @staticmethod
    def require_unfenced(cursor: psycopg.Cursor[Any]) -> None:
        """Raise RollbackDetected if somebody found out that the server is an old one."""
        if reason := fenced(cursor):
            raise RollbackDetected(f"the delivery server is fenced: {reason}; run `heliograph store reopen`")

    def require(self, cursor: psycopg.Cursor[Any]) -> None:
        """Return if every listed front end has said so in this run.

        Raises StoreUnavailable, naming who has not, and RollbackDetected for a fenced server.
        """
        if self._complete:
            return
        self.require_unfenced(cursor)
        found = dict(cursor.execute("SELECT front_end, listed FROM attests WHERE run = %s", (self._run,)).fetchall())
        absent = [name for name in self._listed if name not in found]
        if absent:
            raise StoreUnavailable(
                f"this run of the delivery server waits for the front ends {', '.join(absent)}: until each has been "
                "started once, nobody knows whether the server is an old copy"
            )
        if others := [name for name in self._listed if found[name] != self._digest]:
            raise StoreUnavailable(f"the front ends {', '.join(others)} have another list in [delivery] front_ends")
        self._complete = True

    def mark(self, cursor: psycopg.Cursor[Any]) -> int:
        """Count one more use inside the caller's transaction. Returns the count, which ``witness`` takes.

        Raises StoreUnavailable if the server does not promise any more what it has to, RollbackDetected if it is
        fenced.
        """
        if self._unwitnessed is not None:
            # The anchor could not be written: no more keys are burnt for answers that could not be given.
            self.witness(self._unwitnessed)
        found = cursor.execute(
            _MARK,
            (self.name,),
        ).fetchone()
        if found is None:
            raise RollbackDetected(f"the delivery server has forgotten the front end {self.name}")
        runs, why, settings, table = found
        if why is not None:
            raise RollbackDetected(f"the delivery server is fenced: {why}; run `heliograph store reopen`")
        if reason := refuse_settings(settings, self._standby):
            raise StoreUnavailable(f"delivery server: {reason}")
        if not self._run.endswith(f"/{table}") or runs <= self._anchor.read()[0]:
            # Put back under our feet. The next session greets it as any other, and fences it if this one is ahead.
            cursor.connection.close()
            raise RollbackDetected(
                f"the delivery server was put back to an old state while front end {self.name} was at work; "
                "run `heliograph store reopen`"
            )
        return int(runs)

    def witness(self, mark: int) -> None:
        """Put the count into the anchor, before what was counted leaves. Raises StoreUnavailable."""
        try:
            self._anchor.advance(mark, 0)
        except StoreUnavailable:
            self._unwitnessed = max(mark, self._unwitnessed or 0)
            raise
        self._unwitnessed = None

    # -- keys of blocks ---------------------------------------------------------------------------------------------

    def holds(self, epoch: int, block: int) -> bool:
        """Tell whether the block's key is in this front end's file."""
        return self._sealed(epoch, block) is not None

    def segment_key(self, epoch: int, block: int) -> bytes:
        """Return a block's key. Raises StoreUnavailable if it has not come yet, or does not open."""
        sealed = self._sealed(epoch, block)
        if sealed is None:
            raise StoreUnavailable(f"the key of block {block} has not reached the front end {self.name}; try again")
        return self._database.vault.unseal(sealed, segment_context(epoch, block))

    def collect(self, cursor: psycopg.Cursor[Any]) -> bool:
        """Take the keys of blocks that are new, and say so in the caller's transaction. Returns whether there were any.

        They are in this front end's file, durably, before it says that it holds them.
        """
        found = cursor.execute(
            "SELECT k.epoch, k.block, k.sealed_key FROM segment_keys k WHERE NOT EXISTS "
            "(SELECT 1 FROM segment_holders h WHERE h.epoch = k.epoch AND h.block = k.block AND h.front_end = %s) "
            "ORDER BY k.epoch, k.block LIMIT 256",
            (self.name,),
        ).fetchall()
        if not found:
            return False
        sound = []
        with self._database.transaction() as own:
            for epoch, block, sealed in found:
                try:
                    self._database.vault.unseal(bytes(sealed), segment_context(epoch, block))
                except StoreUnavailable:
                    # One altered row must not keep the blocks behind it back; the link's process offers its own again.
                    cursor.execute("DELETE FROM segment_keys WHERE epoch = %s AND block = %s", (epoch, block))
                    continue
                own.execute("INSERT OR REPLACE INTO front_segments VALUES (?, ?, ?)", (epoch, block, bytes(sealed)))
                sound.append((epoch, block))
        for epoch, block in sound:
            self._say(cursor, epoch, block)
        return bool(sound)

    def let_go(self, cursor: psycopg.Cursor[Any], epoch: int, block: int) -> int:
        """Give a block's key up that does not open here. Returns how many keys nobody can open any more.

        It comes again if the server still has it, and other front ends hold copies of their own; only where there is
        neither are the block's keys set aside, so that they stand in nobody's way.
        """
        with self._database.transaction() as own:
            own.execute("DELETE FROM front_segments WHERE epoch = ? AND block = ?", (epoch, block))
        where = (epoch, block)
        cursor.execute(
            "DELETE FROM segment_holders WHERE epoch = %s AND block = %s AND front_end = %s", (*where, self.name)
        )
        return cursor.execute(
            "UPDATE key_records SET state = %s WHERE state <> %s AND segment = "
            "(SELECT segment FROM key_segments WHERE epoch = %s AND block = %s) "
            "AND NOT EXISTS (SELECT 1 FROM segment_holders WHERE epoch = %s AND block = %s) "
            "AND NOT EXISTS (SELECT 1 FROM segment_keys WHERE epoch = %s AND block = %s)",
            (DAMAGED, DAMAGED, *where, *where, *where),
        ).rowcount

    def erase(self, blocks: Sequence[tuple[int, int]]) -> None:
        """Erase the keys of blocks of which no key is left: what remains of their ciphertext anywhere is noise."""
        with suppress(StoreUnavailable):  # the deliveries stand; the next ``tidy`` does the rest
            with self._database.transaction() as own:
                own.executemany("DELETE FROM front_segments WHERE epoch = ? AND block = ?", list(blocks))
            self._database.checkpoint()

    def tidy(self, cursor: psycopg.Cursor[Any]) -> int:
        """Take what is new, erase what the server has no keys of any more. Returns how many were erased.

        Inside a transaction of the delivery server's.
        """
        self.collect(cursor)
        forget_empty(cursor)
        held = self._held()
        there = cursor.execute(
            "SELECT epoch, block FROM key_segments WHERE epoch = ANY(%s)", (sorted({epoch for epoch, _ in held}),)
        ).fetchall()
        over = sorted(held - {(int(epoch), int(block)) for epoch, block in there})
        if over:
            self.erase(over)
        return len(over)

    def _compare_holdings(self, cursor: psycopg.Cursor[Any]) -> None:
        """Say no more and no less than what this file holds: either of the two may be older than the other."""
        said = {
            (int(epoch), int(block))
            for epoch, block in cursor.execute(
                "SELECT epoch, block FROM segment_holders WHERE front_end = %s", (self.name,)
            ).fetchall()
        }
        held = self._held()
        for epoch, block in held - said:
            self._say(cursor, epoch, block)
        for epoch, block in said - held:
            cursor.execute(
                "DELETE FROM segment_holders WHERE front_end = %s AND epoch = %s AND block = %s",
                (self.name, epoch, block),
            )

    def _say(self, cursor: psycopg.Cursor[Any], epoch: int, block: int) -> None:
        cursor.execute(
            "INSERT INTO segment_holders(epoch, block, front_end) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (epoch, block, self.name),
        )

    def _held(self) -> set[tuple[int, int]]:
        with self._database.reading() as own:
            # What names no block was altered: nothing opens with it, and the server would refuse to hear of it.
            named = "WHERE typeof(epoch) = 'integer' AND typeof(block) = 'integer'"
            found = own.execute(f"SELECT epoch, block FROM front_segments {named}")  # noqa: S608  - a constant
            return {(epoch, block) for epoch, block in found}

    def _sealed(self, epoch: int, block: int) -> bytes | None:
        with self._database.reading() as own:
            row = own.execute(
                "SELECT CAST(sealed_key AS BLOB) FROM front_segments WHERE epoch = ? AND block = ?", (epoch, block)
            ).fetchone()
        return None if row is None else bytes(row[0])
