"""Keys for delivery in a PostgreSQL server: the same promises as ``storage/keys.py``, for several front ends at once.

A row leaves inside a transaction that also counts the front end's use; the count is put into the front end's anchor
before a byte leaves. Two front ends never see the same row as theirs: it is locked until it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heliograph.errors import InsufficientKeys, KeySupplyError, LocalProtocolError, StoreUnavailable
from heliograph.storage.front_end import FrontEnd
from heliograph.storage.key_contexts import TAG_BYTES, key_context, nonce
from heliograph.storage.key_counts import KeyCounts
from heliograph.storage.key_opening import ALTERED
from heliograph.storage.key_rows import DAMAGED, DELIVERABLE, PENDING, RELEASED
from heliograph.storage.pg_rows import (
    PgRow,
    bury,
    bury_where,
    held_rows,
    is_known,
    master_rows,
    only_size,
    serve_share,
    without_shares,
)
from heliograph.storage.pg_server import PgServer
from heliograph.types import StoredKey

if TYPE_CHECKING:
    import psycopg

__all__ = ["PgKeys"]


class _DamagedKeyError(Exception):
    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id


class _DamagedBlockError(Exception):
    def __init__(self, epoch: int, block: int) -> None:
        super().__init__(block)
        self.epoch, self.block = epoch, block


class PgKeys:
    """The keys of one site in the delivery ``server``. Every method raises StoreUnavailable when the server refuses.

    ``front_end``: who hands keys out here; without it, as in the process of the link, none is.
    """

    def __init__(self, server: PgServer, front_end: FrontEnd | None = None) -> None:
        self._server = server
        self._front_end = front_end

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

        As ``KeyRecords.deliver_to_master``. Keys that another front end is handing out at this moment are not counted.
        """
        if number < 1:
            raise KeySupplyError(f"number = {number}: at least one key must be asked for")
        front_end = self._serving()
        with self._quarantine(), self._server.transaction() as cursor:
            front_end.require(cursor)
            size = only_size(cursor, master, slave) if size_bytes is None else size_bytes
            rows = master_rows(cursor, front_end.name, (master, slave, size), since, number + keep)
            if len(rows) < number + keep and front_end.collect(cursor):
                rows = master_rows(cursor, front_end.name, (master, slave, size), since, number + keep)
            if len(rows) < number + keep:
                stored = max(0, len(rows) - keep)
                raise InsufficientKeys(f"insufficient keys: {number} asked for, {stored} stored; try again later")
            rows = rows[:number]
            # (1) Decrypt first: a key that does not open must not be marked as delivered.
            keys = self._opened(rows)
            accept(keys)
            # (2) Erase and mark; leaving this block, or the group it is part of, makes it durable.
            over = without_shares(cursor, rows)
            empty = bury(cursor, over, "delivered", now)
            gone = {row.key_id for row in over}
            if released := [row.key_id for row in rows if row.key_id not in gone]:
                cursor.execute("UPDATE key_records SET state = %s WHERE key_id = ANY(%s)", (RELEASED, released))
            mark = front_end.mark(cursor)
        # (3) Only when both are durable may a byte of a key leave (design rule 3: burn before use).
        self._after(front_end, mark, empty)
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

        As ``KeyRecords.deliver_to_slave``. Raises StoreUnavailable while the key of a block has not reached this front
        end, or another one is handing out one of the keys.
        """
        front_end = self._serving()
        with self._quarantine(), self._server.transaction() as cursor:
            front_end.require(cursor)
            rows = held_rows(cursor, slave, master, key_ids, lock=True)
            if not all(front_end.holds(row.epoch, row.block) for row in rows):
                front_end.collect(cursor)
            keys = self._opened(rows)
            accept(keys)
            empty = bury(cursor, serve_share(cursor, rows, slave, now), "delivered", now)
            mark = front_end.mark(cursor)
        self._after(front_end, mark, empty)
        return keys

    def check_held(self, slave: str, master: str, key_ids: Sequence[str]) -> None:
        """Return if ``deliver_to_slave`` would find these keys. Raises as it does; nothing changes."""
        with self._server.reading() as cursor:
            held_rows(cursor, slave, master, key_ids, lock=False)

    def discard(self, epoch: int, block: int, now: float) -> int:
        """Destroy what is left of a block's keys. Returns how many."""
        with self._server.transaction() as cursor:
            return bury_where(cursor, "s.epoch = %s AND s.block = %s", (epoch, block), "discarded", now)

    def expire(self, before: float, now: float, grace: float = 0.0) -> int:
        """Destroy the keys made before ``before``, those held for a slave ``grace`` seconds later. Returns how many."""
        condition = (
            "(k.created_at < CASE WHEN k.owner_here = 1 AND k.state <> %s THEN %s::float8 ELSE %s::float8 END "
            "OR k.created_at > %s::float8)"  # the clock was set back
        )
        arguments = (RELEASED, before, before - grace, now + (now - before))
        with self._server.transaction() as cursor:
            return bury_where(cursor, condition, arguments, "expired", now)

    def trim(self, master: str, slave: str, *, owner_here: bool, keep: int, now: float) -> int:
        """Destroy a pair's oldest keys beyond the ``keep`` newest of each size. Returns how many."""
        condition = (
            "k.key_id IN (SELECT key_id FROM (SELECT key_id, row_number() OVER (PARTITION BY octet_length(ciphertext) "
            "ORDER BY segment DESC, position DESC) AS place FROM key_records WHERE master = %s AND slave = %s "
            "AND owner_here = %s AND state IN (%s, %s)) AS stock WHERE place > %s)"
        )
        arguments = (master, slave, int(owner_here), DELIVERABLE, RELEASED, keep)
        with self._server.transaction() as cursor:
            return bury_where(cursor, condition, arguments, "expired", now)

    def stored_key_count(self, master: str, slave: str, size_bytes: int | None = None) -> int:
        """Count the deliverable keys of the pair, of that size or of every size."""
        return self.counts(master, slave, size_bytes).deliverable

    def counts(self, master: str, slave: str, size_bytes: int | None = None) -> KeyCounts:
        """Count the pair's keys by state, of one size or of all."""
        with self._server.reading() as cursor:
            found = cursor.execute(
                "SELECT owner_here, state, count(*) FROM key_records WHERE master = %s AND slave = %s "
                "AND (%s::integer IS NULL OR octet_length(ciphertext) = %s::integer + %s) GROUP BY owner_here, state",
                (master, slave, size_bytes, size_bytes, TAG_BYTES),
            ).fetchall()
        table = {(owner_here, state): int(number) for owner_here, state, number in found}
        return KeyCounts(
            pending=table.get((1, PENDING), 0),
            deliverable=table.get((1, DELIVERABLE), 0),
            held=table.get((0, DELIVERABLE), 0),
            damaged=table.get((0, DAMAGED), 0) + table.get((1, DAMAGED), 0),
            released=table.get((1, RELEASED), 0),
        )

    def unfetched(self, master: str, audience: str) -> dict[str, int]:
        """Return nothing: keys between SAEs of one site are drawn by the process that has the site's file."""
        del master, audience
        return {}

    def damaged_count(self) -> int:
        """Count the keys that were set aside because they, or their block's key, do not open."""
        with self._server.reading() as cursor:
            found = cursor.execute("SELECT count(*) FROM key_records WHERE state = %s", (DAMAGED,)).fetchone()
        return int(found[0]) if found else 0

    def known(self, key_id: str) -> bool:
        """Tell whether the server has, or had, a key of that key_ID."""
        with self._server.reading() as cursor:
            return is_known(cursor, key_id)

    def metadata(self, epoch: int, block: int) -> str | None:
        """Return the JSON text stored with a block's keys, None once the last of them has left."""
        with self._server.reading() as cursor:
            found = cursor.execute(
                "SELECT metadata FROM key_segments WHERE epoch = %s AND block = %s", (epoch, block)
            ).fetchone()
        return None if found is None else str(found[0])

    def delivered_counts(self) -> tuple[int, int]:
        """Return how many keys were ever delivered here, to masters and to slaves."""
        with self._server.reading() as cursor:
            found = cursor.execute(
                "SELECT owner_here, count(*) FROM key_tombstones WHERE fate = 'delivered' GROUP BY owner_here"
            ).fetchall()
        counts = {int(owner_here): int(number) for owner_here, number in found}
        return counts.get(1, 0), counts.get(0, 0)

    def delivered_key_ids(self, *, owner_here: bool) -> list[str]:
        """List the key_IDs this site delivered to its masters (``owner_here``) or to its slaves, oldest first."""
        with self._server.reading() as cursor:
            found = cursor.execute(
                "SELECT key_id FROM key_tombstones WHERE owner_here = %s AND fate = 'delivered' ORDER BY at, key_id",
                (int(owner_here),),
            ).fetchall()
        return [str(key_id) for (key_id,) in found]

    # -- one delivery's steps ------------------------------------------------------------------------------------

    def _serving(self) -> FrontEnd:
        if self._front_end is None:
            raise LocalProtocolError("this process hands out no keys: its front ends do")
        return self._front_end

    def _opened(self, rows: Sequence[PgRow]) -> list[StoredKey]:
        front_end, ciphers, keys = self._serving(), dict[tuple[int, int], AESGCM](), list[StoredKey]()
        for row in rows:
            origin = row.epoch, row.block
            if origin not in ciphers:
                ciphers[origin] = AESGCM(self._segment_key(front_end, *origin))
            context = key_context(row.key_id, row.master, row.slave, *origin)
            try:
                material = ciphers[origin].decrypt(nonce(row.position), row.ciphertext, context)
            except ALTERED:
                raise _DamagedKeyError(row.key_id) from None
            keys.append(StoredKey(row.key_id, row.master, row.slave, material, row.created_at, row.metadata, origin))
        return keys

    @staticmethod
    def _segment_key(front_end: FrontEnd, epoch: int, block: int) -> bytes:
        try:
            return front_end.segment_key(epoch, block)
        except StoreUnavailable:
            # The session began with a text that this key-encryption key opened: the row is at fault.
            if front_end.holds(epoch, block):
                raise _DamagedBlockError(epoch, block) from None
            raise

    @contextmanager
    def _quarantine(self) -> Iterator[None]:
        # A damaged key is never delivered, and must not stand for ever in the way of the sound ones behind it.
        try:
            yield
        except _DamagedKeyError as error:
            with self._server.transaction() as cursor:
                self._set_aside(cursor, error.key_id)
            raise StoreUnavailable(f"key {error.key_id} was altered in the store; it is set aside") from None
        except _DamagedBlockError as error:
            with self._server.transaction() as cursor:
                lost = self._serving().let_go(cursor, error.epoch, error.block)
            raise StoreUnavailable(
                f"the key of block {error.block} of epoch {error.epoch} was altered in this front end's file; "
                + (f"its {lost} keys are set aside" if lost else "it is fetched again, or others hand its keys out")
            ) from None

    @staticmethod
    def _set_aside(cursor: psycopg.Cursor[Any], key_id: str) -> None:
        cursor.execute("UPDATE key_records SET state = %s WHERE key_id = %s", (DAMAGED, key_id))

    def _after(self, front_end: FrontEnd, mark: int, empty: Sequence[tuple[int, int]]) -> None:
        # Run in reverse inside a group: the witness comes first there too.
        if empty:
            self._server.when_durable(lambda: front_end.erase(empty))
        self._server.when_durable(lambda: front_end.witness(mark))
