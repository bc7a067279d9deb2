"""Chunks of keys as an open transaction sees and changes them: in memory first, written once before the commit.

So a group of requests that take keys from the same chunk rewrites one row, not one for each. A change cannot fail
half-way: what may fail (reading, opening, whoever must agree) comes before it, and writing fails the whole transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliograph.errors import KeySupplyError
from heliograph.ports import Vault
from heliograph.protocol.audience import audience_members
from heliograph.storage.key_contexts import segment_context
from heliograph.storage.key_counts import recount
from heliograph.storage.key_rows import (
    DELIVERABLE,
    KEPT,
    PENDING,
    TOTALS,
    WAITING,
    key_id_bytes,
    key_id_text,
    key_name,
    names_and_fates,
)

__all__ = ["POSITION_MAX", "Audience", "Chunk", "KeyChanges", "Place", "Run"]

POSITION_MAX = 2**31 - 1  # positions are kept in 4 bytes, and are an integer of a delivery server

# As bytes, whatever an altered row has there: text that is none would refuse the rows beside it too.
_SELECT = (
    "SELECT chunk, key_chunks.segment, key_chunks.epoch, block, audience, CAST(master AS BLOB), CAST(slave AS BLOB), "
    "owner_here, size, first, CAST(positions AS BLOB), state, created_at, CAST(fates AS BLOB), CAST(key_ids AS BLOB), "
    "CAST(sealed_key AS BLOB), CAST(metadata AS BLOB), CAST(ciphertexts AS BLOB) FROM key_chunks "
    "JOIN key_audiences USING (audience) LEFT JOIN key_segments ON key_segments.segment = key_chunks.segment "
    "LEFT JOIN key_ciphertexts USING (chunk) "
)


@dataclass(frozen=True, slots=True)
class Audience:
    """A pair, or a master and a group, on one of its two sides, and one size of keys: a pool.

    ``deliverable``: keys, before what is changed here.
    """

    number: int
    deliverable: int


@dataclass(slots=True, eq=False)
class Chunk:
    """Keys of one block for one audience, sealed, with their segment's sealed key while one of them is kept."""

    number: int
    segment: int | None
    epoch: int
    block: int | None
    audience: int
    master: str
    slave: str
    owner_here: int
    size: int
    first: int
    positions: bytes | None
    state: int
    created_at: float
    fates: bytearray
    key_ids: bytes
    sealed_key: bytes | None = field(repr=False)
    metadata: str | None
    ciphertexts: bytes | None = field(repr=False)
    erased: list[int] = field(default_factory=list)
    changed_at: float = 0.0
    is_group: bool = field(init=False)  # whether several slaves share these keys
    fits: bool = field(init=False)  # else the row was altered, and none of its keys can be opened

    def __post_init__(self) -> None:
        self.key_ids, self.fates, self.fits = names_and_fates(self.key_ids, self.fates)
        self.fits = self.fits and self._numbers_fit()
        self.master, self.slave = _text(self.master), _text(self.slave)
        self.metadata = None if self.metadata is None else _text(self.metadata)
        if not isinstance(self.ciphertexts, bytes):
            self.ciphertexts = None
        self.is_group = len(audience_members(self.slave)) > 1

    def _numbers_fit(self) -> bool:
        """Tell whether the other columns are of the kind that was written: SQLite keeps whatever is put there."""
        if self.positions is None:
            placed = isinstance(self.first, int) and 0 <= self.first <= POSITION_MAX - len(self.fates)
        else:
            placed = len(self.positions) == 4 * len(self.fates)
        known = self.state in (PENDING, DELIVERABLE) and self.owner_here in (0, 1)
        return placed and known and isinstance(self.size, int) and self.is_dated

    @property
    def is_dated(self) -> bool:
        """Whether it says when its keys were made; how old those of an altered row are, nobody knows."""
        return isinstance(self.created_at, int | float)

    def key_id(self, at: int) -> str:
        """Return the key_ID at a place; in an altered row, a text that is none where the name was cut."""
        raw = self.key_ids[16 * at : 16 * at + 16]
        return key_id_text(raw) if len(raw) == 16 else f"{at} of chunk {self.number}"

    def positions_of(self, places: Sequence[int]) -> list[int]:
        """Return the positions in their segment that keys were encrypted under."""
        if self.positions is None:
            return [self.first + at for at in places]
        return [int.from_bytes(self.positions[4 * at : 4 * at + 4], "big") for at in places]

    def waiting(self, at_most: int) -> list[int]:
        """Return the first places of keys that were not taken yet."""
        if not any(self.fates):
            return list(range(min(at_most, len(self.fates))))
        found: list[int] = []
        at = self.fates.find(WAITING)
        while at >= 0 and len(found) < at_most:
            found.append(at)
            at = self.fates.find(WAITING, at + 1)
        return found


def _text(found: object) -> str:
    # Of altered bytes a text that is bound to no key.
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


Place = tuple[Chunk, int]
Run = tuple[Chunk, list[int]]  # different places of one chunk, in any order


class KeyChanges:
    """What the transaction of ``cursor`` has read and changed. Another writer must not come in between."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self._chunks: dict[int, Chunk] = {}
        self._changed: dict[int, Chunk] = {}
        self._named: dict[bytes, Place] = {}
        self._audiences: dict[tuple[str, str, bool, int], Audience] = {}
        self._lines: dict[int, list[Chunk]] = {}
        self._totals: dict[tuple[int, int], int] = {}
        self._served: dict[tuple[str, str], float] = {}
        self._ciphers: dict[bytes, AESGCM] = {}
        self._miscounted: set[int] = set()
        self.delivers = False  # whether a key leaves by what was changed

    # -- reading -----------------------------------------------------------------------------------------------

    def only_size(self, master: str, slave: str) -> int:
        """Return the one size of the keys that this site owns for a pair, in bytes; 0 if it has none to hand out.

        Raises KeySupplyError if there are several: one has to be named.
        """
        found = self._cursor.execute(
            "SELECT size FROM key_audiences WHERE master = ? AND slave = ? AND owner_here = 1 AND deliverable > 0",
            (master, slave),
        ).fetchall()
        if len(found) > 1:
            sizes = ", ".join(str(8 * size) for (size,) in sorted(found))
            raise KeySupplyError(f"there are keys of {sizes} bits for this pair: name a size")
        return int(found[0][0]) if found else 0

    def audience(self, master: str, slave: str, size: int, *, owner_here: bool) -> Audience | None:
        """Return an audience, whose keys have ``size`` bytes; None if it never had a key."""
        name = master, slave, owner_here, size
        found = self._audiences.get(name)
        if found is None:
            row = self._cursor.execute(
                "SELECT audience, deliverable FROM key_audiences "
                "WHERE master = ? AND slave = ? AND owner_here = ? AND size = ?",
                name,
            ).fetchone()
            if row is None:
                return None
            found = self._audiences[name] = Audience(*row)
        return found

    def deliverable(self, audience: Audience | None) -> int:
        """Count the keys of an audience that could be taken now."""
        return audience.deliverable + self._totals.get((audience.number, DELIVERABLE), 0) if audience else 0

    def chunks(self, condition: str, arguments: Sequence[object]) -> list[Chunk]:
        """Return the chunks for which ``condition`` (SQL) holds, each as it was changed here."""
        found = []
        for row in self._cursor.execute(_SELECT + condition, arguments).fetchall():
            chunk = self._chunks.get(row[0])
            if chunk is None:
                chunk = self._chunks[row[0]] = Chunk(*row)
            found.append(chunk)
        return found

    def oldest(self, audience: Audience, since: float) -> Iterator[Chunk]:
        """Return the audience's deliverable chunks, none made before ``since``, the oldest first."""
        everything = since == float("-inf")
        line = self._lines.setdefault(audience.number, []) if everything else []
        while line and WAITING not in line[0].fates:
            if len(line) == 1:
                break  # the last one stays: it says where reading goes on
            del line[0]
        yield from list(line)
        after = line[-1].number if line else -1
        while found := self.chunks(
            "WHERE audience = ? AND state = ? AND waiting > 0 AND chunk > ? AND created_at >= ? ORDER BY chunk LIMIT 1",
            (audience.number, DELIVERABLE, after, since),
        ):
            line.append(found[0])
            after = found[0].number
            yield found[0]

    def find(self, key_id: str) -> Place | None:
        """Return where a key is, or was in this epoch."""
        raw = key_id_bytes(key_id)
        if raw is None:
            return None
        if raw not in self._named:
            name = "WHERE chunk IN (SELECT chunk FROM key_names WHERE name = ?)"
            for chunk in self.chunks(name, (key_name(raw),)):
                # The next key_IDs of a request stand as a rule in the same chunk: they are found here.
                ids = chunk.key_ids
                self._named.update({ids[16 * at : 16 * at + 16]: (chunk, at) for at in range(len(chunk.fates))})
                if not chunk.fits:  # it was in this row, whose names were altered since: whoever asks finds that out
                    kept = (at for at, fate in enumerate(chunk.fates) if fate in KEPT)
                    self._named.setdefault(raw, (chunk, next(kept, 0)))
        return self._named.get(raw)

    def unserved(self, key_id: str) -> set[str]:
        """Return the slaves of this site that have a share of a group's key still to fetch."""
        rows = self._cursor.execute("SELECT sae FROM key_shares WHERE key_id = ? AND served_at IS NULL", (key_id,))
        return {sae for (sae,) in rows.fetchall() if (key_id, sae) not in self._served}

    def cipher(self, chunk: Chunk, vault: Vault) -> AESGCM:
        """Return what opens a segment's keys; it is forgotten with this transaction. Raises StoreUnavailable."""
        sealed = chunk.sealed_key or b""
        found = self._ciphers.get(sealed)
        if found is None:
            key = vault.unseal(sealed, segment_context(chunk.epoch, chunk.block or 0))
            found = self._ciphers[sealed] = AESGCM(key)
        return found

    # -- changing ----------------------------------------------------------------------------------------------

    def serve(self, key_id: str, sae: str, now: float) -> None:
        """Note that a slave has its share."""
        self._served[key_id, sae] = now

    def put(self, runs: Iterable[Run], fate: int, now: float) -> None:
        """Give these keys a fate; unless it is one of ``KEPT`` they are erased when this is written."""
        for chunk, places in runs:
            if not places:
                continue
            fates = chunk.fates
            were = bytes([fates[at] for at in places])
            for state in set(were):
                self._add(chunk.audience, state or chunk.state, -were.count(state))
            self._add(chunk.audience, fate, len(places))
            for at in places:
                fates[at] = fate
            self._changed[chunk.number] = chunk
            chunk.changed_at = now
            if not chunk.fits or chunk.segment is None:
                self.count_anew(chunk.audience)
            if fate not in KEPT:
                chunk.erased += places

    def count_anew(self, audience: int) -> None:
        """Let ``write`` count a pool by its chunks: a row was altered, and the pool's may count what is not there."""
        self._miscounted.add(audience)

    def _add(self, audience: int, state: int, number: int) -> None:
        self._totals[audience, state] = self._totals.get((audience, state), 0) + number

    def write(self) -> bool:
        """Write what was changed. Returns whether a segment key was erased."""
        segments = {segment for chunk in self._changed.values() if (segment := self._write(chunk)) is not None}
        self._cursor.executemany(
            "UPDATE key_shares SET served_at = ? WHERE key_id = ? AND sae = ? AND served_at IS NULL",
            [(now, key_id, sae) for (key_id, sae), now in self._served.items()],
        )
        for (audience, state), number in self._totals.items():
            if number and state in TOTALS:
                column = TOTALS[state]
                self._cursor.execute(
                    f"UPDATE key_audiences SET {column} = max(0, {column} + ?) WHERE audience = ?",  # noqa: S608
                    (number, audience),
                )
        for audience in self._miscounted:
            recount(self._cursor, audience)
        gone = self._cursor.executemany(
            "DELETE FROM key_segments WHERE segment = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM key_chunks WHERE key_chunks.segment = ?1)",
            [(segment,) for segment in segments],
        ).rowcount
        return gone > 0

    def _write(self, chunk: Chunk) -> int | None:
        """Write a chunk; return its segment if the last of its keys has left."""
        cursor, fates = self._cursor, chunk.fates
        kept = any(fate in fates for fate in KEPT)
        cursor.execute(
            "UPDATE key_chunks SET fates = ?, waiting = ?, changed_at = ?, segment = ? WHERE chunk = ?",
            (bytes(fates), fates.count(WAITING), chunk.changed_at, chunk.segment if kept else None, chunk.number),
        )
        if kept:
            self._overwrite(chunk)
        else:
            cursor.execute("DELETE FROM key_ciphertexts WHERE chunk = ?", (chunk.number,))
        if chunk.is_group:
            ids = [(chunk.key_id(at),) for at in chunk.erased]
            cursor.executemany("DELETE FROM key_shares WHERE key_id = ?", ids)
        return None if kept else chunk.segment

    def _overwrite(self, chunk: Chunk) -> None:
        if not chunk.erased or chunk.ciphertexts is None:
            return
        size, left = len(chunk.ciphertexts) // len(chunk.fates), bytearray(chunk.ciphertexts)
        for at in chunk.erased:
            left[at * size : (at + 1) * size] = bytes(size)
        chunk.ciphertexts = bytes(left)
        # Of the same length as before: SQLite overwrites it where it stands, and only the pages that differ. An open
        # blob would do the same, but Python's connection keeps a reference to each for as long as it lives.
        self._cursor.execute(
            "UPDATE key_ciphertexts SET ciphertexts = ? WHERE chunk = ?", (chunk.ciphertexts, chunk.number)
        )
