"""Nonces and bound contexts of keys at rest."""

from __future__ import annotations

import struct
from functools import lru_cache

from heliograph.errors import StoreUnavailable

__all__ = ["TAG_BYTES", "key_context", "key_context_parts", "nonce", "segment_context"]

TAG_BYTES = 16  # of AES-GCM: a ciphertext is so much longer than its key

_NONCE = struct.Struct(">4xQ").pack
_REMEMBERED = 256  # our choice: pairs and blocks whose keys leave at the same time


def nonce(position: int) -> bytes:
    """Return the nonce of a position: a segment key is fresh and encrypts one key for each, so none comes twice."""
    return _NONCE(position)


def segment_context(epoch: int, block: int) -> bytes:
    """Return what a sealed segment key is bound to. Raises StoreUnavailable for numbers that no block has."""
    try:
        return struct.pack(">24sQQ", b"heliograph key segment 1", epoch, block)
    except struct.error:
        raise StoreUnavailable(f"there is no block {block!r:.30} of epoch {epoch!r:.30}: it was altered") from None


def key_context(key_id: str, master: str, slave: str, epoch: int, block: int) -> bytes:
    """Return what a key's ciphertext is bound to: its name, its pair, its block."""
    before, after = key_context_parts(master, slave, epoch, block)
    return before + key_id.encode() + after


@lru_cache(_REMEMBERED)
def key_context_parts(master: str, slave: str, epoch: int, block: int) -> tuple[bytes, bytes]:
    """Return what stands before and after the key_ID in ``key_context``: the same for all keys of a pair and block."""
    before = struct.pack(">24sQQI", b"heliograph stored key  1", epoch, block, 36)  # 36: length of a UUID as text
    return before, b"".join(struct.pack(">I", len(name)) + name for name in (master.encode(), slave.encode()))
