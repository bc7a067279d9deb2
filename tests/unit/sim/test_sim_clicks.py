"""The fast sampler against the per-pulse oracle and against the closed forms."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from per_pulse_oracle import oracle

from heliograph.kernels.expansion import SeededPulses, expand_bases
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.clicks import clicks_upper, frame_slots, sample_clicks
from heliograph.sim.detectors import LIM_2014, DetectorParameters
from heliograph.sim.eve import InterceptResend
from heliograph.sim.randomness import lab_generator
from heliograph.types import LightParameters

SEED_LIGHT, SEED_BASES = bytes(range(32)), bytes(range(32, 64))
IDEAL = DetectorParameters(0.1, 6e-7, 0.0, 0.0, 0.0)


def sample(channel, light, attack=None, lab_seed=1):
    return sample_clicks(channel, SeededPulses(light, SEED_LIGHT), SEED_BASES, lab_generator(lab_seed), attack)


def sifted(clicks, light):
    """Return pulses and bases at the clicks, and which clicks have agreeing bases."""
    pulses = SeededPulses(light, SEED_LIGHT).at(clicks.slots)
    bases = expand_bases(SEED_BASES, clicks.slots, light.receiver_z_probability)
    return pulses, bases, bases == pulses.bases


def qber(clicks, light, basis):
    """Error rate in one basis and its clicks; a double click counts half."""
    pulses, bases, matched = sifted(clicks, light)
    chosen = matched & (bases == basis)
    patterns, right = clicks.patterns[chosen], 1 + pulses.bits[chosen]
    errors = np.count_nonzero(patterns == 3 - right) + np.count_nonzero(patterns == 3) / 2
    return errors / len(patterns), len(patterns)


def assert_near(observed, expected, trials=math.inf):
    """Within 4 sigma of a binomial count with this mean."""
    sigma = math.sqrt(expected * (1 - expected / trials))
    assert abs(observed - expected) < 4 * sigma + 1, f"{observed} instead of {expected:.1f}, sigma {sigma:.1f}"


# Bright light, many darks, short dead time, many afterpulses: every part of the model shows within 4e5 pulses.
HARD = DetectorParameters(0.3, 0.01, 0.3, 4e-9, 6e-9)


@pytest.mark.parametrize(
    "detectors",
    [HARD, replace(HARD, dead_time_s=0.0), replace(HARD, afterpulse_probability=0.0)],
    ids=["all effects", "no dead time", "no afterpulses"],
)
def test_gains_errors_doubles_and_gaps_are_those_of_the_per_pulse_oracle(detectors):
    light = LightParameters(400_000, 1e9, (0.8, 0.2), (0.6, 0.4), 0.7, 0.6)
    channel = Channel(FibreParameters(1.0, misalignment=0.05), detectors)
    frame, dead = frame_slots(channel, light), round(detectors.dead_time_s * 1e9)
    slots, patterns, matched, intensity, bit, z_sent = oracle(
        light,
        eta=channel.eta,
        p_dark=detectors.dark_count_probability,
        e_mis=0.05,
        dead=dead,
        p_after=detectors.afterpulse_probability,
        decay_slots=4.0,
        frame=frame,
        rng=lab_generator(5),
    )
    clicks = sample(channel, light)
    pulses, _, fast_matched = sifted(clicks, light)

    # Each click is told by its intensity, its relation of bases, the basis sent and its pattern with the bit undone.
    slow_kind = np.stack((intensity, matched, z_sent, np.where(bit == 1, patterns % 2 * 2 + patterns // 2, patterns)))
    told = np.where(pulses.bits == 1, clicks.patterns % 2 * 2 + clicks.patterns // 2, clicks.patterns)
    fast_kind = np.stack((pulses.intensities, fast_matched, pulses.bases == 0, told))
    for kind in np.ndindex(2, 2, 2, 4):
        slow, fast = (np.count_nonzero((kind == k.T).all(axis=1)) for k in (slow_kind, fast_kind))
        assert abs(slow - fast) < 4 * math.sqrt(slow + fast) + 1, f"{kind}: {slow} slow, {fast} fast"

    # Dead time and afterpulses show in the gaps between clicks.
    slow_gaps, fast_gaps = (np.bincount(np.diff(s), minlength=40)[:40] for s in (slots, clicks.slots))
    assert not fast_gaps[: dead + 1].any()
    assert (abs(slow_gaps - fast_gaps) < 4 * np.sqrt(slow_gaps + fast_gaps) + 1).all()


@pytest.mark.parametrize(("km", "dark"), [(25.0, 6e-7), (120.0, 1e-5)])
def test_gains_error_rates_and_doubles_meet_the_closed_forms(km, dark):
    light = LightParameters(10**8, 1e9, (0.6, 0.2, 0.0), (0.5, 0.3, 0.2), 0.6, 0.7)
    channel = Channel(FibreParameters(km, misalignment=0.02), replace(IDEAL, dark_count_probability=dark))
    clicks = sample(channel, light)
    pulses, _, matched = sifted(clicks, light)
    share_matched = 0.6 * 0.7 + 0.4 * 0.3
    for index, (mu, p) in enumerate(zip(light.intensities, light.intensity_probabilities, strict=True)):
        for agree, share in ((True, share_matched), (False, 1 - share_matched)):
            chosen = (pulses.intensities == index) & (matched == agree)
            patterns, right = clicks.patterns[chosen], 1 + pulses.bits[chosen]
            sent = light.pulses * p * share
            assert_near(len(patterns), sent * channel.click_probability(mu), sent)
            doubles = np.count_nonzero(patterns == 3)
            assert_near(doubles, sent * channel.double_click_probability(mu, matched=agree), sent)
            error_rate = channel.error_rate(mu) if agree else 0.5
            errors = np.count_nonzero(patterns == 3 - right) + doubles / 2
            assert_near(errors, len(patterns) * error_rate, len(patterns))


def test_first_order_forms_agree_where_the_light_is_weak_and_exceed_the_union():
    channel = Channel(FibreParameters(100.0), IDEAL)
    assert channel.first_order_gain(0.5) == pytest.approx(channel.click_probability(0.5), rel=1e-5)
    assert channel.first_order_error_rate(0.5) == pytest.approx(channel.error_rate(0.5), rel=1e-3)
    daylight = Channel(FibreParameters(0.0), DetectorParameters(1.0, 0.5, 0.0, 0.0, 0.0))
    assert daylight.first_order_gain(5.0) > 1 > daylight.click_probability(5.0)


def test_light_split_evenly_has_half_the_bits_wrong_whatever_doubles_there_are():
    channel = Channel(FibreParameters(0.0, misalignment=0.5), DetectorParameters(1.0, 0.1, 0.0, 0.0, 0.0))
    for mu in (0.0, 0.1, 1.0, 10.0):
        assert channel.error_rate(mu) == pytest.approx(0.5, rel=1e-12)


def test_honest_crossed_double_clicks_are_those_of_the_catalogue():
    """theory.md 3, row 8: 6.097e-4 at eta mu = 0.05, dark counts included; 6.096e-4 without them."""
    channel = Channel(FibreParameters(0.0), DetectorParameters(0.1, 0.0, 0.0, 0.0, 0.0))
    assert channel.double_click_probability(0.5, matched=False) == pytest.approx(6.096e-4, rel=1e-5)


def test_dead_time_limits_the_rate_as_a_non_paralysable_detector():
    """theory.md 1.1: R = R0 / (1 + R0 tau), per slot with P(click) for R0 and the frame guards taken off."""
    light = LightParameters(10**9, 1e9, (0.5, 0.1), (0.7, 0.3), 0.9, 0.9)
    channel = Channel(FibreParameters(25.0), replace(LIM_2014, afterpulse_probability=0.0))
    rate = 0.7 * channel.click_probability(0.5) + 0.3 * channel.click_probability(0.1)
    clicks = sample(channel, light)
    frames = math.ceil(light.pulses / frame_slots(channel, light))
    mean = light.pulses * rate / (1 + 1000 * rate)
    # A guard is a dead time without a click; each of the frames loses less than one click by it.
    assert mean - frames - 4 * math.sqrt(mean) < len(clicks.slots) < mean + 4 * math.sqrt(mean)
    assert np.diff(clicks.slots).min() > 1000
    assert len(clicks.slots) < clicks_upper(channel, light)


def test_a_lone_click_is_followed_by_an_afterpulse_as_often_as_lim_2014_says():
    """Dark counts only, far between: p_ap of the clicks have a successor soon after, nearly always in one detector."""
    light = LightParameters(10**11, 1e9, (1e-9,), (1.0,), 0.5, 0.5)
    channel = Channel(FibreParameters(0.0), replace(LIM_2014, dark_count_probability=1e-7))
    clicks = sample(channel, light)
    after = np.flatnonzero(np.diff(clicks.slots) < 20_000)  # twenty decay times
    expected = len(clicks.slots) * (0.04 + 0.96 * 2e-7 * 19_000)
    assert_near(len(after), expected, len(clicks.slots))
    same = np.count_nonzero(clicks.patterns[after] == clicks.patterns[after + 1])
    assert same / len(after) > 0.9


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.44, 1.0])
def test_intercept_resend_of_a_fraction_adds_a_quarter_of_it_to_the_qber(fraction):
    """theory.md 3, row 1: Q = Q0 + (p/4)(1 - 2 Q0), in both bases, with unchanged gains."""
    light = LightParameters(4 * 10**7, 1e9, (0.5, 0.1), (0.7, 0.3), 0.6, 0.6)
    channel = Channel(FibreParameters(25.0, misalignment=0.02), IDEAL)
    clicks = sample(channel, light, InterceptResend(fraction))
    gain = 0.7 * channel.click_probability(0.5) + 0.3 * channel.click_probability(0.1)
    assert_near(len(clicks.slots), light.pulses * gain)
    q0 = channel.error_rate(0.5)
    for basis in (0, 1):
        rate, n = qber(clicks, light, basis)
        assert_near(rate * n, n * (q0 + fraction / 4 * (1 - 2 * q0)), n)


def test_intercept_resend_in_the_key_basis_shows_in_the_test_basis_only():
    """theory.md 3, row 2: why the bases are never pooled."""
    light = LightParameters(4 * 10**7, 1e9, (0.5,), (1.0,), 0.5, 0.5)
    channel = Channel(FibreParameters(25.0, misalignment=0.0), IDEAL)
    clicks = sample(channel, light, InterceptResend(1.0, z_probability=1.0))
    assert qber(clicks, light, 0)[0] < 1e-3
    rate, n = qber(clicks, light, 1)
    assert_near(rate * n, n / 2, n)


def test_eve_knows_half_of_the_sifted_bits_she_measured():
    """theory.md 3, row 1: p/2 bit for each sifted bit; the record is right where her basis was."""
    light = LightParameters(10**7, 1e9, (0.5,), (1.0,), 0.5, 0.5)
    clicks = sample(Channel(FibreParameters(10.0), IDEAL), light, InterceptResend(0.3))
    pulses, bases, matched = sifted(clicks, light)
    eve = clicks.eve
    assert eve is not None
    assert_near(eve.measured.sum(), 0.3 * len(clicks.slots), len(clicks.slots))
    known = matched & (eve.measured == 1) & (eve.bases == pulses.bases)
    assert_near(known.sum(), 0.15 * matched.sum(), matched.sum())
    assert (eve.bits[known] == pulses.bits[known]).all()
    guessed = (eve.measured == 1) & (eve.bases != pulses.bases)
    assert_near((eve.bits[guessed] == pulses.bits[guessed]).sum(), guessed.sum() / 2, guessed.sum())
    assert not eve.bits[eve.measured == 0].any()
    # The receiver reads her light: her bit in her basis (misalignment 0.5 %), whatever the transmitter sent.
    hers = guessed & (eve.bases == bases) & (clicks.patterns != 3)
    assert_near((eve.bits[hers] != clicks.patterns[hers] - 1).sum(), hers.sum() * 0.005, hers.sum())


def test_the_same_seeds_give_the_same_clicks_and_another_lab_seed_others():
    light = LightParameters(10**7, 1e9, (0.5, 0.1), (0.7, 0.3), 0.9, 0.9)
    channel = Channel(FibreParameters(25.0), LIM_2014)
    one, two, other = (sample(channel, light, lab_seed=s) for s in (3, 3, 4))
    assert one.slots.tolist() == two.slots.tolist()
    assert one.patterns.tolist() == two.patterns.tolist()
    assert one.slots.tolist() != other.slots.tolist()


@pytest.mark.parametrize("pulses", [1, 2, 999, 1001, 2**19 + 1])
def test_short_blocks_have_ascending_slots_inside_the_block(pulses):
    light = LightParameters(pulses, 1e9, (50.0,), (1.0,), 0.5, 0.5)
    channel = Channel(FibreParameters(0.0), replace(LIM_2014, efficiency=1.0))
    slots = sample(channel, light).slots
    assert (np.diff(slots) > 1000).all()
    assert ((slots >= 0) & (slots < pulses)).all()
    assert (len(slots) > 0) == (pulses > 1000)  # the guard of the first frame


def test_no_light_and_no_dark_counts_give_no_clicks():
    light = LightParameters(10**12, 1e9, (0.0,), (1.0,), 0.5, 0.5)
    channel = Channel(FibreParameters(0.0), DetectorParameters(0.1, 0.0, 0.5, 1e-6, 1e-6))
    assert len(sample(channel, light).slots) == 0


def test_the_default_link_runs_faster_than_real_time():
    """1e9 pulses at 1 GHz over 25 km are one second of link time."""
    light = LightParameters(10**9, 1e9, (0.5, 0.1), (0.7, 0.3), 0.9, 0.9)
    start = time.process_time()
    sample(Channel(FibreParameters(25.0), LIM_2014), light)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FibreParameters(-1.0), "distance_km"),
        (lambda: FibreParameters(math.nan), "distance_km"),
        (lambda: FibreParameters(1.0, misalignment=0.6), "misalignment"),
        (lambda: replace(LIM_2014, efficiency=0.0), "efficiency"),
        (lambda: replace(LIM_2014, dark_count_probability=1.0), "dark_count_probability"),
        (lambda: replace(LIM_2014, afterpulse_probability=math.nan), "afterpulse_probability"),
        (lambda: replace(LIM_2014, dead_time_s=-1e-9), "dead_time_s"),
        (lambda: InterceptResend(1.1), "fraction"),
    ],
)
def test_impossible_optics_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()
