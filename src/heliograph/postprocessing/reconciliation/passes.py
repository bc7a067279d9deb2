"""The passes of Cascade: which bits each one groups, as a function of one public seed.

Passes 0, 1 and 2 order all positions by a shuffle; the natural order is not used, so that a burst of errors is spread
over many groups in every pass. Each later pass is a random subset of about half the positions, in natural order
(performance.md 3a).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from heliograph.errors import LocalProtocolError
from heliograph.kernels.cascade import KEYS, SHARES
from heliograph.kernels.shuffle import TILE, Shuffle

__all__ = [
    "FEW_ROUNDS_LEVELS",
    "PATIENT_LEVELS",
    "PERMUTED_PASSES",
    "SEED_BYTES",
    "Levels",
    "draw_positions",
    "shuffle",
    "subset_keys",
    "top_level",
    "top_levels",
]


PERMUTED_PASSES: Final = 3
SEED_BYTES: Final = 32

_THIRD: Final = 14


@dataclass(frozen=True, slots=True)
class Levels:
    """log2 of the top groups' sizes in passes 0 and 1; a pair is the highest error rate, and the level up to it.

    ``first``: by the estimate. ``second``: for each level of pass 0, by the rate that its odd groups show.
    """

    first: tuple[tuple[float, int], ...]
    second: Mapping[int, tuple[tuple[float, int], ...]]


# Our choices, found by a search over blocks of 1e7 bits (benchmarks/cascade_levels.py). They decide efficiency and
# rounds, never the correctness. Small groups in pass 1 keep the chains short in which one correction leads to the next,
# at one or two hundredths of efficiency; a quarter more errors than they are meant for makes the chains twice as long.
# No affordable sample is that good, but the many groups of pass 0 are, and cost nothing more.
FEW_ROUNDS_LEVELS: Final = Levels(
    first=(
        (0.0015, 10), (0.0026, 9), (0.0055, 8), (0.0112, 7), (0.0235, 6), (0.041, 5), (0.065, 4), (0.5, 3),
    ),
    second={
        10: ((0.0012, 11), (0.5, 10)),
        9: ((0.003, 10), (0.5, 9)),
        8: ((0.0055, 9), (0.5, 8)),
        7: ((0.0072, 9), (0.0127, 8), (0.5, 7)),
        6: ((0.0102, 9), (0.0157, 8), (0.026, 7), (0.5, 6)),
        5: ((0.0212, 8), (0.036, 7), (0.5, 6)),
        4: ((0.045, 7), (0.08, 6), (0.5, 5)),
        3: ((0.06, 7), (0.5, 6)),
    },
)  # fmt: skip
PATIENT_LEVELS: Final = Levels(
    first=(
        (0.0015, 10), (0.003, 9), (0.0065, 8), (0.012, 7), (0.024, 6), (0.036, 5), (0.095, 4), (0.5, 3),
    ),
    second={
        10: ((0.5, 12),),
        9: ((0.5, 11),),
        8: ((0.0048, 11), (0.5, 10)),
        7: ((0.0095, 10), (0.5, 9)),
        6: ((0.016, 9), (0.5, 8)),
        5: ((0.5, 8),),
        4: ((0.075, 7), (0.5, 6)),
        3: ((0.5, 6),),
    },
)  # fmt: skip


def _keystream(seed: bytes, index: int, size: int) -> bytes:
    """Expand ``seed`` by AES-256-CTR; the pass is the upper half of the counter, so passes never overlap."""
    if len(seed) != SEED_BYTES:
        raise LocalProtocolError(f"a reconciliation seed has {SEED_BYTES} bytes, not {len(seed)}")
    counter = index.to_bytes(8, "big") + bytes(8)
    return Cipher(algorithms.AES(seed), modes.CTR(counter)).encryptor().update(bytes(size))


def shuffle(seed: bytes, index: int, length: int) -> Shuffle:
    """Return the order of pass ``index`` (0, 1 or 2) of ``length`` positions.

    K(index) gives eight bytes for each word, for each word again, one byte for each word, eight for each position of
    the tail. The eight bytes are sort keys: pseudorandom, with the item's number in their low bits, so no two are equal
    and every platform sorts alike.
    """
    words, tail = length // TILE * 64, length % TILE
    stream = _keystream(seed, index, 17 * words + 8 * tail)
    return Shuffle(
        words=_permutation(stream[: 8 * words]),
        outs=_permutation(stream[8 * words : 16 * words]),
        turns=np.frombuffer(stream, dtype=np.uint8, count=words, offset=16 * words) & np.uint8(63),
        tail=_permutation(stream[17 * words :]),
    )


def _permutation(stream: bytes) -> NDArray[np.uint32]:
    count = len(stream) // 8
    low = np.uint64((1 << count.bit_length()) - 1)
    keys = np.frombuffer(stream, dtype="<u8").astype(np.uint64)
    keys &= ~low
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= low
    return keys.astype(np.uint32)


def subset_keys(seed: bytes) -> NDArray[np.uint64]:
    """Return the keys of all subsets, for ``kernels.cascade_tree.subset``: eight bytes each of K(3), little endian."""
    return np.frombuffer(_keystream(seed, PERMUTED_PASSES, 8 * KEYS), dtype="<u8").astype(np.uint64)


def draw_positions(seed: bytes, count: int, length: int) -> NDArray[np.int64]:
    """Return ``count`` of ``length`` < 2^32 positions, drawn with replacement: from four bytes each of K(4)."""
    words = np.frombuffer(_keystream(seed, PERMUTED_PASSES + 1, 4 * count), dtype="<u4").astype(np.int64)
    return words * length >> 32


def top_level(length: int) -> int:
    """Return the lowest level whose first node covers ``length`` positions: ceil(log2(length)), 0 for 0 or 1."""
    return max(length - 1, 0).bit_length()


def top_levels(estimated_qber: float, length: int, table: Levels) -> tuple[int, bytes, int]:
    """Return the top levels of passes 0, 1 and 2 for an estimated error rate; any estimate gives legal levels.

    That of pass 1 for each share of odd groups in pass 0, as ``kernels.cascade.Plan.second``.
    """
    bounded = min(max(estimated_qber, 0.0), 0.5) if estimated_qber == estimated_qber else 0.5  # noqa: PLR0124  - NaN
    cap = top_level(length)
    first = _at(bounded, table.first)
    shares = tuple((_odd_share(most, 1 << first), level) for most, level in table.second[first])
    second = bytes(min(_at((i + 0.5) / (2 * SHARES), shares), cap) for i in range(SHARES))
    return min(first, cap), second, min(_THIRD, cap)


def _at(value: float, table: tuple[tuple[float, int], ...]) -> int:
    return next(level for most, level in table if value <= most)


def _odd_share(rate: float, group: int) -> float:
    """Return the share of groups with an odd number of errors."""
    return (1 - math.pow(1 - 2 * rate, group)) / 2
