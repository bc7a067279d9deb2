from __future__ import annotations

from dataclasses import replace

import cascade_pair as pair
import numpy as np
import pytest

from heliograph.bits import BitString
from heliograph.errors import LocalProtocolError, RemoteProtocolError
from heliograph.postprocessing.reconciliation.charging import asymmetry_sigma, charged
from heliograph.postprocessing.reconciliation.outcome import (
    announcement_charge,
    error_report,
    reconciled_by_answering,
    reconciled_by_correcting,
)
from heliograph.types import Disclosed, IntensityCounts, ReconciledBlock, SiftedBlock

N = 4000
BITS, ERRORS = pair.noisy(N, 0.03)
KINDS = pair.generator(4).integers(0, 2, N, dtype=np.uint8)
TEST = IntensityCounts((50, 20), (2, 1))
AT_A = SiftedBlock(BitString.from_array(BITS), KINDS, TEST)
AT_B = SiftedBlock(BitString.from_array(BITS ^ ERRORS), KINDS, TEST)


@pytest.fixture(scope="module")
def exchange():
    return pair.reconcile(BITS, ERRORS, 0.03)


@pytest.fixture(scope="module")
def at_receiver(exchange):
    return reconciled_by_correcting(AT_B, exchange.result)


def test_both_sides_hold_the_same_block_with_exact_errors(exchange, at_receiver):
    at_transmitter = reconciled_by_answering(AT_A, exchange.answerer.disclosed, error_report(at_receiver))
    assert at_transmitter == at_receiver
    assert at_receiver.key.errors == tuple(int(ERRORS[k == KINDS].sum()) for k in (0, 1))
    assert at_receiver.key.detections == tuple(int((k == KINDS).sum()) for k in (0, 1))
    assert at_receiver.errors_given_0 == int(ERRORS[BITS == 0].sum())
    assert at_receiver.errors_given_1 == int(ERRORS[BITS == 1].sum())
    assert (at_receiver.zeros, at_receiver.ones) == (N - int(BITS.sum()), int(BITS.sum()))


def test_the_announced_counts_are_charged_too(exchange, at_receiver):
    assert announcement_charge(N, 2) == Disclosed(4 * 12, 4 * 12)
    assert at_receiver.disclosed == exchange.result.disclosed + announcement_charge(N, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {"zeros": r.zeros + 1, "ones": r.ones - 1},
        lambda r: {"ones": r.ones + 1},
        lambda r: {"errors_given_0": r.errors_given_0 + 1},
        lambda r: {"errors_given_0": -1, "errors_given_1": r.errors_given_1 + r.errors_given_0 + 1},
        lambda r: {"errors_given_0": r.zeros + 1},
        lambda r: {"key_errors": (*r.key_errors, 0)},
        lambda r: {"key_errors": (r.key_errors[0] + 1, r.key_errors[1])},
        lambda r: {"key_errors": (-1, sum(r.key_errors) + 1)},
        lambda r: {"key_errors": (N, sum(r.key_errors) - N)},
        lambda r: {"disclosed": r.disclosed + Disclosed(parities_a=1)},
        lambda r: {"disclosed": Disclosed(r.disclosed.parities_a, 0)},
    ],
)
def test_counts_that_contradict_what_the_transmitter_knows_are_refused(exchange, at_receiver, change):
    report = error_report(at_receiver)
    with pytest.raises(RemoteProtocolError):
        reconciled_by_answering(AT_A, exchange.answerer.disclosed, replace(report, **change(report)))


def test_corrected_bits_of_another_block_are_our_own_fault(exchange):
    other = SiftedBlock(AT_B.bits[:-8], KINDS[:-8], TEST)
    with pytest.raises(LocalProtocolError):
        reconciled_by_correcting(other, exchange.result)


def test_the_rule_both_charges_both_directions():
    disclosed = Disclosed(parities_a=100, parities_b=70, verification=128)
    assert charged(disclosed, "pattern_public") == 228
    assert charged(disclosed, "both") == 298
    with pytest.raises(LocalProtocolError):
        charged(disclosed, "neither")


def counts(zeros, e0, ones, e1):
    total = IntensityCounts((zeros + ones,), (e0 + e1,))
    return ReconciledBlock(BitString(b"", 0), total, total, zeros, e0, ones, e1, Disclosed())


def test_errors_that_follow_the_bit_value_are_significant():
    assert not asymmetry_sigma(counts(50_000, 1000, 50_000, 1010)).significant
    skewed = asymmetry_sigma(counts(50_000, 800, 50_000, 1200))
    # By hand: 0.016 - 0.024 = -0.008 against sqrt(0.02 * 0.98 * 2 / 50000) = 0.000885.
    assert skewed.errors == pytest.approx(-9.035, abs=0.001)
    assert skewed.significant


def test_biased_bits_are_significant():
    assert not asymmetry_sigma(counts(50_300, 0, 49_700, 0)).significant
    assert asymmetry_sigma(counts(51_000, 0, 49_000, 0)).bias == pytest.approx(2000 / 100_000**0.5)
    assert asymmetry_sigma(counts(49_000, 0, 51_000, 0)).significant


@pytest.mark.parametrize("block", [counts(0, 0, 0, 0), counts(5, 0, 0, 0), counts(5, 5, 6, 6), counts(0, 0, 3, 1)])
def test_too_little_to_judge_is_not_significant(block):
    assert asymmetry_sigma(block).errors == 0
    assert not asymmetry_sigma(block).significant
