"""Nonces and bound contexts of keys at rest."""

from __future__ import annotations

import struct

__all__ = ["key_context", "nonce", "segment_context"]


def nonce(position: int) -> bytes:
    """Return the nonce of a position: a segment key is fresh and encrypts one key for each, so none comes twice."""
    return struct.pack(">4xQ", position)


def segment_context(epoch: int, block: int) -> bytes:
    """Return what a sealed segment key is bound to."""
    return struct.pack(">24sQQ", b"heliograph key segment 1", epoch, block)


def key_context(key_id: str, master: str, slave: str, epoch: int, block: int) -> bytes:
    """Return what a key's ciphertext is bound to: its name, its pair, its block."""
    names = b"".join(struct.pack(">I", len(name)) + name for name in (n.encode() for n in (key_id, master, slave)))
    return struct.pack(">24sQQ", b"heliograph stored key  1", epoch, block) + names
