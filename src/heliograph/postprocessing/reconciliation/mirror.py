"""What both halves of Cascade run alike: one round of parities after the other, under the caps, to the end.

Both sides exchange the parities of the same groups, one bit each way. What is compared next is a function of public
values (seed, estimate, length) and of the differences so far, so both sides know it and nothing names a group on the
wire. For each group an observer learns one parity of either side, and both are charged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, ReconciliationFailed, RemoteProtocolError
from heliograph.kernels.cascade import CONTRADICTION, Kernel, Plan, make_block
from heliograph.kernels.shuffle import TILE
from heliograph.postprocessing.reconciliation.limits import Limits
from heliograph.postprocessing.reconciliation.passes import (
    FEW_ROUNDS_LEVELS,
    PATIENT_LEVELS,
    SEED_BYTES,
    Levels,
    shuffle,
    subset_keys,
    top_levels,
)
from heliograph.types import Disclosed

__all__ = ["FEW_ROUNDS", "PATIENT", "Mirror", "Pace"]

_FRAME: Final = 1 << 17  # our choice: what a core's cache holds; a block is cut into frames of about this size


@dataclass(frozen=True, slots=True)
class Pace:
    """How rounds are traded for parities, the same on both sides.

    A round searches nodes up to 2^``window`` times the smallest one in need, so that an error is seldom looked for in
    two passes at once; less where pass 0 has small groups. It searches all of a frame's once no more than 1 in
    ``few_share`` of its positions is left to search. Once no more than ``at_once`` nodes are left, all digits of a
    place are compared at once: the frame that takes longest sets the number of rounds, and it costs half a bit for each
    error found that way. ``levels``: the top groups of passes 0 and 1.
    """

    window: int
    few_share: int
    at_once: int
    levels: Levels = field(repr=False)


# Our choices. Over a network a round trip costs more than a parity; where rounds cost nothing, parities count.
FEW_ROUNDS: Final = Pace(window=5, few_share=4096, at_once=10, levels=FEW_ROUNDS_LEVELS)
PATIENT: Final = Pace(window=1, few_share=1 << 30, at_once=0, levels=PATIENT_LEVELS)


class Mirror:
    """Round-synchronous Cascade with sub-block reuse [Brassard and Salvail 1993; performance.md 3a].

    ``parities`` are what this side sends in this round, None at the end; ``learn`` takes the peer's of the same round.
    ``refusal`` says why it cannot go on: a cap is reached, or the parities contradict each other.
    """

    __slots__ = ("_block", "_length", "_limits", "_parities", "compared", "refusal", "rounds")

    def __init__(
        self,
        bits: BitString,
        seed: bytes,
        estimated_qber: float,
        limits: Limits,
        *,
        corrects: bool,
        pace: Pace = FEW_ROUNDS,
        kernel: Kernel | None = None,
    ) -> None:
        """Take this side's sifted bits; both sides need the same seed, estimate (any will do), limits and pace.

        Raises LocalProtocolError if there are no bits or the seed has another size.
        """
        if not len(bits):
            raise LocalProtocolError("there are no bits to reconcile")
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"a reconciliation seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._length = len(bits)
        self._limits = limits
        first, last = _plans(len(bits), seed, estimated_qber, pace)
        self._block = make_block(bits.to_bytes(), len(bits), first, last, corrects=corrects, kernel=kernel)
        self.rounds = 0
        self.compared = 0
        self.refusal: str | None = None
        self._parities = self._due()

    @property
    def parities(self) -> BitString | None:
        """Our parities of this round's groups; None when nothing is left to compare."""
        return self._parities

    @property
    def disclosed(self) -> Disclosed:
        """What crossed the channel so far: each parity compared crosses in both directions."""
        return Disclosed(parities_a=self.compared, parities_b=self.compared)

    @property
    def pattern(self) -> BitString:
        """The errors found so far: on both sides the same."""
        return BitString(self._block.pattern(), self._length)

    @property
    def bits(self) -> BitString:
        """Our bits, corrected so far if this side corrects."""
        return BitString(self._block.bits(), self._length)

    def learn(self, theirs: BitString) -> None:
        """Take the peer's parities of this round.

        Raises RemoteProtocolError for another number of them, which changes nothing, and ReconciliationFailed after a
        ``refusal``.
        """
        self.check()
        ours = self._parities
        if ours is None:
            raise RemoteProtocolError("parities came where none were due")
        if len(theirs) != len(ours):
            raise RemoteProtocolError(f"{len(theirs)} parities came where {len(ours)} were due")
        self._parities = None
        self.rounds += 1
        self.compared += len(ours)
        code = self._block.learn(theirs.to_bytes())
        if code == CONTRADICTION:
            self.refusal = "the peer's parities contradict each other"
        elif code:
            self.refusal = "errors are left after every subset"
        else:
            self._parities = self._due()

    def check(self) -> None:
        """Raise ReconciliationFailed after a ``refusal``."""
        if self.refusal is not None:
            raise ReconciliationFailed(self.refusal)

    def _due(self) -> BitString | None:
        count, limits = self._block.count, self._limits
        if not count:
            return None
        if self.rounds + 1 > limits.rounds:
            self.refusal = f"not reconciled within {limits.rounds} rounds"
            return None
        if self.compared + count > limits.parities:
            self.refusal = f"not reconciled within {limits.parities} parities"
            return None
        return BitString(self._block.parities(), count)


def _plans(length: int, seed: bytes, estimated_qber: float, pace: Pace) -> tuple[Plan, Plan]:
    """Return the plan of all frames but the last, and of the last one.

    A block of up to 1.5 frames is one; else frames have equal lengths, of whole tiles of the shuffle, and the last has
    the rest.
    """
    frames = 1 if length <= 3 * _FRAME // 2 else -(-length // _FRAME)
    each = -(-length // (TILE * frames)) * TILE if frames > 1 else length
    frames = -(-length // each)
    keys = subset_keys(seed)

    def plan(size: int) -> Plan:
        first, second, third = top_levels(estimated_qber, size, pace.levels)
        return Plan(
            length=size,
            first=first,
            second=second,
            third=third,
            shuffles=(shuffle(seed, 0, size), shuffle(seed, 1, size), shuffle(seed, 2, size)),
            keys=keys,
            window=max(0, min(pace.window, first - 1)),
            few=size // pace.few_share,
            at_once=pace.at_once,
        )

    first, rest = plan(each), length - (frames - 1) * each
    return first, first if rest == each else plan(rest)
