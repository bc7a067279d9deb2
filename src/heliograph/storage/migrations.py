"""Brings an older store up to the schema of this release, forward only and whole or not at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.storage.database import SCHEMA_VERSION, lock_store
from heliograph.storage.migrate_to_chunks import UnknownRow, gather_keys
from heliograph.storage.migrate_to_sizes import divide_audiences
from heliograph.storage.sqlite_reasons import explain

__all__ = ["MIGRATIONS", "migrate_store"]

# From each schema to the next one: statements, or a function of the open transaction. What stands here is never changed
# after a release: stores have run it.
_Step = str | Callable[[sqlite3.Connection], None]
MIGRATIONS: Mapping[int, tuple[_Step, ...]] = MappingProxyType(
    {
        # Groups of SAEs have shares of a key (ADR 0035). To count deliveries, which each look at a site does, every
        # tombstone of the epoch was read.
        # The table may be absent: a store that was closed, or killed, before its first keys.
        1: (
            """CREATE TABLE IF NOT EXISTS key_tombstones(
  key_id TEXT PRIMARY KEY, master TEXT NOT NULL, slave TEXT NOT NULL, owner_here INTEGER NOT NULL,
  epoch INTEGER NOT NULL, fate TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID""",
            "CREATE INDEX key_fates ON key_tombstones(fate, owner_here)",
            """CREATE TABLE IF NOT EXISTS key_shares(
  key_id TEXT NOT NULL, sae TEXT NOT NULL, served_at REAL, PRIMARY KEY(key_id, sae)) WITHOUT ROWID""",
        ),
        # Many keys in one row (ADR 0046): a delivery of 128 changed 128 rows of three trees.
        2: (gather_keys,),
        # Keys of several sizes for one pair, each size a pool of its own (ADR 0053).
        3: (divide_audiences,),
    }
)


def migrate_store(path: Path) -> tuple[int, int]:
    """Return the schema found and the schema now. No secret is opened: the key-encryption key is not needed.

    All steps are one transaction, the version inside it: a crash leaves the old store, and no copy of it is made,
    since a copy with keys could be used again. Raises ConfigurationError for a store that is absent, open elsewhere
    or newer than this program, StoreUnavailable if SQLite refuses.
    """
    if not path.is_file():
        raise ConfigurationError(f"store {path}: there is none; a new one is made by `heliograph site run`")
    held = lock_store(path)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > SCHEMA_VERSION:
                raise ConfigurationError(
                    f"store {path}: written by a newer release (schema {found}, this one knows {SCHEMA_VERSION}); "
                    "run that release"
                )
            if found < 1:
                raise ConfigurationError(f"store {path}: no store of this program; correct `store` in SITE.toml")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("BEGIN IMMEDIATE")
            for version in range(found, SCHEMA_VERSION):
                for step in MIGRATIONS[version]:
                    if isinstance(step, str):
                        connection.execute(step)
                    else:
                        step(connection)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
            return found, SCHEMA_VERSION
    except UnknownRow as error:
        raise ConfigurationError(f"store {path}: {error}") from None
    except sqlite3.Error as error:
        raise StoreUnavailable(f"store {path}: {explain(error)}; nothing was changed") from error
    finally:
        os.close(held)
