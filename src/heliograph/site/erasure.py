"""Crypto-erase: destroy what opens a site's store, then the store. Needs no passphrase; a token needs its PIN."""

from __future__ import annotations

import os
from pathlib import Path

from heliograph.errors import ConfigurationError
from heliograph.site.audit import AuditLog, check_approver
from heliograph.site.config import SiteConfig
from heliograph.site.kek import destroy_kek
from heliograph.storage.database import lock_store
from heliograph.vault.owned_file import shred

__all__ = ["erase_store"]


def erase_store(config: SiteConfig, approver: str) -> list[str]:
    """Destroy the key-encryption key and the files of all links' stores. Returns what was destroyed, in that order.

    What is sealed under the key anywhere, in a backup too, does not open after the first step. The audit log tells of
    the order before it is carried out. Raises ConfigurationError if a process has the store open; and, after
    all that can be destroyed is, if a file or the token refuses.
    """
    check_approver(approver)
    stores, audit = [view.path(view.file.store) for view in config.links], AuditLog(config.audit)
    held = list[int]()
    try:
        for store in stores:
            held.append(lock_store(store))  # those before it are let go if one is not to be had
        told: dict[str, object] = {"store": str(stores[0])} if len(stores) == 1 else {"stores": list(map(str, stores))}
        audit.append("erasure ordered", approver, told)
        done, refused, kept = list[str](), list[str](), ""
        try:
            done, kept = destroy_kek(config)
        except ConfigurationError as error:
            refused.append(str(error))
        for path in [path for store in stores for path in _files(store)]:  # each is tried, whatever the others do
            try:
                done += [f"the store {path}"] if shred(path, "store") else []
            except ConfigurationError as error:
                refused.append(str(error))
        audit.append("erasure done", approver, {"destroyed": done, "refused": refused, "token": kept})
        if refused:
            raise ConfigurationError(f"{len(done)} files are destroyed, not all: {'; '.join(refused)}")
        if kept:
            raise ConfigurationError(
                f'{len(done)} files are destroyed, but the wrapping key (label "heliograph kek") stays in the token '
                f"and opens a copy of {config.file.kek}: {kept}; destroy it with the token's own tool"
            )
        return done
    finally:
        for lock in held:
            os.close(lock)


def _files(store: Path) -> list[Path]:
    """Return the database and what SQLite keeps beside it."""
    return [store.with_name(store.name + ending) for ending in ("-wal", "-shm", "-journal", "")]
