"""Privacy amplification: an exactly 2-universal hash made of one product of large integers (security.md 5).

The key of n bits is (x1: m bits, x2: n - m bits). With al = n - 1 and a public seed of two uniform al-bit integers a
and b, a not forced odd, the secret key is

    (x1 + h(x2)) mod 2^m,   h(x2) = ((a * x2 + b) mod 2^al) >> (al - m).

Why it is 2-universal. h is strongly universal as al >= (n - m) + m - 1 [Dietzfelbinger 1996]: for x2 != y2, the pair
(h(x2), h(y2)) is uniform over all pairs of m-bit values. Take two different keys. If x2 = y2, then x1 != y1 and the
outputs differ for every seed. If x2 != y2, they are equal only if h(x2) - h(y2) = y1 - x1 mod 2^m, and the difference
of a uniform pair takes each value with probability exactly 2^-m. Without b, collisions reach almost 2 * 2^-m.

Toeplitz hashing is there too, as the classic: linear, so it also serves proofs by phase-error correction, and about
fifty times slower. Its seed has n + m - 1 bits; :mod:`kernels.toeplitz` has the convention.

What the default is good for. The hash is not linear over GF(2): it serves proofs that use the leftover-hash lemma for
2-universal families (the named finite-key theorem must be one), not those by phase-error correction. The seed is fresh
and uniform, drawn by one named side after closure, reconciliation, verification and length are final, one for each
block.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError
from heliograph.kernels.product import modified_multiply_shift
from heliograph.kernels.toeplitz import toeplitz
from heliograph.types import SecretKey, VerifiedBlock

__all__ = ["DEFAULT_FAMILY", "FAMILIES", "Family", "amplify", "seed_size_bytes"]

Family = Literal["modified-multiply-shift", "toeplitz"]
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)
DEFAULT_FAMILY: Final[Family] = "modified-multiply-shift"


def seed_size_bytes(length_bits: int, out_bits: int = 0, family: Family = DEFAULT_FAMILY) -> int:
    """Return the bytes that hold the seed for a key of n = ``length_bits``.

    2 (n - 1) bits; for Toeplitz n + ``out_bits`` - 1.
    """
    bits = 2 * (length_bits - 1) if family == DEFAULT_FAMILY else length_bits + out_bits - 1
    return (max(bits, 0) + 7) // 8


def amplify(block: VerifiedBlock, seed: bytes, length: int, family: Family = DEFAULT_FAMILY) -> SecretKey:
    """Hash the verified key to ``length`` secret bits, 1 <= length < len(block.bits).

    ``seed``: :func:`seed_size_bytes` bytes. By default little endian: a in the lowest n - 1 bits, b in the next n - 1,
    the up to 7 highest bits ignored; for Toeplitz the bits in order, most significant first, those beyond the last
    ignored. Raises LocalProtocolError for another size or length; whether the length is safe is decided by the
    finite-key theorem before, never here, and whether the theorem allows the family by whoever names both.
    """
    n = len(block.bits)
    if not 1 <= length < n:
        raise LocalProtocolError(f"{length} secret bits cannot be made of {n} verified bits")
    wanted = seed_size_bytes(n, length, family)
    if len(seed) != wanted:
        raise LocalProtocolError(f"a seed for {n} bits has {wanted} bytes, not {len(seed)}")
    if family == "toeplitz":
        diagonals = np.unpackbits(np.frombuffer(seed, dtype=np.uint8), count=n + length - 1)
        return SecretKey(BitString.from_array(toeplitz(block.bits.to_array(), diagonals, length)))
    hashed = modified_multiply_shift(block.bits.to_bytes(), n, seed, length)
    return SecretKey(BitString(hashed, length))
