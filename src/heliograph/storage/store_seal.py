"""Whether this is the key-encryption key of a store, and the newest copy of the store."""

from __future__ import annotations

from heliograph.errors import RollbackDetected
from heliograph.ports import Anchor
from heliograph.storage.database import Database

__all__ = ["SCHEMA", "StoreSeal"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS store_seal(
  one INTEGER PRIMARY KEY CHECK (one = 1), sealed BLOB NOT NULL, runs INTEGER NOT NULL);
"""
_TEXT, _CONTEXT = b"heliograph store", b"heliograph/1 store seal"


class StoreSeal:
    """Counts the openings and orderly ends of a store, in it and in an ``anchor`` outside it.

    The marks of the link notice an old copy as soon as one block came after it; keys may leave without any block,
    and those must not leave again from a restored copy (security.md 4). A copy taken while the site ran, put back
    after a crash of that same run, is noticed by the link's marks alone.
    """

    def __init__(self, database: Database, anchor: Anchor) -> None:
        """Check the key. Raises StoreUnavailable if the store was sealed under another one."""
        self._database = database
        self._anchor = anchor
        database.define(SCHEMA)
        with database.reading() as cursor:
            row = cursor.execute("SELECT sealed FROM store_seal").fetchone()
        if row is not None:
            database.vault.unseal(bytes(row[0]), _CONTEXT)
            return
        with database.transaction() as cursor:
            cursor.execute("INSERT INTO store_seal VALUES (1, ?, 0)", (database.vault.seal(_TEXT, _CONTEXT),))

    def check(self) -> None:
        """Raise RollbackDetected if the anchor has seen this store opened or closed later than this copy remembers."""
        runs, seen = self._runs(), self._anchor.read()[0]
        if runs < seen:
            raise RollbackDetected(
                f"the store remembers {runs} openings and ends, its anchor {seen}: the store is an old copy. Its pads "
                "and keys are destroyed; run `heliograph site rebootstrap`"
            )

    def count(self) -> None:
        """Count one more opening or orderly end: the store first, so that a crash in between is no rollback."""
        with self._database.transaction() as cursor:
            (runs,) = cursor.execute("UPDATE store_seal SET runs = runs + 1 RETURNING runs").fetchone()
        self._anchor.advance(int(runs), 0)

    def accept(self) -> None:
        """Take this copy for the store from now on, by an operator's word."""
        with self._database.transaction() as cursor:
            cursor.execute("UPDATE store_seal SET runs = max(runs, ?)", (self._anchor.read()[0],))

    def _runs(self) -> int:
        with self._database.reading() as cursor:
            return int(cursor.execute("SELECT runs FROM store_seal").fetchone()[0])
