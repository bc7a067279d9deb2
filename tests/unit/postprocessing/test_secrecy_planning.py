"""Planned blocks: honest ones pass, attacked ones do not, and the key behaves as theory says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliograph.errors import BlockDiscarded, ConfigurationError
from heliograph.kernels.expansion import SeededPulses, expand_bases
from heliograph.postprocessing.secrecy.acceptance import accept, precheck
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.link import LinkModel, fibre_link
from heliograph.postprocessing.secrecy.planning import Margin, expected_counts, light_for, plan_block
from heliograph.postprocessing.secrecy.table import LightChoice, entries, look_up, reach_db
from heliograph.sim.channel import Channel, FibreParameters
from heliograph.sim.clicks import sample_clicks
from heliograph.sim.detectors import LIM_2014
from heliograph.sim.randomness import lab_generator
from heliograph.types import IntensityCounts

LINK = fibre_link(25)
BOTH = pytest.mark.parametrize("decoys", [1, 2])


def key_rate(link, target, light, **kwargs):
    """Secret bits per pulse, 0 without a key."""
    try:
        plan = plan_block("x", link, target, light=light, **kwargs)
    except ConfigurationError:
        return 0.0
    return plan.secret_key_length / plan.light.pulses


def poisson(counts, rng):
    right = [int(rng.poisson(n - c)) for n, c in zip(counts.detections, counts.errors, strict=True)]
    wrong = [int(rng.poisson(c)) for c in counts.errors]
    return IntensityCounts(tuple(r + w for r, w in zip(right, wrong, strict=True)), tuple(wrong))


def accepted_share(plan, link, tries, seed, margin=None):
    rng = np.random.default_rng(seed)
    key_mean, test_mean = expected_counts(link, plan.light, margin)
    accepted = 0
    for _ in range(tries):
        key, test = poisson(key_mean, rng), poisson(test_mean, rng)
        charged = math.ceil(1.12 * sum(key.detections) * binary_entropy(key.error_rate)) + 200
        try:
            precheck(plan, key.detections, test)
            accept(plan, key, test, charged, asymmetric=False)
        except BlockDiscarded:
            continue
        accepted += 1
    return accepted / tries


@BOTH
@pytest.mark.parametrize(("km", "target"), [(25, 100_000), (0, 30_000), (75, 1_000_000)])
def test_honest_blocks_are_accepted_999_times_in_1000(km, target, decoys):
    link = fibre_link(km)
    plan = plan_block("honest", link, target, decoys=decoys)
    assert accepted_share(plan, link, 2000, seed=1) >= 0.999


def simulated_counts(plan, km, block):
    """Send one block through the simulated fibre and count."""
    pulses, basis_seed, dice = (
        SeededPulses(plan.light, bytes([block] * 32)),
        bytes([block + 100] * 32),
        lab_generator(block),
    )
    clicks = sample_clicks(Channel(FibreParameters(km), LIM_2014), pulses, basis_seed, dice)
    sent, measured = pulses.at(clicks.slots), expand_bases(basis_seed, clicks.slots, plan.light.receiver_z_probability)
    bits = np.where(clicks.patterns == 3, dice.integers(0, 2, len(clicks.slots)), clicks.patterns >> 1)
    counted = []
    for basis in (0, 1):
        kept = (sent.bases == basis) & (measured == basis)
        levels = len(plan.light.intensities)
        n = np.bincount(sent.intensities[kept], minlength=levels)
        c = np.bincount(sent.intensities[kept & (bits != sent.bits)], minlength=levels)
        counted.append(IntensityCounts(tuple(n.tolist()), tuple(c.tolist())))
    return counted


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("km", [25, 50])
def test_the_simulated_fibre_gives_what_was_planned_and_its_blocks_are_accepted(km, decoys):
    plan = plan_block("demo", fibre_link(km), 100_000, decoys=decoys)
    blocks = [simulated_counts(plan, km, i) for i in range(6)]
    for key, test in blocks:
        charged = math.ceil(1.12 * sum(key.detections) * binary_entropy(key.error_rate)) + 200
        accept(plan, key, test, charged, asymmetric=False)
    for basis, expected in enumerate(expected_counts(fibre_link(km), plan.light)):
        detections = sum(sum(block[basis].detections) for block in blocks)
        errors = sum(sum(block[basis].errors) for block in blocks)
        assert detections / 6 == pytest.approx(sum(expected.detections), rel=0.01)
        assert errors / detections == pytest.approx(expected.error_rate, rel=0.10)


@BOTH
def test_a_link_at_the_edge_of_its_tolerances_is_still_accepted(decoys):
    plan = plan_block("edge", LINK, 100_000, decoys=decoys)
    assert accepted_share(plan, LINK, 3000, seed=2, margin=Margin()) >= 0.999


@BOTH
def test_a_link_well_beyond_its_tolerances_is_discarded(decoys):
    plan = plan_block("beyond", LINK, 100_000, decoys=decoys)
    assert accepted_share(plan, replace(LINK, misalignment=0.02), 200, seed=3) == 0
    assert accepted_share(plan, replace(LINK, transmittance=LINK.transmittance / 2), 200, seed=4) == 0


@BOTH
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_intercept_resend_yields_no_key(fraction, decoys):
    plan = plan_block("attacked", LINK, 100_000, decoys=decoys)
    # theory.md 3, attack 1: Q = Q0 + p/4 (1 - 2 Q0), a channel of more misalignment
    worse = LINK.misalignment + fraction / 4 * (1 - 2 * LINK.misalignment)
    assert accepted_share(plan, replace(LINK, misalignment=worse), 200, seed=5) == 0


@BOTH
@pytest.mark.parametrize("target", [100_000, 1_000_000])
def test_the_expected_sifted_key_is_the_target(target, decoys):
    plan = plan_block("size", LINK, target, decoys=decoys)
    key, test = expected_counts(LINK, plan.light)
    assert sum(key.detections) + sum(test.detections) == pytest.approx(target, rel=1e-4)
    assert sum(key.detections) < plan.acceptance.sifted_bits_max < target


@BOTH
def test_25_km_gives_a_usable_key_from_100_000_sifted_bits(decoys):
    plan = plan_block("demo", LINK, 100_000, decoys=decoys)
    assert plan.secret_key_length >= 8000
    assert plan.light.pulses / plan.light.clock_hz < 1.0, "a key within seconds"


@pytest.mark.parametrize("decay_s", [0.0, 1e-6])
def test_the_model_agrees_with_a_click_by_click_simulation_of_dead_time_and_afterpulses(decay_s):
    link = replace(LINK, clock_hz=1e9, dead_time_s=1e-6, dark_count_probability=1e-5, afterpulse_decay_s=decay_s)
    rng = np.random.default_rng(8)
    intensities, probabilities = (0.1, 0.02), (0.6, 0.4)
    clean = replace(link, afterpulse_probability=0.0, dead_time_s=0.0).yields(intensities, probabilities)
    clicks, dead_slots = 200_000, 1000
    gaps = rng.geometric(clean.mean, clicks) - 1
    delays = (decay_s * link.clock_hz * rng.standard_exponential(clicks)).astype(int)
    filled = rng.random(clicks) < link.afterpulse_probability
    after = np.zeros(clicks, dtype=bool)
    now, release = 0, math.inf
    for i in range(clicks):
        # live again at ``now``: light or a dark count, or a trap's release if it is not past and comes first
        release = release if release >= now else math.inf
        after[i] = release < now + gaps[i]
        now = (release if after[i] else now + int(gaps[i])) + 1 + dead_slots
        release = now + int(delays[i]) if filled[i] else release
    wrong_light = np.dot(clean.errors, probabilities) / clean.mean
    errors = np.where(after, rng.random(clicks) < 0.5, rng.random(clicks) < wrong_light)
    got = link.yields(intensities, probabilities)
    assert got.mean == pytest.approx(clicks / now, rel=0.003)
    assert np.dot(got.detections, probabilities) == pytest.approx(got.mean)
    assert np.dot(got.errors, probabilities) / got.mean == pytest.approx(errors.mean(), rel=0.03)


def test_the_default_link_has_the_simulated_detectors_and_fibre():
    fibre = FibreParameters(distance_km=25)
    assert LINK.transmittance == pytest.approx(fibre.transmittance * LIM_2014.efficiency)
    assert LINK.misalignment == fibre.misalignment
    for name in ("dark_count_probability", "afterpulse_probability", "dead_time_s", "afterpulse_decay_s"):
        assert getattr(LINK, name) == getattr(LIM_2014, name), name


def test_the_gains_are_the_union_of_two_threshold_detectors():
    link = LinkModel(1e9, 0.05, 6e-7, 0.01, 0.0, 0.0)
    got = link.yields((0.4,), (1.0,))
    assert got.mean == pytest.approx(1 - (1 - 6e-7) ** 2 * math.exp(-0.05 * 0.4), rel=1e-9)
    dark = LinkModel(1e9, 1e-30, 0.01, 0.0, 0.0, 0.0).yields((0.4,), (1.0,))
    assert dark.errors[0] / dark.mean == pytest.approx(0.5)


LIGHT = LightChoice(0.2, 0.05, 0.2, 0.7)
TWO_DECOYS = LightChoice(0.3, 0.08, 0.1, 0.7, decoy_probability=0.5, weakest=2e-4)
EITHER = pytest.mark.parametrize("light", [LIGHT, TWO_DECOYS], ids=["one decoy", "two decoys"])


@EITHER
@settings(max_examples=40, deadline=None)
@given(km=st.floats(0, 120), more_km=st.floats(2, 30), target=st.sampled_from([200_000, 10**6, 10**7]))
def test_the_key_rate_falls_with_loss(light, km, more_km, target):
    near, far = (key_rate(fibre_link(d), target, light) for d in (km, km + more_km))
    assert far < near or far == near == 0


@EITHER
@settings(max_examples=40, deadline=None)
@given(e=st.floats(0, 0.06), more=st.floats(0.002, 0.05))
def test_the_key_rate_falls_with_the_error_rate_and_ends(light, e, more):
    clean, noisy = (key_rate(replace(LINK, misalignment=x), 10**6, light) for x in (e, e + more))
    assert noisy < clean or noisy == clean == 0
    assert key_rate(replace(LINK, misalignment=0.11), 10**6, light) == 0


@EITHER
@settings(max_examples=40, deadline=None)
@given(target=st.integers(30_000, 10**7), factor=st.floats(0.3, 0.95))
def test_smaller_blocks_earn_less_for_each_pulse(light, target, factor):
    large, small = (key_rate(LINK, t, light) for t in (target, int(target * factor)))
    assert small < large or small == large == 0


@EITHER
@settings(max_examples=40, deadline=None)
@given(eps=st.floats(1e-25, 1e-8), factor=st.floats(1e-6, 0.1))
def test_smaller_epsilons_earn_less(light, eps, factor):
    easy = key_rate(LINK, 10**6, light, eps_sec=eps, eps_cor=1e-15)
    hard = key_rate(LINK, 10**6, light, eps_sec=eps * factor, eps_cor=1e-15)
    assert 0 < hard < easy
    assert key_rate(LINK, 10**6, light, eps_cor=eps * factor) < key_rate(LINK, 10**6, light, eps_cor=eps)


def test_a_very_long_block_tends_to_the_asymptotic_rate():
    link = LinkModel(1e9, 0.1, 0.0, 0.01, 0.0, 0.0)
    mu, nu, p, z = 0.2, 0.02, 0.9, 0.9
    none = Margin(sigmas=0, qber=0, detections=0, efficiency=1.15, constant_bits=0)
    plan = plan_block("endless", link, 3 * 10**12, light=LightChoice(mu, nu, p, z), margin=none)
    # per key-basis detection: single photons' share, less vacuum (at most twice the decoy's errors), times (1-h(e1))
    gains, wrong = ([f(k) for k in (mu, nu)] for f in (
        lambda k: 1 - math.exp(-0.1 * k),
        lambda k: (1 - math.exp(-0.1 * k)) * 0.01,
    ))  # fmt: skip
    y0 = 2 * wrong[1] * math.exp(nu)
    y1 = mu / (nu * (mu - nu)) * (
        gains[1] * math.exp(nu) - (nu / mu) ** 2 * gains[0] * math.exp(mu) - (mu**2 - nu**2) / mu**2 * y0
    )  # fmt: skip
    e1 = (wrong[0] * math.exp(mu) - wrong[1] * math.exp(nu)) / (mu - nu) / y1
    share = (p * mu * math.exp(-mu) + (1 - p) * nu * math.exp(-nu)) * y1 / (p * gains[0] + (1 - p) * gains[1])
    want = share * (1 - binary_entropy(e1)) - 1.15 * binary_entropy(0.01)
    n = sum(expected_counts(link, plan.light)[0].detections)
    assert plan.secret_key_length / n == pytest.approx(want, rel=0.02)
    assert plan.secret_key_length / n < want
    # the ideal limit with infinitely many decoys is above it: s1/n (1 - h(e)) - f h(e)
    ideal = (p * mu * math.exp(-mu) + (1 - p) * nu * math.exp(-nu)) * 0.1 / (p * gains[0] + (1 - p) * gains[1])
    assert want < ideal * (1 - binary_entropy(0.01)) - 1.15 * binary_entropy(0.01)


@BOTH
def test_every_entry_of_the_table_gives_the_key_it_states(decoys):
    assert {e.target_bits for e in entries(decoys)} >= {100_000, 1_000_000}
    for entry in entries(decoys):
        assert entry.light.decoys == decoys
        link = replace(fibre_link(), transmittance=10 ** (-entry.loss_db / 10))
        plan = plan_block("entry", link, entry.target_bits, decoys=decoys)
        assert (plan.light.pulses, plan.secret_key_length) == (entry.pulses, entry.secret_key_length)


@BOTH
def test_the_tables_key_rate_falls_with_loss_and_grows_with_the_block(decoys):
    rate = {(e.target_bits, e.loss_db): e.secret_key_length / e.pulses for e in entries(decoys)}
    sizes = sorted({size for size, _ in rate})
    for size in sizes:
        column = [rate[key] for key in sorted(rate) if key[0] == size]
        assert column == sorted(column, reverse=True)
    for loss in sorted({loss for _, loss in rate}):
        row = [rate[s, loss] for s in sizes if (s, loss) in rate]
        assert row == sorted(row)


@pytest.mark.parametrize("km", [0, 7, 19.3, 25, 33, 51.1, 68, 74])
@pytest.mark.parametrize("target", [100_000, 137_000, 600_000, 3_000_000])
@BOTH
def test_links_between_the_tables_losses_and_sizes_get_a_key(km, target, decoys):
    assert plan_block("between", fibre_link(km), target, decoys=decoys).secret_key_length > 1000


def test_the_table_is_read_at_the_nearest_size_and_loss():
    found = look_up(170_000, 16.1)
    assert (found.target_bits, found.loss_db) == (100_000, 15.0)
    assert look_up(10, 500.0).loss_db == reach_db(10)


@BOTH
@pytest.mark.parametrize(("km", "target"), [(25, 10_000), (75, 30_000), (250, 100_000)])
def test_a_link_out_of_reach_is_refused_with_the_reach_named(km, target, decoys):
    with pytest.raises(ConfigurationError, match=rf"{target} sifted bits.*reach {reach_db(target, decoys):g} dB"):
        plan_block("far", fibre_link(km), target, decoys=decoys)


@pytest.mark.parametrize(
    "margin",
    [
        {"sigmas": -1.0},
        {"qber": -0.1},
        {"detections": 1.0},
        {"efficiency": 0.9},
        {"constant_bits": -1},
        {"qber": math.nan},
    ],
)
def test_a_margin_that_cannot_be_is_refused(margin):
    with pytest.raises(ConfigurationError, match=next(iter(margin))):
        Margin(**margin)


def test_impossible_plans_are_refused_in_one_line():
    with pytest.raises(ConfigurationError, match="target_bits"):
        plan_block("none", LINK, 0)
    with pytest.raises(ConfigurationError, match="pulses"):
        light_for(replace(LINK, transmittance=1e-12, dark_count_probability=0.0), 10**7, LIGHT)
    with pytest.raises(ConfigurationError, match="intensities"):
        plan_block("upside down", LINK, 100_000, light=LightChoice(0.1, 0.4, 0.5, 0.5))
    with pytest.raises(ConfigurationError, match="probabilities"):
        plan_block("more than all", LINK, 100_000, light=replace(TWO_DECOYS, decoy_probability=0.95))
    with pytest.raises(ConfigurationError, match="belong together"):
        replace(TWO_DECOYS, weakest=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transmittance", 0.0),
        ("transmittance", 1.1),
        ("transmittance", math.nan),
        ("dark_count_probability", -1e-9),
        ("misalignment", 0.6),
        ("afterpulse_probability", 1.0),
        ("dead_time_s", -1.0),
        ("afterpulse_decay_s", math.nan),
        ("clock_hz", 0.0),
        ("clock_hz", math.inf),
    ],
)
def test_a_link_that_cannot_be_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=name):
        replace(LINK, **{name: value})
