"""Whether this is the key-encryption key of a store, and the newest copy of the store."""

from __future__ import annotations

import sqlite3

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
    """Counts, in the store and in an ``anchor`` outside it, everything after which an older copy must not be used.

    That is each opening, each pad that is spent and each delivery of keys. ``mark`` counts inside the transaction that
    spends; ``witness`` puts the count into the anchor before the byte leaves. So a copy of the store, whenever it was
    taken, is behind the anchor as soon as anything left after it (security.md 4). An anchor that is missing while the
    store remembers more than its first opening is an old copy's companion too: a backup leaves anchors out.
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
        if runs > 1 and not seen:
            raise RollbackDetected(
                f"the store remembers {runs} uses, but its anchor is missing: this is a restored backup. Its pads and "
                "keys are destroyed; run `heliograph site rebootstrap`"
            )
        if runs < seen:
            raise RollbackDetected(
                f"the store remembers {runs} uses, its anchor {seen}: the store is an old copy. Its pads "
                "and keys are destroyed; run `heliograph site rebootstrap`"
            )

    def mark(self, cursor: sqlite3.Cursor) -> int:
        """Count one more use inside the caller's transaction. Returns the count, which ``witness`` takes."""
        return int(cursor.execute("UPDATE store_seal SET runs = runs + 1 RETURNING runs").fetchone()[0])

    def witness(self, mark: int) -> None:
        """Put the count outside the store, before what was counted leaves. Raises StoreUnavailable.

        The store came first, so a crash in between leaves it ahead of its anchor, which is no rollback.
        """
        self._anchor.advance(mark, 0)

    def count(self) -> None:
        """Count one use of its own: an opening."""
        with self._database.transaction() as cursor:
            mark = self.mark(cursor)
        self.witness(mark)

    def accept(self) -> None:
        """Take this copy for the store from now on, by an operator's word."""
        with self._database.transaction() as cursor:
            cursor.execute("UPDATE store_seal SET runs = max(runs, ?)", (self._anchor.read()[0],))
        self.count()

    def _runs(self) -> int:
        with self._database.reading() as cursor:
            return int(cursor.execute("SELECT runs FROM store_seal").fetchone()[0])
