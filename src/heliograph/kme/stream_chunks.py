"""A chunk of a key stream (ETSI GS QKD 004): made of whole keys, and what GET_KEY says of it. No I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence

from heliograph.kme.stream_records import Chunk, Stream
from heliograph.types import StoredKey

__all__ = ["chunk_of", "metadata_of"]


def chunk_of(index: int, keys: Sequence[StoredKey], now: float) -> Chunk:
    """Return the chunk that keys make up, in their order."""
    material = b"".join(key.material for key in keys)
    return Chunk(index, tuple(key.key_id for key in keys), agreed=False, at=now, material=material)


def metadata_of(stream: Stream, chunk: Chunk, now: float) -> bytes:
    """Return what GET_KEY says of a chunk: nothing, or JSON."""
    if not stream.qos.mimetype:
        return b""
    # Fixed width: asked again a moment later with the size that was named, it still fits.
    age_ms = int(1000 * max(0.0, now - chunk.at))
    return json.dumps({"age": min(age_ms, 10**10 - 1), "hops": 0}).ljust(36).encode()
