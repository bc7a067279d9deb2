"""The way out when the delivery server turned out to be an old one: what it holds may have been delivered already."""

from __future__ import annotations

from heliograph.ports import Anchor, Vault
from heliograph.storage.pg_rows import bury_where
from heliograph.storage.pg_schema import check_schema, fence
from heliograph.storage.pg_server import PgServer

__all__ = ["destroy_server_keys", "reopen_server"]


def reopen_server(server: PgServer, vault: Vault, front_end: str, anchor: Anchor, now: float) -> int:
    """Destroy every key in the server, and take it for the one that ``anchor`` knows. Returns how many keys.

    The fence is lifted. Another front end that is ahead too puts it up again, and is reopened in its turn.
    """
    seen = anchor.read()[0]
    with server.transaction() as cursor:
        check_schema(cursor, vault)
        # Nobody hands out a key while this runs, and no row is passed over.
        cursor.execute("LOCK TABLE key_records IN ACCESS EXCLUSIVE MODE")
        destroyed = bury_where(cursor, "true", (), "expired", now)
        found = cursor.execute(
            "INSERT INTO front_ends(name, runs) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET "
            "runs = greatest(front_ends.runs, excluded.runs) + 1 RETURNING runs",
            (front_end, seen + 1),
        ).fetchone()
        assert found is not None
        cursor.execute("DELETE FROM attests WHERE front_end = %s", (front_end,))
        cursor.execute("UPDATE store SET fenced = NULL")
    anchor.advance(int(found[0]), 0)
    return destroyed


def destroy_server_keys(server: PgServer, reason: str, now: float) -> int:
    """Destroy every key in the server and fence it: the whole site was rolled back. Returns how many keys."""
    with server.transaction() as cursor:
        cursor.execute("LOCK TABLE key_records IN ACCESS EXCLUSIVE MODE")
        fence(cursor, reason)
        return bury_where(cursor, "true", (), "expired", now)
