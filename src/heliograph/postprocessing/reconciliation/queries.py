"""A batch of parity queries and its bytes on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["PASSES_PER_BATCH", "QUERY_BYTES", "Limits", "Queries", "pack_queries", "unpack_queries", "unpack_reply"]

_WIRE = np.dtype([("pass", "<u1"), ("level", "<u1"), ("index", "<u4")])
QUERY_BYTES: Final = _WIRE.itemsize
# Our choice: most different passes in one message, so that the work one message can cause is bounded.
PASSES_PER_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard caps on one block's reconciliation (security.md 1); both sides hold the same, no message changes them.

    ``parities``: most parities answered; ``rounds``: most messages of queries; ``batch``: most queries in one message.
    """

    parities: int
    rounds: int = 20_000
    batch: int = 1 << 16

    def __post_init__(self) -> None:
        if self.parities < 1 or self.rounds < 1 or self.batch < PASSES_PER_BATCH:
            raise ValueError(
                f"{self}: at least 1 parity, 1 round and {PASSES_PER_BATCH} queries in a message are needed"
            )


@dataclass(frozen=True, slots=True)
class Queries:
    """Three arrays of one length: node ``indices[i]`` of level ``levels[i]`` in pass ``passes[i]``.

    A node covers positions [index << level, (index + 1) << level) of its pass's order, cut at the order's end.
    """

    passes: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    indices: NDArray[np.uint32]

    def __post_init__(self) -> None:
        if not len(self.passes) == len(self.levels) == len(self.indices):
            raise LocalProtocolError("a batch of queries has one pass, one level and one index for each query")

    def __len__(self) -> int:
        return len(self.passes)


def pack_queries(queries: Queries) -> bytes:
    """Return 6 bytes for each query: pass u8, level u8, index u32, little endian."""
    wire = np.empty(len(queries), dtype=_WIRE)
    wire["pass"] = queries.passes
    wire["level"] = queries.levels
    wire["index"] = queries.indices
    return wire.tobytes()


def unpack_queries(data: bytes) -> Queries:
    """Return the queries in ``data``; whether they are legal is the answering side's decision.

    Raises RemoteProtocolError for an empty batch or a partial query.
    """
    if not data or len(data) % QUERY_BYTES:
        raise RemoteProtocolError(f"{len(data)} bytes are not a whole number of queries of {QUERY_BYTES} bytes")
    wire = np.frombuffer(data, dtype=_WIRE)
    return Queries(wire["pass"].copy(), wire["level"].copy(), wire["index"].copy())


def unpack_reply(data: bytes, count: int) -> BitString:
    """Return ``count`` parities. Raises RemoteProtocolError for a wrong size or bits beyond the last parity."""
    try:
        return BitString(data, count)
    except ValueError as error:
        raise RemoteProtocolError(f"a reply of {count} parities is malformed: {error}") from error
