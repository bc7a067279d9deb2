"""The transmitter's half of Cascade: it answers parities of its bits and counts them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, ReconciliationFailed, RemoteProtocolError
from heliograph.kernels.parity import prefix_parities, range_parities
from heliograph.postprocessing.reconciliation.passes import (
    PERMUTED_PASSES,
    permuted_order,
    subset_mask,
    subset_order,
    top_level,
)
from heliograph.postprocessing.reconciliation.queries import PASSES_PER_BATCH, Limits, Queries
from heliograph.types import Disclosed

__all__ = ["Answerer"]

Bits = NDArray[np.uint8]

# Our choice: subsets whose prefix sums are kept at once, so that hostile queries cannot fill the memory.
_SUBSETS_KEPT: Final = PASSES_PER_BATCH


class Answerer:
    """Answers queries about fixed bits. A batch is checked whole before anything is counted or answered.

    The ledger charges each answered parity twice: to ``parities_a`` for the answer, and to ``parities_b`` for what the
    question lets be inferred about the peer's bits (see :class:`correcting.Corrector`). A parity asked for again is
    charged again.
    """

    __slots__ = ("_bits", "_limits", "_packed", "_prefixes", "_seed", "_sizes", "parities", "rounds")

    def __init__(self, bits: BitString, seed: bytes, limits: Limits) -> None:
        """Take the transmitter's sifted bits and the public seed of the passes. Raises LocalProtocolError if empty."""
        if not len(bits):
            raise LocalProtocolError("there are no bits to reconcile")
        self._bits = bits.to_array()
        self._packed = np.frombuffer(bits.to_bytes(), dtype=np.uint8)
        self._seed = seed
        self._limits = limits
        self._prefixes: dict[int, Bits] = {}
        self._sizes: dict[int, int] = dict.fromkeys(range(PERMUTED_PASSES), len(bits))
        self.parities = 0
        self.rounds = 0

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far, in both directions."""
        return Disclosed(parities_a=self.parities, parities_b=self.parities)

    def answer(self, queries: Queries) -> BitString:
        """Return one parity for each query, in order.

        Raises RemoteProtocolError for an empty or oversize batch and for a node that does not exist, and
        ReconciliationFailed above the caps on parities and rounds; then nothing is answered and nothing changes.
        """
        count = len(queries)
        if not 1 <= count <= self._limits.batch:
            raise RemoteProtocolError(f"{count} queries in one message: between 1 and {self._limits.batch} are allowed")
        groups = self._checked(queries)
        if self.rounds + 1 > self._limits.rounds:
            raise ReconciliationFailed(f"more than {self._limits.rounds} rounds of parities were asked for")
        if self.parities + count > self._limits.parities:
            raise ReconciliationFailed(f"more than {self._limits.parities} parities were asked for")
        reply = np.empty(count, dtype=np.uint8)
        for index, chosen in groups:
            reply[chosen] = self._parities(index, queries.levels[chosen], queries.indices[chosen])
        self.rounds += 1
        self.parities += count
        return BitString.from_array(reply)

    def _checked(self, queries: Queries) -> list[tuple[int, NDArray[np.intp]]]:
        """Return the queries of each pass, or raise RemoteProtocolError."""
        groups = []
        passes = np.flatnonzero(np.bincount(queries.passes)).tolist()
        if len(passes) > PASSES_PER_BATCH:
            raise RemoteProtocolError(f"{len(passes)} passes in one message: at most {PASSES_PER_BATCH} are allowed")
        for index in passes:
            chosen = np.flatnonzero(queries.passes == index)
            size = self._size(index)
            levels = queries.levels[chosen].astype(np.int64)
            starts = queries.indices[chosen].astype(np.int64) << np.minimum(levels, 31)
            if (levels > top_level(size)).any() or (starts >= size).any():
                raise RemoteProtocolError(f"pass {index} has {size} positions: a node beyond them was asked for")
            groups.append((index, chosen))
        return groups

    def _size(self, index: int) -> int:
        """Return the number of positions in a pass."""
        if index not in self._sizes:
            mask = subset_mask(self._seed, index, len(self._bits))
            self._sizes[index] = int(np.bitwise_count(mask).sum())
        return self._sizes[index]

    def _parities(self, index: int, levels: NDArray[np.uint8], indices: NDArray[np.uint32]) -> Bits:
        size = self._sizes[index]
        if index >= PERMUTED_PASSES and index not in self._prefixes and (levels == top_level(size)).all():
            # The whole subset: no need to order its positions.
            mask = subset_mask(self._seed, index, len(self._bits))
            parity = int(np.bitwise_count(mask & self._packed).sum()) & 1
            return np.full(len(levels), parity, dtype=np.uint8)
        prefix = self._prefix(index)
        wide = levels.astype(np.int64)
        starts = indices.astype(np.int64) << wide
        stops = np.minimum(starts + (np.int64(1) << wide), size)
        return range_parities(prefix, starts, stops)

    def _prefix(self, index: int) -> Bits:
        """Return the prefix parities of a pass, built when first needed."""
        if index not in self._prefixes:
            n = len(self._bits)
            if index < PERMUTED_PASSES:
                order = permuted_order(self._seed, index, n)
            else:
                order = subset_order(subset_mask(self._seed, index, n), n)
                subsets = [known for known in self._prefixes if known >= PERMUTED_PASSES]
                if len(subsets) >= _SUBSETS_KEPT:
                    del self._prefixes[subsets[0]]
            self._prefixes[index] = prefix_parities(self._bits[order])
        return self._prefixes[index]
