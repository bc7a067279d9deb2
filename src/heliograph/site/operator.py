"""What only an operator may order. The site must be stopped: its store has one owner at a time."""

from __future__ import annotations

from heliograph.site.config import SiteConfig
from heliograph.site.store import reopen_for_operator
from heliograph.storage.database import Database
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness

__all__ = ["rebootstrap"]


def rebootstrap(config: SiteConfig) -> int:
    """Allow the next epoch and destroy the pads of this one. Returns the epoch. Raises ConfigurationError.

    This is the defined way out of an empty pool, a doubt without a peer, and a detected rollback.
    """
    randomness = SystemRandomness()
    database = Database(config.path(config.file.store), FileKek(config.path(config.file.kek), randomness))
    try:
        return reopen_for_operator(database, config.path(config.file.anchor), randomness)
    finally:
        database.close()
