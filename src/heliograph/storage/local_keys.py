"""Keys between SAEs of one site: drawn when the master asks, stored for its slaves, never for the master.

They never cross a link. They come from the site's own random source, so they are as secret as the protected site and no
quantum keys, and they say so. A key is one segment of an epoch of its own, so that it is erased with its last share.

A slave that does not fetch stops its group after ``LOCAL_UNFETCHED_MAX`` keys. The refusal and the master's status name
it, and after ``UNFETCHED_S`` what it left is destroyed, and told in the log: never a key for some of a group only.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable

from heliograph.errors import InsufficientKeys
from heliograph.kme.groups import LOCAL_UNFETCHED_MAX, name_slaves
from heliograph.ports import RandomSource
from heliograph.protocol.audience import audience_members
from heliograph.storage.database import Database
from heliograph.storage.key_chunks import KeyChanges
from heliograph.storage.key_rows import EXPIRED, KEPT
from heliograph.storage.keys import KeyRecords, NewKey
from heliograph.storage.local_shares import INDEX, LOCAL_EPOCH, LOCAL_KEPT, slaves_behind, unfetched
from heliograph.types import StoredKey

__all__ = ["LOCAL_EPOCH", "REMEMBERED_S", "UNFETCHED_S", "LocalKeys"]

# Our choices.
UNFETCHED_S = 86_400.0  # a key that one of its slaves has not fetched by then is destroyed
_DESTROYED_AT_ONCE = 512
REMEMBERED_S = 86_400.0  # for so long who asks for a key that is gone hears whether it was allocated to others
_FORGOTTEN_AT_ONCE = 4096

_GONE = f"epoch = {LOCAL_EPOCH} AND segment IS NULL"
SCHEMA = f"CREATE INDEX IF NOT EXISTS key_local_gone ON key_chunks(changed_at) WHERE {_GONE};\n{INDEX}"

_log = logging.getLogger("heliograph.kme")


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
        while slaves leave too many unfetched, and names them; StoreUnavailable.
        """
        members = audience_members(audience)
        shares = members if len(members) > 1 else ()
        about = json.dumps({"protocol": "local", "randomness": self._randomness.kind, "assurance": "computational"})
        issued = []
        for _ in range(number):
            key_id = str(uuid.UUID(bytes=self._randomness.draw(16), version=4))
            issued.append(NewKey(key_id, master, audience, True, self._randomness.draw(size_bytes), now, shares))  # noqa: FBT003
        keys = [StoredKey(key.key_id, master, audience, key.material, now, about) for key in issued]
        with self._database.transaction() as cursor:
            if self._keys.counts(master, audience).released + number > LOCAL_UNFETCHED_MAX:
                _check_behind(unfetched(cursor, master, audience), number)
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

    def destroy_unfetched(self, now: float) -> int:
        """Destroy keys drawn more than ``UNFETCHED_S`` ago, and log whose they were. Returns how many.

        A slave that asks for one later is refused as for any that has expired; its master draws another.
        """
        behind: dict[str, Counter[str]] = {}
        with self._database.transaction() as cursor:
            changes = KeyChanges(cursor)
            old = changes.chunks(
                f"WHERE {LOCAL_KEPT} AND created_at < ? LIMIT {_DESTROYED_AT_ONCE}", (now - UNFETCHED_S,)
            )
            for chunk in old:
                names = [chunk.key_id(at) for at in range(len(chunk.fates))]
                behind.setdefault(chunk.master, Counter()).update(slaves_behind(cursor, chunk.slave, names))
            runs = [(chunk, [at for at, fate in enumerate(chunk.fates) if fate in KEPT]) for chunk in old]
            changes.put(runs, EXPIRED, now)
            if changes.write():
                self._database.checkpoint_due()
                self._database.when_durable(self._database.checkpoint_soon)
        for master, slaves in behind.items():
            _log.warning(
                "keys drawn for %s and its group were not fetched within %d h by %s; they are destroyed",
                master,
                UNFETCHED_S / 3600,
                name_slaves(slaves),
            )
        return sum(len(places) for _, places in runs)

    def forget(self, now: float) -> int:
        """Drop the tombstones of keys that left more than ``REMEMBERED_S`` ago. Returns how many.

        What is still here after ``UNFETCHED_S`` is destroyed first.
        Nothing can bring such a key back: its key_ID and its bytes were drawn here, once, and no message names either.
        Those of a link's keys stay, since a peer's message could (security.md 8).
        """
        self.destroy_unfetched(now)
        with self._database.transaction() as cursor:
            return self._keys.forget_chunks(
                cursor, f"{_GONE} AND changed_at < ? LIMIT {_FORGOTTEN_AT_ONCE}", (now - REMEMBERED_S,)
            )


def _check_behind(behind: dict[str, int], number: int) -> None:
    if max(behind.values(), default=0) + number > LOCAL_UNFETCHED_MAX:
        raise InsufficientKeys(
            f"of the keys drawn for this group a slave SAE may leave {LOCAL_UNFETCHED_MAX}; left are: "
            f"{name_slaves(behind)}; let them fetch, what they leave is destroyed {UNFETCHED_S / 3600:.0f} h after it "
            "was drawn"
        )
