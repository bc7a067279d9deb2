"""The tables of keys for delivery in a PostgreSQL server, and the seal that tells whose they are.

What the server is given: names, states, counts, and each key's ciphertext. What opens a ciphertext is the key of its
block; it crosses in ``segment_keys``, sealed under the site's key-encryption key, and that table alone is UNLOGGED:
PostgreSQL writes it to no log, so it reaches no archive, no standby and no base backup (ADR 0047).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heliograph.errors import ConfigurationError
from heliograph.ports import Vault
from heliograph.storage.pg_server import PgServer

if TYPE_CHECKING:
    import psycopg

__all__ = ["PG_SCHEMA_VERSION", "check_schema", "create_schema", "fence", "fenced"]

PG_SCHEMA_VERSION = 1
_TEXT, _CONTEXT = b"heliograph delivery server", b"heliograph/1 delivery server seal"

# ``store.fenced``: why nobody hands out keys any more, until an operator has destroyed them.
# ``handed_over`` stays for ever: what was handed over once is not taken again, also when its last key has long left.
# How large a key is, its ciphertext says: so servers of before there were several sizes need no other table (ADR 0053),
# and the index that finds a pool's oldest keys is made where it is absent.
_POOLS = """
CREATE INDEX IF NOT EXISTS key_pools ON key_records(
  master, slave, owner_here, state, octet_length(ciphertext), segment, position);
DROP INDEX IF EXISTS key_supply;
"""
_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS heliograph;
CREATE TABLE store(
  one integer PRIMARY KEY CHECK (one = 1), schema integer NOT NULL, sealed bytea NOT NULL, fenced text,
  link_connected boolean NOT NULL DEFAULT false, link_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE handed_over(
  segment bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, epoch bigint NOT NULL, block bigint NOT NULL,
  UNIQUE(epoch, block));
CREATE TABLE key_segments(
  segment bigint PRIMARY KEY, epoch bigint NOT NULL, block bigint NOT NULL, metadata text NOT NULL,
  UNIQUE(epoch, block));
CREATE TABLE key_records(
  key_id text PRIMARY KEY, segment bigint NOT NULL REFERENCES key_segments(segment), position integer NOT NULL,
  master text NOT NULL, slave text NOT NULL, owner_here integer NOT NULL, state integer NOT NULL,
  created_at double precision NOT NULL, ciphertext bytea NOT NULL, UNIQUE(segment, position));
CREATE TABLE key_tombstones(
  key_id text PRIMARY KEY, master text NOT NULL, slave text NOT NULL, owner_here integer NOT NULL,
  epoch bigint NOT NULL, fate text NOT NULL, at double precision NOT NULL);
CREATE INDEX key_fates ON key_tombstones(fate, owner_here);
CREATE TABLE key_shares(
  key_id text NOT NULL, sae text NOT NULL, served_at double precision, PRIMARY KEY(key_id, sae));
CREATE TABLE segment_holders(
  epoch bigint NOT NULL, block bigint NOT NULL, front_end text NOT NULL, PRIMARY KEY(epoch, block, front_end));
CREATE UNLOGGED TABLE segment_keys(
  epoch bigint NOT NULL, block bigint NOT NULL, sealed_key bytea NOT NULL, PRIMARY KEY(epoch, block));
CREATE TABLE front_ends(name text PRIMARY KEY, runs bigint NOT NULL);
CREATE TABLE attests(
  run text NOT NULL, front_end text NOT NULL, listed text NOT NULL, PRIMARY KEY(run, front_end));
"""


def create_schema(server: PgServer, vault: Vault) -> bool:
    """Make the tables if there are none; all of them or none. Returns whether they are new.

    Raises StoreUnavailable, ConfigurationError for tables of another release.
    """
    with server.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(7310868735404142)")  # two that are started at once take turns
        if _exists(cursor):
            new = False
        else:
            cursor.execute(_SCHEMA)
            cursor.execute(
                "INSERT INTO store(one, schema, sealed) VALUES (1, %s, %s)",
                (PG_SCHEMA_VERSION, vault.seal(_TEXT, _CONTEXT)),
            )
            new = True
        check_schema(cursor, vault)
        cursor.execute(_POOLS)
    return new


def check_schema(cursor: psycopg.Cursor[Any], vault: Vault) -> None:
    """Return if the tables are of this release and of this site.

    Raises ConfigurationError, StoreUnavailable for another key-encryption key.
    """
    if not _exists(cursor):
        raise ConfigurationError("the delivery server has no tables yet; run `heliograph store move` once")
    found = cursor.execute("SELECT schema, sealed FROM store").fetchone()
    if found is None or found[0] != PG_SCHEMA_VERSION:
        raise ConfigurationError(
            f"the delivery server's tables are of another release (schema {found and found[0]}, this one has "
            f"{PG_SCHEMA_VERSION}); run that release"
        )
    vault.unseal(bytes(found[1]), _CONTEXT)


def fence(cursor: psycopg.Cursor[Any], reason: str) -> None:
    """Let no front end hand out keys any more; the first reason stays."""
    cursor.execute("UPDATE store SET fenced = coalesce(fenced, %s)", (reason,))


def fenced(cursor: psycopg.Cursor[Any]) -> str | None:
    """Return why nobody hands out keys, None if they may."""
    found = cursor.execute("SELECT fenced FROM store").fetchone()
    return None if found is None or found[0] is None else str(found[0])


def _exists(cursor: psycopg.Cursor[Any]) -> bool:
    found = cursor.execute("SELECT to_regclass('heliograph.store') IS NOT NULL").fetchone()
    return bool(found and found[0])
