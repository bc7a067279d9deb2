"""Syndromes and decoding of quasi-cyclic LDPC codes: the readable twin of ``ldpc.c``, and its oracle.

One side sends the parities of its bits (the syndrome); the other adds its own, which leaves the syndrome of the errors,
and looks for the sparse pattern that has it. The search is layered offset min-sum in 8-bit integers: one block row of
checks after the other, each check telling each of its bits how sure the others make it. Integers only, so numpy, the
portable loop and the one for AVX2 decide bit for bit the same.

A total (int8) is a bit's leaning, positive for "no error": at first 8 for every bit, and the first message of each of
its checks, 2 with the sign that satisfies the check. Then a block row takes its former messages out of the totals
(saturating), sends each bit the least size among the others less ``offset``, at most 20, with that sign, and adds it in
(saturating). The small sizes are meant: a total that saturates forgets what it is made of, and bits of high degree then
turn over for good. Found is a pattern whose syndrome is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from heliograph.kernels.cascade import Kernel
from heliograph.kernels.native import compiled

__all__ = ["CHANNEL", "Code", "Edge", "decode", "syndromes"]

CHANNEL: Final = 8
_FIRST: Final = 2
_LARGEST: Final = 20

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
    code: Code, differences: bytes, offset: int, iterations: int, *, kernel: Kernel | None = None
) -> tuple[bytes, tuple[int, ...]]:
    """Return the pattern of errors of each frame, packed, and the iterations that each took.

    ``differences``: the syndromes of both sides added, all rows of each frame. Where ``iterations`` were not enough,
    the number is 0 and the pattern of no use. Raises ValueError for another length.
    """
    if kernel != "numpy" and compiled is not None:
        patterns, took = code.native.decode(differences, CHANNEL, offset, iterations)
        return patterns, took
    odd = _unpacked(differences, len(code.rows) * code.z).reshape(-1, len(code.rows), code.z)
    found = [_decode_frame(code, frame, offset, iterations) for frame in odd]
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


def _decode_frame(code: Code, odd: Bits, offset: int, iterations: int) -> tuple[Bits, int]:
    totals = np.full((code.width, code.z), CHANNEL, dtype=np.int16)
    first = np.where(odd, -_FIRST, _FIRST).astype(np.int16)
    messages = [np.tile(first[r], (len(row), 1)) for r, row in enumerate(code.rows)]
    for r, row in enumerate(code.rows):
        for column, shift in row:
            totals[column] += np.roll(first[r], shift)
    for iteration in range(1, iterations + 1):
        for r, row in enumerate(code.rows):
            _row(totals, messages[r], row, odd[r], offset)
        pattern = (totals < 0).astype(np.uint8)
        if np.array_equal(_parities(code, pattern[np.newaxis], 0)[0], odd):
            return pattern.reshape(-1), iteration
    return (totals < 0).astype(np.uint8).reshape(-1), 0


def _row(totals: Sizes, messages: Sizes, row: tuple[Edge, ...], odd: Bits, offset: int) -> None:
    before = np.stack([np.roll(totals[column], -shift) for column, shift in row]) - messages
    np.clip(before, -128, 127, out=before)
    negative = before < 0
    sizes = np.abs(before)
    ordered = np.partition(sizes, 1, axis=0)
    least, second = ordered[0], ordered[1]
    others = np.where(sizes == least, second, least)  # two equal least ones: the second is as small
    sent = np.clip(others - offset, 0, _LARGEST)
    minus = negative ^ (np.bitwise_xor.reduce(negative, axis=0) ^ odd.astype(np.bool_))
    messages[:] = np.where(minus, -sent, sent)
    after = np.clip(before + messages, -128, 127)
    for i, (column, shift) in enumerate(row):
        totals[column] = np.roll(after[i], shift)
