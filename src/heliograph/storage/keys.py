"""Keys at rest and their states: each leaves the store at most once, and is gone from it before it leaves.

    pending --acknowledge--> deliverable --delivery, expiry, discard--> tombstone

A key this site owns waits for the peer's durable acknowledgement of its allocation (security.md 8). A key the peer
owns is held for the slave SAE and can be handed out at once: nobody learns its key_ID before the owner, which had
that acknowledgement, has delivered it to the master (security.md 3, step 5). All through, a key belongs to the one
pair of SAEs it was allocated to, or to a master and a group of slaves: then each slave has a share, which it fetches
once, and the key is erased at a site when nobody there waits for it any more.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliograph.errors import (
    InsufficientKeys,
    KeySupplyError,
    LocalProtocolError,
    StoreUnavailable,
)
from heliograph.ports import RandomSource
from heliograph.storage.database import Database
from heliograph.storage.key_contexts import key_context, nonce, segment_context
from heliograph.storage.key_rows import (
    DAMAGED,
    DELIVERABLE,
    PENDING,
    RELEASED,
    SCHEMA,
    Row,
    bury,
    held_rows,
    is_known,
    rows_of,
    serve_share,
    without_shares,
)
from heliograph.storage.store_seal import StoreSeal
from heliograph.types import StoredKey

__all__ = ["KeyCounts", "KeyRecords", "NewKey"]

SEGMENT_KEY_BYTES = 32


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


class _DamagedKeyError(Exception):
    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id


class KeyRecords:
    """The keys of one site in its ``database``. Every method raises StoreUnavailable when SQLite refuses.

    A block's keys are one segment under one fresh key of 256 bits, itself sealed by the vault. When the last key
    of a segment has left, the segment key is erased, and what remains of the ciphertext anywhere is noise.
    """

    def __init__(self, database: Database, randomness: RandomSource, seal: StoreSeal | None = None) -> None:
        """``seal`` counts deliveries outside the store too; without it a restored copy could deliver again."""
        self._database = database
        self._randomness = randomness
        self._seal = seal
        self._unwitnessed: int | None = None  # the last mark the anchor could not be told
        database.define(SCHEMA)

    def _mark(self, cursor: sqlite3.Cursor) -> int:
        if self._seal is None:
            return 0
        if self._unwitnessed is not None:
            # The anchor could not be written: no more keys are burnt for answers that could not be given.
            self._seal.witness(self._unwitnessed)
            self._unwitnessed = None
        return self._seal.mark(cursor)

    def _witness(self, mark: int) -> None:
        if self._seal is not None:
            seal = self._seal
            self._database.when_durable(lambda: self._tell(seal, mark))

    def _tell(self, seal: StoreSeal, mark: int) -> None:
        try:
            seal.witness(mark)
        except StoreUnavailable:
            self._unwitnessed = max(mark, self._unwitnessed or 0)
            raise

    def add(self, cursor: sqlite3.Cursor, epoch: int, block: int, rows: Sequence[NewKey], metadata: str = "{}") -> None:
        """Store a committed block's keys inside the caller's transaction.

        ``metadata``: a JSON object about the block (eps, protocol, qber, assurance), without key material.
        Raises LocalProtocolError for a block or a key_ID that was stored before.
        """
        if not rows:
            return
        if not isinstance(json.loads(metadata), dict):
            raise LocalProtocolError("a segment's metadata is a JSON object")
        if cursor.execute("SELECT 1 FROM key_segments WHERE epoch = ? AND block = ?", (epoch, block)).fetchone():
            raise LocalProtocolError(f"the keys of block {block} of epoch {epoch} are stored already")
        for row in rows:
            if is_known(cursor, row.key_id):
                raise LocalProtocolError(f"key_ID {row.key_id} was used before")
        segment_key = self._randomness.draw(SEGMENT_KEY_BYTES)
        if len(segment_key) != SEGMENT_KEY_BYTES:
            raise LocalProtocolError(f"the random source drew {len(segment_key)} bytes for a segment key")
        cursor.execute(
            "INSERT INTO key_segments(epoch, block, sealed_key, metadata) VALUES (?, ?, ?, ?)",
            (epoch, block, self._database.vault.seal(segment_key, segment_context(epoch, block)), metadata),
        )
        segment = cursor.lastrowid
        cipher = AESGCM(segment_key)
        cursor.executemany(
            "INSERT INTO key_records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    row.key_id,
                    segment,
                    position,
                    row.master_sae,
                    row.slave_sae,
                    int(row.owner_here),
                    PENDING if row.owner_here else DELIVERABLE,
                    row.created_at,
                    cipher.encrypt(
                        nonce(position),
                        row.material,
                        key_context(row.key_id, row.master_sae, row.slave_sae, epoch, block),
                    ),
                )
                for position, row in enumerate(rows)
            ),
        )
        cursor.executemany(
            "INSERT INTO key_shares(key_id, sae) VALUES (?, ?)",
            [(row.key_id, sae) for row in rows for sae in row.shares],
        )

    def acknowledge(self, cursor: sqlite3.Cursor, epoch: int, block: int) -> int:
        """Make a block's keys deliverable: the peer has durably acknowledged their allocation. Returns how many."""
        return cursor.execute(
            "UPDATE key_records SET state = ? WHERE state = ? AND segment = "
            "(SELECT segment FROM key_segments WHERE epoch = ? AND block = ?)",
            (DELIVERABLE, PENDING, epoch, block),
        ).rowcount

    def deliver_to_master(
        self,
        master: str,
        slave: str,
        number: int,
        now: float,
        *,
        keep: int = 0,
        since: float = float("-inf"),
        accept: Callable[[list[StoredKey]], object] = list,
    ) -> list[StoredKey]:
        """Take the ``number`` oldest deliverable keys that this site owns for the pair; they are gone on return.

        ``slave`` may be a group; then its slaves of this site can fetch their shares from now on. ``keep``: how many
        must stay in the store; ``since``: none made before. ``accept`` looks at the keys first, one caller at a time:
        if it raises, nothing is taken. Raises InsufficientKeys if there are fewer (none is taken).
        """
        if number < 1:
            raise KeySupplyError(f"number = {number}: at least one key must be asked for")
        with self._quarantine(), self._database.transaction() as cursor:
            rows = rows_of(
                cursor,
                "WHERE master = ? AND slave = ? AND owner_here = 1 AND state = ? AND created_at >= ? "
                "ORDER BY segment, position LIMIT ?",
                (master, slave, DELIVERABLE, since, number + keep),
            )
            if len(rows) < number + keep:
                stored = max(0, len(rows) - keep)
                raise InsufficientKeys(f"insufficient keys: {number} asked for, {stored} stored; try again later")
            rows = rows[:number]
            # (1) Decrypt first: a key that does not open must not be marked as delivered.
            keys = self._opened(rows)
            accept(keys)
            # (2) Erase and mark; leaving this block makes it durable.
            over = without_shares(cursor, rows)
            segment_gone = bury(cursor, over, "delivered", now)
            gone = {row.key_id for row in over}
            released = [(RELEASED, row.key_id) for row in rows if row.key_id not in gone]
            cursor.executemany("UPDATE key_records SET state = ? WHERE key_id = ?", released)
            mark = self._mark(cursor)
        self._witness(mark)
        if segment_gone:
            self._empty_log()
        # (3) Only now may a byte of a key leave (design rule 3: burn before use).
        return keys

    def deliver_to_slave(
        self,
        slave: str,
        master: str,
        key_ids: Sequence[str],
        now: float,
        accept: Callable[[list[StoredKey]], object] = list,
    ) -> list[StoredKey]:
        """Take exactly the named keys, in that order; they are gone on return. All or none.

        ``accept`` looks at them first: if it raises, nothing is taken. Raises NotPermitted if one of them was allocated
        to another slave SAE (ETSI GS QKD 014 5.4), KeyNotFound if one is unknown, delivered, expired or of another
        master, KeySupplyError for a repeated or absent key_ID.
        """
        with self._quarantine(), self._database.transaction() as cursor:
            rows = held_rows(cursor, slave, master, key_ids)
            keys = self._opened(rows)
            accept(keys)
            segment_gone = bury(cursor, serve_share(cursor, rows, slave, now), "delivered", now)
            mark = self._mark(cursor)
        self._witness(mark)
        if segment_gone:
            self._empty_log()
        return keys

    def check_held(self, slave: str, master: str, key_ids: Sequence[str]) -> None:
        """Return if ``deliver_to_slave`` would find these keys. Raises as it does; nothing changes."""
        with self._database.reading() as cursor:
            held_rows(cursor, slave, master, key_ids)

    def discard(self, cursor: sqlite3.Cursor, epoch: int, block: int, now: float) -> int:
        """Destroy what is left of a block's keys inside the caller's transaction. Returns how many."""
        rows = rows_of(cursor, "WHERE epoch = ? AND block = ?", (epoch, block))
        bury(cursor, rows, "discarded", now)
        return len(rows)

    def expire(self, before: float, now: float, grace: float = 0.0) -> int:
        """Destroy the keys made before ``before``. Returns how many.

        Keys held for a slave live ``grace`` seconds longer, so that one delivered to the master at the last moment
        is still there when the slave asks.
        """
        with self._database.transaction() as cursor:
            condition = "WHERE created_at < CASE WHEN owner_here = 1 AND state <> ? THEN ? ELSE ? END"
            rows = rows_of(cursor, condition, (RELEASED, before, before - grace))
            segment_gone = bury(cursor, rows, "expired", now)
        if segment_gone:
            self._empty_log()
        return len(rows)

    def trim(self, master: str, slave: str, *, owner_here: bool, keep: int, now: float) -> int:
        """Destroy a pair's oldest keys beyond the ``keep`` newest. Returns how many.

        Nobody fetches them, and without a bound they would fill the disk. A holder keeps more than the owner does, so
        that what the owner still hands out is there.
        """
        with self._database.transaction() as cursor:
            rows = rows_of(
                cursor,
                "WHERE master = ? AND slave = ? AND owner_here = ? AND state IN (?, ?) "
                "ORDER BY segment DESC, position DESC LIMIT -1 OFFSET ?",
                (master, slave, int(owner_here), DELIVERABLE, RELEASED, keep),
            )
            segment_gone = bury(cursor, rows, "expired", now)
        if segment_gone:
            self._empty_log()
        return len(rows)

    def forget_epochs_before(self, cursor: sqlite3.Cursor, epoch: int) -> int:
        """Drop the tombstones of older epochs of which no key is left. Returns how many."""
        return cursor.execute(
            "DELETE FROM key_tombstones WHERE epoch < ? AND epoch NOT IN (SELECT epoch FROM key_segments)", (epoch,)
        ).rowcount

    def stored_key_count(self, master: str, slave: str) -> int:
        """Count the keys that ``deliver_to_master`` could hand out for the pair now."""
        return self.counts(master, slave).deliverable

    def counts(self, master: str, slave: str) -> KeyCounts:
        """Count the pair's keys by state."""
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT owner_here, state, COUNT(*) FROM key_records WHERE master = ? AND slave = ? "
                "GROUP BY owner_here, state",
                (master, slave),
            ).fetchall()
        table = {(owner_here, state): number for owner_here, state, number in found}
        return KeyCounts(
            pending=table.get((1, PENDING), 0),
            deliverable=table.get((1, DELIVERABLE), 0),
            held=table.get((0, DELIVERABLE), 0),
            damaged=table.get((0, DAMAGED), 0) + table.get((1, DAMAGED), 0),
            released=table.get((1, RELEASED), 0),
        )

    def known(self, key_id: str) -> bool:
        """Tell whether this store has, or had in this epoch, a key of that key_ID."""
        with self._database.reading() as cursor:
            return is_known(cursor, key_id)

    def metadata(self, epoch: int, block: int) -> str | None:
        """Return the JSON text stored with a block's keys, None once the last of them has left."""
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT metadata FROM key_segments WHERE epoch = ? AND block = ?", (epoch, block)
            ).fetchone()
        return None if found is None else str(found[0])

    def delivered_counts(self) -> tuple[int, int]:
        """Return how many keys were ever delivered here, to masters and to slaves; a group's when all here have it."""
        with self._database.reading() as cursor:
            counts = dict(
                cursor.execute(
                    "SELECT owner_here, count(*) FROM key_tombstones WHERE fate = 'delivered' GROUP BY owner_here"
                ).fetchall()
            )
        return int(counts.get(1, 0)), int(counts.get(0, 0))

    def delivered_key_ids(self, *, owner_here: bool) -> list[str]:
        """List the key_IDs this site delivered to its masters (``owner_here``) or to its slaves, oldest first."""
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT key_id FROM key_tombstones WHERE owner_here = ? AND fate = 'delivered' ORDER BY at, key_id",
                (int(owner_here),),
            ).fetchall()
        return [str(key_id) for (key_id,) in found]

    # -- one transaction's steps -------------------------------------------------------------------------------

    def _opened(self, rows: Sequence[Row]) -> list[StoredKey]:
        ciphers: dict[int, AESGCM] = {}
        keys: list[StoredKey] = []
        for row in rows:
            if row.segment not in ciphers:
                context = segment_context(row.epoch, row.block)
                ciphers[row.segment] = AESGCM(self._database.vault.unseal(row.sealed_key, context))
            context = key_context(row.key_id, row.master, row.slave, row.epoch, row.block)
            try:
                material = ciphers[row.segment].decrypt(nonce(row.position), row.ciphertext, context)
            except InvalidTag:
                raise _DamagedKeyError(row.key_id) from None
            origin = row.epoch, row.block
            keys.append(StoredKey(row.key_id, row.master, row.slave, material, row.created_at, row.metadata, origin))
        return keys

    @contextmanager
    def _quarantine(self) -> Iterator[None]:
        # A damaged key is never delivered, and must not stand for ever in the way of the sound ones behind it.
        try:
            yield
        except _DamagedKeyError as error:
            with self._database.transaction() as cursor:
                cursor.execute("UPDATE key_records SET state = ? WHERE key_id = ?", (DAMAGED, error.key_id))
            raise StoreUnavailable(f"key {error.key_id} was altered in the store; it is set aside") from None

    def _empty_log(self) -> None:
        self._database.when_durable(self._checkpoint)

    def _checkpoint(self) -> None:
        # The log may still hold erased segment keys, sealed. If this fails the deliveries stand: they are committed
        # already, and the next checkpoint does the rest.
        with suppress(StoreUnavailable):
            self._database.checkpoint()
