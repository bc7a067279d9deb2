"""Keys at rest and their states: each leaves the store at most once, and its erasure is durable before it leaves.

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
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from heliograph.errors import KeySupplyError, LocalProtocolError, StoreUnavailable
from heliograph.ports import RandomSource
from heliograph.storage.database import Database
from heliograph.storage.key_chunks import Chunk, KeyChanges, Run
from heliograph.storage.key_counts import KeyCounts
from heliograph.storage.key_opening import open_keys
from heliograph.storage.key_places import Miscounted, held, kept_of, nobody_waits, oldest, runs_of
from heliograph.storage.key_rows import (
    DELIVERABLE,
    DELIVERED,
    DISCARDED,
    EXPIRED,
    KEPT,
    PENDING,
    RELEASED,
    SCHEMA,
    WAITING,
    key_id_text,
    key_name,
    names_and_fates,
)
from heliograph.storage.local_shares import unfetched
from heliograph.storage.new_keys import NewKey, insert_keys
from heliograph.storage.store_seal import StoreSeal
from heliograph.types import StoredKey

__all__ = ["KeyRecords", "NewKey"]

_SWEPT_AT_ONCE = 64  # our choice: chunks that are in memory together while many are destroyed


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

    # -- what is delivered together is written and counted once -------------------------------------------------

    def begin(self, cursor: sqlite3.Cursor) -> KeyChanges:
        """Begin a batch (``database.BatchOwner``)."""
        return KeyChanges(cursor)

    def finish(self, batch: KeyChanges, cursor: sqlite3.Cursor) -> list[Callable[[], None]]:
        """Write a batch; return what is to be done once it is on the disk (``database.BatchOwner``)."""
        afterwards: list[Callable[[], None]] = []
        if batch.write():
            self._database.checkpoint_due()  # now: the anchor's call comes before the other, and may raise
            afterwards.append(self._database.checkpoint_soon)
        if self._seal is not None and batch.delivers:
            afterwards.append(partial(self._tell, self._seal, self._seal.mark(cursor)))
        return afterwards

    def _tell(self, seal: StoreSeal, mark: int) -> None:
        try:
            seal.witness(mark)
        except StoreUnavailable:
            self._unwitnessed = max(mark, self._unwitnessed or 0)
            raise

    def _make_up(self) -> None:
        if self._unwitnessed is not None and self._seal is not None:
            # The anchor could not be written: no more keys are burnt for answers that could not be given.
            self._seal.witness(self._unwitnessed)
            self._unwitnessed = None

    def count_delivery(self, cursor: sqlite3.Cursor) -> Callable[[], None]:
        """Count a delivery that the caller's transaction makes by itself; return what to call once it is durable."""
        if self._seal is None:
            return lambda: None
        self._make_up()
        return partial(self._tell, self._seal, self._seal.mark(cursor))

    # -- a block's keys ---------------------------------------------------------------------------------------

    def add(self, cursor: sqlite3.Cursor, epoch: int, block: int, rows: Sequence[NewKey], metadata: str = "{}") -> None:
        """Store a committed block's keys inside the caller's transaction.

        ``metadata``: a JSON object about the block (eps, protocol, qber, assurance), without key material.
        Raises LocalProtocolError for a block or a key_ID that was stored before.
        """
        if rows:
            if not isinstance(json.loads(metadata), dict):
                raise LocalProtocolError("a segment's metadata is a JSON object")
            insert_keys(cursor, self._database.vault, self._randomness, epoch, block, rows, metadata)

    def acknowledge(self, cursor: sqlite3.Cursor, epoch: int, block: int) -> int:
        """Make a block's keys deliverable: the peer has durably acknowledged their allocation. Returns how many."""
        of_block = "state = ? AND segment = (SELECT segment FROM key_segments WHERE epoch = ? AND block = ?)"
        found = cursor.execute(
            f"SELECT sum(waiting), audience FROM key_chunks WHERE {of_block} GROUP BY audience",  # noqa: S608
            (PENDING, epoch, block),
        ).fetchall()
        cursor.execute(f"UPDATE key_chunks SET state = ? WHERE {of_block}", (DELIVERABLE, PENDING, epoch, block))  # noqa: S608
        cursor.executemany(
            "UPDATE key_audiences SET pending = pending - ?1, deliverable = deliverable + ?1 WHERE audience = ?2", found
        )
        return sum(number for number, _ in found)

    def release(self, cursor: sqlite3.Cursor, epoch: int, block: int, now: float) -> None:
        """Leave a block's keys to the slaves of this site alone: their master has its copy by another way."""
        changes = KeyChanges(cursor)
        changes.put(runs_of(kept_of(changes, epoch, block)), RELEASED, now)
        changes.write()

    def deliver_to_master(
        self,
        master: str,
        slave: str,
        number: int,
        now: float,
        *,
        keep: int = 0,
        since: float = float("-inf"),
        size_bytes: int | None = None,
        accept: Callable[[list[StoredKey]], object] = list,
    ) -> list[StoredKey]:
        """Take the ``number`` oldest deliverable keys that this site owns for the pair; they are gone on return.

        ``slave`` may be a group; then its slaves of this site can fetch their shares from now on. ``keep``: how many
        must stay in the store; ``since``: none made before; ``size_bytes``: of each key, may be left out where the
        pair has keys of one size. ``accept`` looks at the keys first, one caller at a time:
        if it raises, nothing is taken. Raises InsufficientKeys if there are fewer (none is taken).
        """
        if number < 1:
            raise KeySupplyError(f"number = {number}: at least one key must be asked for")
        with self._database.batch(self) as changes:
            self._make_up()
            size = changes.only_size(master, slave) if size_bytes is None else size_bytes
            runs, damaged = self._oldest(changes, master, slave, size, number, keep, since)
            if damaged is None:
                # (1) Decrypt first: a key that does not open must not be marked as delivered.
                keys, damaged = self._opened(changes, runs, now)
            if damaged is None:
                accept(keys)
                # (2) Erase and mark; leaving this block, and the group if there is one, makes it durable.
                changes.delivers = True
                over, waited_for = nobody_waits(changes, runs)
                changes.put(over, DELIVERED, now)
                changes.put(waited_for, RELEASED, now)
        if damaged is not None:
            raise damaged
        # (3) Only now, or at the group's end, may a byte of a key leave (design rule 3: burn before use).
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
        with self._database.batch(self) as changes:
            self._make_up()
            places = held(changes, slave, master, key_ids)
            keys, damaged = self._opened(changes, runs_of(places), now)
            # Who else waits for them is read before anything is changed: a read may fail, a change may not.
            groups = [chunk.key_id(at) for chunk, at in places if chunk.is_group]
            left = {key_id: changes.unserved(key_id) - {slave} for key_id in groups}
            if damaged is None:
                accept(keys)
                changes.delivers = True
                for key_id in left:
                    changes.serve(key_id, slave, now)
                over = [(chunk, at) for chunk, at in places if not (left and left.get(chunk.key_id(at)))]
                changes.put(runs_of(over), DELIVERED, now)
        if damaged is not None:
            raise damaged
        return keys

    def check_held(self, slave: str, master: str, key_ids: Sequence[str]) -> None:
        """Return if ``deliver_to_slave`` would find these keys. Raises as it does; nothing changes."""
        with self._database.reading() as cursor:
            held(KeyChanges(cursor), slave, master, key_ids)

    def is_served(self, cursor: sqlite3.Cursor, key_id: str) -> bool:
        """Tell, inside the caller's transaction, whether a slave here has its share of a group's key that is left."""
        found = cursor.execute("SELECT 1 FROM key_shares WHERE key_id = ? AND served_at IS NOT NULL", (key_id.lower(),))
        return found.fetchone() is not None

    # -- keys that nobody gets --------------------------------------------------------------------------------

    def discard(self, cursor: sqlite3.Cursor, epoch: int, block: int, now: float) -> int:
        """Destroy what is left of a block's keys inside the caller's transaction. Returns how many."""
        changes = KeyChanges(cursor)
        places = kept_of(changes, epoch, block)
        changes.put(runs_of(places), DISCARDED, now)
        changes.write()
        return len(places)

    def expire(self, before: float, now: float, grace: float = 0.0) -> int:
        """Destroy the keys made before ``before``. Returns how many.

        Keys held for a slave live ``grace`` seconds longer: one delivered to the master at the last moment is still
        there when the slave asks. One stamped further ahead than ``before`` is behind goes too: the clock was set back.
        """
        ahead = now + (now - before)

        def ends(chunk: Chunk, at: int) -> bool:
            if not chunk.is_dated:  # altered: it could be of any age
                return True
            masters = chunk.owner_here and chunk.fates[at] != RELEASED
            return chunk.created_at > ahead or chunk.created_at < (before if masters else before - grace)

        return self._sweep("(created_at < ? OR created_at > ?)", (before, ahead), now, ends)

    def trim(self, master: str, slave: str, *, owner_here: bool, keep: int, now: float) -> int:
        """Destroy a pair's oldest keys beyond the ``keep`` newest of each size. Returns how many.

        Without a bound they would fill the disk. A holder keeps more: what the owner still hands out must be there.
        """
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT audience, deliverable + released FROM key_audiences "
                "WHERE master = ? AND slave = ? AND owner_here = ?",
                (master, slave, int(owner_here)),
            ).fetchall()
        return sum(self._trim_pool(audience, stored - keep, now) for audience, stored in found if stored > keep)

    def _trim_pool(self, audience: int, over: int, now: float) -> int:
        left = count(over, -1)

        def ends(chunk: Chunk, at: int) -> bool:
            fate = chunk.fates[at]
            stock = fate == RELEASED or (fate == WAITING and chunk.state == DELIVERABLE)
            return stock and next(left) > 0

        return self._sweep("audience = ?", (audience,), now, ends, at_most=over)

    def _sweep(
        self,
        condition: str,
        arguments: tuple[object, ...],
        now: float,
        ends: Callable[[Chunk, int], bool],
        at_most: float = float("inf"),
    ) -> int:
        """Destroy, in one transaction and oldest first, the kept keys of which ``ends`` says so. Returns how many."""
        gone, after, segment_gone = 0, (-1, -1), False
        with self._database.transaction() as cursor:
            while gone < at_most:
                numbers = cursor.execute(
                    "SELECT segment, chunk FROM key_chunks WHERE segment IS NOT NULL AND (segment, chunk) > (?, ?) "  # noqa: S608
                    f"AND {condition} ORDER BY segment, chunk LIMIT ?",
                    (*after, *arguments, _SWEPT_AT_ONCE),
                ).fetchall()
                if not numbers:
                    break
                after = numbers[-1]
                changes = KeyChanges(cursor)
                # In a damaged file an index may name a chunk that is not there: the others are destroyed all the same.
                for chunk in [found for _, number in numbers for found in changes.chunks("WHERE chunk = ?", (number,))]:
                    over = [at for at, fate in enumerate(chunk.fates) if fate in KEPT and ends(chunk, at)]
                    changes.put([(chunk, over)], EXPIRED, now)
                    gone += len(over)
                segment_gone = changes.write() or segment_gone
        if segment_gone:
            self._database.checkpoint_due()
            self._database.when_durable(self._database.checkpoint_soon)
        return gone

    def forget_epochs_before(self, cursor: sqlite3.Cursor, epoch: int) -> int:
        """Drop the tombstones of older epochs of which no key is left. Returns how many."""
        return self.forget_chunks(cursor, "epoch < ? AND epoch NOT IN (SELECT epoch FROM key_segments)", (epoch,))

    def forget_chunks(self, cursor: sqlite3.Cursor, condition: str, arguments: tuple[object, ...]) -> int:
        """Drop the tombstones in the chunks for which ``condition`` (SQL) holds: none may have a key left."""
        gone = 0
        for (number,) in cursor.execute(f"SELECT chunk FROM key_chunks WHERE {condition}", arguments).fetchall():  # noqa: S608
            deleted = "DELETE FROM key_chunks WHERE chunk = ? RETURNING CAST(key_ids AS BLOB)"
            (ids,) = cursor.execute(deleted, (number,)).fetchone()
            names = [(key_name(ids[at : at + 16]), number) for at in range(0, len(ids), 16)]
            cursor.executemany("DELETE FROM key_names WHERE name = ? AND chunk = ?", names)
            gone += len(names)
        return gone

    # -- questions ----------------------------------------------------------------------------------------------

    def stored_key_count(self, master: str, slave: str, size_bytes: int | None = None) -> int:
        """Count the keys of that size, or of every size, that ``deliver_to_master`` could hand out now."""
        return self.counts(master, slave, size_bytes).deliverable

    def counts(self, master: str, slave: str, size_bytes: int | None = None) -> KeyCounts:
        """Count the pair's keys by state, of one size or of all."""
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT owner_here, sum(pending), sum(deliverable), sum(damaged), sum(released) FROM key_audiences "
                "WHERE master = ?1 AND slave = ?2 AND (?3 IS NULL OR size = ?3) GROUP BY owner_here",
                (master, slave, size_bytes),
            ).fetchall()
        sides = {owner_here: numbers for owner_here, *numbers in rows}
        pending, deliverable, damaged, released = sides.get(1, (0, 0, 0, 0))
        _, held, damaged_there, _ = sides.get(0, (0, 0, 0, 0))
        return KeyCounts(pending, deliverable, held, damaged + damaged_there, released)

    def unfetched(self, master: str, audience: str) -> dict[str, int]:
        """Return how many keys drawn for a group of this site each slave has left; who has none is not named."""
        with self._database.reading() as cursor:
            return unfetched(cursor, master, audience)

    def damaged_count(self) -> int:
        """Count the keys that were set aside because they, or their block's key, do not open."""
        with self._database.reading() as cursor:
            return int(cursor.execute("SELECT coalesce(sum(damaged), 0) FROM key_audiences").fetchone()[0])

    def known(self, key_id: str) -> bool:
        """Tell whether this store has, or had in this epoch, a key of that key_ID."""
        with self._database.reading() as cursor:
            return KeyChanges(cursor).find(key_id) is not None

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
                cursor.execute("SELECT owner_here, sum(delivered) FROM key_audiences GROUP BY owner_here").fetchall()
            )
        return int(counts.get(1, 0)), int(counts.get(0, 0))

    def delivered_key_ids(self, *, owner_here: bool) -> list[str]:
        """List the key_IDs this site delivered to its masters (``owner_here``) or its slaves, in the store's order."""
        with self._database.reading() as cursor:
            found = cursor.execute(
                "SELECT CAST(fates AS BLOB), CAST(key_ids AS BLOB) FROM key_chunks JOIN key_audiences USING (audience) "
                "WHERE owner_here = ? ORDER BY chunk",
                (int(owner_here),),
            ).fetchall()
        rows = [names_and_fates(key_ids, fates) for fates, key_ids in found]
        return [
            key_id_text(ids[16 * at : 16 * at + 16])
            for ids, fates, fits in rows
            for at, fate in enumerate(fates)
            if fits and fate == DELIVERED
        ]

    # -- one transaction's steps -------------------------------------------------------------------------------

    @staticmethod
    def _oldest(
        changes: KeyChanges, master: str, slave: str, size: int, number: int, keep: int, since: float
    ) -> tuple[list[Run], StoreUnavailable | None]:
        try:
            return oldest(changes, master, slave, size, number, keep, since), None
        except Miscounted as why:
            return [], StoreUnavailable(str(why))  # returned: raised, it would undo the counting

    def _opened(
        self, changes: KeyChanges, runs: Sequence[Run], now: float
    ) -> tuple[list[StoredKey], StoreUnavailable | None]:
        # The seal was opened with the store: a key-encryption key that opened it is this store's.
        return open_keys(changes, self._database.vault, runs, now, kek_is_known=self._seal is not None)
