"""Rows of keys that cross to or from other key managers of this site (ETSI GS QKD 020), and when one is whole or lost.

A key has a row; each other key manager that it is offered to is a leg of it. A key is whole when every leg's targets
have it: only then does it go into the site's own key store, for the SAEs here. It is lost when one leg is: then no SAE
here gets it any more, and the other legs are voided. A key in the store is one segment of an epoch of its own, so that
it can be destroyed alone.

    drawn here:  offered --all legs relayed--> relayed --fetched or voided--> ...    --a leg lost--> dead
    from a peer: passing --all legs relayed--> held, or passed (nobody here)         --a leg lost--> failed
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from heliograph.kme.etsi020_records import AckStatus, Extension
from heliograph.protocol.audience import audience_members
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey

__all__ = ["FOREIGN_EPOCH", "ForeignRows", "destroy_foreign_keys"]

FOREIGN_EPOCH = 2**62  # no link gets there; its blocks are the numbers below

# A store of before has its outgoing keys in one table, each with the one leg that there was.
SCHEMA = """
CREATE TABLE IF NOT EXISTS foreign_keys(
  number INTEGER PRIMARY KEY AUTOINCREMENT, key_id TEXT NOT NULL UNIQUE, outgoing INTEGER NOT NULL,
  peer TEXT NOT NULL, initiator TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
  sealed BLOB, callback TEXT, owed TEXT, tries INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS foreign_keys_due ON foreign_keys(outgoing, state, next_at);
CREATE TABLE IF NOT EXISTS foreign_legs(
  number INTEGER PRIMARY KEY AUTOINCREMENT, key_id TEXT NOT NULL, peer TEXT NOT NULL, targets TEXT NOT NULL,
  state TEXT NOT NULL, sealed BLOB, told TEXT NOT NULL DEFAULT '{}', heard TEXT NOT NULL DEFAULT '{}',
  tries INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, at REAL NOT NULL, UNIQUE(key_id, peer));
CREATE INDEX IF NOT EXISTS foreign_legs_due ON foreign_legs(state, next_at);
INSERT OR IGNORE INTO foreign_legs(key_id, peer, targets, state, sealed, tries, next_at, at)
  SELECT key_id, peer, target, state, sealed, tries, next_at, at FROM foreign_keys WHERE outgoing = 1 AND peer <> '';
"""
# From a peer.
PASSING, HELD, PASSED, FAILED, VOIDED, GONE = "passing", "held", "passed", "failed", "voided", "gone"
# Drawn here, and legs; a leg whose target has fetched the key before it could be voided is kept.
OFFERED, ASSIGNED, RELAYED, VOIDING, DEAD, KEPT = "offered", "assigned", "relayed", "voiding", "dead", "kept"
OPEN = (OFFERED, ASSIGNED, PASSING)


class ForeignRows:
    """Steps inside a transaction of the caller's, which raises StoreUnavailable when SQLite refuses."""

    def __init__(self, database: Database, keys: KeyRecords) -> None:
        self._database = database
        self._keys = keys
        database.define(SCHEMA)

    def _insert(
        self,
        cursor: sqlite3.Cursor,
        key_id: str,
        outgoing: int,
        names: tuple[str, str, str],
        state: str,
        secret: bytes | None,
        now: float,
    ) -> int:
        """Add a key; ``names``: peer (blank for one drawn here), initiator, targets as one name."""
        sealed = None if secret is None else self._database.vault.seal(secret, _context(key_id))
        return int(
            cursor.execute(
                "INSERT INTO foreign_keys(key_id, outgoing, peer, initiator, target, state, sealed, next_at, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
                (key_id, outgoing, *names, state, sealed, now, now),
            ).fetchone()[0]
        )

    def _add_leg(
        self, cursor: sqlite3.Cursor, key_id: str, peer: str, targets: str, value: bytes, told: str, now: float
    ) -> None:
        """Add a leg; ``told``: extensions that go with the key, as JSON."""
        sealed = self._database.vault.seal(value, _context(key_id))
        cursor.execute(
            "INSERT INTO foreign_legs(key_id, peer, targets, state, sealed, told, next_at, at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (key_id, peer, targets, OFFERED, sealed, told, now, now),
        )

    def _settle(self, cursor: sqlite3.Cursor, key_id: str, now: float) -> None:
        """Take the consequences of what became of a leg."""
        key = cursor.execute(
            "SELECT number, outgoing, peer, initiator, target, state FROM foreign_keys WHERE key_id = ?", (key_id,)
        ).fetchone()
        legs = cursor.execute(
            "SELECT state, targets, sealed, told, heard FROM foreign_legs WHERE key_id = ?", (key_id,)
        ).fetchall()
        states = {state for state, *_ in legs}
        if states & {VOIDING, DEAD, KEPT}:
            self._lose(cursor, key_id, key, now)
        elif states == {RELAYED} and key[5] in OPEN:
            self._complete(cursor, key_id, key, legs, now)

    def _complete(
        self, cursor: sqlite3.Cursor, key_id: str, key: tuple[Any, ...], legs: list[tuple[Any, ...]], now: float
    ) -> None:
        number, outgoing, peer, initiator, audience, _ = key
        away = {target for _, targets, *_ in legs for target in audience_members(targets)}
        shares = tuple(target for target in audience_members(audience) if target not in away)
        if outgoing or shares:
            value = self._open(key_id, legs[0][2])
            extensions = heard_of(legs) if outgoing else told_of(legs[0][3])
            self._store(
                cursor,
                number,
                key_id,
                value,
                (initiator, audience),
                shares,
                peer,
                extensions,
                outgoing=outgoing,
                now=now,
            )
        state = RELAYED if outgoing else (HELD if shares else PASSED)
        cursor.execute(
            "UPDATE foreign_keys SET state = ?1, sealed = CASE outgoing WHEN 1 THEN NULL ELSE sealed END, "
            "owed = CASE outgoing WHEN 1 THEN NULL ELSE ?2 END, tries = 0, next_at = ?3 WHERE number = ?4",
            (state, AckStatus.RELAYED, now, number),
        )
        self._wipe(cursor, key_id)

    def _lose(self, cursor: sqlite3.Cursor, key_id: str, key: tuple[Any, ...], now: float) -> None:
        number, outgoing, *_, state = key
        # Also one that was never sent: its offer may be under way this moment.
        cursor.execute(
            "UPDATE foreign_legs SET state = ?, tries = 0, next_at = ? WHERE key_id = ? AND state IN (?, ?, ?)",
            (VOIDING, now, key_id, OFFERED, ASSIGNED, RELAYED),
        )
        self._wipe(cursor, key_id)
        if state in {RELAYED, HELD}:
            self._keys.discard(cursor, FOREIGN_EPOCH, number, now)
        if outgoing:
            cursor.execute("UPDATE foreign_keys SET state = ?, sealed = NULL WHERE number = ?", (DEAD, number))
        elif state in {PASSING, HELD, PASSED}:
            cursor.execute(
                "UPDATE foreign_keys SET state = ?, owed = ?, tries = 0, next_at = ? WHERE number = ?",
                (FAILED, AckStatus.FAILED, now, number),
            )
        elif state in {VOIDED, GONE} and (fate := self._fate(cursor, key_id, state)) is not None:
            # The void was waiting for this leg.
            cursor.execute(
                "UPDATE foreign_keys SET owed = ?, tries = 0, next_at = ? WHERE number = ?", (fate, now, number)
            )

    def _fate(self, cursor: sqlite3.Cursor, key_id: str, state: str) -> AckStatus | None:
        """Return what a void has come to, None while a leg's answer is awaited."""
        found = cursor.execute("SELECT state FROM foreign_legs WHERE key_id = ?", (key_id,)).fetchall()
        states = {leg for (leg,) in found}
        if VOIDING in states:
            return None
        return AckStatus.VOIDED if state == VOIDED and KEPT not in states else AckStatus.FAILED_TO_VOID

    def _store(
        self,
        cursor: sqlite3.Cursor,
        number: int,
        key_id: str,
        value: bytes,
        pair: tuple[str, str],
        shares: tuple[str, ...],
        peer: str,
        extensions: Extension,
        *,
        outgoing: int,
        now: float,
    ) -> None:
        about: dict[str, object] = {"protocol": "etsi020"}
        if peer:
            about["path"] = [peer]
        if extensions:
            about["extensions"] = dict(extensions)
        named = shares if len(audience_members(pair[1])) > 1 else ()
        row = NewKey(key_id, *pair, bool(outgoing), value, now, named)
        self._keys.add(cursor, FOREIGN_EPOCH, number, [row], json.dumps(about))
        if outgoing:
            self._keys.acknowledge(cursor, FOREIGN_EPOCH, number)

    @staticmethod
    def _wipe(cursor: sqlite3.Cursor, key_id: str) -> None:
        cursor.execute("UPDATE foreign_legs SET sealed = NULL WHERE key_id = ?", (key_id,))

    def _open(self, key_id: str, sealed: bytes) -> bytes:
        return self._database.vault.unseal(sealed, _context(key_id))


def told_of(text: str) -> Extension:
    """Return the extensions that go with one key, those of all keys of its request among them."""
    told: Mapping[str, Extension] = json.loads(text)
    return {**(told.get("optional") or {}), **(told.get("key") or {})}


def heard_of(legs: list[tuple[Any, ...]]) -> Extension:
    """Return the extensions of the acknowledgements; a name on which two legs differ is left out."""
    found: dict[str, object] = {}
    contradicted: set[str] = set()
    for *_, heard in legs:
        for name, value in json.loads(heard).items():
            if found.setdefault(name, value) != value:
                contradicted.add(name)
    return {name: value for name, value in found.items() if name not in contradicted}


def destroy_foreign_keys(database: Database) -> None:
    """Forget everything after a rollback: some of it may have been used already (security.md 4)."""
    database.define(SCHEMA)
    with database.transaction() as cursor:
        cursor.execute("DELETE FROM foreign_legs")
        cursor.execute("DELETE FROM foreign_keys")


def _context(key_id: str) -> bytes:
    return b"heliograph/1 foreign key " + key_id.encode()
