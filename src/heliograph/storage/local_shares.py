"""Which slaves of one site have left keys unfetched that were drawn for them: theirs are the names that are told."""

from __future__ import annotations

import sqlite3
from collections import Counter

from heliograph.protocol.audience import audience_members
from heliograph.storage.key_rows import key_id_text

__all__ = ["INDEX", "LOCAL_EPOCH", "LOCAL_KEPT", "slaves_behind", "unfetched"]

LOCAL_EPOCH = 2**62 + 1  # no link gets there, and it is not that of keys from other key managers
# Written out, so that the index below is used: a site's sweep and its status do not read every row of a link's keys.
LOCAL_KEPT = f"key_chunks.epoch = {LOCAL_EPOCH} AND key_chunks.segment IS NOT NULL"
_KEPT = f"epoch = {LOCAL_EPOCH} AND segment IS NOT NULL"
INDEX = f"CREATE INDEX IF NOT EXISTS key_local_kept ON key_chunks(created_at) WHERE {_KEPT};"


def unfetched(cursor: sqlite3.Cursor, master: str, audience: str) -> dict[str, int]:
    """Return how many keys each slave has still to fetch that were drawn for the group; who has none is not named."""
    names = cursor.execute(
        "SELECT CAST(key_ids AS BLOB) FROM key_chunks JOIN key_audiences USING (audience) "  # noqa: S608  - a constant
        f"WHERE {LOCAL_KEPT} AND master = ? AND slave = ?",
        (master, audience),
    ).fetchall()
    return dict(slaves_behind(cursor, audience, [key_id_text(name) for (name,) in names]))


def slaves_behind(cursor: sqlite3.Cursor, audience: str, key_ids: list[str]) -> Counter[str]:
    """Count for each slave of a group which of these keys, that are here, it has still to fetch."""
    members = audience_members(audience)
    if len(members) == 1:  # a pair's key: the row itself is the one copy
        return Counter({audience: len(key_ids)}) if key_ids else Counter()
    behind: Counter[str] = Counter()
    for key_id in key_ids:
        found = cursor.execute("SELECT sae FROM key_shares WHERE key_id = ? AND served_at IS NULL", (key_id,))
        behind.update(sae for (sae,) in found.fetchall())
    return behind
