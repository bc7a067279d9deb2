"""What the process of the link does about the delivery server: it hands keys over, and hands none out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from heliograph.errors import StoreUnavailable
from heliograph.ports import Vault
from heliograph.site.clocks import WallClock
from heliograph.site.config import SiteConfig
from heliograph.site.delivery_entry import DeliveryEntry
from heliograph.site.front_end import delivery_of
from heliograph.site.kek import open_kek
from heliograph.site.store import open_store
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords
from heliograph.storage.outbox import Outbox
from heliograph.storage.pg_keys import PgKeys
from heliograph.storage.pg_reopen import destroy_server_keys
from heliograph.storage.pg_schema import check_schema, create_schema
from heliograph.storage.pg_server import PgServer
from heliograph.vault.randomness import SystemRandomness

__all__ = ["DeliveryServer", "move_store"]

_log = logging.getLogger("heliograph.delivery")


class DeliveryServer:
    """The server as the link's process uses it. ``own``: the keys in the site's file, which are handed over."""

    def __init__(self, entry: DeliveryEntry, kek: Vault, database: Database, own: KeyRecords) -> None:
        self._server = PgServer(entry.server_entry(), lambda cursor: check_schema(cursor, kek))
        self.keys = PgKeys(self._server)
        self.outbox = Outbox(database, own, self._server, entry.names, WallClock().now)
        self.deliverable, self.delivered, self._damaged = 0, (0, 0), 0  # as of the last sweep

    def hand_over(self) -> int:
        """Bring every key that waits in the site's file to the server. Raises StoreUnavailable."""
        return self.outbox.push()

    def sweep(self, stocks: Sequence[tuple[str, str]], *, connected: bool) -> None:
        """Say whether the link is up, erase what every front end has, count. Raises StoreUnavailable.

        ``stocks``: (master, audience) of what this site owns.
        """
        with self._server.transaction() as cursor:
            cursor.execute("UPDATE store SET link_connected = %s, link_at = now()", (connected,))
        self.outbox.push()
        self.outbox.upkeep()
        self.deliverable = sum(self.keys.stored_key_count(*stock) for stock in stocks)
        self.delivered = self.keys.delivered_counts()
        self._damaged = self.keys.damaged_count()

    def damaged_count(self) -> int:
        """Count the keys that were set aside, as of the last sweep."""
        return self._damaged

    def destroy_all(self) -> None:
        """Destroy the keys in the server after a rollback of the whole site, and fence it."""
        try:
            destroy_server_keys(self._server, "the site's own store turned out to be an old copy", WallClock().now())
        except StoreUnavailable as why:
            _log.error("the delivery server's keys are not destroyed: %s; stop its front ends", why)

    def close(self) -> None:
        """End the session."""
        self._server.close()


def move_store(config: SiteConfig) -> tuple[int, bool]:
    """Make the server's tables if there are none, and move the keys of the site's own store there.

    Returns how many keys moved, and whether the tables are new. What was moved before a crash is not moved again.
    Raises ConfigurationError, also while the site runs; StoreUnavailable, RollbackDetected.
    """
    entry, kek = delivery_of(config), open_kek(config)
    database = Database(config.path(config.file.store), kek)
    server = PgServer(entry.server_entry())
    try:
        opened = open_store(database, config.path(config.file.anchor), SystemRandomness())
        new = create_schema(server, kek)
        outbox = Outbox(database, opened.keys, server, entry.names, WallClock().now)
        outbox.push_tombstones()
        return outbox.push(), new
    finally:
        server.close()
        database.close()
