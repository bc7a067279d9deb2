"""What only an operator may order. The site must be stopped: its store has one owner at a time."""

from __future__ import annotations

from heliograph.authentication.anchors.psk import SLOTS
from heliograph.authentication.bootstrap import has_book
from heliograph.site.audit import AuditLog, check_approver
from heliograph.site.config import SiteConfig
from heliograph.site.kek import open_kek
from heliograph.site.store import open_database, reopen_for_operator
from heliograph.vault.randomness import SystemRandomness

__all__ = ["rebootstrap"]


def rebootstrap(config: SiteConfig, approver: str) -> int:
    """Allow the next epoch and destroy the pads of this one. Returns the epoch. Raises ConfigurationError.

    This is the defined way out of an empty pool, a doubt without a peer, and a detected rollback. The audit log tells
    of the order before it is carried out, and of the epoch afterwards.
    """
    check_approver(approver)
    randomness, audit = SystemRandomness(), AuditLog(config.audit)
    database = open_database(config.path(config.file.store), open_kek(config), config.link_name)
    try:
        audit.append("rebootstrap ordered", approver, {"link": config.registration.link})
        last = SLOTS if has_book(config.registration.bootstrap) else None
        epoch = reopen_for_operator(database, config.path(config.file.anchor), randomness, last)
        audit.append("rebootstrap done", approver, {"link": config.registration.link, "epoch": epoch})
        return epoch
    finally:
        database.close()
