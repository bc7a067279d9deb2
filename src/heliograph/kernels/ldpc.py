"""Syndromes and decoding of quasi-cyclic LDPC codes: the readable twin of ``ldpc.c``, and its oracle.

One side sends the parities of its bits (the syndrome); the other adds its own, which leaves the syndrome of the errors,
and looks for the sparse pattern that has it. The search is belief propagation, layered: one block row of checks after
the other, each check telling each of its bits how sure the others make it. Integers only, so numpy, the portable loop
and the one for AVX2 decide bit for bit the same.

A total (int8) is a bit's leaning, positive for "no error", in units of half a bit of log-likelihood (ln 2 / 2): at
first ``channel`` for every bit. A block row takes its former messages out of the totals, sends each bit the size that
the others allow, with the sign that satisfies the check, and adds it in. No message is larger than leaves room for
those of all other checks of the bit: a total that saturates forgets what it is made of, and with a few checks wrong
whole columns of high degree turned over for good.

How sure the others make a bit is what Gallager (1963) has: phi(x) = -ln tanh(x / 2) is added over the others and turned
back by phi, which is its own inverse. Here phi is a table (``PHI``, in 1/4096) of the sizes up to 31, and the way back
a logarithm that is linear between powers of two. To save time the sum leaves out only the check's least size, for the
bits that have it; all others hear the sum of all, and are a little less sure than they might be [after Jones et al.
2003].

Found is a pattern whose syndrome is right. The search gives up when the number of checks that do not hold has had no
new minimum for a dozen iterations.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.cascade import Kernel
from heliograph.kernels.native import compiled

__all__ = ["LARGEST", "PHI", "Code", "Edge", "decode", "syndromes"]

LARGEST: Final = 31
# fmt: off
PHI: Final = (
    16384, 7220, 4500, 3027, 2092, 1464, 1029, 726, 513, 362, 256, 181, 128, 91, 64, 45,
    32, 23, 16, 11, 8, 6, 4, 3, 2, 1, 1, 1, 1, 0, 0, 0,
)
# fmt: on
_AT_LEAST: Final = (10028, 5609, 3671)
_PATIENCE: Final = 12

Edge = tuple[int, int]
Bits = NDArray[np.uint8]
Sizes = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Code:
    """Block row r has edges (column, shift), by column: its check k meets bit (k + shift) mod z of that block column.

    ``z``: bits of a block, a multiple of 64; ``width``: block columns of a frame.
    """

    z: int
    width: int
    rows: tuple[tuple[Edge, ...], ...] = field(repr=False)

    @property
    def frame_bits(self) -> int:
        """Bits of a frame."""
        return self.z * self.width

    @cached_property
    def native(self) -> Any:  # noqa: ANN401  - the compiled class has no stubs
        """The compiled kernel's copy of the tables."""
        assert compiled is not None
        starts = np.cumsum([0, *(len(row) for row in self.rows)]).astype(np.uint32)
        edges = np.array([edge for row in self.rows for edge in row], dtype=np.uint32).reshape(-1, 2)
        return compiled.Ldpc(self.z, self.width, starts, edges[:, 0].copy(), edges[:, 1].copy())


def syndromes(code: Code, bits: bytes, *, first: int = 0, kernel: Kernel | None = None) -> bytes:
    """Return the parities of block rows ``first`` and later of each frame, frame after frame, packed.

    ``bits``: whole frames, packed. Raises ValueError for another length.
    """
    if kernel != "numpy" and compiled is not None:
        out: bytes = code.native.syndromes(bits, first)
        return out
    frames = _unpacked(bits, code.frame_bits).reshape(-1, code.width, code.z)
    return np.packbits(_parities(code, frames, first)).tobytes()


def decode(
    code: Code, differences: bytes, channel: int, iterations: int, *, kernel: Kernel | None = None
) -> tuple[bytes, tuple[int, ...]]:
    """Return the pattern of errors of each frame, packed, and the iterations that each took.

    ``differences``: the syndromes of both sides added, all rows of each frame; ``channel``: how sure each bit is at
    first, 1 to 64 units. Where ``iterations`` were not enough, or no progress was made, the number is 0 and the pattern
    of no use. Raises ValueError for another length.
    """
    if kernel != "numpy" and compiled is not None:
        patterns, took = code.native.decode(differences, channel, iterations)
        return patterns, took
    odd = _unpacked(differences, len(code.rows) * code.z).reshape(-1, len(code.rows), code.z)
    found = [_decode_frame(code, frame, channel, iterations) for frame in odd]
    return np.packbits(np.concatenate([pattern for pattern, _ in found])).tobytes(), tuple(took for _, took in found)


def _unpacked(data: bytes, frame_bits: int) -> Bits:
    if not data or 8 * len(data) % frame_bits:
        raise ValueError("bits of another length")
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8))


def _parities(code: Code, frames: Bits, first: int) -> Bits:
    out = np.zeros((len(frames), len(code.rows) - first, code.z), dtype=np.uint8)
    for r, row in enumerate(code.rows[first:]):
        for column, shift in row:
            out[:, r] ^= np.roll(frames[:, column], -shift, axis=1)
    return out


def _decode_frame(code: Code, odd: Bits, channel: int, iterations: int) -> tuple[Bits, int]:
    totals = np.full((code.width, code.z), channel, dtype=np.int16)
    messages = [np.zeros((len(row), code.z), dtype=np.int16) for row in code.rows]
    degrees = Counter(column for row in code.rows for column, _ in row)
    most = {column: min(max((127 - channel) // degree, 1), LARGEST) for column, degree in degrees.items()}
    fewest, since = odd.size + 1, 0
    for iteration in range(1, iterations + 1):
        wrong = sum(_row(totals, messages[r], row, odd[r], most) for r, row in enumerate(code.rows))
        fewest, since = (wrong, 0) if wrong < fewest else (fewest, since + 1)
        pattern = (totals < 0).astype(np.uint8)
        # Far from the end there is no need to look.
        near = wrong <= odd.size // 16 or iteration == iterations
        if near and np.array_equal(_parities(code, pattern[np.newaxis], 0)[0], odd):
            return pattern.reshape(-1), iteration
        if since == _PATIENCE:
            break
    return (totals < 0).astype(np.uint8).reshape(-1), 0


def _row(totals: Sizes, messages: Sizes, row: tuple[Edge, ...], odd: Bits, most: dict[int, int]) -> int:
    """Let one block row speak; return how many of its checks did not hold before."""
    before = np.stack([np.roll(totals[column], -shift) for column, shift in row]) - messages
    np.clip(before, -128, 127, out=before)
    negative = before < 0
    sizes = np.minimum(np.abs(before), LARGEST)
    least = sizes.min(axis=0)
    phi = np.array(PHI, dtype=np.int64)
    added = phi[sizes]
    # The sums as the compiled kernels hold them: high bytes saturate, low bytes count modulo 2^16.
    high = np.minimum((added >> 8).sum(axis=0), 255)
    total = np.minimum((high << 8) + ((added & 255).sum(axis=0) & 0xFFFF), 0xFFFF)
    own = sizes == least
    sent = np.where(own, _size(np.maximum(total - phi[least], 0)), _size(total))
    sent = np.minimum(sent, np.array([[most[column]] for column, _ in row]))
    wrong = np.bitwise_xor.reduce(negative, axis=0) ^ odd.astype(np.bool_)
    messages[:] = np.where(negative ^ wrong, -sent, sent)
    after = np.clip(before + messages, -128, 127)
    for i, (column, shift) in enumerate(row):
        totals[column] = np.roll(after[i], shift)
    return int(wrong.sum())


def _size(total: NDArray[np.int64]) -> Sizes:
    """Return the size whose phi this is: 26 less twice the binary logarithm, linear between powers of two, rounded.

    Small sizes are a little more than that: ``_AT_LEAST`` has the sums up to which they are 1, 2 and 3.
    """
    mantissa, exponent = np.frexp(total.astype(np.float64))  # mantissa in [1/2, 1)
    found = 28 - 2 * exponent - (mantissa >= 0.625) - (mantissa >= 0.875)
    least = sum((total <= most).astype(np.int64) for most in _AT_LEAST)
    return np.where(total == 0, LARGEST, np.clip(found, least, LARGEST)).astype(np.int16)
