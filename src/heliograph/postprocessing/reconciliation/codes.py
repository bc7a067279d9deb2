"""Which code the frames of one block use: a function of public values that both sides know, never of a message."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from heliograph.errors import ReconciliationFailed
from heliograph.kernels.ldpc import Code
from heliograph.kernels.ldpc_codes import MOTHERS, WIDTH_LEAST, build
from heliograph.postprocessing.secrecy.entropy import binary_entropy

__all__ = ["RATE_LEAST", "Frames", "frames_for"]

_LIFTS: Final = (64, 128, 256, 512)
# Our choices. Frames differ in how many errors they have: one and a half leave a few in a hundred to the second round.
_SIGMAS: Final = 1.5
_MEASURED: Final = 0.8
_NARROWER: Final = 0.08
_FRAMES_MOST: Final = 12
RATE_LEAST: Final = 5e-4  # below it parities cost next to nothing, and an estimate says little


@dataclass(frozen=True, slots=True)
class Frames:
    """``count`` frames of up to ``used`` bits each, under one code. Bit i of the block is in frame i modulo ``count``.

    So a burst, or a slow change of the error rate, is spread over all frames. What a frame has beyond its bits is zeros
    on both sides.
    """

    length: int
    count: int
    used: int
    mother: int
    z: int
    width: int

    @property
    def code(self) -> Code:
        """The code of the first round."""
        return build(self.mother, self.z, self.width, extended=False)

    @property
    def extended(self) -> Code:
        """The same with the rows of the second round behind it."""
        return build(self.mother, self.z, self.width, extended=True)

    @property
    def first_bits(self) -> int:
        """Parities of one frame in the first round."""
        return MOTHERS[self.mother].rows * self.z

    @property
    def more_bits(self) -> int:
        """Parities of one frame in the second round."""
        return MOTHERS[self.mother].more * self.z

    @property
    def offset(self) -> int:
        """What the decoder takes off."""
        return MOTHERS[self.mother].offset


def frames_for(length: int, rate: float) -> Frames:
    """Return the frames that disclose least at this error rate, to be taken high rather than low.

    Raises ReconciliationFailed if no code corrects so many errors.
    """
    best: Frames | None = None
    if math.isfinite(rate) and rate < 0.5:
        q = max(rate, RATE_LEAST)
        for mother in range(len(MOTHERS)):
            for z in _LIFTS:
                found = _fitting(length, q, mother, z)
                if found is not None and (best is None or _cost(found) < _cost(best)):
                    best = found
    if best is None:
        raise ReconciliationFailed(f"an error rate of {rate:.2%} is beyond every code for one-way reconciliation")
    return best


def _cost(frames: Frames) -> tuple[int, int]:
    return frames.count * frames.first_bits, frames.count


def _fitting(length: int, q: float, mother: int, z: int) -> Frames | None:
    """Return the fewest frames of this code that decode at rate ``q``, if any do."""
    one = MOTHERS[mother]
    narrowest = math.ceil(WIDTH_LEAST * one.columns)
    fewest, most = -(-length // (one.columns * z)), -(-length // (narrowest * z))
    if fewest > _FRAMES_MOST and z != _LIFTS[-1]:
        return None  # longer frames are there
    for count in range(fewest, most + 1):
        used = -(-length // count)
        width = -(-used // z)
        if width < narrowest:
            if z != _LIFTS[0]:
                return None  # a shorter block takes shorter frames
            width = narrowest
        spread = math.sqrt(used * q * (1 - q)) * math.log2((1 - q) / q)
        # Away from the width it was measured at, a code is a little worse.
        efficiency = one.efficiency * (1 + _NARROWER * abs(_MEASURED - width / one.columns))
        if one.rows * z >= efficiency * (used * binary_entropy(q) + _SIGMAS * spread):
            return Frames(length, count, used, mother, z, width)
    return None
