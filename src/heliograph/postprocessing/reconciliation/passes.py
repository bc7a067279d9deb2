"""The passes of Cascade: which bits each one groups, as a function of one public seed.

Passes 0, 1 and 2 order all positions by a permutation; the natural order is not used, so that a burst of errors is
spread over many groups in every pass. Each later pass is a random subset of about half the positions, in natural order
(performance.md 3a).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from heliograph.errors import LocalProtocolError

__all__ = [
    "LAST_PASS",
    "PERMUTED_PASSES",
    "SEED_BYTES",
    "permuted_order",
    "subset_mask",
    "subset_order",
    "top_level",
    "top_levels",
]

Order = NDArray[np.int32]
Packed = NDArray[np.uint8]

PERMUTED_PASSES: Final = 3
LAST_PASS: Final = 255
SEED_BYTES: Final = 32

# Our choice: log2 of the top groups' sizes of passes 0..2, for estimates up to the rate in the first column; those of
# performance.md 3a, tuned for few rounds at 1e5 to 1e6 bits. They decide the efficiency, never the correctness.
_LEVELS: Final = (
    (0.0015, (10, 12, 14)),
    (0.004, (8, 11, 14)),
    (0.0075, (7, 10, 13)),
    (0.011, (7, 9, 13)),
    (0.015, (6, 9, 13)),
    (0.022, (6, 8, 13)),
    (0.04, (5, 8, 13)),
    (0.065, (4, 7, 12)),
    (0.095, (4, 6, 12)),
    (0.5, (3, 6, 12)),
)


def _keystream(seed: bytes, index: int, size: int) -> bytes:
    """Expand ``seed`` by AES-256-CTR; the pass is the upper half of the counter, so passes never overlap."""
    if len(seed) != SEED_BYTES:
        raise LocalProtocolError(f"a reconciliation seed has {SEED_BYTES} bytes, not {len(seed)}")
    counter = index.to_bytes(8, "big") + bytes(8)
    return Cipher(algorithms.AES(seed), modes.CTR(counter)).encryptor().update(bytes(size))


def permuted_order(seed: bytes, index: int, length: int) -> Order:
    """Return the positions 0..length-1 as pass ``index`` (0, 1 or 2) orders them, shape (length,).

    Pseudorandom keys carry their position in the low bits, so no two are equal and every platform sorts alike.
    """
    low = np.uint64((1 << length.bit_length()) - 1)
    keys = np.frombuffer(_keystream(seed, index, 8 * length), dtype="<u8").astype(np.uint64)
    keys &= ~low
    keys |= np.arange(length, dtype=np.uint64)
    keys.sort()
    keys &= low
    return keys.astype(np.int32)


def subset_mask(seed: bytes, index: int, length: int) -> Packed:
    """Return the subset of pass ``index`` (3 or more) as packed bits, most significant first, padding zero."""
    mask = np.frombuffer(_keystream(seed, index, (length + 7) // 8), dtype=np.uint8).copy()
    if length % 8:
        mask[-1] &= 0xFF << (8 - length % 8) & 0xFF
    return mask


def subset_order(mask: Packed, length: int) -> Order:
    """Return the positions in ``mask``, ascending."""
    return np.flatnonzero(np.unpackbits(mask, count=length)).astype(np.int32)


def top_level(length: int) -> int:
    """Return the lowest level whose first node covers ``length`` positions: ceil(log2(length)), 0 for 0 or 1."""
    return max(length - 1, 0).bit_length()


def top_levels(estimated_qber: float, length: int) -> tuple[int, int, int]:
    """Return the top level of passes 0, 1 and 2 for an estimated error rate; any estimate gives legal levels."""
    bounded = min(max(estimated_qber, 0.0), 0.5) if estimated_qber == estimated_qber else 0.5  # noqa: PLR0124  - NaN
    first, second, third = next(levels for rate, levels in _LEVELS if bounded <= rate)
    cap = top_level(length)
    return min(first, cap), min(second, cap), min(third, cap)
