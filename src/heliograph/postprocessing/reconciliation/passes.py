"""The passes of Cascade: which bits each one groups, as a function of one public seed.

Passes 0, 1 and 2 order all positions by a shuffle; the natural order is not used, so that a burst of errors is spread
over many groups in every pass. Each later pass is a random subset of about half the positions, in natural order
(performance.md 3a).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from heliograph.errors import LocalProtocolError
from heliograph.kernels.cascade import KEYS
from heliograph.kernels.shuffle import TILE, Shuffle

__all__ = [
    "LEVELS_FEW_ROUNDS",
    "LEVELS_PATIENT",
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

# Our choices: log2 of the top groups' sizes of passes 0..2, for estimates up to the rate in the first column, found by
# a search over blocks of 1e7 bits (benchmarks/cascade_levels.py). They decide efficiency and rounds, never the
# correctness. Small groups in pass 1 keep the chains short in which one correction leads to the next, at one or two
# hundredths of efficiency.
Levels = tuple[tuple[float, tuple[int, int, int]], ...]
LEVELS_FEW_ROUNDS: Final[Levels] = (
    (0.0015, (10, 11, 14)),
    (0.003, (8, 10, 14)),
    (0.0048, (8, 9, 14)),
    (0.0065, (7, 9, 14)),
    (0.0105, (7, 8, 14)),
    (0.0145, (6, 8, 14)),
    (0.0225, (6, 7, 14)),
    (0.034, (5, 7, 14)),
    (0.045, (4, 7, 14)),
    (0.062, (4, 6, 14)),
    (0.5, (3, 6, 14)),
)
LEVELS_PATIENT: Final[Levels] = (
    (0.0015, (10, 12, 14)),
    (0.003, (9, 11, 14)),
    (0.0048, (8, 11, 14)),
    (0.0065, (8, 10, 14)),
    (0.0095, (7, 10, 14)),
    (0.012, (7, 9, 14)),
    (0.016, (6, 9, 14)),
    (0.024, (6, 8, 14)),
    (0.036, (5, 8, 14)),
    (0.075, (4, 7, 14)),
    (0.095, (4, 6, 14)),
    (0.5, (3, 6, 14)),
)


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


def top_levels(estimated_qber: float, length: int, table: Levels) -> tuple[int, int, int]:
    """Return the top level of passes 0, 1 and 2 for an estimated error rate; any estimate gives legal levels."""
    bounded = min(max(estimated_qber, 0.0), 0.5) if estimated_qber == estimated_qber else 0.5  # noqa: PLR0124  - NaN
    first, second, third = next(levels for rate, levels in table if bounded <= rate)
    cap = top_level(length)
    return min(first, cap), min(second, cap), min(third, cap)
