"""Keys that are offered to other key managers of this site (ETSI GS QKD 020): what is to be sent, and what was said.

Outgoing values are sealed here until every key manager that a key is offered to has relayed it, and only then does it
go into the store for its initiator.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliograph.kme.etsi020_records import Ack, AckStatus, Extension, ExtKey, InterworkingError, Slug
from heliograph.protocol.audience import audience_members, audience_name
from heliograph.storage.foreign_rows import ASSIGNED, DEAD, KEPT, OFFERED, RELAYED, VOIDING, ForeignRows

__all__ = ["ForeignLegs", "Outgoing"]

RETRY_S, RETRY_MAX_S = 1.0, 60.0  # our choice
# Asked about after ``tries`` vain attempts: longer each time.
LATER = "tries = tries + 1, next_at = ? + min(?, ? * (1 << min(tries, 16)))"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Keys to be offered, or voided, in one request; ``optional``: extensions that go with them all."""

    peer: str
    initiator: str
    targets: tuple[str, ...]
    keys: tuple[ExtKey, ...] = field(repr=False)
    optional: Extension | None = None

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The keys' names."""
        return tuple(key.key_id for key in self.keys)


class ForeignLegs(ForeignRows):
    """The side that offers. Every method is durable when it returns, or changed nothing."""

    def offer(
        self, initiator: str, audience: str, legs: Mapping[str, tuple[str, ...]], keys: Sequence[ExtKey], now: float
    ) -> None:
        """Remember keys drawn here, durably, before they are offered the first time; ``legs``: targets by peer."""
        with self._database.transaction() as cursor:
            for key in keys:
                self._insert(cursor, key.key_id, 1, ("", initiator, audience), OFFERED, None, now)
                told = json.dumps({"key": key.extension} if key.extension else {})
                for peer, targets in legs.items():
                    self._add_leg(cursor, key.key_id, peer, audience_name(targets), key.value, told, now)

    def to_offer(self, now: float, limit: int) -> list[Outgoing]:
        """Return what is due to be offered, again where there was no proof; one entry for each request."""
        return self._outgoing(OFFERED, now, limit, opened=True)

    def to_void(self, now: float, limit: int) -> list[Outgoing]:
        """Return what is due to be voided."""
        return self._outgoing(VOIDING, now, limit, opened=False)

    def not_taken(self, peer: str, key_ids: Sequence[str], now: float) -> None:
        """Destroy keys of an offer that ``peer`` refused with proof; fresh ones are drawn instead.

        If an earlier offer of the same key went unanswered, that one may have been taken: then the key is voided too.
        """
        with self._database.transaction() as cursor:
            for key_id in key_ids:
                changed = cursor.execute(
                    "UPDATE foreign_legs SET state = CASE tries WHEN 0 THEN ? ELSE ? END, next_at = ? "
                    "WHERE key_id = ? AND peer = ? AND state = ?",
                    (DEAD, VOIDING, now, key_id, peer, OFFERED),
                ).rowcount
                if changed:
                    self._settle(cursor, key_id, now)

    def assigned(self, peer: str, key_ids: Sequence[str]) -> None:
        """Note that ``peer`` said it took them over; its word on their fate is awaited."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                "UPDATE foreign_legs SET state = ? WHERE key_id = ? AND peer = ? AND state = ?",
                [(ASSIGNED, key_id, peer, OFFERED) for key_id in key_ids],
            )

    def retry_later(self, peer: str, key_ids: Sequence[str], now: float) -> None:
        """Put the next request to ``peer`` about these keys off, longer each time."""
        with self._database.transaction() as cursor:
            cursor.executemany(
                f"UPDATE foreign_legs SET {LATER} WHERE key_id = ? AND peer = ?",  # noqa: S608
                [(now, RETRY_MAX_S, RETRY_S, key_id, peer) for key_id in key_ids],
            )

    def give_up(self, before: float, now: float) -> int:
        """Void what was offered before ``before`` and is not relayed yet. Returns how many legs."""
        with self._database.transaction() as cursor:
            late = cursor.execute(
                "UPDATE foreign_legs SET state = ?, tries = 0, next_at = ? WHERE state IN (?, ?) AND at < ? "
                "RETURNING key_id",
                (VOIDING, now, OFFERED, ASSIGNED, before),
            ).fetchall()
            for (key_id,) in late:
                self._settle(cursor, key_id, now)
        return len(late)

    def acknowledged(self, peer: str, acks: Sequence[Ack], now: float) -> None:
        """Take the peer's word, all or none. Raises InterworkingError for keys that were not offered to it so."""
        with self._database.transaction() as cursor:
            for ack in acks:
                for key_id in ack.key_ids:
                    self._acknowledge(cursor, peer, ack, key_id, now)

    def _acknowledge(self, cursor: sqlite3.Cursor, peer: str, ack: Ack, key_id: str, now: float) -> None:
        found = cursor.execute(
            "SELECT foreign_legs.number, initiator, targets, foreign_legs.state FROM foreign_legs "
            "JOIN foreign_keys USING (key_id) WHERE key_id = ? AND foreign_legs.peer = ?",
            (key_id, peer),
        ).fetchone()
        if found is None:
            raise InterworkingError(Slug.KEY_NOT_PRESENT, "a key was never offered to this KME", {"key_id": key_id})
        number, initiator, targets, state = found
        if (initiator, targets) != (ack.initiator, audience_name(ack.targets)):
            raise InterworkingError(Slug.ACK_NOT_UNDERSTOOD, "a key was not offered so", {"key_id": key_id})
        if ack.status is AckStatus.RELAYED:
            # Too late for one that is being voided; nothing new for one that was relayed before.
            become = RELAYED if state in {OFFERED, ASSIGNED} else state
        elif state in {DEAD, KEPT}:
            become = state
        else:
            become = KEPT if state == VOIDING and ack.status is AckStatus.FAILED_TO_VOID else DEAD
        if become != state:
            heard = json.dumps({**(ack.extension or {}), **ack.key_extensions.get(key_id, {})})
            cursor.execute("UPDATE foreign_legs SET state = ?, heard = ? WHERE number = ?", (become, heard, number))
            self._settle(cursor, key_id, now)

    def under_way(self, initiator: str, audience: str) -> int:
        """Count the keys drawn here for these SAEs that not every target has yet."""
        with self._database.reading() as cursor:
            return int(
                cursor.execute(
                    "SELECT COUNT(*) FROM foreign_keys WHERE outgoing = 1 AND initiator = ? AND target = ? "
                    "AND state IN (?, ?)",
                    (initiator, audience, OFFERED, ASSIGNED),
                ).fetchone()[0]
            )

    def legs(self, key_id: str) -> dict[str, str]:
        """Return the state of each leg of a key, by peer."""
        with self._database.reading() as cursor:
            found = cursor.execute("SELECT peer, state FROM foreign_legs WHERE key_id = ?", (key_id,)).fetchall()
        return dict(found)

    def _outgoing(self, state: str, now: float, limit: int, *, opened: bool) -> list[Outgoing]:
        with self._database.reading() as cursor:
            rows = cursor.execute(
                "SELECT foreign_legs.peer, initiator, targets, key_id, foreign_legs.sealed, told FROM foreign_legs "
                "JOIN foreign_keys USING (key_id) WHERE foreign_legs.state = ? AND foreign_legs.next_at <= ? "
                "ORDER BY foreign_legs.number LIMIT ?",
                (state, now, limit),
            ).fetchall()
        groups: dict[tuple[str, str, str, str], list[ExtKey]] = {}
        for peer, initiator, targets, key_id, sealed, text in rows:
            told = json.loads(text) if opened else {}
            key = ExtKey(key_id, self._open(key_id, sealed) if opened else b"", told.get("key"))
            groups.setdefault((peer, initiator, targets, json.dumps(told.get("optional"))), []).append(key)
        return [
            Outgoing(peer, initiator, audience_members(targets), tuple(keys), json.loads(optional))
            for (peer, initiator, targets, optional), keys in groups.items()
        ]
