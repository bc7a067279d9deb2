"""The product behind privacy amplification: one multiplication of large integers, compiled, or by GMP.

The compiled one (``product.c``, ADR 0043) needs AVX2 and FMA; without them, without a compiler, and for short keys,
where it is no faster, GMP multiplies. Both give the same bits.
"""

from __future__ import annotations

from typing import Final, Literal

import gmpy2

from heliograph.kernels.native import compiled

__all__ = ["MULTIPLIER", "SHORTEST", "Multiplier", "modified_multiply_shift"]

Multiplier = Literal["compiled", "gmp"]

_LEVEL: Final = compiled.product_level() if compiled is not None else 0
MULTIPLIER: Final = ("GMP", "AVX2", "AVX-512")[_LEVEL]  # what multiplies long keys here

SHORTEST: Final = 10_000  # bits, our choice: from there on the compiled one is faster (benchmarks/products.py)


def modified_multiply_shift(
    key: bytes, key_bits: int, seed: bytes, out_bits: int, *, by: Multiplier | None = None
) -> bytes:
    """Return (x1 + (((a * x2 + b) mod 2^al) >> (al - m))) mod 2^m, with n = ``key_bits``, m = ``out_bits``, al = n - 1.

    ``key``: n bits, most significant bit first, padded to bytes at the end; x1 is its first m bits, x2 the other n - m.
    ``seed``: at least 2 al bits, little endian; a is the lowest al bits, b the next al, the rest is ignored.
    The result has m bits in the form of ``key``. Sizes are the caller's duty (1 <= m < n). Cost: one product of n - 1
    by n - m bits; it does not hold the interpreter's lock meanwhile. The compiled one takes at most n bytes besides.
    ``by``: for tests; "compiled" still leaves to GMP what it cannot do.
    """
    if compiled is not None and _LEVEL and by != "gmp" and (by == "compiled" or key_bits >= SHORTEST):
        fits = compiled.product_memory(key_bits, out_bits) > 0
        hashed = compiled.multiply_shift(key, key_bits, seed, out_bits) if fits else None
        # None where the digits below the wanted ones do not decide the carry (product.c): about once in 2^105 hashes.
        if hashed is not None:
            return bytes(hashed)
    return _by_gmp(key, key_bits, seed, out_bits)


def _by_gmp(key: bytes, key_bits: int, seed: bytes, out_bits: int) -> bytes:
    n, m = key_bits, out_bits
    al = n - 1
    with gmpy2.context(gmpy2.get_context(), allow_release_gil=True):
        x = gmpy2.mpz.from_bytes(key, "big") >> (-n % 8)
        x1 = x >> (n - m)
        x2 = gmpy2.f_mod_2exp(x, n - m)
        both = gmpy2.mpz.from_bytes(seed, "little")
        a = gmpy2.f_mod_2exp(both, al)
        b = gmpy2.f_mod_2exp(both >> al, al)
        hashed = gmpy2.f_mod_2exp(a * x2 + b, al) >> (al - m)
        out = gmpy2.f_mod_2exp(x1 + hashed, m) << (-m % 8)
        return bytes(out.to_bytes((m + 7) // 8, "big"))
