"""Which code the frames of one block use: a function of public values that both sides know, never of a message.

Decided in integers alone, so that two machines whose mathematical libraries round differently choose the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from heliograph.errors import ReconciliationFailed
from heliograph.kernels.ldpc import Code
from heliograph.kernels.ldpc_codes import SHARES, build, rows_to_split

__all__ = ["RATE_LEAST", "RATE_MOST", "ROUNDS_MORE", "Frames", "frames_for"]

# Our choices. Longer frames gain little and leave the cache; with fewer columns or rows the degrees would miss their
# shares; with many more the blocks would be too small for shifts without short cycles.
_FRAME_MOST: Final = 1 << 20  # bits
_WIDTH_LEAST: Final = 200
_ROWS_LEAST: Final = 16
_BLOCK: Final = 64  # bits: the least block, and the unit of all
ROUNDS_MORE: Final = 6
_PARTS: Final = 20  # each further round splits a twentieth of the rows, the last one all that are whole
_ROWS_AT_ALL, _WIDTH_AT_ALL = 7, 16  # even in the shortest frames, so that there are rows to split
RATE_LEAST: Final = 1e-3  # below it parities cost next to nothing, and an estimate says little
RATE_MOST: Final = 0.2

_MILLION: Final = 1_000_000
_DIGITS: Final = 16  # binary ones, of a logarithm's fraction


@dataclass(frozen=True, slots=True)
class Frames:
    """``count`` frames of up to ``used`` bits each, under one code. Bit i of the block is in frame i modulo ``count``.

    So a burst, or a slow change of the error rate, is spread over all frames. What a frame has beyond its bits is zeros
    on both sides. ``shares``: which of ``SHARES``; ``channel``: how sure of each bit the decoder is at first.
    """

    length: int
    count: int
    used: int
    shares: int
    rows: int
    z: int
    width: int
    channel: int

    @property
    def step(self) -> int:
        """Block rows that each further round splits, but for the last."""
        return _over(self.rows, _PARTS)

    def code(self, more: int) -> Code:
        """Return the code after ``more`` further rounds."""
        return build(self.shares, self.rows, self.width, self.z, split=self.split(more))

    def split(self, more: int) -> int:
        """Return how many rows are split after ``more`` further rounds: after the last one all."""
        return more * self.step if more < ROUNDS_MORE else self.rows

    def split_in(self, more: int) -> list[int]:
        """Return the rows that the ``more``-th further round splits."""
        return rows_to_split(self.rows, self.split(more))[self.split(more - 1) :]

    @property
    def first_bits(self) -> int:
        """Parities of one frame in the first round."""
        return self.rows * self.z

    def more_bits(self, more: int) -> int:
        """Return the parities of one frame in the ``more``-th further round."""
        return (self.split(more) - self.split(more - 1)) * self.z


def frames_for(length: int, rate: float) -> Frames:
    """Return the frames for this error rate, to be taken high rather than low.

    Raises ReconciliationFailed if no code corrects so many errors.
    """
    if not (math.isfinite(rate) and rate <= RATE_MOST):
        raise ReconciliationFailed(f"an error rate of {rate:.2%} is beyond every code for one-way reconciliation")
    ppm = _coarse(math.ceil(max(rate, RATE_LEAST) * _MILLION))
    count = _over(length, _FRAME_MOST)
    used = _over(length, count)
    bits = _coarse(used)
    needed = _parities(bits, ppm)
    most = max(min(bits // _WIDTH_LEAST, needed // _ROWS_LEAST) // _BLOCK, 1)
    sizes = range(_BLOCK * -(-most // 2), _BLOCK * most + 1, _BLOCK)
    z = min(sizes, key=lambda one: (_over(needed, one) * one, -one))
    rows = max(_over(needed, z), _ROWS_AT_ALL)
    width = max(_over(bits, z), rows + 1, _WIDTH_AT_ALL)
    return Frames(length, count, used, _shares(ppm), rows, z, width, _channel(ppm))


def _over(number: int, by: int) -> int:
    return -(-number // by)


def _coarse(number: int) -> int:
    """Return the number to eight binary digits, upwards: so that blocks much alike share one code, which takes time."""
    unit = 1 << max(number.bit_length() - 8, 0)
    return _over(number, unit) * unit


def _logarithm(number: int) -> int:
    """Return the binary logarithm of a positive integer, times 2^16, rounded down: by squaring, in integers."""
    whole = number.bit_length() - 1
    mantissa = (number << 62) >> whole
    found = whole
    for _ in range(_DIGITS):
        mantissa = mantissa * mantissa >> 62
        found <<= 1
        if mantissa >> 63:
            mantissa >>= 1
            found |= 1
    return found


def _odds(ppm: int) -> int:
    """Return log2((1 - q) / q) times 2^16."""
    return _logarithm(_MILLION - ppm) - _logarithm(ppm)


def _channel(ppm: int) -> int:
    """Return twice the odds' logarithm: the decoder's unit is half a bit."""
    return max((2 * _odds(ppm) + (1 << _DIGITS) // 2) >> _DIGITS, 1)


def _shares(ppm: int) -> int:
    """Return the shares whose rate is nearest, by ratio."""
    return min(range(len(SHARES)), key=lambda i: abs(_logarithm(SHARES[i].ppm) - _logarithm(ppm)))


def _parities(bits: int, ppm: int) -> int:
    """Return the parities with which a frame of so many bits is likely to decode at this rate."""
    entropy = ppm * (_logarithm(_MILLION) - _logarithm(ppm))
    entropy += (_MILLION - ppm) * (_logarithm(_MILLION) - _logarithm(_MILLION - ppm))
    mean = bits * entropy // _MILLION
    # The number of errors varies from frame to frame; a deviation of it, as parities:
    spread = math.isqrt(bits * ppm * (_MILLION - ppm)) * _odds(ppm) // _MILLION
    return (mean * SHARES[_shares(ppm)].efficiency // 1000 + spread) >> _DIGITS
