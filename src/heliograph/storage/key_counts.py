"""What is told of a pool's keys; and their count anew where a row was altered, or keys are promised that never come."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass

from heliograph.storage.key_rows import DELIVERED, KEPT, TOTALS, WAITING, names_and_fates

__all__ = ["KeyCounts", "recount"]


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """Keys of one pair (master, slave): owned here and pending, owned here and deliverable, held for the slave.

    ``released``: of a group; the master has them, slaves of this site have their shares still to fetch.
    """

    pending: int = 0
    deliverable: int = 0
    held: int = 0
    damaged: int = 0
    released: int = 0


def recount(cursor: sqlite3.Cursor, audience: int) -> None:
    """Set what the pool's row, and each chunk's, say of keys that are kept to what the fates say.

    A chunk that a wrong number hid from the next delivery is found by it then, and opened or set aside.
    """
    totals: Counter[int] = Counter()
    wrong = []
    rows = cursor.execute(
        "SELECT chunk, state, waiting, CAST(fates AS BLOB), CAST(key_ids AS BLOB) FROM key_chunks "
        "WHERE audience = ? AND segment IS NOT NULL",
        (audience,),
    )
    for chunk, state, waiting, *row in rows:
        _, fates, _ = names_and_fates(*reversed(row))
        kept = Counter(fate or state for fate in fates if fate in KEPT)
        totals.update(kept)
        if waiting != (found := fates.count(WAITING)):
            wrong.append((found, chunk))
    cursor.executemany("UPDATE key_chunks SET waiting = ? WHERE chunk = ?", wrong)
    columns = {column: totals[state] for state, column in TOTALS.items() if state != DELIVERED}
    numbers = ", ".join(f"{column} = ?" for column in columns)
    cursor.execute(f"UPDATE key_audiences SET {numbers} WHERE audience = ?", (*columns.values(), audience))  # noqa: S608
