"""Eve measures a fraction of the pulses: the error rate tells, and no key is made (theory.md 3, rows 1 and 2)."""

from __future__ import annotations

import math
import re

import pytest
from tampering import take_keys

from heliograph.errors import QBERTooHigh
from heliograph.postprocessing.secrecy.acceptance import accept
from heliograph.postprocessing.secrecy.wiesemann2024 import bounds
from heliograph.protocol import actions as a
from heliograph.protocol.records import CommittedLocal
from heliograph.sim.eve import InterceptResend
from heliograph.testing.links import quick_channel, quick_registration
from heliograph.testing.pair import Pair

PARAMETERS = quick_registration().parameters[0]
BASELINE = quick_channel().error_rate(0.3)


def run(directory, fraction, *, seed=1, z_probability=0.5):
    attack = InterceptResend(fraction, z_probability) if fraction else None
    pair = Pair(quick_registration(), quick_channel(), directory, seed=seed, attack=attack)
    pair.run_block()
    pair.time_out()
    return pair


def reported(side, basis):
    """Return the error rate that the discard names to the operator."""
    (reason,) = (x.action.reason for x in side.done if isinstance(x.action, a.Discard))
    found = re.search(rf"qber_{basis} (\d+\.\d+)%", reason)
    return float(found[1]) / 100


@pytest.mark.parametrize("fraction", [1.0, 0.75, 0.5, 0.25, 0.1])
def test_intercept_resend_is_seen_and_yields_no_key(tmp_path, fraction):
    pair = run(tmp_path / "pair", fraction)
    assert pair.rx.discards() == [QBERTooHigh.__name__]
    expected = BASELINE + fraction / 4 * (1 - 2 * BASELINE)
    tests = 8000  # test-basis detections of such a block, about
    sigma = math.sqrt(expected * (1 - expected) / tests)
    assert abs(reported(pair.rx, "x") - expected) < 5 * sigma
    assert pair.tx.finished() == pair.rx.finished() == []
    assert take_keys(pair) == {}
    # The bits of such a block are not even reconciled: its light tells before the first parity.
    assert len(pair.frames) < 7


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.2])
def test_interception_in_the_key_basis_only_shows_in_the_test_basis(tmp_path, fraction):
    """The key basis looks perfect; a rate pooled over both bases would be half as high (row 2)."""
    pair = run(tmp_path / "pair", fraction, z_probability=1.0)
    expected = BASELINE + fraction / 2 * (1 - 2 * BASELINE)
    assert abs(reported(pair.rx, "x") - expected) < 5 * math.sqrt(expected * (1 - expected) / 8000)
    assert take_keys(pair) == {}


def test_whatever_is_accepted_meets_every_threshold_of_the_theorem(tmp_path):
    """A little interception is noise like any other: a key only if the bounds with these very errors allow it."""
    outcomes = []
    for number, fraction in enumerate((0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06)):
        pair = run(tmp_path / str(number), fraction, seed=number + 1)
        stored = [
            x.action.record
            for x in pair.rx.done
            if isinstance(x.action, a.Persist) and isinstance(x.action.record, CommittedLocal)
        ]
        assert pair.tx.finished() == pair.rx.finished() == [record.block for record in stored]
        outcomes.append(bool(stored))
        for record in stored:
            report = record.report
            terms = bounds(report.key, report.test, PARAMETERS.light, PARAMETERS.eps_sec)
            assert terms.s1_lower >= PARAMETERS.acceptance.single_photons_lower_min
            assert terms.phase_error_upper <= PARAMETERS.acceptance.phase_error_upper_max
            assert report.disclosed.parities_a <= PARAMETERS.acceptance.disclosed_bits_max
            assert len(record.secret) == report.secret_key_length == PARAMETERS.secret_key_length
            accept(PARAMETERS, report.key, report.test, report.disclosed.parities_a, asymmetric=False)
    # An honest link makes keys, six percent of interception never does; in between the theorem decides.
    assert outcomes[0]
    assert not any(outcomes[-2:])
    assert outcomes == sorted(outcomes, reverse=True)


def test_an_attack_that_stops_leaves_the_link_well(tmp_path):
    pair = run(tmp_path / "pair", 0.5)
    pair._attack = None
    block = pair.run_block()
    assert pair.tx.finished() == pair.rx.finished() == [block]
    keys = take_keys(pair)
    assert keys
    assert all(ours == theirs for ours, theirs in keys.values())


def test_what_a_discarded_block_showed_moves_no_later_block(tmp_path):
    """Parameters are the registered ones, before and after: nothing is tuned from a block that was attacked."""
    pair = run(tmp_path / "pair", 1.0)
    for number in (1, 2, 3):
        assert pair.tx.running.registration.for_block(number) == PARAMETERS
    totals = [side.records.totals() for side in pair.sides]
    assert all(t.bits_refilled == 0 and t.blocks_discarded == 1 for t in totals)
    assert all(t.eps_total < 1e-20 for t in totals)  # two tags at most, no block
