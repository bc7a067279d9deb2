"""The product behind privacy amplification: one multiplication of large integers, by GMP."""

from __future__ import annotations

import gmpy2

__all__ = ["modified_multiply_shift"]


def modified_multiply_shift(key: bytes, key_bits: int, seed: bytes, out_bits: int) -> bytes:
    """Return (x1 + (((a * x2 + b) mod 2^al) >> (al - m))) mod 2^m, with n = ``key_bits``, m = ``out_bits``, al = n - 1.

    ``key``: n bits, most significant bit first, padded to bytes at the end; x1 is its first m bits, x2 the other n - m.
    ``seed``: at least 2 al bits, little endian; a is the lowest al bits, b the next al, the rest is ignored.
    The result has m bits in the form of ``key``. Sizes are the caller's duty (1 <= m < n). Cost: one product of n - 1
    by n - m bits; it does not hold the interpreter's lock meanwhile.
    """
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
