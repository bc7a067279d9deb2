"""A link's pads, marks and blocks in doubt: what makes "burn before use" and the commit protocol survive a crash."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from heliograph.authentication.anchors.psk import EpochSecrets
from heliograph.authentication.budget import PadBudget
from heliograph.authentication.mac import Pad
from heliograph.authentication.pads import PadAddress, PadDirection, PadRole, split_pad_set
from heliograph.errors import LocalProtocolError, PadsExhausted, RollbackDetected
from heliograph.ports import Anchor
from heliograph.protocol.records import Marks
from heliograph.storage import pad_ledger
from heliograph.storage.database import Database
from heliograph.storage.store_seal import StoreSeal

__all__ = ["ATTEMPTS_MAX", "SCHEMA", "FilterKeys", "LinkRecords", "Totals"]

# Our choice (security.md 2: v is bounded): each tag may be tried this often; 2^10 attempts cost 10 bits of the bound.
ATTEMPTS_MAX = 1024
# Our choice: pads of blocks this far behind belong to nobody any more.
_PADS_KEPT_BLOCKS = 1024
# The commit protocol's messages are stored before they are sent (security.md 3). Their pads are erased by the
# transaction that stores the message, or what follows from it: were they erased earlier, a crash in between would
# leave a block in doubt that no message could ever end.
_STORED_ROLES = frozenset({PadRole.DECISION, PadRole.ACKNOWLEDGEMENT, PadRole.SETTLEMENT})

SCHEMA = """
CREATE TABLE IF NOT EXISTS link_state(
  one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, touched INTEGER NOT NULL, proved INTEGER NOT NULL,
  committed INTEGER NOT NULL, filters BLOB, operator_epoch INTEGER NOT NULL, bootstrap TEXT NOT NULL,
  opened_at REAL NOT NULL, eps_total REAL NOT NULL, blocks_discarded INTEGER NOT NULL);
INSERT OR IGNORE INTO link_state VALUES (1, 0, 0, 0, 0, NULL, 0, '', 0, 0, 0);
CREATE TABLE IF NOT EXISTS link_pads(
  epoch INTEGER NOT NULL, block INTEGER NOT NULL, role INTEGER NOT NULL, sealed BLOB,
  attempts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(epoch, block, role)) WITHOUT ROWID;
"""
SCHEMA += pad_ledger.SCHEMA


@dataclass(frozen=True, slots=True)
class FilterKeys:
    """The epoch's pre-filter keys, one for each direction."""

    to_receiver: bytes = field(repr=False)
    to_transmitter: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Totals:
    """The link's ledger over its life. ``eps_total`` adds up blocks and tags; bits are authentication key."""

    eps_total: float
    bits_spent: int
    bits_refilled: int
    blocks_discarded: int
    bootstrap: str
    opened_at: float


def _pad_context(epoch: int, block: int, role: int) -> bytes:
    return b"heliograph/1 pad %d %d %d" % (epoch, block, role)


class LinkRecords:
    """Implements ``authentication.pads.PadStore``. Every method returns only when its change is on the disk.

    ``anchor`` is advanced after the store and before a pad is handed out, so bytes that left this site are always
    covered by a mark outside the store. Raises RollbackDetected at opening if the store is behind its anchor: every
    pad is destroyed then.
    """

    def __init__(
        self, database: Database, anchor: Anchor, now: Callable[[], float], seal: StoreSeal | None = None
    ) -> None:
        self._database = database
        self._anchor = anchor
        self._now = now
        self._seal = seal
        self._unstored: set[PadAddress] = set()
        database.define(SCHEMA)
        self._check_anchor()

    @classmethod
    def for_operator(cls, database: Database, anchor: Anchor, now: Callable[[], float]) -> LinkRecords:
        """Open without the rollback check: only to order a new epoch."""
        records = cls.__new__(cls)
        records._database, records._anchor, records._now = database, anchor, now  # noqa: SLF001  - a constructor
        records._seal = None  # noqa: SLF001  - the same
        records._unstored = set()  # noqa: SLF001  - the same
        database.define(SCHEMA)
        return records

    def _check_anchor(self) -> None:
        marks, anchor = self.marks(), self._anchor
        if anchor.read() > (marks.epoch, marks.touched):
            self.destroy_pads()
            raise RollbackDetected(
                f"the store remembers epoch {marks.epoch}, block {marks.touched}; its anchor is at {anchor.read()}: "
                "the store is an old copy. Its pads are destroyed; run `heliograph site rebootstrap`"
            )

    def marks(self) -> Marks:
        """Return how far this site has come."""
        with self._database.reading() as cursor:
            epoch, touched, proved, committed = cursor.execute(
                "SELECT epoch, touched, proved, committed FROM link_state"
            ).fetchone()
        floor = max(touched, proved)
        return Marks(epoch, touched, proved, committed, len(self.available(floor)))

    def totals(self) -> Totals:
        """Return the ledger."""
        with self._database.reading() as cursor:
            spent, refilled = pad_ledger.sums(cursor)
            eps_total, *others = cursor.execute(
                "SELECT eps_total, blocks_discarded, bootstrap, opened_at FROM link_state"
            ).fetchone()
        return Totals(eps_total, spent, refilled, *others)

    def budget(self) -> PadBudget:
        """Return where the authentication bits are, all read at one moment."""
        with self._database.reading() as cursor:
            free = self.marks().pads
            return PadBudget(free, *(pad_ledger.direction_bits(cursor, way, free) for way in PadDirection))

    def available(self, floor: int) -> list[int]:
        """Return the numbers above ``floor`` of blocks whose seven pads are all there, ascending."""
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT block FROM link_pads WHERE epoch = (SELECT epoch FROM link_state) AND block > ? "
                "GROUP BY block HAVING count(sealed) = ? ORDER BY block",
                (floor, len(PadRole)),
            ).fetchall()
        return [block for (block,) in rows]

    def assigned(self) -> int:
        """Return the highest block number of the epoch that ever had pads."""
        with self._database.reading() as cursor:
            row = cursor.execute(
                "SELECT max(block) FROM link_pads WHERE epoch = (SELECT epoch FROM link_state)"
            ).fetchone()
        return int(row[0] or 0)

    # Opening an epoch.
    def open_epoch(self, epoch: int, secrets: EpochSecrets, bootstrap: str) -> None:
        """Take a slot's pads, which were erased from the book before. Older epochs' pads are destroyed."""
        filters = secrets.filter_key_to_receiver + secrets.filter_key_to_transmitter
        with self._database.transaction() as cursor:
            (known,) = cursor.execute("SELECT epoch FROM link_state").fetchone()
            if epoch <= known:
                raise LocalProtocolError(f"epoch {epoch} was opened before: this site is in epoch {known}")
            cursor.execute("DELETE FROM link_pads")
            cursor.execute(
                "UPDATE link_state SET epoch = ?, touched = 0, proved = 0, committed = 0, filters = ?, bootstrap = ?, "
                "opened_at = ?",
                (epoch, self._database.vault.seal(filters, b"heliograph/1 filters %d" % epoch), bootstrap, self._now()),
            )
            for number, pad_set in enumerate(secrets.pad_sets, start=1):
                self.insert_pad_set(cursor, epoch, number, pad_set)
            pad_ledger.count_bootstrap(cursor, len(secrets.pad_sets))
        self._anchor.advance(epoch, 0)

    def filter_keys(self) -> FilterKeys:
        """Return the pre-filter keys of the epoch. Raises PadsExhausted before the first."""
        with self._database.reading() as cursor:
            epoch, sealed = cursor.execute("SELECT epoch, filters FROM link_state").fetchone()
        if sealed is None:
            raise PadsExhausted("no epoch is open on this link")
        keys = self._database.vault.unseal(sealed, b"heliograph/1 filters %d" % epoch)
        return FilterKeys(keys[:32], keys[32:])

    def insert_pad_set(self, cursor: sqlite3.Cursor, epoch: int, block: int, pad_set: bytes) -> None:
        """Add one block's pads inside the caller's transaction. Raises LocalProtocolError if it ever had some."""
        if cursor.execute("SELECT 1 FROM link_pads WHERE epoch = ? AND block = ?", (epoch, block)).fetchone():
            raise LocalProtocolError(f"block {block} of epoch {epoch} has pads already")
        seal = self._database.vault.seal
        cursor.executemany(
            "INSERT INTO link_pads(epoch, block, role, sealed) VALUES (?, ?, ?, ?)",
            [
                (epoch, block, role, seal(pad.key, _pad_context(epoch, block, role)))
                for role, pad in split_pad_set(pad_set).items()
            ],
        )

    def request_rebootstrap(self) -> int:
        """Take an operator's word: the next epoch may open though keys were made. Returns its number."""
        with self._database.transaction() as cursor:
            # Past both the store and the anchor: a restored store must not open an epoch a second time.
            (known,) = cursor.execute("SELECT epoch FROM link_state").fetchone()
            epoch = max(int(known), self._anchor.read()[0]) + 1
            cursor.execute("UPDATE link_state SET operator_epoch = ?, epoch = max(epoch, ? - 1)", (epoch, epoch))
            cursor.execute("UPDATE link_state SET touched = max(touched, ?)", (self._anchor.read()[1],))
            cursor.execute("DELETE FROM link_pads")
        return epoch

    def operator_epoch(self) -> int:
        """Return the epoch an operator asked for, 0 if none did."""
        with self._database.reading() as cursor:
            return int(cursor.execute("SELECT operator_epoch FROM link_state").fetchone()[0])

    def destroy_pads(self) -> None:
        """Destroy every pad; only an operator's new epoch goes on from here."""
        with self._database.transaction() as cursor:
            cursor.execute("DELETE FROM link_pads")
        self._database.checkpoint()

    # PadStore.
    def burn(self, address: PadAddress) -> Pad:
        """Spend the pad: erased from the store, and the store's mark outside it, before it is returned.

        A commit message's pad is returned once, and erased by ``erase_stored`` with the record of that message: no
        byte leaves before, and if this process ends before, its tag is gone with it and the pad is as new.
        """
        with self._database.transaction() as cursor:
            sealed = self._sealed(cursor, address)
            if address in self._unstored:
                raise PadsExhausted(f"block {address.block}: the {address.role.name.lower()} pad is in use")
            if address.role not in _STORED_ROLES:
                self._erase(cursor, address)
            cursor.execute("UPDATE link_state SET touched = max(touched, ?)", (address.block,))
            mark = self._seal.mark(cursor) if self._seal else 0
        self._anchor.advance(address.epoch, address.block)
        if self._seal:
            self._seal.witness(mark)
        if address.role in _STORED_ROLES:
            self._unstored.add(address)
        return self._unseal(sealed, address)

    @staticmethod
    def _erase(cursor: sqlite3.Cursor, address: PadAddress) -> None:
        cursor.execute(
            "UPDATE link_pads SET sealed = NULL WHERE epoch = ? AND block = ? AND role = ?",
            (address.epoch, address.block, address.role),
        )
        pad_ledger.count_spent(cursor, address.role)

    def erase_stored(self, cursor: sqlite3.Cursor, epoch: int, block: int, last: PadRole) -> None:
        """Erase a block's commit pads up to ``last`` inside the transaction that stores what they were used for."""
        kept = cursor.execute(
            "SELECT role FROM link_pads WHERE epoch = ? AND block = ? AND role <= ? AND sealed IS NOT NULL",
            (epoch, block, last),
        ).fetchall()
        for (role,) in kept:
            if role in _STORED_ROLES:
                self._erase(cursor, PadAddress(epoch, block, PadRole(role)))

    def forget_unstored(self) -> None:
        """Take up the pads whose message was never stored: called only when whoever held their tags is gone."""
        self._unstored.clear()

    def attempt(self, address: PadAddress) -> tuple[Pad, int]:
        """Count an attempt; the pad stays for the next one until one is accepted."""
        with self._database.transaction() as cursor:
            sealed = self._sealed(cursor, address)
            (attempts,) = cursor.execute(
                "UPDATE link_pads SET attempts = attempts + 1 WHERE epoch = ? AND block = ? AND role = ? "
                "RETURNING attempts",
                (address.epoch, address.block, address.role),
            ).fetchone()
            if attempts >= ATTEMPTS_MAX:
                cursor.execute(
                    "UPDATE link_pads SET sealed = NULL WHERE epoch = ? AND block = ? AND role = ?",
                    (address.epoch, address.block, address.role),
                )
        return self._unseal(sealed, address), int(attempts)

    def accepted(self, address: PadAddress, forgery_bound: float) -> None:
        """Erase the pad of an accepted tag and add its bound to the ledger.

        A commit message's pad goes with the record of what the message caused: a peer that repeats it after a crash
        is checked again, and every attempt counts.
        """
        with self._database.transaction() as cursor:
            if address.role not in _STORED_ROLES:
                self._erase(cursor, address)
            cursor.execute(
                "UPDATE link_state SET proved = max(proved, ?), eps_total = eps_total + ?",
                (address.block, forgery_bound),
            )

    def discard(self, block: int) -> None:
        """Destroy a discarded block's pads, but for the decision on it if its transcript tag may have left."""
        with self._database.transaction() as cursor:
            self.destroy_pad_set(cursor, block, may_be_decided=self._transcript_left(cursor, block))
            cursor.execute("UPDATE link_state SET blocks_discarded = blocks_discarded + 1")

    def _transcript_left(self, cursor: sqlite3.Cursor, block: int) -> bool:
        row = cursor.execute(
            "SELECT sealed IS NULL AND attempts = 0 FROM link_pads "
            "WHERE epoch = (SELECT epoch FROM link_state) AND block = ? AND role = ?",
            (block, PadRole.DECIDER),
        ).fetchone()
        return row is not None and bool(row[0])

    def destroy_pad_set(self, cursor: sqlite3.Cursor, block: int, *, may_be_decided: bool = False) -> None:
        """Destroy a block's pads inside the caller's transaction; the rows stay, so that none is ever refilled."""
        last_kept = PadRole.DECISION if may_be_decided else len(PadRole)
        cursor.execute(
            "UPDATE link_pads SET sealed = NULL "
            "WHERE epoch = (SELECT epoch FROM link_state) AND block = ? AND role < ?",
            (block, last_kept),
        )
        cursor.execute("DELETE FROM link_pads WHERE block < ? AND sealed IS NULL", (block - _PADS_KEPT_BLOCKS,))

    @staticmethod
    def _sealed(cursor: sqlite3.Cursor, address: PadAddress) -> bytes:
        row = cursor.execute(
            "SELECT sealed FROM link_pads WHERE epoch = ? AND block = ? AND role = ?",
            (address.epoch, address.block, address.role),
        ).fetchone()
        if row is None or row[0] is None:
            raise PadsExhausted(f"block {address.block} has no {address.role.name.lower()} pad, or it was used")
        return bytes(row[0])

    def _unseal(self, sealed: bytes, address: PadAddress) -> Pad:
        return Pad(self._database.vault.unseal(sealed, _pad_context(address.epoch, address.block, address.role)))
