"""Keys that came over relays, at both ends, and what each link paid for them. Durable before anything is said of them.

A transfer's keys are one segment of an epoch of their own. At the target they are held for the slave, and that is
acknowledged; at the origin they are stored when the acknowledgement is there, deliverable at once. A key_ID that was
ever stored here is refused, so that a transfer played again stores nothing.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping, Sequence

from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey

__all__ = ["HELD_MAX", "RELAY_EPOCH", "USED_MAX", "RelayedKeys"]

RELAY_EPOCH = 2**62 + 2  # no link gets there; the two before it are those of other keys without a link
USED_MAX = 1_000_000  # our choice: names of used keys that are remembered, of all links together
HELD_MAX = 20_000  # our choice: keys of one pair of SAEs that wait for their slave

_SCHEMA = """
CREATE TABLE IF NOT EXISTS network_bits(account TEXT PRIMARY KEY, bits INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS network_used_keys(
  number INTEGER PRIMARY KEY AUTOINCREMENT, link TEXT NOT NULL, key_id BLOB NOT NULL, UNIQUE(link, key_id));
CREATE TABLE IF NOT EXISTS network_transfers(number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL);
"""


class RelayedKeys:
    """``keys`` must keep its records in ``database``. Every method raises StoreUnavailable when SQLite refuses."""

    def __init__(self, database: Database, keys: KeyRecords) -> None:
        self._database = database
        self._keys = keys
        database.define(_SCHEMA)

    def hold(self, rows: Sequence[NewKey], about: Mapping[str, object], now: float) -> None:
        """Store a transfer's keys at the target, all or none.

        Of keys that nobody fetches the oldest go first: the origin may have had no acknowledgement for them, and then
        nobody will. Raises RemoteProtocolError for a key_ID that was here before.
        """
        pair = rows[0].master_sae, rows[0].slave_sae
        if self._keys.counts(*pair).held + len(rows) > HELD_MAX:
            self._keys.trim(*pair, owner_here=False, keep=HELD_MAX - len(rows), now=now)
        with self._database.transaction() as cursor:
            try:
                self._add(cursor, rows, about, now)
            except LocalProtocolError:
                raise RemoteProtocolError("a transfer with a key_ID that was used before: played again") from None

    def release(self, rows: Sequence[NewKey], about: Mapping[str, object], now: float) -> None:
        """Store a transfer's keys at the origin, after the target's acknowledgement: they can be handed out now."""
        with self._database.transaction() as cursor:
            number = self._add(cursor, rows, about, now)
            self._keys.acknowledge(cursor, RELAY_EPOCH, number)
            pair = rows[0].master_sae, rows[0].slave_sae
            _book(cursor, _account("delivered", *pair), sum(8 * len(row.material) for row in rows))

    def pay(self, pair: tuple[str, str], paid: Mapping[str, int]) -> None:
        """Note what links paid for a pair's transfers, those that failed too: bits by link."""
        with self._database.transaction() as cursor:
            for link, bits in paid.items():
                _book(cursor, _account("paid", *pair, link), bits)

    def use(self, link: str, key_ids: Sequence[str], drawn_bits: int = 0) -> None:
        """Note keys of a link before they are used, durably; ``drawn_bits``: what this node drew them as master for.

        The link's key manager gives each key once. This holds also if it does not: a device put back from a backup.
        Raises RemoteProtocolError for a key that was used here before.
        """
        with self._database.transaction() as cursor:
            for key_id in key_ids:
                try:
                    named = uuid.UUID(key_id).bytes
                    cursor.execute("INSERT INTO network_used_keys(link, key_id) VALUES (?, ?)", (link, named))
                except sqlite3.IntegrityError:
                    raise RemoteProtocolError(
                        f"link {link}: its key manager gave a key that was used before; nothing is sent under it"
                    ) from None
            cursor.execute(
                "DELETE FROM network_used_keys WHERE number <= (SELECT max(number) FROM network_used_keys) - ?",
                (USED_MAX,),
            )
            if drawn_bits:
                _book(cursor, _account("drawn", link), drawn_bits)

    def delivered_bits(self, pair: tuple[str, str]) -> int:
        """Return how many bits of key the pair was given."""
        return self._total("delivered", *pair).get(_account("delivered", *pair), 0)

    def paid_bits(self, pair: tuple[str, str]) -> dict[str, int]:
        """Return what the pair's keys cost, in bits of key by link."""
        return {json.loads(account)[-1]: bits for account, bits in self._total("paid", *pair).items()}

    def drawn_bits(self) -> dict[str, int]:
        """Return what this node drew, by link."""
        return {json.loads(account)[-1]: bits for account, bits in self._total("drawn").items()}

    def _add(self, cursor: sqlite3.Cursor, rows: Sequence[NewKey], about: Mapping[str, object], now: float) -> int:
        (number,) = cursor.execute("INSERT INTO network_transfers(at) VALUES (?) RETURNING number", (now,)).fetchone()
        self._keys.add(cursor, RELAY_EPOCH, int(number), rows, json.dumps(dict(about)))
        return int(number)

    def _total(self, *names: str) -> dict[str, int]:
        wanted = list(names)
        with self._database.reading() as cursor:
            rows = cursor.execute("SELECT account, bits FROM network_bits").fetchall()
        return {account: bits for account, bits in rows if json.loads(account)[: len(wanted)] == wanted}


def _account(*names: str) -> str:
    return json.dumps(names)


def _book(cursor: sqlite3.Cursor, account: str, bits: int) -> None:
    cursor.execute(
        "INSERT INTO network_bits VALUES (?, ?) ON CONFLICT(account) DO UPDATE SET bits = bits + excluded.bits",
        (account, bits),
    )
