from __future__ import annotations

from fractions import Fraction

import cascade_pair as pair
import numpy as np
import postprocessing_oracles as oracle
import pytest

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError
from heliograph.kernels.product import modified_multiply_shift
from heliograph.postprocessing.amplification import amplify, seed_size_bytes
from heliograph.types import Disclosed, IntensityCounts, VerifiedBlock

RNG = pair.generator(11)


def block(bits):
    counts = IntensityCounts((len(bits),), (0,))
    return VerifiedBlock(bits, counts, counts, Disclosed())


def random_bits(length):
    return BitString.from_array(RNG.integers(0, 2, length, dtype=np.uint8))


def slow(bits, seed, length):
    al = len(bits) - 1
    both = int.from_bytes(seed, "little")
    return oracle.modified_multiply_shift(bits.to_array().tolist(), both % 2**al, (both >> al) % 2**al, length)


NEAR_BOUNDARIES = [2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 66, 127, 128, 129, 130, 1023, 1024, 1025]


@pytest.mark.parametrize("n", NEAR_BOUNDARIES)
def test_the_fast_product_is_the_definition(n):
    lengths = {1, n - 1, n // 2, 8, 9, 63, 64, 65, 128} if n > 70 else range(1, n)
    for length in lengths:
        if 1 <= length < n:
            bits, seed = random_bits(n), RNG.bytes(seed_size_bytes(n))
            assert amplify(block(bits), seed, length).bits.to_array().tolist() == slow(bits, seed, length)


@pytest.mark.parametrize("pattern", [0, 1])
def test_the_extremes_of_key_and_seed_follow_the_definition(pattern):
    for n in (9, 64, 65, 200):
        bits = BitString.from_array(np.full(n, pattern, dtype=np.uint8))
        for seed in (bytes(seed_size_bytes(n)), b"\xff" * seed_size_bytes(n)):
            for length in (1, n // 2, n - 1):
                assert amplify(block(bits), seed, length).bits.to_array().tolist() == slow(bits, seed, length)


def test_a_large_block_follows_the_definition():
    n = 100_003
    bits, seed = random_bits(n), RNG.bytes(seed_size_bytes(n))
    al, m = n - 1, 40_001
    key = int.from_bytes(bits.to_bytes()) >> (-n % 8)
    both = int.from_bytes(seed, "little")
    a, b = both % 2**al, (both >> al) % 2**al
    expected = ((key >> (n - m)) + (((a * (key % 2 ** (n - m)) + b) % 2**al) >> (al - m))) % 2**m
    assert int.from_bytes(amplify(block(bits), seed, m).bits.to_bytes()) >> (-m % 8) == expected


SMALL = [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (4, 3), (5, 1), (5, 2), (5, 3), (5, 4), (6, 3)]


@pytest.mark.parametrize("by", ["gmp", "compiled"])
@pytest.mark.parametrize(("n", "m"), SMALL)
def test_the_hash_is_exactly_two_universal(n, m, by):
    """All keys, all seeds, all pairs: security.md 5. The worst pair collides with probability 2^-m, not more."""
    keys = [(key << (-n % 8)).to_bytes(1) for key in range(2**n)]
    size = seed_size_bytes(n)
    seeds = [seed.to_bytes(size, "little") for seed in range(4 ** (n - 1))]
    outputs = [[modified_multiply_shift(key, n, seed, m, by=by) for key in keys] for seed in seeds]
    assert oracle.worst_collision(outputs) == Fraction(1, 2**m)


@pytest.mark.parametrize(("n", "m"), [(5, 2), (6, 3)])
@pytest.mark.parametrize("mutant", ["no b", "odd a"])
def test_a_hash_without_b_or_with_a_forced_odd_is_not_two_universal(n, m, mutant):
    """The test above can fail: the two shortcuts of security.md 5 do."""
    al = n - 1
    keys = [oracle.as_bits(key, n) for key in range(2**n)]
    seeds = [(a, 0) for a in range(2**al)]
    if mutant == "odd a":
        seeds = [(a, b) for a in range(1, 2**al, 2) for b in range(2**al)]
    outputs = [[oracle.modified_multiply_shift(key, a, b, m) for key in keys] for a, b in seeds]
    assert oracle.worst_collision(outputs) > Fraction(1, 2**m)


def test_the_seed_holds_two_integers_of_n_minus_one_bits():
    assert [seed_size_bytes(n) for n in (0, 1, 2, 5, 6, 10**6)] == [0, 0, 1, 1, 2, 250_000]


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_seed_of_another_size_is_refused(extra):
    with pytest.raises(LocalProtocolError):
        amplify(block(random_bits(100)), bytes(seed_size_bytes(100) + extra), 50)


@pytest.mark.parametrize("length", [-1, 0, 100, 101])
def test_a_length_that_is_no_compression_or_no_key_is_refused(length):
    with pytest.raises(LocalProtocolError):
        amplify(block(random_bits(100)), bytes(seed_size_bytes(100)), length)


@pytest.mark.parametrize("n", [0, 1])
def test_a_block_too_short_to_compress_is_refused(n):
    with pytest.raises(LocalProtocolError):
        amplify(block(random_bits(n)), bytes(seed_size_bytes(n)), 1)


def test_the_secret_key_does_not_print():
    bits = random_bits(64)
    key = amplify(block(bits), RNG.bytes(seed_size_bytes(64)), 32)
    assert repr(key) == "SecretKey(bits=<32 bits>)"


@pytest.mark.parametrize(("n", "m"), [(2, 1), (9, 8), (64, 33), (500, 129)])
def test_toeplitz_can_be_asked_for_and_is_linear(n, m):
    seed = RNG.bytes(seed_size_bytes(n, m, "toeplitz"))
    one, two = random_bits(n), random_bits(n)
    hashed = [amplify(block(bits), seed, m, "toeplitz").bits for bits in (one, two, one ^ two)]
    assert hashed[0] ^ hashed[1] == hashed[2]
    diagonals = np.unpackbits(np.frombuffer(seed, dtype=np.uint8))[: n + m - 1]
    key = one.to_array()
    expected = [int((diagonals[i + n - 1 - np.arange(n)] & key).sum()) & 1 for i in range(m)]
    assert hashed[0].to_array().tolist() == expected
    with pytest.raises(LocalProtocolError):
        amplify(block(one), seed + b"\0", m, "toeplitz")
