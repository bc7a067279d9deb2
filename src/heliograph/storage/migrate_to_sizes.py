"""Schema 3 to 4: keys of one pair that differ in size become audiences of their own (ADR 0053). No secret is opened.

Until then a pair whose link was planned anew with another size had both sizes in one line, and a request for keys of
one size could be given those of the other. A key's size is that of its ciphertext; nothing but counts is rewritten.

Sealed bytes of a length that cannot be right are refused: as a pool of their own, of a size that nobody asks for, their
keys would be counted and never opened. What tells is that a chunk's keys are of one size, and so, in schema 3, are all
keys of one block. A chunk that is alone in its block and a whole number of bytes short for each key is not told apart.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict

from heliograph.storage.migrate_to_chunks import REMEDY, UnknownRow

__all__ = ["divide_audiences"]

_TAG_BYTES = 16
_PENDING = 0
_KEPT = (0, 2, 3)
_OPENED = (0, 3)  # a key that waits, or is released; what was set aside is opened no more
_COLUMNS = ("pending", "deliverable", "damaged", "released")

_SET_ASIDE = "they do not open, and the release that wrote the store sets them aside when one is asked for"

# As schema 4 was when it came; later changes are steps of their own.
_TABLE = """CREATE TABLE key_audiences(
  audience INTEGER PRIMARY KEY, master TEXT NOT NULL, slave TEXT NOT NULL, owner_here INTEGER NOT NULL,
  size INTEGER NOT NULL, pending INTEGER NOT NULL DEFAULT 0, deliverable INTEGER NOT NULL DEFAULT 0,
  damaged INTEGER NOT NULL DEFAULT 0, released INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0,
  UNIQUE(master, slave, owner_here, size))"""


def divide_audiences(connection: sqlite3.Connection) -> None:
    """Give each audience its size, and the chunks of a further size an audience of their own. Raises sqlite3.Error.

    Raises UnknownRow, before anything is changed, for a chunk whose keys would be lost or not be the same after it.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'key_audiences'").fetchone():
        return  # closed, or killed, before its first keys
    pools: defaultdict[int, defaultdict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    chunks: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    sizes = _sizes_of_blocks(connection)
    for chunk, audience, state, fates, key_ids, segment, length, known in connection.execute(
        "SELECT chunk, audience, state, fates, key_ids, segment, "
        "CASE typeof(ciphertexts) WHEN 'blob' THEN length(ciphertexts) END, key_audiences.audience IS NOT NULL "
        "FROM key_chunks LEFT JOIN key_ciphertexts USING (chunk) LEFT JOIN key_audiences USING (audience)"
    ):
        _check(chunk, fates, key_ids, length, known)
        if length is None:
            continue  # tombstones
        size = max(0, length // len(fates) - _TAG_BYTES)
        if any(fate in fates for fate in _OPENED):
            _check_length(chunk, len(fates), length, sizes.get(segment, size))
        waiting = "pending" if state == _PENDING else "deliverable"
        pools[audience][size].update({waiting: fates.count(0), "damaged": fates.count(2), "released": fates.count(3)})
        chunks[audience, size].append(chunk)
    rows = connection.execute("SELECT audience, master, slave, owner_here, delivered FROM key_audiences").fetchall()
    connection.execute("DROP TABLE key_audiences")
    connection.execute(_TABLE)
    for audience, *names, delivered in rows:
        # Of an audience whose last key has left nobody asks any more how large it was: its row counts what it gave.
        first = min(pools[audience], default=0)
        _insert(connection, audience, names, first, pools[audience][first], delivered)
    for audience, *names, _ in rows:  # after all of those that keep their numbers
        for size in sorted(pools[audience])[1:]:
            new = _insert(connection, None, names, size, pools[audience][size], 0)
            connection.executemany(
                "UPDATE key_chunks SET audience = ? WHERE chunk = ?", [(new, chunk) for chunk in chunks[audience, size]]
            )


def _check(chunk: int, fates: object, key_ids: object, length: int | None, known: int) -> None:
    wrong = None
    if not isinstance(fates, bytes) or not isinstance(key_ids, bytes) or not len(key_ids) == 16 * len(fates) > 0:
        wrong = "fates has an unknown form"
    elif not known:
        wrong = "its audience is not there"
    elif length is None and any(fate in fates for fate in _KEPT):
        wrong = "its ciphertexts are not there"
    if wrong is not None:
        raise UnknownRow(f"key_chunks, chunk {chunk}: {wrong}; {REMEDY}")


def _sizes_of_blocks(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the size in bytes that most keys of each block have; of several, the larger: bytes get lost, not more."""
    keys: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for segment, number, length in connection.execute(
        "SELECT segment, length(fates), length(ciphertexts) FROM key_chunks JOIN key_ciphertexts USING (chunk) "
        "WHERE segment IS NOT NULL AND length(fates) > 0 AND typeof(ciphertexts) = 'blob'"
    ):
        if length % number == 0:
            keys[segment][length // number - _TAG_BYTES] += number
    return {segment: max(found, key=lambda size: (found[size], size)) for segment, found in keys.items()}


def _check_length(chunk: int, number: int, length: int, size: int) -> None:
    if size < 1 or length != number * (size + _TAG_BYTES):
        raise UnknownRow(
            f"key_chunks, chunk {chunk}: its ciphertexts have {length} bytes, which is not what its {number} keys "
            f"take; {_SET_ASIDE}; {REMEDY}"
        )


def _insert(
    connection: sqlite3.Connection,
    audience: int | None,
    names: list[object],
    size: int,
    counts: Counter[str],
    delivered: int,
) -> int:
    return int(
        connection.execute(
            "INSERT INTO key_audiences(audience, master, slave, owner_here, size, pending, deliverable, damaged, "
            "released, delivered) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING audience",
            (audience, *names, size, *(counts[name] for name in _COLUMNS), delivered),
        ).fetchone()[0]
    )
