"""What a link is entered with: the link's own keys by generation, the epoch's bootstrap, and the sites' instances.

All of it changes in the transaction that makes the reason durable: a generation appears with the commit it was cut
from, and the one before it, the bootstrap included, goes when the peer is known to have the new one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from heliograph.authentication.link_keys import LinkKeys, split_link_keys
from heliograph.errors import LocalProtocolError, PadsExhausted, TransportClosed
from heliograph.storage.database import Database

__all__ = ["SCHEMA", "Bootstrap", "Instances", "LinkDoor"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS link_door(
  one INTEGER PRIMARY KEY CHECK (one = 1), in_use INTEGER NOT NULL, lowest INTEGER NOT NULL,
  context BLOB NOT NULL, credential BLOB NOT NULL, algorithms TEXT NOT NULL, anchors BLOB NOT NULL,
  confirmed BLOB NOT NULL, pending BLOB NOT NULL, peer BLOB NOT NULL);
INSERT OR IGNORE INTO link_door VALUES (1, 0, 0, x'', x'', '', x'', x'', x'', x'');
CREATE TABLE IF NOT EXISTS link_keys(generation INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How the epoch was opened.

    ``context``: digest of the handshake, ``credential``: the peer's, where signatures took part; ``anchors``: 32 bytes
    that change when a registered anchor does, b"" before the first epoch.
    """

    context: bytes = b""
    credential: bytes = field(default=b"", repr=False)
    algorithms: str = ""
    anchors: bytes = b""


@dataclass(frozen=True, slots=True)
class Instances:
    """This site's instance as the peer may know it, and the peer's as last accepted here; b"" if there is none.

    ``confirmed``: the peer proved that it accepted it; ``pending``: shown, perhaps accepted, perhaps lost on the way.
    """

    confirmed: bytes
    pending: bytes
    peer: bytes


class LinkDoor:
    """The entrance of one link. Every method returns only when its change is on the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define(SCHEMA)

    # Generations.
    def generations(self) -> tuple[int, int]:
        """Return (the generation to begin a connection with, the lowest one that is still accepted)."""
        with self._database.reading() as cursor:
            in_use, lowest = cursor.execute("SELECT in_use, lowest FROM link_door").fetchone()
        return int(in_use), int(lowest)

    def keys(self, generation: int) -> LinkKeys | None:
        """Return the link's keys of a generation, None if this site does not hold it (any more, or yet)."""
        with self._database.reading() as cursor:
            row = cursor.execute("SELECT sealed FROM link_keys WHERE generation = ?", (generation,)).fetchone()
        if row is None:
            return None
        return split_link_keys(generation, self._database.vault.unseal(row[0], _context(generation)))

    def newest(self) -> int:
        """Return the newest generation that this site holds, 0 if none: the peer may not have it yet."""
        with self._database.reading() as cursor:
            return int(cursor.execute("SELECT max(generation) FROM link_keys").fetchone()[0] or 0)

    def add(self, cursor: sqlite3.Cursor, generation: int, material: bytes) -> None:
        """Store a generation in the transaction of the commit it was cut from; both doors are open from now on."""
        sealed = self._database.vault.seal(material, _context(generation))
        cursor.execute("INSERT OR REPLACE INTO link_keys(generation, sealed) VALUES (?, ?)", (generation, sealed))

    @staticmethod
    def use(cursor: sqlite3.Cursor, generation: int) -> None:
        """Begin connections with this generation: the peer is known to have it."""
        cursor.execute("UPDATE link_door SET in_use = max(in_use, ?)", (generation,))

    @staticmethod
    def close_older(cursor: sqlite3.Cursor, generation: int) -> None:
        """Shut every older door, the bootstrap's too: the peer begins with this generation from now on."""
        cursor.execute("UPDATE link_door SET lowest = max(lowest, ?)", (generation,))
        cursor.execute("DELETE FROM link_keys WHERE generation < ?", (generation,))
        cursor.execute("UPDATE link_state SET filters = NULL")

    @staticmethod
    def destroy(cursor: sqlite3.Cursor) -> None:
        """Destroy the link's keys; only an operator's new epoch goes on from here."""
        cursor.execute("DELETE FROM link_keys")

    # The epoch's bootstrap.
    def bootstrap(self) -> Bootstrap:
        """Return how this epoch was opened."""
        with self._database.reading() as cursor:
            row = cursor.execute("SELECT context, credential, algorithms, anchors FROM link_door").fetchone()
        return Bootstrap(bytes(row[0]), bytes(row[1]), row[2], bytes(row[3]))

    @staticmethod
    def reopen(cursor: sqlite3.Cursor, bootstrap: Bootstrap) -> None:
        """Begin an epoch: no generation but the bootstrap, no instance of the peer."""
        cursor.execute("DELETE FROM link_keys")
        cursor.execute(
            "UPDATE link_door SET in_use = 0, lowest = 0, context = ?, credential = ?, algorithms = ?, anchors = ?, "
            "peer = x''",
            (bootstrap.context, bootstrap.credential, bootstrap.algorithms, bootstrap.anchors),
        )

    def rebind(self, bootstrap: Bootstrap) -> None:
        """Tie an epoch in which nothing was sent yet to another handshake. Raises LocalProtocolError otherwise."""
        with self._database.transaction() as cursor:
            (used,) = cursor.execute("SELECT max(touched, proved, committed) FROM link_state").fetchone()
            if used:
                raise LocalProtocolError("an epoch that was used keeps the handshake it was opened with")
            cursor.execute(
                "UPDATE link_door SET context = ?, credential = ?, algorithms = ?",
                (bootstrap.context, bootstrap.credential, bootstrap.algorithms),
            )

    # Instances.
    def instances(self, fresh: bytes) -> Instances:
        """Return the instances, ``fresh`` being this site's next one unless an earlier one is still pending."""
        with self._database.transaction() as cursor:
            cursor.execute("UPDATE link_door SET pending = ? WHERE length(pending) = 0", (fresh,))
            row = cursor.execute("SELECT confirmed, pending, peer FROM link_door").fetchone()
        return Instances(*(bytes(value) for value in row))

    def accept_peer(self, instance: bytes, after: bytes) -> None:
        """Remember the peer's instance: a copy of the peer that does not know it is fenced from now on.

        Raises TransportClosed unless the one remembered is still ``after``: a confirmation held back on the way must
        not undo what a later connection proved.
        """
        with self._database.transaction() as cursor:
            if not cursor.execute("UPDATE link_door SET peer = ? WHERE peer = ?", (instance, after)).rowcount:
                raise TransportClosed("a later connection was made meanwhile")

    def confirm_own(self, instance: bytes) -> None:
        """Take the peer's proof that it accepted this instance."""
        with self._database.transaction() as cursor:
            cursor.execute("UPDATE link_door SET confirmed = pending, pending = x'' WHERE pending = ?", (instance,))

    @staticmethod
    def forget_instances(cursor: sqlite3.Cursor) -> None:
        """Begin anew by an operator's word: with whatever instances and anchors there will be."""
        cursor.execute(
            "UPDATE link_door SET in_use = 0, lowest = 0, anchors = x'', confirmed = x'', pending = x'', peer = x''"
        )

    def in_use(self) -> LinkKeys:
        """Return the keys of the generation in use. Raises PadsExhausted if they were destroyed."""
        generation, _ = self.generations()
        found = self.keys(generation)
        if found is None:
            raise PadsExhausted("the link's own keys are destroyed: run `heliograph site rebootstrap` on both sites")
        return found


def _context(generation: int) -> bytes:
    return b"heliograph/1 link keys %d" % generation
