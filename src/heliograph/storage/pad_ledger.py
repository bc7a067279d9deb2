"""The ledger of authentication bits, by direction: what came in, what was refilled, what went on tags."""

from __future__ import annotations

import sqlite3

from heliograph.authentication.budget import DirectionBits
from heliograph.authentication.mac import PAD_BYTES
from heliograph.authentication.pads import PadDirection, PadRole, pad_set_bits

__all__ = ["SCHEMA", "count_bootstrap", "count_refill", "count_spent", "direction_bits", "sums"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS link_ledger(
  direction INTEGER PRIMARY KEY CHECK (direction IN (0, 1)), bits_in INTEGER NOT NULL DEFAULT 0,
  bits_refilled INTEGER NOT NULL DEFAULT 0, bits_spent INTEGER NOT NULL DEFAULT 0);
INSERT OR IGNORE INTO link_ledger(direction) VALUES (0), (1);
"""


def count_bootstrap(cursor: sqlite3.Cursor, pad_sets: int) -> None:
    """Count pad sets of a bootstrap inside the transaction that stores them."""
    for direction in PadDirection:
        cursor.execute(
            "UPDATE link_ledger SET bits_in = bits_in + ? WHERE direction = ?",
            (pad_sets * pad_set_bits(direction), direction),
        )


def count_refill(cursor: sqlite3.Cursor, pad_sets: int) -> None:
    """Count pad sets cut from QKD key inside the transaction that stores them."""
    for direction in PadDirection:
        cursor.execute(
            "UPDATE link_ledger SET bits_refilled = bits_refilled + ? WHERE direction = ?",
            (pad_sets * pad_set_bits(direction), direction),
        )


def count_spent(cursor: sqlite3.Cursor, role: PadRole) -> None:
    """Count the pad of ``role`` inside the transaction that erases it for a tag made or accepted."""
    cursor.execute(
        "UPDATE link_ledger SET bits_spent = bits_spent + ? WHERE direction = ?", (8 * PAD_BYTES, role.direction)
    )


def sums(cursor: sqlite3.Cursor) -> tuple[int, int]:
    """Return the bits spent and the bits refilled, both directions together."""
    spent, refilled = cursor.execute("SELECT sum(bits_spent), sum(bits_refilled) FROM link_ledger").fetchone()
    return int(spent), int(refilled)


def direction_bits(cursor: sqlite3.Cursor, direction: PadDirection, free_sets: int) -> DirectionBits:
    """Return one direction's bits; ``free_sets``: complete sets of blocks that have not begun."""
    bits_in, refilled, spent = cursor.execute(
        "SELECT bits_in, bits_refilled, bits_spent FROM link_ledger WHERE direction = ?", (direction,)
    ).fetchone()
    (pads,) = cursor.execute(
        "SELECT count(sealed) FROM link_pads WHERE role % 2 = ?", (direction,)
    ).fetchone()  # the role's parity is its direction: PadRole.direction
    left = 8 * PAD_BYTES * pads
    return DirectionBits(bits_in, refilled, spent, left, left - free_sets * pad_set_bits(direction))
