"""Which of a pair's pools the chunks of a key stream come from (ETSI GS QKD 004, Key_chunk_size). No I/O.

A pair may have keys of several sizes, each a pool (ADR 0053). A chunk is made of whole keys of one of them: a part of
a key that is left over could be used for nothing, since the other site knows keys by their names. Both sites find the
same pool by the same rule from what they registered: the pair's first size if the chunk is a multiple of it, else the
largest that it is a multiple of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Pool", "nearest_chunk", "pool_of"]


@dataclass(frozen=True, slots=True)
class Pool:
    """``key_bytes``: of each key, ``keys``: in one chunk; ``is_first``: it also serves messages about the pair."""

    key_bytes: int
    keys: int
    is_first: bool


def pool_of(chunk_bytes: int, key_sizes: Sequence[int]) -> Pool | None:
    """Return the pool for chunks of this size; ``key_sizes``: of the pair in bytes, the first first. None: no pool."""
    first, *others = key_sizes
    for size in (first, *sorted(others, reverse=True)):
        if chunk_bytes >= size and chunk_bytes % size == 0:
            return Pool(size, chunk_bytes // size, size == first)
    return None


def nearest_chunk(chunk_bytes: int, most: int, key_sizes: Sequence[int]) -> int:
    """Return ``chunk_bytes`` if there is a pool for it, else the next larger size, at most ``most`` or one key."""
    return min(
        min(max(1, -(-chunk_bytes // size)), max(1, most // size)) * size
        for size in key_sizes
        # Of the sizes that reach what was asked for the nearest; if none does, the one that comes closest.
        if _reach(chunk_bytes, most, size) == max(_reach(chunk_bytes, most, other) for other in key_sizes)
    )


def _reach(chunk_bytes: int, most: int, size: int) -> int:
    return min(chunk_bytes, max(1, most // size) * size)
