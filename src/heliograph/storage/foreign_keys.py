"""Keys that come from other key managers of this site (ETSI GS QKD 020): what is promised, owed and erased.

They go into the site's own key store for their targets here, in the same transaction that remembers them; or, where
there are targets behind further key managers, when those have them too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Sequence

from heliograph.kme.etsi020_records import Ack, AckStatus, ExtKey, ExtKeys, InterworkingError, Slug, Void
from heliograph.kme.foreign_groups import Way
from heliograph.protocol.audience import audience_members, audience_name
from heliograph.storage.foreign_legs import LATER, RETRY_MAX_S, RETRY_S, ForeignLegs
from heliograph.storage.foreign_rows import (
    ASSIGNED,
    FAILED,
    FOREIGN_EPOCH,
    GONE,
    HELD,
    OFFERED,
    PASSED,
    PASSING,
    RELAYED,
    VOIDED,
    VOIDING,
    heard_of,
    told_of,
)

__all__ = ["ForeignKeys"]

HELD_MAX = 4096  # our choice: keys of one initiator and its targets that wait for them
# What is owed again to who offers a key again.
_OWED_AGAIN = {HELD: AckStatus.RELAYED, PASSED: AckStatus.RELAYED, GONE: AckStatus.RELAYED, FAILED: AckStatus.FAILED}


class ForeignKeys(ForeignLegs):
    """Implements ``kme.interworking.ForeignKeyStore``. Every method raises StoreUnavailable when SQLite refuses."""

    def take(self, peer: str, request: ExtKeys, way: Way, now: float) -> None:
        """Hold all keys for their targets, or none. Raises InterworkingError for a key known otherwise."""
        names = (peer, request.initiator, audience_name(request.targets))
        with self._database.transaction() as cursor:
            (passing,) = cursor.execute(
                "SELECT COUNT(*) FROM foreign_keys WHERE outgoing = 0 AND initiator = ? AND target = ? AND state = ?",
                (*names[1:], PASSING),
            ).fetchone()
            # Those that are offered again have their room: a refusal would be the proof that they were not taken.
            fresh = sum(self._is_new(cursor, key.key_id) for key in request.keys)
            if fresh and self._keys.counts(*names[1:]).held + passing + fresh > HELD_MAX:
                raise InterworkingError(
                    Slug.KEY_ROUTING, f"the targets have not fetched their {HELD_MAX} keys; offer later"
                )
            for key in request.keys:
                self._take(cursor, key, request, names, way, now)

    def holds(self, peer: str, key_ids: Sequence[str]) -> bool:
        """Tell whether one of these keys was taken from ``peer`` before."""
        with self._database.reading() as cursor:
            query = "SELECT 1 FROM foreign_keys WHERE key_id = ? AND outgoing = 0 AND peer = ? AND sealed IS NOT NULL"
            return any(cursor.execute(query, (key_id, peer)).fetchone() for key_id in key_ids)

    @staticmethod
    def _is_new(cursor: sqlite3.Cursor, key_id: str) -> bool:
        return cursor.execute("SELECT 1 FROM foreign_keys WHERE key_id = ?", (key_id,)).fetchone() is None

    def _take(
        self, cursor: sqlite3.Cursor, key: ExtKey, request: ExtKeys, names: tuple[str, str, str], way: Way, now: float
    ) -> None:
        digest = hashlib.sha256(key.value).digest()
        found = cursor.execute(
            "SELECT outgoing, peer, initiator, target, state, sealed, owed FROM foreign_keys WHERE key_id = ?",
            (key.key_id,),
        ).fetchone()
        if found is None and self._keys.known(key.key_id):
            raise InterworkingError(Slug.KEY_ROUTING, "a key_id is in use already", {"key_id": key.key_id})
        if found is not None:
            *whose, state, sealed, owed = found
            waits = state in {VOIDED, GONE} and self._fate(cursor, key.key_id, state) is None
            same = tuple(whose) == (0, *names) and sealed is not None
            same = same and (state in {PASSING, *_OWED_AGAIN} or waits)
            if not (same and hmac.compare_digest(self._open(key.key_id, sealed), digest)):
                raise InterworkingError(
                    Slug.KEY_ROUTING, "a key_id was offered before, or voided", {"key_id": key.key_id}
                )
            cursor.execute(
                "UPDATE foreign_keys SET callback = ?, owed = ?, next_at = ? WHERE key_id = ?",
                (request.callback, owed if waits else _OWED_AGAIN.get(state), now, key.key_id),
            )
            return
        told = json.dumps({"optional": request.optional, "key": key.extension})
        number = self._insert(cursor, key.key_id, 0, names, PASSING if way.legs else HELD, digest, now)
        cursor.execute(
            "UPDATE foreign_keys SET callback = ?, owed = ? WHERE number = ?",
            (request.callback, None if way.legs else AckStatus.RELAYED, number),
        )
        for further, targets in way.legs.items():
            self._add_leg(cursor, key.key_id, further, audience_name(targets), key.value, told, now)
        if not way.legs:
            peer, *pair = names
            self._store(
                cursor,
                number,
                key.key_id,
                key.value,
                (pair[0], pair[1]),
                way.here,
                peer,
                told_of(told),
                outgoing=0,
                now=now,
            )

    def void(self, peer: str, request: Void, now: float) -> dict[str, AckStatus | None]:
        """Destroy what was not delivered. A key that never came is remembered, and refused if it comes later.

        Returns what became of each key, None while a further key manager's answer is awaited. Raises
        InterworkingError, and then nothing changed, if it is and there is no callback to tell it to.
        """
        with self._database.transaction() as cursor:
            key_ids: Sequence[str] = request.key_ids or self._waiting(cursor, peer, request)
            fates = {key_id: self._void(cursor, peer, request, key_id, now) for key_id in key_ids}
            if request.callback is None and None in fates.values():
                raise InterworkingError(
                    Slug.VOID_NOT_UNDERSTOOD,
                    "a key was passed on: give ack_callback_url, its fate is not known at once",
                )
            cursor.executemany(
                "UPDATE foreign_keys SET callback = ?, owed = ?, next_at = ?, tries = 0 "
                "WHERE key_id = ? AND outgoing = 0 AND peer = ?",
                [(request.callback, fate, now, key_id, peer) for key_id, fate in fates.items()],
            )
        return fates

    def _waiting(self, cursor: sqlite3.Cursor, peer: str, request: Void) -> list[str]:
        found = cursor.execute(
            "SELECT key_id, target FROM foreign_keys WHERE outgoing = 0 AND peer = ? AND initiator = ? "
            "AND state IN (?, ?, ?)",
            (peer, request.initiator, HELD, PASSING, PASSED),
        ).fetchall()
        return [key_id for key_id, target in found if set(audience_members(target)) & set(request.targets)]

    def _void(self, cursor: sqlite3.Cursor, peer: str, request: Void, key_id: str, now: float) -> AckStatus | None:
        found = cursor.execute(
            "SELECT number, outgoing, peer, initiator, target, state FROM foreign_keys WHERE key_id = ?", (key_id,)
        ).fetchone()
        if found is None:
            if not self._keys.known(key_id):
                names = (peer, request.initiator, audience_name(request.targets))
                self._insert(cursor, key_id, 0, names, VOIDED, None, now)
            return AckStatus.NOT_PRESENT
        number, *whose, target, state = found
        # A key, not one target's copy of it, is voided: whoever still waits for it gets it no more.
        if whose != [0, peer, request.initiator] or not set(audience_members(target)) & set(request.targets):
            return AckStatus.NOT_PRESENT
        if state == HELD:
            # What is not in the store any more was delivered, or expired; which of the two is not told apart.
            served = self._keys.is_served(cursor, key_id)
            left = self._keys.discard(cursor, FOREIGN_EPOCH, number, now)
            state = VOIDED if left and not served else GONE
        elif state in {PASSING, PASSED, FAILED}:
            state = VOIDED
        cursor.execute("UPDATE foreign_keys SET state = ? WHERE number = ?", (state, number))
        cursor.execute(
            "UPDATE foreign_legs SET state = ?, tries = 0, next_at = ? WHERE key_id = ? AND state IN (?, ?, ?)",
            (VOIDING, now, key_id, OFFERED, ASSIGNED, RELAYED),
        )
        self._wipe(cursor, key_id)
        return self._fate(cursor, key_id, state)

    def answered(self, key_ids: Sequence[str], status: AckStatus | None = None) -> None:
        """Nothing is owed about these keys any more, unless it is something else than ``status`` meanwhile."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                "UPDATE foreign_keys SET owed = NULL WHERE key_id = ?1 AND (?2 IS NULL OR owed = ?2)",
                [(key_id, status) for key_id in key_ids],
            )

    def put_off(self, key_ids: Sequence[str], now: float) -> None:
        """Put the next acknowledgement of these keys off, longer each time."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                f"UPDATE foreign_keys SET {LATER} WHERE key_id = ?",  # noqa: S608
                [(now, RETRY_MAX_S, RETRY_S, key_id) for key_id in key_ids],
            )

    def owed(self, now: float, limit: int) -> list[tuple[str, Ack]]:
        """Return acknowledgements that are due: where to, and what; at most ``limit`` keys."""
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT callback, owed, initiator, target, key_id FROM foreign_keys WHERE outgoing = 0 "
                "AND owed IS NOT NULL AND callback IS NOT NULL AND next_at <= ? ORDER BY number LIMIT ?",
                (now, limit),
            ).fetchall()
            legs = {
                key_id: cursor.execute("SELECT heard FROM foreign_legs WHERE key_id = ?", (key_id,)).fetchall()
                for *_, key_id in rows
            }
        groups: dict[tuple[str, str, str, str], list[str]] = {}
        for callback, fate, initiator, target, key_id in rows:
            groups.setdefault((callback, fate, initiator, target), []).append(key_id)
        return [
            (callback, _ack(key_ids, AckStatus(fate), initiator, target, legs))
            for (callback, fate, initiator, target), key_ids in groups.items()
        ]

    def state(self, key_id: str) -> str | None:
        """Return a key's state by name, None if it never crossed."""
        with self._database.reading() as cursor:
            found = cursor.execute("SELECT state FROM foreign_keys WHERE key_id = ?", (key_id,)).fetchone()
        return None if found is None else str(found[0])


def _ack(key_ids: list[str], status: AckStatus, initiator: str, target: str, legs: dict[str, list[tuple[str]]]) -> Ack:
    heard = {key_id: heard_of(list(legs[key_id])) for key_id in key_ids}
    extensions = {key_id: extension for key_id, extension in heard.items() if extension}
    return Ack(tuple(key_ids), status, initiator, audience_members(target), key_extensions=extensions)
