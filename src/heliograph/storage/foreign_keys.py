"""Keys that cross to or from another key manager of this site (ETSI GS QKD 020): what is promised, owed and erased.

Incoming keys go into the site's own key store for their target SAE, in the same transaction that remembers them.
Outgoing ones are sealed here until the other side has relayed them, and only then go into the store for their
initiator. A key is one segment of an epoch of its own, so that it can be destroyed alone.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from heliograph.kme.etsi020 import Ack, AckStatus, ExtKey, ExtKeys, InterworkingError, Slug, Void
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey

__all__ = ["FOREIGN_EPOCH", "SCHEMA", "ForeignKeys", "Outgoing", "destroy_foreign_keys"]

FOREIGN_EPOCH = 2**62  # no link gets there; its blocks are the numbers below
HELD_MAX = 4096  # our choice: keys of one pair of SAEs that wait for their target
RETRY_S, RETRY_MAX_S = 1.0, 60.0  # our choice

SCHEMA = """
CREATE TABLE IF NOT EXISTS foreign_keys(
  number INTEGER PRIMARY KEY AUTOINCREMENT, key_id TEXT NOT NULL UNIQUE, outgoing INTEGER NOT NULL,
  peer TEXT NOT NULL, initiator TEXT NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
  sealed BLOB, callback TEXT, owed TEXT, tries INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS foreign_keys_due ON foreign_keys(outgoing, state, next_at);
"""
_HELD, _VOIDED, _GONE = "held", "voided", "gone"  # incoming
_OFFERED, _ASSIGNED, _RELAYED, _VOIDING, _DEAD = "offered", "assigned", "relayed", "voiding", "dead"  # outgoing


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Keys to be offered, or voided, in one request."""

    peer: str
    initiator: str
    target: str
    keys: tuple[ExtKey, ...] = field(repr=False)

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys' names."""
        return tuple(key.key_id for key in self.keys)


class ForeignKeys:
    """Implements ``kme.interworking.ForeignKeyStore``. Every method raises StoreUnavailable when SQLite refuses."""

    def __init__(self, database: Database, keys: KeyRecords) -> None:
        self._database = database
        self._keys = keys
        database.define(SCHEMA)

    # -- keys of others ------------------------------------------------------------------------------------------

    def take(self, peer: str, request: ExtKeys, now: float) -> None:
        """Hold all keys for the target, or none. Raises InterworkingError for a key known otherwise."""
        (target,) = request.targets
        names = (peer, request.initiator, target)
        with self._database.transaction() as cursor:
            if self._keys.counts(request.initiator, target).held + len(request.keys) > HELD_MAX:
                raise InterworkingError(
                    Slug.KEY_ROUTING, f"the target has not fetched its {HELD_MAX} keys; offer later"
                )
            for key in request.keys:
                digest = hashlib.sha256(key.value).digest()
                found = cursor.execute(
                    "SELECT outgoing, peer, initiator, target, state, sealed FROM foreign_keys WHERE key_id = ?",
                    (key.key_id,),
                ).fetchone()
                if found is None and self._keys.known(key.key_id):
                    raise InterworkingError(Slug.KEY_ROUTING, "a key_id is in use already", {"key_id": key.key_id})
                if found is not None:
                    same = found[:4] == (0, *names) and found[4] in {_HELD, _GONE} and found[5] is not None
                    if not (same and hmac.compare_digest(self._open(key.key_id, found[5]), digest)):
                        raise InterworkingError(
                            Slug.KEY_ROUTING, "a key_id was offered before, or voided", {"key_id": key.key_id}
                        )
                    cursor.execute(
                        "UPDATE foreign_keys SET callback = ?, owed = ?, next_at = ? WHERE key_id = ?",
                        (request.callback, AckStatus.RELAYED, now, key.key_id),
                    )
                    continue
                number = self._insert(cursor, key.key_id, 0, names, _HELD, digest, now)
                cursor.execute(
                    "UPDATE foreign_keys SET callback = ?, owed = ? WHERE number = ?",
                    (request.callback, AckStatus.RELAYED, number),
                )
                self._add(cursor, number, key, *names, owner_here=False, now=now)

    def void(self, peer: str, request: Void, now: float) -> dict[str, AckStatus]:
        """Destroy what was not delivered. A key that never came is remembered, and refused if it comes later."""
        with self._database.transaction() as cursor:
            key_ids: Sequence[str] = request.key_ids or self._held(cursor, peer, request)
            fates = {key_id: self._void(cursor, peer, request, key_id, now) for key_id in key_ids}
            cursor.executemany(
                "UPDATE foreign_keys SET callback = ?, owed = ?, next_at = ?, tries = 0 "
                "WHERE key_id = ? AND outgoing = 0 AND peer = ?",
                [(request.callback, fate, now, key_id, peer) for key_id, fate in fates.items()],
            )
        return fates

    def _held(self, cursor: sqlite3.Cursor, peer: str, request: Void) -> list[str]:
        found = cursor.execute(
            "SELECT key_id, target FROM foreign_keys WHERE outgoing = 0 AND peer = ? AND initiator = ? AND state = ?",
            (peer, request.initiator, _HELD),
        ).fetchall()
        return [key_id for key_id, target in found if target in request.targets]

    def _void(self, cursor: sqlite3.Cursor, peer: str, request: Void, key_id: str, now: float) -> AckStatus:
        found = cursor.execute(
            "SELECT number, outgoing, peer, initiator, target, state FROM foreign_keys WHERE key_id = ?", (key_id,)
        ).fetchone()
        if found is None:
            if not self._keys.known(key_id):
                self._insert(cursor, key_id, 0, (peer, request.initiator, request.targets[0]), _VOIDED, None, now)
            return AckStatus.NOT_PRESENT
        number, *whose, target, state = found
        if whose != [0, peer, request.initiator] or target not in request.targets:
            return AckStatus.NOT_PRESENT
        if state == _HELD:
            # What is not in the store any more was delivered, or expired; which of the two is not told apart.
            state = _VOIDED if self._keys.discard(cursor, FOREIGN_EPOCH, number, now) else _GONE
            cursor.execute("UPDATE foreign_keys SET state = ? WHERE number = ?", (state, number))
        return AckStatus.VOIDED if state == _VOIDED else AckStatus.FAILED_TO_VOID

    def answered(self, key_ids: Sequence[str]) -> None:
        """Nothing is owed about these keys any more."""
        with self._database.transaction() as cursor:
            cursor.executemany("UPDATE foreign_keys SET owed = NULL WHERE key_id = ?", [(k,) for k in key_ids])

    def owed(self, now: float, limit: int) -> list[tuple[str, Ack]]:
        """Return acknowledgements that are due: where to, and what; at most ``limit`` keys."""
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT callback, owed, initiator, target, key_id FROM foreign_keys WHERE outgoing = 0 "
                "AND owed IS NOT NULL AND callback IS NOT NULL AND next_at <= ? ORDER BY number LIMIT ?",
                (now, limit),
            ).fetchall()
        groups: dict[tuple[str, str, str, str], list[str]] = {}
        for callback, fate, initiator, target, key_id in rows:
            groups.setdefault((callback, fate, initiator, target), []).append(key_id)
        return [
            (callback, Ack(tuple(key_ids), AckStatus(fate), initiator, (target,)))
            for (callback, fate, initiator, target), key_ids in groups.items()
        ]

    # -- keys for others -----------------------------------------------------------------------------------------

    def offer(self, outgoing: Outgoing, now: float) -> None:
        """Remember keys, durably, before they are offered the first time."""
        names = (outgoing.peer, outgoing.initiator, outgoing.target)
        with self._database.transaction() as cursor:
            for key in outgoing.keys:
                self._insert(cursor, key.key_id, 1, names, _OFFERED, key.value, now)

    def to_offer(self, now: float, limit: int) -> list[Outgoing]:
        """Return what is due to be offered, again where there was no proof; one entry for each pair of SAEs."""
        return self._outgoing(_OFFERED, now, limit, opened=True)

    def to_void(self, now: float, limit: int) -> list[Outgoing]:
        """Return what is due to be voided."""
        return self._outgoing(_VOIDING, now, limit, opened=False)

    def not_taken(self, key_ids: Sequence[str], now: float) -> None:
        """Destroy keys of an offer that was refused with proof; fresh ones are drawn instead.

        If an earlier offer of the same key went unanswered, that one may have been taken: then the key is voided too.
        """
        with self._database.transaction() as cursor:
            cursor.executemany(
                "UPDATE foreign_keys SET state = CASE tries WHEN 0 THEN ? ELSE ? END, sealed = NULL, next_at = ? "
                "WHERE key_id = ? AND outgoing = 1 AND state = ?",
                [(_DEAD, _VOIDING, now, key_id, _OFFERED) for key_id in key_ids],
            )

    def assigned(self, key_ids: Sequence[str]) -> None:
        """Note that the peer said it took them over; its word on their fate is awaited."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                "UPDATE foreign_keys SET state = ? WHERE key_id = ? AND outgoing = 1 AND state = ?",
                [(_ASSIGNED, key_id, _OFFERED) for key_id in key_ids],
            )

    def retry_later(self, key_ids: Sequence[str], now: float) -> None:
        """Put the next request or acknowledgement about these keys off, longer each time."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                "UPDATE foreign_keys SET tries = tries + 1, "
                "next_at = ? + min(?, ? * (1 << min(tries, 16))) WHERE key_id = ?",
                [(now, RETRY_MAX_S, RETRY_S, key_id) for key_id in key_ids],
            )

    def give_up(self, before: float, now: float) -> int:
        """Void what was offered before ``before`` and is not relayed yet. Returns how many keys."""
        with self._database.transaction() as cursor:
            return cursor.execute(
                "UPDATE foreign_keys SET state = ?, sealed = NULL, tries = 0, next_at = ? "
                "WHERE outgoing = 1 AND state IN (?, ?) AND at < ?",
                (_VOIDING, now, _OFFERED, _ASSIGNED, before),
            ).rowcount

    def acknowledged(self, peer: str, acks: Sequence[Ack], now: float) -> None:
        """Take the peer's word, all or none. Raises InterworkingError for keys that were not offered to it so."""
        with self._database.transaction() as cursor:
            for ack in acks:
                for key_id in ack.key_ids:
                    self._acknowledge(cursor, peer, ack, key_id, now)

    def _acknowledge(self, cursor: sqlite3.Cursor, peer: str, ack: Ack, key_id: str, now: float) -> None:
        found = cursor.execute(
            "SELECT number, initiator, target, state, sealed FROM foreign_keys "
            "WHERE key_id = ? AND outgoing = 1 AND peer = ?",
            (key_id, peer),
        ).fetchone()
        if found is None or (found[1], (found[2],)) != (ack.initiator, ack.targets):
            raise InterworkingError(Slug.ACK_NOT_UNDERSTOOD, "a key was not offered so", {"key_id": key_id})
        number, initiator, target, state, sealed = found
        if ack.status is AckStatus.RELAYED:
            if state in {_OFFERED, _ASSIGNED}:
                key = ExtKey(key_id, self._open(key_id, sealed))
                self._add(cursor, number, key, peer, initiator, target, owner_here=True, now=now)
                self._keys.acknowledge(cursor, FOREIGN_EPOCH, number)
                self._set(cursor, number, _RELAYED)
        elif state == _RELAYED:
            # The target lost it after all: what the initiator has not fetched yet is of no use.
            self._keys.discard(cursor, FOREIGN_EPOCH, number, now)
            self._set(cursor, number, _DEAD)
        elif state != _DEAD:
            self._set(cursor, number, _DEAD)

    def under_way(self, initiator: str, target: str) -> int:
        """Count the pair's keys that are offered or assigned."""
        with self._database.reading() as cursor:
            return int(
                cursor.execute(
                    "SELECT COUNT(*) FROM foreign_keys WHERE outgoing = 1 AND initiator = ? AND target = ? "
                    "AND state IN (?, ?)",
                    (initiator, target, _OFFERED, _ASSIGNED),
                ).fetchone()[0]
            )

    def state(self, key_id: str) -> str | None:
        """Return a key's state by name, None if it never crossed."""
        with self._database.reading() as cursor:
            found = cursor.execute("SELECT state FROM foreign_keys WHERE key_id = ?", (key_id,)).fetchone()
        return None if found is None else str(found[0])

    # -- one transaction's steps -----------------------------------------------------------------------------------

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
        sealed = None if secret is None else self._database.vault.seal(secret, _context(key_id))
        return int(
            cursor.execute(
                "INSERT INTO foreign_keys(key_id, outgoing, peer, initiator, target, state, sealed, next_at, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
                (key_id, outgoing, *names, state, sealed, now, now),
            ).fetchone()[0]
        )

    def _add(
        self,
        cursor: sqlite3.Cursor,
        number: int,
        key: ExtKey,
        peer: str,
        initiator: str,
        target: str,
        *,
        owner_here: bool,
        now: float,
    ) -> None:
        row = NewKey(key.key_id, initiator, target, owner_here, key.value, now)
        self._keys.add(cursor, FOREIGN_EPOCH, number, [row], json.dumps({"protocol": "etsi020", "path": [peer]}))

    def _outgoing(self, state: str, now: float, limit: int, *, opened: bool) -> list[Outgoing]:
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT peer, initiator, target, key_id, sealed FROM foreign_keys WHERE outgoing = 1 AND state = ? "
                "AND next_at <= ? ORDER BY number LIMIT ?",
                (state, now, limit),
            ).fetchall()
        groups: dict[tuple[str, str, str], list[ExtKey]] = {}
        for peer, initiator, target, key_id, sealed in rows:
            value = self._open(key_id, sealed) if opened else b""
            groups.setdefault((peer, initiator, target), []).append(ExtKey(key_id, value))
        return [Outgoing(*names, tuple(keys)) for names, keys in groups.items()]

    @staticmethod
    def _set(cursor: sqlite3.Cursor, number: int, state: str) -> None:
        cursor.execute("UPDATE foreign_keys SET state = ?, sealed = NULL WHERE number = ?", (state, number))

    def _open(self, key_id: str, sealed: bytes) -> bytes:
        return self._database.vault.unseal(sealed, _context(key_id))


def destroy_foreign_keys(database: Database) -> None:
    """Forget everything after a rollback: some of it may have been used already (security.md 4)."""
    database.define(SCHEMA)
    with database.transaction() as cursor:
        cursor.execute("DELETE FROM foreign_keys")


def _context(key_id: str) -> bytes:
    return b"heliograph/1 foreign key " + key_id.encode()
