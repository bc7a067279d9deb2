"""The seed expansion against AES-CTR itself, and its statistics."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from heliograph.kernels.expansion import SeededPulses, expand_bases
from heliograph.types import LightParameters

SEED = bytes(range(32))
LIGHT = LightParameters(2**40, 1e9, (0.5, 0.2, 0.0), (0.6, 0.3, 0.1), 0.9, 0.8)


def keystream(label, slot):
    """One block of AES-256-CTR whose first counter is label || slot."""
    counter = label + slot.to_bytes(8, "big")
    return Cipher(algorithms.AES(SEED), modes.CTR(counter)).encryptor().update(bytes(16))


def share(block, start):
    return int.from_bytes(block[start : start + 4], "little") / 2**32


@given(st.lists(st.integers(0, 2**40 - 1), max_size=20))
def test_choices_are_aes_counter_mode_addressed_by_slot(numbers):
    slots = np.array(numbers, dtype=np.int64)
    pulses = SeededPulses(LIGHT, SEED).at(slots)
    bases = expand_bases(SEED, slots, 0.8)
    for i, slot in enumerate(numbers):
        block = keystream(b"hg-light", slot)
        assert pulses.bases[i] == (share(block, 0) >= 0.9)
        assert pulses.intensities[i] == (share(block, 4) >= 0.6) + (share(block, 4) >= 0.9)
        assert pulses.bits[i] == block[8] & 1
        assert bases[i] == (share(keystream(b"hg-bases", slot), 0) >= 0.8)


def test_frequencies_are_those_of_the_parameters():
    n = 400_000
    pulses = SeededPulses(LIGHT, SEED).at(np.arange(n, dtype=np.int64))
    bases = expand_bases(SEED, np.arange(n, dtype=np.int64), 0.8)
    for observed, p in (
        (np.count_nonzero(pulses.bases == 0), 0.9),
        (np.count_nonzero(bases == 0), 0.8),
        (np.count_nonzero(pulses.bits), 0.5),
        *((np.count_nonzero(pulses.intensities == k), p) for k, p in enumerate((0.6, 0.3, 0.1))),
        (np.count_nonzero((pulses.bases == 0) & (bases == 0)), 0.72),
        (np.count_nonzero((pulses.bases == 0) & (pulses.bits == 0) & (pulses.intensities == 0)), 0.27),
    ):
        assert abs(observed - n * p) < 4 * np.sqrt(n * p * (1 - p))


def test_any_order_of_slots_gives_the_same_choices():
    slots = np.array([7, 2**39, 0, 7], dtype=np.int64)
    pulses = SeededPulses(LIGHT, SEED)
    one_by_one = [pulses.at(slots[i : i + 1]) for i in range(4)]
    together = pulses.at(slots)
    for name in ("bases", "intensities", "bits"):
        assert getattr(together, name).tolist() == [getattr(p, name)[0] for p in one_by_one]
        assert getattr(together, name).dtype == np.uint8


def test_a_single_intensity_and_probabilities_next_to_one_have_no_edge():
    light = LightParameters(1000, 1e9, (0.5,), (1.0,), 1 - 2**-40, 2**-40)
    pulses = SeededPulses(light, SEED).at(np.arange(1000, dtype=np.int64))
    assert not pulses.intensities.any()
    assert np.count_nonzero(pulses.bases) == 0
    assert expand_bases(SEED, np.arange(1000, dtype=np.int64), 2**-40).all()


def test_another_seed_gives_other_bits():
    slots = np.arange(256, dtype=np.int64)
    assert (SeededPulses(LIGHT, SEED).at(slots).bits != SeededPulses(LIGHT, bytes(32)).at(slots).bits).any()


def test_the_seed_is_not_printed():
    pulses = SeededPulses(LIGHT, b"a secret seed, 32 bytes long!!!!")
    assert "secret" not in repr(pulses)
    assert "seed" not in repr(pulses)


@pytest.mark.parametrize("slots", [[-1], [2**40], [0, 2**40]])
def test_a_slot_outside_the_block_is_refused(slots):
    with pytest.raises(ValueError, match="outside"):
        SeededPulses(LIGHT, SEED).at(np.array(slots, dtype=np.int64))


def test_a_short_seed_is_refused():
    with pytest.raises(ValueError, match="32 are needed"):
        SeededPulses(LIGHT, bytes(31))
    with pytest.raises(ValueError, match="32 are needed"):
        expand_bases(bytes(33), np.zeros(1, dtype=np.int64), 0.5)
