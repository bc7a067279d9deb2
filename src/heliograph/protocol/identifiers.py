"""key_IDs: random version 4 UUIDs, never a function of a key or of its place (security.md 8)."""

from __future__ import annotations

import uuid

from heliograph.errors import RemoteProtocolError

__all__ = ["key_id_bytes", "new_key_ids", "parse_key_ids"]


def new_key_ids(random: bytes) -> tuple[str, ...]:
    """Make one version 4 UUID (RFC 9562 5.4) from each 16 fresh random bytes."""
    return tuple(str(uuid.UUID(bytes=random[i : i + 16], version=4)) for i in range(0, len(random), 16))


def key_id_bytes(key_ids: tuple[str, ...]) -> bytes:
    """Return the key_IDs as they travel: 16 bytes each."""
    return b"".join(uuid.UUID(key_id).bytes for key_id in key_ids)


def parse_key_ids(data: bytes, expected: int) -> tuple[str, ...]:
    """Read exactly ``expected`` distinct version 4 UUIDs. Raises RemoteProtocolError otherwise."""
    if len(data) != 16 * expected:
        raise RemoteProtocolError(f"{len(data)} bytes of key_IDs where {expected} key_IDs were due")
    found = [uuid.UUID(bytes=data[i : i + 16]) for i in range(0, len(data), 16)]
    if any(u.version != 4 for u in found) or len(set(found)) != expected:
        raise RemoteProtocolError("key_IDs that are not distinct random UUIDs")
    return tuple(str(u) for u in found)
