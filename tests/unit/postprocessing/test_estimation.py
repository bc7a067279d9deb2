"""The two-way rule and the symmetry that the cheaper one needs."""

import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.postprocessing.estimation import TwoWayRule, charged_parities, is_asymmetric
from heliograph.types import Disclosed, IntensityCounts, ReconciledBlock


def block(zeros, wrong_0, ones, wrong_1):
    none = IntensityCounts((0, 0), (0, 0))
    return ReconciledBlock(BitString(b"", 0), none, none, zeros, wrong_0, ones, wrong_1, Disclosed())


def test_both_charges_the_sum_and_pattern_public_the_larger_direction():
    disclosed = Disclosed(parities_a=700, parities_b=720, verification=128)
    assert charged_parities(disclosed, TwoWayRule.BOTH) == 1420
    assert charged_parities(disclosed, TwoWayRule.PATTERN_PUBLIC) == 720
    assert charged_parities(Disclosed(parities_a=5), TwoWayRule.PATTERN_PUBLIC) == 5


def test_bits_are_biased_just_beyond_four_sigma():
    # n = 10 000: sigma of the difference zeros - ones is 100
    assert not is_asymmetric(block(5200, 100, 4800, 100))
    assert is_asymmetric(block(5201, 100, 4799, 100))
    assert is_asymmetric(block(4799, 100, 5201, 100))


def test_errors_depend_on_the_bit_just_beyond_four_sigma():
    # pooled 4 %, 5000 each: sigma of the rates' difference sqrt(.04 * .96 * 2 / 5000) = .003919, 4 sigma = 78.4 errors
    assert not is_asymmetric(block(5000, 239, 5000, 161))
    assert is_asymmetric(block(5000, 240, 5000, 160))
    assert is_asymmetric(block(5000, 160, 5000, 240))


def test_honest_blocks_are_symmetric():
    rng = np.random.default_rng(3)  # noqa: TID251  - a test seeds its own draws
    flagged = 0
    for _ in range(3000):
        zeros = int(rng.binomial(50_000, 0.5))
        ones = 50_000 - zeros
        wrong_0, wrong_1 = int(rng.binomial(zeros, 0.02)), int(rng.binomial(ones, 0.02))
        flagged += is_asymmetric(block(zeros, wrong_0, ones, wrong_1))
    assert flagged <= 3


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 0, 3, 3), (10, 0, 10, 0), (10, 10, 10, 10)])
def test_degenerate_counts_are_no_proof_of_asymmetry(counts):
    assert not is_asymmetric(block(*counts))


def test_all_bits_equal_are_asymmetric():
    assert is_asymmetric(block(17, 0, 0, 0))


def test_contradictory_counts_are_refused():
    with pytest.raises(ValueError, match="more errors"):
        is_asymmetric(block(3, 4, 3, 0))
