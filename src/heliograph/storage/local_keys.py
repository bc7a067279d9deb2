"""Keys between SAEs of one site: drawn when the master asks, stored for its slaves, never for the master.

They never cross a link. They come from the site's own random source, so they are as secret as the protected site and no
quantum keys, and they say so. A key is one segment of an epoch of its own, so that it is erased with its last share.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

from heliograph.errors import InsufficientKeys
from heliograph.ports import RandomSource
from heliograph.protocol.audience import audience_members
from heliograph.storage.database import Database
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.types import StoredKey

__all__ = ["LOCAL_EPOCH", "REMEMBERED_S", "LocalKeys"]

LOCAL_EPOCH = 2**62 + 1  # no link gets there, and it is not that of keys from other key managers
# Our choices.
WAITING_MAX = 4096  # keys of one group that its slaves have not fetched
REMEMBERED_S = 86_400.0  # for so long who asks for a key that is gone hears whether it was allocated to others
_FORGOTTEN_AT_ONCE = 4096

_GONE = f"epoch = {LOCAL_EPOCH} AND segment IS NULL"
SCHEMA = f"CREATE INDEX IF NOT EXISTS key_local_gone ON key_chunks(changed_at) WHERE {_GONE};"


class LocalKeys:
    """Issues keys for groups of one site. ``keys`` must keep its records in ``database``."""

    def __init__(self, database: Database, keys: KeyRecords, randomness: RandomSource) -> None:
        self._database = database
        self._keys = keys
        self._randomness = randomness
        database.define(SCHEMA)

    def issue(
        self,
        master: str,
        audience: str,
        number: int,
        size_bytes: int,
        now: float,
        accept: Callable[[list[StoredKey]], object] = list,
    ) -> list[StoredKey]:
        """Draw ``number`` keys; each slave's share is durable before this returns.

        ``accept`` looks at them first, one caller at a time; if it raises, there are none. Raises InsufficientKeys
        while the slaves leave too many unfetched, StoreUnavailable.
        """
        members = audience_members(audience)
        shares = members if len(members) > 1 else ()
        if self._keys.counts(master, audience).released + number > WAITING_MAX:
            raise InsufficientKeys(f"the slave SAEs have not fetched {WAITING_MAX} keys; try again later")
        about = json.dumps({"protocol": "local", "randomness": self._randomness.kind, "assurance": "computational"})
        issued = []
        for _ in range(number):
            key_id = str(uuid.UUID(bytes=self._randomness.draw(16), version=4))
            issued.append(NewKey(key_id, master, audience, True, self._randomness.draw(size_bytes), now, shares))  # noqa: FBT003
        keys = [StoredKey(key.key_id, master, audience, key.material, now, about) for key in issued]
        with self._database.transaction() as cursor:
            tell = self._keys.count_delivery(cursor)
            accept(keys)
            (block,) = cursor.execute(
                "SELECT coalesce(max(block), 0) FROM key_segments WHERE epoch = ?", (LOCAL_EPOCH,)
            ).fetchone()
            for step, key in enumerate(issued, 1):
                self._keys.add(cursor, LOCAL_EPOCH, block + step, [key], about)
                self._keys.release(cursor, LOCAL_EPOCH, block + step, now)
        # As with every other delivery: counted outside the store before a byte leaves (ADR 0020).
        self._database.when_durable(tell)
        return keys

    def forget(self, now: float) -> int:
        """Drop the tombstones of keys that left more than ``REMEMBERED_S`` ago. Returns how many.

        Nothing can bring such a key back: its key_ID and its bytes were drawn here, once, and no message names either.
        Those of a link's keys stay, since a peer's message could (security.md 8).
        """
        with self._database.transaction() as cursor:
            return self._keys.forget_chunks(
                cursor, f"{_GONE} AND changed_at < ? LIMIT {_FORGOTTEN_AT_ONCE}", (now - REMEMBERED_S,)
            )
