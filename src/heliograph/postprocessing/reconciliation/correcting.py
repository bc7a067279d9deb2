"""The receiver's half of Cascade: it asks for parities and corrects its bits towards the transmitter's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, ReconciliationFailed, RemoteProtocolError
from heliograph.postprocessing.reconciliation.forest import Forest
from heliograph.postprocessing.reconciliation.passes import (
    LAST_PASS,
    PERMUTED_PASSES,
    permuted_order,
    subset_mask,
    subset_order,
    top_level,
    top_levels,
)
from heliograph.postprocessing.reconciliation.queries import Limits, Queries
from heliograph.types import Disclosed

__all__ = ["Corrected", "Corrector"]

Bits = NDArray[np.uint8]
Packed = NDArray[np.uint8]
Nodes = NDArray[np.int64]

# Our choice: a round searches nodes up to 2^_WINDOW times the smallest one in need, so that an error is seldom looked
# for in two passes at once; but all once no more than _FEW are left, when a round trip costs more than a parity.
_WINDOW: Final = 4
_FEW: Final = 256
# Our choice: subsets asked for at once; the end is a whole batch without one odd subset. An even number of errors left
# over stays unnoticed with probability 2^-24 for each batch; verification catches that.
_SUBSETS: Final = 24


@dataclass(frozen=True, slots=True)
class Corrected:
    """The corrected bits, and what correcting them disclosed."""

    bits: BitString
    disclosed: Disclosed
    rounds: int


@dataclass(frozen=True, slots=True)
class _Question:
    """What is outstanding: the queries, and how to take in their answers."""

    queries: Queries
    learn: Callable[[Bits], None]


class Corrector:
    """Round-synchronous Cascade with sub-block reuse [Brassard and Salvail 1993; performance.md 3a].

    ``first_queries()``, then ``advance(reply)`` until it returns Corrected. What is asked is a function of public
    values (seed, estimate, limits) and of the answers compared with our bits. So for each answered parity an observer
    learns the transmitter's parity (``parities_a``) and at most one bit of ours, whether it was different
    (``parities_b``): from the search that follows, or from its absence. That holds for top groups and whole subsets
    too.

    The parity of a right half, of the last top group of passes 1 and 2, and of groups beyond the end are implied by
    known ones and are not asked for.
    """

    __slots__ = (
        "_batch_odd",
        "_bits",
        "_corrected",
        "_forests",
        "_levels",
        "_limits",
        "_opened",
        "_parities",
        "_question",
        "_rounds",
        "_seed",
        "_subsets",
        "_tops",
    )

    def __init__(self, bits: BitString, seed: bytes, estimated_qber: float, limits: Limits) -> None:
        """Take the receiver's sifted bits; the estimate need not be right. Raises LocalProtocolError if empty."""
        if not len(bits):
            raise LocalProtocolError("there are no bits to reconcile")
        self._bits = bits.to_array()
        self._corrected = np.zeros(len(bits), dtype=np.bool_)
        self._seed = seed
        self._limits = limits
        self._levels = top_levels(estimated_qber, len(bits))
        self._forests: dict[int, Forest] = {}
        self._opened = 0  # passes opened so far; the next one's index
        self._tops = range(0)  # top nodes of the newest permuted pass still to be asked for
        self._subsets: dict[int, tuple[Packed, int]] = {}  # of the current batch: mask, parity of its errors
        self._batch_odd = True
        self._rounds = 0
        self._parities = 0
        self._question: _Question | None = None
        self._proceed()

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far, in both directions: one bit each for every parity answered."""
        return Disclosed(parities_a=self._parities, parities_b=self._parities)

    def first_queries(self) -> Queries:
        """Return the queries that start the exchange. Raises LocalProtocolError once it is under way."""
        if self._rounds or self._question is None:
            raise LocalProtocolError("reconciliation has started already")
        return self._question.queries

    def advance(self, reply: BitString) -> Queries | Corrected:
        """Take the answers to the last queries, in order; return the next queries, or the end.

        Raises RemoteProtocolError for a reply of the wrong length, which changes nothing, and ReconciliationFailed
        when answers contradict each other or a cap is reached, after which this object is of no more use.
        """
        question = self._question
        if question is None:
            raise LocalProtocolError("no answer is outstanding")
        if len(reply) != len(question.queries):
            raise RemoteProtocolError(f"{len(reply)} parities came for {len(question.queries)} queries")
        self._question = None
        self._rounds += 1
        self._parities += len(reply)
        question.learn(reply.to_array())
        self._proceed()
        if self._question is None:
            return Corrected(BitString.from_array(self._bits), self.disclosed, self._rounds)
        return self._question.queries

    def _proceed(self) -> None:
        """Do everything that needs no further answer, then settle the next question; none at the end."""
        while True:
            self._correct_found()
            question = self._ask_tops() or self._ask_halves()
            if question is None:
                # Every group known so far is even: widen the view.
                if self._search_a_subset():
                    continue
                if self._opened < PERMUTED_PASSES:
                    self._open_permuted()
                    continue
                question = self._ask_subsets()
            if question is not None:
                self._check_caps(len(question.queries))
            self._question = question
            return

    def _check_caps(self, count: int) -> None:
        if self._rounds + 1 > self._limits.rounds:
            raise ReconciliationFailed(f"not reconciled within {self._limits.rounds} rounds")
        if self._parities + count > self._limits.parities:
            raise ReconciliationFailed(f"not reconciled within {self._limits.parities} parities")

    def _correct_found(self) -> None:
        """Flip the errors that are cornered, and let every forest and subset know."""
        found = [forest.take_found() for forest in self._forests.values()]
        if not any(len(part) for part in found):
            return
        positions = np.unique(np.concatenate(found))  # two passes may have found the same error
        consistent = not self._corrected[positions].any()
        self._corrected[positions] = True
        self._bits[positions] ^= 1
        for forest in self._forests.values():
            consistent &= forest.flip(positions)
        for index, (mask, odd) in self._subsets.items():
            inside = (mask[positions >> 3] >> (7 - (positions & 7))) & 1
            self._subsets[index] = (mask, odd ^ (int(inside.sum()) & 1))
        if not consistent:
            raise ReconciliationFailed("the peer's parities contradict each other")

    def _open_permuted(self) -> None:
        index, n = self._opened, len(self._bits)
        self._opened += 1
        forest = Forest(self._bits, permuted_order(self._seed, index, n), self._levels[index])
        self._forests[index] = forest
        # Pass 0 leaves an even number of errors, which implies the last top group of passes 1 and 2.
        self._tops = range(forest.tops if index == 0 else forest.tops - 1)
        if not self._tops:
            forest.imply_last_top()

    def _ask_tops(self) -> _Question | None:
        """Ask for the top groups of the newest permuted pass, as many as fit into one message."""
        if not self._tops:
            return None
        index = self._opened - 1
        forest = self._forests[index]
        part, self._tops = self._tops[: self._limits.batch], self._tops[self._limits.batch :]

        def learn(parities: Bits) -> None:
            forest.learn_tops(part.start, parities)
            if index > 0 and not self._tops:
                forest.imply_last_top()

        nodes = np.arange(part.start, part.stop, dtype=np.int64) | (forest.top << 32)
        return _Question(_queries([(index, nodes)]), learn)

    def _ask_halves(self) -> _Question | None:
        """Ask for the left halves of the smallest odd groups."""
        active = {index: forest for index, forest in self._forests.items() if len(forest.frontier)}
        if not active:
            return None
        smallest = min(int(forest.frontier[0]) >> 32 for forest in active.values())
        few = sum(len(forest.frontier) for forest in active.values()) <= _FEW
        above = (smallest + (64 if few else _WINDOW + 1)) << 32
        room = self._limits.batch
        chosen = []
        for index, forest in active.items():
            nodes = forest.frontier[: np.searchsorted(forest.frontier, above)][:room]
            room -= len(nodes)
            chosen.append((index, nodes))

        def learn(parities: Bits) -> None:
            at = 0
            for index, nodes in chosen:
                self._forests[index].learn_left_halves(nodes, parities[at : at + len(nodes)])
                at += len(nodes)

        left = [(index, (((nodes >> 32) - 1) << 32) | ((nodes & 0xFFFFFFFF) << 1)) for index, nodes in chosen]
        return _Question(_queries(left), learn)

    def _search_a_subset(self) -> bool:
        """Open one odd subset to the search. One at a time: the error found most often settles others too."""
        for index, (mask, odd) in self._subsets.items():
            if odd and index not in self._forests:
                order = subset_order(mask, len(self._bits))
                forest = Forest(self._bits, order, top_level(len(order)))
                self._forests[index] = forest
                forest.learn_tops(0, np.array([forest.own_top(0) ^ 1], dtype=np.uint8))
                return True
        return False

    def _ask_subsets(self) -> _Question | None:
        """Ask for a new batch of subsets, or return None after a batch without an odd one."""
        if not self._batch_odd:
            return None
        if self._opened + _SUBSETS > LAST_PASS + 1:
            raise ReconciliationFailed(f"errors are left after {self._opened} passes")
        for index in self._subsets:
            self._forests.pop(index, None)
        n = len(self._bits)
        batch = range(self._opened, self._opened + _SUBSETS)
        self._opened = batch.stop
        masks = {index: subset_mask(self._seed, index, n) for index in batch}
        sizes = {index: int(np.bitwise_count(mask).sum()) for index, mask in masks.items()}
        # The parity of nothing and of everything is known.
        asked = [index for index in batch if 0 < sizes[index] < n]
        if not asked:
            return None

        def learn(parities: Bits) -> None:
            packed = np.packbits(self._bits)
            self._subsets = {
                index: (masks[index], (int(np.bitwise_count(masks[index] & packed).sum()) & 1) ^ parity)
                for index, parity in zip(asked, parities.tolist(), strict=True)
            }
            self._batch_odd = any(odd for _, odd in self._subsets.values())

        nodes = [(index, np.array([top_level(sizes[index]) << 32], dtype=np.int64)) for index in asked]
        return _Question(_queries(nodes), learn)


def _queries(nodes: Sequence[tuple[int, Nodes]]) -> Queries:
    """Return the queries for nodes, pass by pass."""
    every = np.concatenate([part for _, part in nodes])
    passes = np.repeat(
        np.array([index for index, _ in nodes], dtype=np.uint8), np.array([len(part) for _, part in nodes])
    )
    return Queries(passes, (every >> 32).astype(np.uint8), (every & 0xFFFFFFFF).astype(np.uint32))
