"""The compiled split of detected slots against its readable twin, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.kernels import native
from heliograph.kernels.sifting import Split, split

pytestmark = pytest.mark.skipif(native.compiled is None, reason="this installation has no compiled kernels")


def slots(n, chance, seed=1):
    rng = np.random.default_rng([seed, n])
    return tuple((rng.random(n) < chance).astype(np.uint8) for _ in range(3)), rng


def same(one, two):
    for field in dataclasses.fields(Split):
        a, b = getattr(one, field.name), getattr(two, field.name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, field.name


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 191, 192, 193, 1000, 5001])
def test_both_kernels_split_alike(n, chance):
    for kinds in (1, 2, 3, 4, 5):
        (bases_a, bases_b, bits), rng = slots(n, chance)
        which = rng.integers(0, kinds, n).astype(np.uint8)
        count = int((bases_a & bases_b).sum())
        peer = BitString.from_array(rng.integers(0, 2, count, dtype=np.uint8))
        arguments = bases_a, bits, bases_b, which, kinds, peer
        same(split(*arguments), split(*arguments, kernel="numpy"))


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 129, 5001])
def test_machines_without_special_instructions_do_the_same(n):
    (bases_a, bases_b, bits), rng = slots(n, 0.4)
    which = rng.integers(0, 4, n).astype(np.uint8)
    count = int((bases_a & bases_b).sum())
    peer = np.packbits(rng.integers(0, 2, count, dtype=np.uint8)).tobytes()
    arguments = bases_a, bits, bases_b, which, peer, count
    assert native.compiled.sift(*arguments) == native.compiled.sift(*arguments, portable=True)


def test_arrays_or_bits_of_another_length_are_refused_at_the_boundary():
    good, short = np.zeros(9, dtype=np.uint8), np.zeros(8, dtype=np.uint8)
    for arguments in (
        (good, short, good, good, b"", 0),
        (good, good, short, good, b"", 0),
        (good, good, good, short, b"", 0),
        (good, good, good, good, b"\0\0", 1),
        (good, good, good, good, b"", 1),
    ):
        with pytest.raises(ValueError, match="another"):
            native.compiled.sift(*arguments)


@pytest.mark.parametrize("few", [0, 3])
def test_fewer_test_bits_than_slots_are_never_read_beyond(few):
    """The caller refuses them; the kernel must not look past their end."""
    ones = np.ones(200, dtype=np.uint8)
    found = split(ones, ones, ones, ones * 0, 1, BitString.from_array(np.ones(few, dtype=np.uint8)))
    assert len(found.test) == 200
    assert found.detections == (200,)
