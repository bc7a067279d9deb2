"""A committed block's keys on their way into the store: sealed, gathered into chunks, named."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliograph.errors import LocalProtocolError
from heliograph.ports import RandomSource, Vault
from heliograph.storage.key_chunks import KeyChanges
from heliograph.storage.key_contexts import key_context_parts, nonce, segment_context
from heliograph.storage.key_rows import CHUNK_KEYS, DELIVERABLE, PENDING, TOTALS, key_id_bytes, key_name

__all__ = ["NewKey", "insert_keys"]

SEGMENT_KEY_BYTES = 32
_ASKED_AT_ONCE = 512  # SQLite takes 999 values in any build


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key cut from a committed block. ``owner_here``: this site, not the peer, hands it to the master SAE.

    ``created_at``: seconds on the clock that ``now`` and ``expire`` use; it must go on across restarts.
    ``shares``: for a group, whose name ``slave_sae`` then is, its slaves at this site.
    """

    key_id: str
    master_sae: str
    slave_sae: str
    owner_here: bool
    material: bytes = field(repr=False)
    created_at: float
    shares: tuple[str, ...] = ()


def insert_keys(
    cursor: sqlite3.Cursor,
    vault: Vault,
    randomness: RandomSource,
    epoch: int,
    block: int,
    rows: Sequence[NewKey],
    metadata: str,
) -> None:
    """Store the keys of one block under one fresh segment key. Raises LocalProtocolError if one was stored before."""
    if cursor.execute("SELECT 1 FROM key_segments WHERE epoch = ? AND block = ?", (epoch, block)).fetchone():
        raise LocalProtocolError(f"the keys of block {block} of epoch {epoch} are stored already")
    named = _named(cursor, rows)
    segment_key = randomness.draw(SEGMENT_KEY_BYTES)
    if len(segment_key) != SEGMENT_KEY_BYTES:
        raise LocalProtocolError(f"the random source drew {len(segment_key)} bytes for a segment key")
    cursor.execute(
        "INSERT INTO key_segments(epoch, block, sealed_key, metadata) VALUES (?, ?, ?, ?)",
        (epoch, block, vault.seal(segment_key, segment_context(epoch, block)), metadata),
    )
    segment, cipher, position = cursor.lastrowid, AESGCM(segment_key), 0
    names: list[tuple[int, int]] = []
    # The pairs took turns when the block was cut; a chunk has keys of one audience, in the block's order.
    for audience, same in groupby(sorted(rows, key=_kind), key=_kind):
        keys = list(same)
        for first in range(0, len(keys), CHUNK_KEYS):
            part = keys[first : first + CHUNK_KEYS]
            ids = [named[key.key_id] for key in part]
            chunk = _insert_chunk(cursor, epoch, segment, audience, position, b"".join(ids))
            before, after = key_context_parts(audience[0], audience[1], epoch, block)
            nonces = map(nonce, range(position, position + len(part)))
            bound = [before + key.key_id.lower().encode() + after for key in part]
            sealed = map(cipher.encrypt, nonces, [key.material for key in part], bound)
            cursor.execute("INSERT INTO key_ciphertexts VALUES (?, ?)", (chunk, b"".join(sealed)))
            names += [(key_name(raw), chunk) for raw in ids]
            position += len(part)
    cursor.executemany("INSERT OR IGNORE INTO key_names VALUES (?, ?)", sorted(names))
    cursor.executemany(
        "INSERT INTO key_shares(key_id, sae) VALUES (?, ?)",
        [(row.key_id.lower(), sae) for row in rows for sae in row.shares],
    )


_Kind = tuple[str, str, bool, float, int]


def _kind(row: NewKey) -> _Kind:
    return row.master_sae, row.slave_sae, row.owner_here, row.created_at, len(row.material)


def _insert_chunk(
    cursor: sqlite3.Cursor, epoch: int, segment: int | None, audience: _Kind, first: int, ids: bytes
) -> int:
    master, slave, owner_here, created_at, size = audience
    number, state = len(ids) // 16, PENDING if owner_here else DELIVERABLE
    (found,) = cursor.execute(
        f"INSERT INTO key_audiences(master, slave, owner_here, size, {TOTALS[state]}) VALUES (?, ?, ?, ?, ?) "  # noqa: S608
        f"ON CONFLICT(master, slave, owner_here, size) DO UPDATE SET {TOTALS[state]} = {TOTALS[state]} + "
        f"excluded.{TOTALS[state]} RETURNING audience",
        (master, slave, int(owner_here), size, number),
    ).fetchone()
    cursor.execute(
        "INSERT INTO key_chunks(segment, epoch, audience, first, state, created_at, changed_at, waiting, fates, "
        "key_ids) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (segment, epoch, found, first, state, created_at, created_at, number, bytes(number), ids),
    )
    return int(cursor.lastrowid or 0)


def _named(cursor: sqlite3.Cursor, rows: Sequence[NewKey]) -> dict[str, bytes]:
    """Return each key_ID with its bytes. Raises LocalProtocolError for one that is no UUID or was used before."""
    named: dict[str, bytes] = {}
    by_name: dict[int, list[str]] = {}
    for row in rows:
        raw = key_id_bytes(row.key_id)
        if raw is None:
            raise LocalProtocolError(f"key_ID {row.key_id} is no UUID")
        if row.key_id in named:
            raise LocalProtocolError(f"key_ID {row.key_id} was used before")
        named[row.key_id] = raw
        by_name.setdefault(key_name(raw), []).append(row.key_id)
    names, changes = sorted(by_name), KeyChanges(cursor)  # in the table's own order: neighbours stand in one page
    for first in range(0, len(names), _ASKED_AT_ONCE):
        part = names[first : first + _ASKED_AT_ONCE]
        marks = ",".join("?" * len(part))
        found = cursor.execute(f"SELECT DISTINCT name FROM key_names WHERE name IN ({marks})", part)  # noqa: S608
        for (name,) in found.fetchall():
            for key_id in by_name[name]:  # two key_IDs may have one name: whole ones are compared
                if changes.find(key_id) is not None:
                    raise LocalProtocolError(f"key_ID {key_id} was used before")
    return named
