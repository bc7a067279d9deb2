"""Cascade over the frames of one block, as both sides run it: the readable twin of ``cascade.c``, and its oracle.

Both sides hold the same knowledge: which groups of positions have a known parity of errors. It grows by what both have
exchanged, one bit each way for each group; so both know which groups come next, and no group is ever named on the wire.
The side that corrects flips its bits, the other leaves its own alone: the difference of the two is what is left wrong.

A block is cut into frames, each searched by itself; one message has the parities of all of them, frame after frame. A
frame has three passes over a shuffle of its positions (a tree of halves each, :class:`cascade_tree.Tree`), then subsets
of about half of them. Asking for the left half of an odd group splits it, since both halves together are odd. A
correction flips all groups around it in every pass; that is all there is to backtracking, and each group once disclosed
takes part in it. The end is sixteen even subsets in none of which was searched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.cascade_tree import SHIFT, Bits, Nodes, Tree, subset
from heliograph.kernels.native import compiled
from heliograph.kernels.shuffle import Shuffle, positions

__all__ = ["CONTRADICTION", "EXHAUSTED", "FRAME_MAX", "KEYS", "SHARES", "Block", "Kernel", "Plan", "make_block"]

CONTRADICTION: Final = -2
EXHAUSTED: Final = -4
FRAME_MAX: Final = 1 << 18
KEYS: Final = 253
SHARES: Final = 256  # in which the share of odd groups in pass 0 is told apart, from 0 to 1/2
_PERMUTED: Final = 3
# Even at the end. Errors that are left stay unnoticed with probability at most (1 + s) 2^-16 in a frame, s being the
# searches that left errors; verification finds them, and the block is lost.
_SUBSETS: Final = 16
_TINY: Final = 128  # a subset of more positions is neither empty nor whole, but with probability 2^-127

Kernel = Literal["compiled", "numpy"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How frames of ``length`` bits are searched, the same on both sides.

    Groups of 2^``first``, 2^``second``[i] and 2^``third`` in the three passes that permute, where in pass 0 of the
    whole block a share of odd groups from i / (2 * :data:`SHARES`) on was seen; ``keys``: of :data:`KEYS` subsets, for
    :func:`cascade_tree.subset`. A round compares halves of the odd nodes up to ``window`` levels above the smallest
    one, and of all of them once no more than ``few`` are left. Once no more than ``at_once`` are, all
    binary digits of a place in an odd node are compared at once: for each, the ranks where it is 0. A single error is
    found by that in two rounds, the second of which asks whether it is one; three are searched on in one half.
    """

    length: int
    first: int
    second: bytes
    third: int
    shuffles: tuple[Shuffle, Shuffle, Shuffle] = field(repr=False)
    keys: NDArray[np.uint64] = field(repr=False)
    window: int
    few: int
    at_once: int


class Block(Protocol):
    """One side's frames. Parities are packed, most significant bit first, with zeros to the end of the last byte."""

    @property
    def count(self) -> int:
        """How many parities are compared in this round; 0 at the end."""

    def parities(self) -> bytes:
        """Return our own parities of this round."""

    def learn(self, parities: bytes) -> int:
        """Take the peer's and go on to the next round; return 0.

        Returns :data:`CONTRADICTION` or :data:`EXHAUSTED` (no subsets are left), after which the block is of no more
        use. Raises ValueError for parities of another length, which changes nothing.
        """

    def bits(self) -> bytes:
        """Return our bits as they are now."""

    def pattern(self) -> bytes:
        """Return the errors found so far, one bit for each position: on both sides the same."""


def make_block(
    bits: bytes, length: int, plan: Plan, last: Plan, *, corrects: bool, kernel: Kernel | None = None
) -> Block:
    """Return one side's frames: all by ``plan``, the last one by ``last``; their lengths add up to ``length``.

    ``corrects``: whether this side's bits are the ones that change. ``kernel``: by default the compiled one where it is
    there; both exchange and find the same.
    """
    if kernel == "numpy" or compiled is None:
        return ReferenceBlock(bits, length, plan, last, corrects=corrects)
    native = [
        compiled.Plan(
            one.length, one.first, one.second, one.third, one.shuffles, one.keys, one.window, one.few, one.at_once
        )
        for one in ((plan,) if last is plan else (plan, last))
    ]
    block: Block = compiled.Block(bits, length, native[0], native[-1], corrects)
    return block


class _Frame:
    """One frame: its trees, and what it has asked.

    ``share``: of odd groups in pass 0 of all frames. ``odd``: the subsets of the current batch with an odd error.
    """

    def __init__(self, bits: Bits, plan: Plan, *, corrects: bool) -> None:
        self.bits = bits
        self.pattern = np.zeros(len(bits), dtype=np.uint8)
        self._plan = plan
        self._corrects = corrects
        self._permuted: list[Tree] = []
        self._opened: dict[int, Tree] = {}
        self._masks: list[Bits] = []
        self._odd: Bits = np.empty(0, dtype=np.uint8)
        self._keys_used = 0
        self.share = 0
        self._found: list[Nodes] = []
        self._stage: Literal["", "tops", "halves", "subsets"] = ""
        self.asked: Bits = np.empty(0, dtype=np.uint8)

    def learn(self, differences: Bits) -> None:
        """Take in this round's differences."""
        match self._stage:
            case "tops":
                tree = self._permuted[-1]
                self._found.append(tree.learn_tops(differences))
                if len(self._permuted) > 1:
                    self._found.append(tree.imply_last_top())
            case "halves":
                for tree in self._trees():
                    count = tree.asked
                    self._found.append(tree.learn_halves(differences[:count]))
                    differences = differences[count:]
            case "subsets":
                self._odd[len(self._odd) - len(differences) :] = differences

    def proceed(self) -> int:
        """Do everything that needs no further exchange, then ask; nothing is asked at the end."""
        self._stage, self.asked = "", np.empty(0, dtype=np.uint8)
        while not self._stage:
            if not self._settle():
                return CONTRADICTION
            if self._ask_halves():
                break
            # Every group known so far is even: widen the view.
            odd = [i for i in np.flatnonzero(self._odd).tolist() if i not in self._opened]
            if odd:
                self._search_a_subset(odd[0])
            elif len(self._permuted) < _PERMUTED:
                self._open_permuted()
            elif not self._keys_used or self._opened:
                return self._ask_subsets()
            else:
                break  # a whole number of subsets that are even, and in which nothing was searched
        return 0

    def _trees(self) -> list[Tree]:
        return [*self._permuted, *self._opened.values()]

    def _open_permuted(self) -> None:
        index = len(self._permuted)
        order = positions(self._plan.shuffles[index], np.arange(len(self.bits)))
        top = (self._plan.first, self._plan.second[self.share], self._plan.third)[index]
        tree = Tree(self.bits, order, top)
        self._permuted.append(tree)
        # Pass 0 leaves an even number of errors, which implies the last group of passes 1 and 2.
        count = tree.tops - (index > 0)
        if count:
            self._stage, self.asked = "tops", tree.own_tops(count)
        else:
            self._found.append(tree.imply_last_top())

    def _ask_halves(self) -> bool:
        trees = self._trees()
        active = [tree for tree in trees if len(tree.frontier)]
        if not active:
            return False
        smallest = min(int(tree.frontier[0] >> SHIFT) for tree in active)
        left = sum(len(tree.frontier) for tree in active)
        above = 32 if left <= self._plan.few else smallest + self._plan.window + 1
        self._stage = "halves"
        self.asked = np.concatenate([tree.ask_halves(above, at_once=left <= self._plan.at_once) for tree in trees])
        return True

    def _ask_subsets(self) -> int:
        """Ask for the first subsets, or for new ones in place of those searched.

        The others are all even, and what was corrected did not depend on them: they tell as much of what may be left as
        new ones would.
        """
        wanted = len(self._opened) if self._keys_used else _SUBSETS
        kept = [mask for i, mask in enumerate(self._masks) if i not in self._opened]
        self._opened = {}
        if self._keys_used + wanted > KEYS:
            return EXHAUSTED
        n = len(self.bits)
        fresh = [subset(key, n) for key in self._plan.keys[self._keys_used : self._keys_used + wanted].tolist()]
        self._keys_used += wanted
        if n < _TINY:  # the parity of nothing and of everything is known
            fresh = [mask for mask in fresh if 0 < int(mask.sum()) < n]
        self._masks = [*kept, *fresh]
        self._odd = np.zeros(len(self._masks), dtype=np.uint8)
        if fresh:
            self._stage = "subsets"
            self.asked = np.array([int((mask & self.bits).sum()) & 1 for mask in fresh], dtype=np.uint8)
        return 0

    def _search_a_subset(self, index: int) -> None:
        """Open one odd subset to the search: the error found most often settles others too."""
        n = len(self.bits)
        tree = Tree(self.bits, np.arange(n), (n - 1).bit_length(), self._masks[index])
        self._opened[index] = tree
        self._found.append(tree.learn_tops(np.ones(1, dtype=np.uint8)))

    def _settle(self) -> bool:
        """Correct what is cornered; return False if the parities learnt contradict each other."""
        while any(len(part) for part in self._found):
            found = np.unique(np.concatenate(self._found))  # two passes may have found the same error
            self._found = []
            if self.pattern[found].any():
                return False  # corrected before, now wrong again
            self.pattern[found] = 1
            if self._corrects:
                self.bits[found] ^= 1
            for tree in self._trees():
                tree.flip(found, own=self._corrects)
            for i, mask in enumerate(self._masks):
                self._odd[i] ^= mask[found].sum() & 1
            for tree in self._trees():
                cornered = tree.look_again(found)
                if cornered is None:
                    return False  # a single bit, known to be right before, would now be wrong
                self._found.append(cornered)
                tree.merge()
        return True


class ReferenceBlock:
    """A :class:`Block` in numpy."""

    def __init__(self, bits: bytes, length: int, plan: Plan, last: Plan, *, corrects: bool) -> None:
        """Cut packed bits into frames and settle the first round."""
        frames = max(0, length - last.length) // plan.length + 1
        if length < 1 or len(bits) != (length + 7) // 8 or (frames - 1) * plan.length + last.length != length:
            raise ValueError("bits of another length, or frames that do not add up to it")
        every = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=length)
        plans = [*[plan] * (frames - 1), last]
        self._frames = [
            _Frame(every[i * plan.length : i * plan.length + one.length].copy(), one, corrects=corrects)
            for i, one in enumerate(plans)
        ]
        self._asked: Bits = np.empty(0, dtype=np.uint8)
        self._first = True
        self._go_on()

    def _go_on(self) -> int:
        for frame in self._frames:
            code = frame.proceed()
            if code:
                return code
        self._asked = np.concatenate([frame.asked for frame in self._frames])
        return 0

    @property
    def count(self) -> int:
        """How many parities are compared in this round."""
        return len(self._asked)

    def parities(self) -> bytes:
        """Return our own."""
        return np.packbits(self._asked).tobytes()

    def learn(self, parities: bytes) -> int:
        """Take the peer's."""
        if not self.count or len(parities) != (self.count + 7) // 8:
            raise ValueError("parities of another length")
        differences = self._asked ^ np.unpackbits(np.frombuffer(parities, dtype=np.uint8), count=self.count)
        if self._first:  # the groups of pass 0 of all frames: what pass 1 is chosen by
            self._first = False
            for frame in self._frames:
                frame.share = min(int(differences.sum()) * 2 * SHARES // self.count, SHARES - 1)
        self._asked = np.empty(0, dtype=np.uint8)
        for frame in self._frames:
            frame.learn(differences[: len(frame.asked)])
            differences = differences[len(frame.asked) :]
        return self._go_on()

    def bits(self) -> bytes:
        """Return our bits as they are now."""
        return np.packbits(np.concatenate([frame.bits for frame in self._frames])).tobytes()

    def pattern(self) -> bytes:
        """Return the errors found so far."""
        return np.packbits(np.concatenate([frame.pattern for frame in self._frames])).tobytes()
