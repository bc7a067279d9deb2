"""A site's store as it is opened: checked against its key and its anchors before anything in it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heliograph.errors import RollbackDetected
from heliograph.ports import RandomSource, Vault
from heliograph.site.clocks import WallClock
from heliograph.storage.database import Database
from heliograph.storage.foreign_rows import destroy_foreign_keys
from heliograph.storage.keys import KeyRecords
from heliograph.storage.link_records import LinkRecords
from heliograph.storage.store_seal import StoreSeal
from heliograph.storage.streams import destroy_streams
from heliograph.vault.anchor import FileAnchor
from heliograph.vault.bound_vault import BoundVault

__all__ = ["SiteStore", "open_database", "open_store", "reopen_for_operator"]

_PROBE_BYTES = 4 << 20  # our choice: more than a block of 1e7 sifted bits writes
_FOR_EVER = float("inf")


@dataclass(frozen=True, slots=True)
class SiteStore:
    """The records of one site over its ``database``."""

    database: Database
    records: LinkRecords
    keys: KeyRecords
    seal: StoreSeal

    def probe(self) -> None:
        """Raise StoreUnavailable unless a block's worth of bytes can be written now."""
        self.database.probe(_PROBE_BYTES)

    def destroy_all(self) -> None:
        """Destroy pads and keys after a rollback: some of them may have been used already."""
        _destroy_all(self.database, self.records, self.keys)


def open_database(path: Path, kek: Vault, link: str) -> Database:
    """Open the file of a link's store. ``link``: the name of a further link, empty for a site's first.

    The stores of further links are sealed each for its own. Raises ConfigurationError, StoreUnavailable.
    """
    return Database(path, BoundVault(kek, link) if link else kek)


def open_store(database: Database, anchor: Path, randomness: RandomSource) -> SiteStore:
    """Open the records. ``anchor``: the file outside the store; the count of openings stands beside it.

    Raises StoreUnavailable for another key-encryption key, RollbackDetected for an old or a cloned copy, whose pads
    and keys are destroyed then, ConfigurationError for an anchor that cannot be read.
    """
    now = WallClock().now
    try:
        seal = StoreSeal(database, FileAnchor(_runs(anchor)))
        seal.check()
        records = LinkRecords(database, FileAnchor(anchor), now, seal)
    except RollbackDetected:
        links = LinkRecords.for_operator(database, FileAnchor.unread(anchor), now)
        _destroy_all(database, links, KeyRecords(database, randomness))
        raise
    seal.count()
    return SiteStore(database, records, KeyRecords(database, randomness, seal), seal)


def reopen_for_operator(database: Database, anchor: Path, randomness: RandomSource, last: int | None = None) -> int:
    """Allow the next epoch, on this machine and with this copy of the store. Returns the epoch.

    ``last``: the last epoch that can be opened at all, None for no end. Raises ConfigurationError beyond it.

    If the copy is an old one, its keys are destroyed: some of them may have been delivered already.
    """
    try:
        open_store(database, anchor, randomness)
    except RollbackDetected:
        FileAnchor.adopt(anchor)
        FileAnchor.adopt(_runs(anchor))
    StoreSeal(database, FileAnchor(_runs(anchor))).accept()
    return LinkRecords.for_operator(database, FileAnchor(anchor), WallClock().now).request_rebootstrap(last)


def _runs(anchor: Path) -> Path:
    return anchor.with_name(anchor.name + ".runs")


def _destroy_all(database: Database, records: LinkRecords, keys: KeyRecords) -> None:
    records.destroy_pads()
    keys.expire(_FOR_EVER, WallClock().now())
    destroy_foreign_keys(database)
    destroy_streams(database)
    database.checkpoint()
