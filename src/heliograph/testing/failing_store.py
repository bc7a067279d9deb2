"""A store that fails once, at a transaction of the test's choice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from heliograph.errors import StoreUnavailable
from heliograph.storage.database import Database

__all__ = ["FailingTransaction"]


class FailingTransaction:
    """Makes the ``number``-th transaction of ``database`` from now raise StoreUnavailable, and no other.

    ``durable``: after it was committed, as when a process dies before it goes on; else before, and it is rolled back.
    ``reached`` tells whether there were that many.
    """

    def __init__(self, database: Database, number: int, *, durable: bool) -> None:
        self._left, self._durable = number, durable
        self._real = database.transaction
        database.transaction = self._transaction  # type: ignore[method-assign]

    @property
    def reached(self) -> bool:
        """Whether the failure happened."""
        return self._left <= 0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        self._left -= 1
        due = self._left == 0
        with self._real() as cursor:
            yield cursor
            if due and not self._durable:
                raise StoreUnavailable("it fails before the commit")
        if due:
            raise StoreUnavailable("it fails after the commit")
