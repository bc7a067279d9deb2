"""Toeplitz hashing against the definition's sum, published-style vectors, and its universality on small sizes."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from heliograph.kernels.toeplitz import toeplitz


def bits(text):
    return np.array([int(c) for c in text], dtype=np.uint8)


def slow(key, seed, length):
    n = len(key)
    return [sum(int(seed[i - j + n - 1]) & int(key[j]) for j in range(n)) % 2 for i in range(length)]


def stream(label, count):
    """Return bits of SHA-256(label || counter)."""
    digests = (hashlib.sha256(label + i.to_bytes(4, "big")).digest() for i in range(-(-count // 256)))
    return np.unpackbits(np.frombuffer(b"".join(digests), dtype=np.uint8))[:count]


def test_a_vector_of_sixteen_bits():
    """Computed by hand from the convention T[i][j] = s[i - j + n - 1]."""
    assert toeplitz(bits("1000101000011110"), bits("11101110101010100111010"), 8).tolist() == bits("11000101").tolist()


def test_a_vector_of_a_thousand_bits():
    """Inputs and output as SHA-256 streams; verified with an independent program."""
    out = toeplitz(stream(b"X", 1024), stream(b"T", 1535), 512)
    expected = "c48f5e848ef3b6cc177df4ccee0e61df9124cc5c852a5a049eac7214aec06134"
    assert hashlib.sha256(np.packbits(out).tobytes()).hexdigest() == expected


@pytest.mark.parametrize("part", [1, 64, 1 << 20])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 3), (63, 64), (64, 63), (64, 64), (65, 65), (129, 300), (300, 299)])
@pytest.mark.parametrize("kind", ["random", "zeros", "ones"])
def test_the_transform_is_the_definition(n, m, part, kind):
    if part == 1 and n > 70:
        part = 7
    rng = np.random.default_rng([n, m])
    key, seed = rng.integers(0, 2, n, dtype=np.uint8), rng.integers(0, 2, n + m - 1, dtype=np.uint8)
    if kind != "random":
        key[:] = seed[:] = int(kind == "ones")
    assert toeplitz(key, seed, m, part=part).tolist() == slow(key, seed, m)


def test_every_difference_collides_with_probability_one_in_two_to_the_length():
    n, m = 5, 3
    seeds = [np.array(s, dtype=np.uint8) for s in itertools.product((0, 1), repeat=n + m - 1)]
    for difference in itertools.product((0, 1), repeat=n):
        if any(difference):
            key = np.array(difference, dtype=np.uint8)
            assert sum(not toeplitz(key, seed, m).any() for seed in seeds) * 2**m == len(seeds)
