"""The compiled product of privacy amplification against Python's integers, where it is most likely wrong."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gmpy2
import numpy as np
import pytest

from heliograph.kernels import native
from heliograph.kernels.product import SHORTEST, modified_multiply_shift

LEVELS = range(1, (native.compiled.product_level() if native.compiled is not None else 0) + 1)
pytestmark = pytest.mark.skipif(
    not LEVELS, reason="no compiled kernels, or a processor without AVX2 and FMA: GMP multiplies"
)

WORD = 64
# Lengths of transforms in digits: 2^k by first steps of two and of four, 3 * 2^k, 5 * 2^k; both parities of k.
TRANSFORMS = [256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 8192, 10240, 12288]
GUARDS = 3


def packed(value, bits):
    return (value << (-bits % 8)).to_bytes((bits + 7) // 8, "big")


def seed_of(n, a, b):
    return (a | b << (n - 1)).to_bytes((2 * (n - 1) + 7) // 8, "little")


def defined(n, m, key, a, b):
    """Follow security.md 5 on Python's integers; a remainder modulo 2^k is a mask, which is faster."""
    al = n - 1
    x1, x2 = key >> (n - m), low(key, n - m)
    return packed(low(x1 + (low(product(a, x2) + b, al) >> (al - m)), m), m)


def low(value, bits):
    return value & ((1 << bits) - 1)


def product(a, b):
    """Multiply by Python's own multiplication, and by GMP's where that would take seconds."""
    return a * b if a.bit_length() < 100_000 else int(gmpy2.mpz(a) * b)


def compiled(n, m, key, a, b, level):
    return native.compiled.multiply_shift(packed(key, n), n, seed_of(n, a, b), m, level)


def check(n, m, key, a, b):
    """All levels alike and right; returns whether they decided."""
    expected = defined(n, m, key, a, b)
    hashed = [compiled(n, m, key, a, b, level) for level in LEVELS]
    assert all(one == hashed[0] for one in hashed)
    assert hashed[0] in (None, expected), (n, m)
    assert modified_multiply_shift(packed(key, n), n, seed_of(n, a, b), m, by="compiled") == expected
    return hashed[0] is not None


def numbers(n, seed=1):
    rng = np.random.default_rng([seed, n])
    draw = lambda bits: low(int.from_bytes(rng.bytes((bits + 7) // 8), "little"), bits)  # noqa: E731
    return draw(n), draw(n - 1), draw(n - 1)


def lengths(n):
    return sorted({m for m in (1, 63, 64, 65, n // 3, n // 2, n - 300, n - 65, n - 64, n - 1) if 1 <= m < n})


@pytest.mark.parametrize("n", [*range(2, 70), 127, 128, 129, 130, 191, 192, 193, 194, 255, 256, 257, 258, 1000, 4097])
def test_short_keys_follow_the_definition(n):
    for m in lengths(n):
        assert check(n, m, *numbers(n))


@pytest.mark.parametrize("digits", TRANSFORMS)
def test_keys_that_just_fill_a_transform_and_just_do_not_follow_the_definition(digits):
    for n in {WORD * (digits - GUARDS) + 1 + more for more in (-WORD, -1, 0, 1, 2, GUARDS * WORD)}:
        for m in (n // 2, n - 70, 1):
            assert check(n, m, *numbers(n))


@pytest.mark.parametrize("digits", [256, 320, 384, 768, 2560, 4096])
def test_the_greatest_coefficients_follow_the_definition(digits):
    """Every digit of both factors 2^64 - 1: no sum of products can be larger, before the wrap or with it."""
    n = WORD * (digits - GUARDS) + 1
    al = n - 1
    for m in (1, n // 2, n // 3, n - 1000):
        # The product's digits below the wanted ones are then zeros; this b puts them far from a carry.
        middle = int.from_bytes(b"\x55" * (al // 8), "little")
        assert check(n, m, 2**n - 1, 2**al - 1, middle)


@pytest.mark.slow
def test_the_greatest_sums_that_the_primes_hold_follow_the_definition():
    """Nearly four million all-one digits, the most that are taken. Modulo 2^al this a is -1: no oracle multiplies."""
    m = 1000
    n = WORD * 4_000_000 - WORD + m
    al = n - 1
    b = int.from_bytes(b"\x55" * (al // 8), "little")
    assert native.compiled.product_memory(n, m) > 0
    assert native.compiled.product_memory(n + WORD, m) == 0
    expected = packed(low((2**m - 1) + (low(b - (2 ** (n - m) - 1), al) >> (al - m)), m), m)
    key, seed = packed(2**n - 1, n), seed_of(n, 2**al - 1, b)
    for level in LEVELS:
        assert native.compiled.multiply_shift(key, n, seed, m, level) == expected


@pytest.mark.parametrize("digits", [256, 320, 384])
def test_a_carry_that_the_guards_do_not_decide_is_left_to_the_whole_product(digits):
    """An all-one a, key and b: what lies below the guards carries through all of them. Seen, not guessed."""
    n = WORD * (digits - GUARDS) + 1
    al = n - 1
    assert not check(n, n // 2, 2**n - 1, 2**al - 1, 2**al - 1)
    assert not check(n, n // 2, 2**n - 1, 2**al - 1, 0x1234)
    assert check(n, n - 1, 2**n - 1, 2**al - 1, 2**al - 1), "with a short x2 nothing is left out, so nothing undecided"


@pytest.mark.parametrize("n", [16_200, 20_000, 24_001])
def test_zeros_and_single_bits_follow_the_definition(n):
    al, m = n - 1, n // 2
    key, a, b = numbers(n)
    for one in (0, 1, 2**63, 2**64, 2 ** (n - m - 1), 2 ** (n - m), 2 ** (n - 1), 2**n - 1, key):
        for two in (0, 1, 2**64, 2 ** (al - 1), 2 ** (al - 64), 2**al - 1, a):
            check(n, m, one, two, b)
            check(n, m, one, two, 0)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 256, 257, 320, 321, 1000])
def test_factors_of_very_different_lengths_follow_the_definition(length):
    n = 30_011
    assert check(n, n - length, *numbers(n))


def test_every_bit_of_a_long_block_follows_the_definition():
    for n in (100_003, 262_144, 500_009):
        key, a, b = numbers(n)
        assert check(n, n // 2, key, a, b)
        assert check(n, n // 10, key, a, b)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2_000_003, 10_000_000])
def test_blocks_of_the_usual_size_are_those_of_gmp(n):
    key, seed = packed(numbers(n)[0], n), np.random.default_rng(3).bytes((2 * n + 5) // 8)
    for m in (n // 2, n // 3, 9 * n // 10):
        expected = modified_multiply_shift(key, n, seed, m, by="gmp")
        for level in LEVELS:
            assert native.compiled.multiply_shift(key, n, seed, m, level) == expected


def test_the_same_seed_gives_the_same_key_with_and_without_the_compiled_product():
    for n in (SHORTEST - 1, SHORTEST, SHORTEST + 1, 123_457):
        key, seed = packed(numbers(n)[0], n), np.random.default_rng(4).bytes((2 * n + 5) // 8)
        hashed = {modified_multiply_shift(key, n, seed, n // 2, by=by) for by in (None, "compiled", "gmp")}
        assert len(hashed) == 1


def benchmark():
    spec = importlib.util.spec_from_file_location("products", Path(__file__).parents[3] / "benchmarks/products.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_compares_the_same_hash_at_each_width():
    rows = benchmark().measured(20_000)
    assert [row["width"] for row in rows] == ["AVX2", "AVX-512"][: len(LEVELS)]
    assert all(row["mbps"] > 0 and row["gmp_mbps"] > 0 for row in rows)


@pytest.mark.slow
def test_the_product_is_more_than_twice_as_fast_as_gmp_at_the_usual_size():
    """In one run, on processor time, so that a busy machine slows both."""
    assert min(row["ratio"] for row in benchmark().measured(10_000_000)) > 2.5


def test_threads_that_hash_at_once_get_what_one_alone_gets():
    """No state is shared; the interpreter's lock is not held meanwhile."""
    jobs = [(n, n // 2, packed(numbers(n)[0], n), np.random.default_rng(n).bytes((2 * n + 5) // 8))
            for n in (100_001, 150_007, 200_003, 250_005) for _ in range(3)]  # fmt: skip
    hashing = [functools.partial(native.compiled.multiply_shift, key, n, seed, m) for n, m, key, seed in jobs]
    alone = [work() for work in hashing]
    with ThreadPoolExecutor(4) as threads:
        assert [one.result() for one in [threads.submit(work) for work in hashing]] == alone


def test_the_product_takes_at_most_eight_times_the_memory_of_its_key():
    """By its own account; the worst are keys that just do not fit a transform, and long second parts."""
    just_not = [WORD * (digits - GUARDS) + 2 for j in range(7, 22) for digits in (2**j, 3 * 2**j, 5 * 2**j)]
    anywhere = np.geomspace(SHORTEST, 2.5e8, 2000).astype(int).tolist()
    for n in [n for n in just_not if SHORTEST <= n <= 2.5e8] + anywhere:
        for m in (1, n // 2, n - 1):
            assert native.compiled.product_memory(n, m) <= n, (n, m)


LIMITED = """
import resource, sys
from heliograph.kernels.product import modified_multiply_shift
n, more = int(sys.argv[1]), int(sys.argv[2])
key, seed = bytes(n // 8), bytes(2 * n // 8)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)
try:
    modified_multiply_shift(key, n, seed, n // 2, by="compiled")
    print("hashed")
except MemoryError:
    print("refused")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_a_hash_needs_no_more_memory_than_its_account_and_is_refused_with_less():
    n = 64_000_000
    need = native.compiled.product_memory(n, n // 2) + n // 16
    for more, expected in ((need + 2**22, "hashed"), (need // 2, "refused")):  # 2^22: room to align, and Python's own
        command = [sys.executable, "-c", LIMITED, str(n), str(more)]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == expected


def test_a_library_that_changed_the_rounding_does_not_change_the_key():
    """The transforms are exact only when doubles round to nearest; otherwise GMP multiplies."""
    n = 20_000
    key, seed = packed(numbers(n)[0], n), np.random.default_rng(5).bytes((2 * n + 5) // 8)
    expected = modified_multiply_shift(key, n, seed, n // 2, by="gmp")
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    upward = 0x800  # FE_UPWARD of x86-64
    before = library.fegetround()
    try:
        assert library.fesetround(upward) == 0
        found = [modified_multiply_shift(key, n, seed, n // 2), native.compiled.multiply_shift(key, n, seed, n // 2)]
    finally:
        library.fesetround(before)
    assert found == [expected, None]


@pytest.mark.parametrize(
    ("key", "bits", "seed", "out"),
    [
        (bytes(13), 100, bytes(24), 50),
        (bytes(12), 100, bytes(25), 50),
        (bytes(14), 100, bytes(25), 50),
        (bytes(13), 100, bytes(25), 0),
        (bytes(13), 100, bytes(25), 100),
    ],
)
def test_bytes_or_lengths_that_do_not_fit_are_refused_at_the_boundary(key, bits, seed, out):
    with pytest.raises(ValueError, match="length"):
        native.compiled.multiply_shift(key, bits, seed, out)


def test_a_key_too_long_for_the_compiled_product_is_refused_there_and_has_no_account():
    assert native.compiled.product_memory(2**40, 1) == 0
    assert native.compiled.product_memory(300_000_000, 1) == 0, "more digits than the three primes can hold the sums of"
    assert native.compiled.product_memory(300_000_000, 150_000_000) > 0
