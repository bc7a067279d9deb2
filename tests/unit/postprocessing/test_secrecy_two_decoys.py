"""Two decoys under the fixed policy: equal to a slow derivation, sound against any channel, and its edges."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from counting_models import EVES_CHOICES, chosen_by_eve, drawn
from hypothesis import given
from hypothesis import strategies as st

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy import lim2014
from heliograph.postprocessing.secrecy.lim2014_serfling import bounds, check_light, secret_key_length
from heliograph.postprocessing.secrecy.photons import WeakPulses
from heliograph.types import IntensityCounts, LightParameters

EPS = 1e-15
SOURCE = ((0.4, 0.1, 2e-4), (0.1, 0.5, 0.4))
KEY = IntensityCounts((4_000_000, 5_000_000, 90_000), (40_000, 52_000, 44_000))
TEST = IntensityCounts((400_000, 500_000, 9_000), (4_000, 5_200, 4_400))


def light(intensities=SOURCE[0], probabilities=SOURCE[1]):
    return LightParameters(10**9, 1e9, intensities, probabilities, 0.8, 0.8)


def by_hand(key, test, source, eps_sec):
    """Solve n_k = sum_m p(k|m) s_m for s_0 and s_1 in 40 digits; p(k|m) by Bayes' rule, each count at its worst end."""
    getcontext().prec = 40
    mu = [Decimal(str(k)) for k in source[0]]
    share = [Decimal(str(p)) for p in source[1]]
    ln = (21 / Decimal(str(eps_sec))).ln()

    def photons(i, m):
        return (-mu[i]).exp() * mu[i] ** m / math.factorial(m)

    def tau(m):
        return sum(p * photons(i, m) for i, p in enumerate(share))

    def p(i, m):
        return share[i] * photons(i, m) / tau(m)

    def ends(counts):
        d = (Decimal(sum(counts)) * ln / 2).sqrt()
        return [x - d for x in counts], [x + d for x in counts]

    def events(counts):
        low, up = ends(counts.detections)
        # vacuum: so much of the weakest against the first decoy that single photons cancel, more photons only help
        a = p(1, 1) / p(2, 1)
        s0 = max(Decimal(0), (a * low[2] - up[1]) / (a * p(2, 0) - p(1, 0)))
        # single photons: the decoys without vacuum, then so much of the signal, less its vacuum, that pairs cancel
        v = p(1, 0) / p(2, 0)
        pairs = (p(1, 2) - v * p(2, 2)) / p(0, 2)
        left = low[1] - v * up[2] - pairs * (up[0] - p(0, 0) * s0)
        return s0, left / (p(1, 1) - v * p(2, 1) - pairs * p(0, 1))

    s0, s1 = events(key)
    s0_test, s1_test = events(test)
    low, up = ends(test.errors)
    v = p(1, 0) / p(2, 0)
    v1 = (up[1] - v * low[2]) / (p(1, 1) - v * p(2, 1))
    g = ((s1 + s1_test) / (s1 * s1_test) * (s1_test + 1) / s1_test * ln).sqrt()
    return [float(x) for x in (s0, s0_test, s1, s1_test, v1, g, v1 / s1_test + g)]


def test_the_terms_equal_a_slow_derivation_from_bayes_rule():
    got = bounds(KEY, TEST, light(), EPS)
    want = by_hand(KEY, TEST, SOURCE, EPS)
    fields = ("s0_lower", "s0_test_lower", "s1_lower", "s1_test_lower", "v1_upper", "serfling", "phase_error_upper")
    assert [getattr(got, f) for f in fields] == pytest.approx(want, rel=1e-9)
    assert got.s0_lower > 0
    assert got.s0_test_lower > 0
    assert 0 < got.phase_error_upper < 0.5, "the example must not sit at a clamp"
    assert 0 < got.s1_test_lower < sum(TEST.detections)


def test_the_length_by_hand():
    # 6 (log2(21) + 15 log2(10)) = 325.3274; 1 + 15 log2(10) = 50.8289
    log = math.log2(10)
    want = 1000 - 100 - (1 + 15 * log) - 6 * (math.log2(21) + 15 * log)
    assert secret_key_length(1000, 0.0, 100, 1e-15, 1e-15) == pytest.approx(want, abs=1e-9)
    assert want == pytest.approx(523.844, abs=1e-3)
    assert secret_key_length(1000, 0.5, 0, 1e-15, 1e-15) == pytest.approx(want - 900)


def test_vacuum_events_earn_nothing_where_the_paper_credits_them():
    terms = bounds(KEY, TEST, light(), EPS)
    assert terms.s0_lower > 0
    paper = lim2014.secret_key_length(terms.s0_lower, terms.s1_lower, terms.phase_error_upper, 0, EPS, EPS)
    ours = secret_key_length(terms.s1_lower, terms.phase_error_upper, 0, EPS, EPS)
    assert paper - ours == pytest.approx(terms.s0_lower)


def test_only_the_sampling_term_differs_from_the_papers_terms():
    ours, paper = bounds(KEY, TEST, light(), EPS), lim2014.bounds(KEY, TEST, WeakPulses(*SOURCE), EPS)
    for name in ("s0_lower", "s0_test_lower", "s1_lower", "s1_test_lower", "v1_upper"):
        assert getattr(ours, name) == getattr(paper, name), name
    assert ours.serfling > paper.gamma, "with few errors Serfling's bound is the wider: a rate near zero earns nothing"
    assert ours.phase_error_upper == pytest.approx(paper.phase_error_upper - paper.gamma + ours.serfling)


def test_without_test_basis_errors_the_sampling_term_stays():
    silent = IntensityCounts(TEST.detections, (0, 0, 0))
    terms = bounds(KEY, silent, light(), EPS)
    assert terms.v1_upper == 0
    assert terms.phase_error_upper == terms.serfling > 0


triples = st.lists(st.tuples(st.integers(0, 10**12), st.floats(0, 1)), min_size=3, max_size=3)
counts = triples.map(lambda t: IntensityCounts(tuple(n for n, _ in t), tuple(int(n * e) for n, e in t)))


@given(
    key=counts, test=counts, weakest=st.floats(0, 1), first=st.floats(2e-6, 2), gap=st.floats(2e-6, 2),
    p=st.tuples(st.floats(1e-3, 1), st.floats(1e-3, 1), st.floats(1e-3, 1)),
    eps=st.floats(min_value=5e-324, max_value=0.999),
)  # fmt: skip
def test_every_term_is_finite_and_in_range_for_any_counts(key, test, *, weakest, first, gap, p, eps):
    decoy = weakest + first
    probabilities = tuple(x / math.fsum(p) for x in p)
    terms = bounds(key, test, light((decoy + weakest + gap, decoy, weakest), probabilities), eps)
    assert 0 <= terms.s0_lower <= sum(key.detections)
    assert 0 <= terms.s1_lower <= sum(key.detections)
    assert 0 <= terms.s1_test_lower <= sum(test.detections)
    assert 0 <= terms.v1_upper < math.inf
    assert 0 < terms.serfling < math.inf
    assert 0 <= terms.phase_error_upper <= 0.5
    assert math.isfinite(secret_key_length(terms.s1_lower, terms.phase_error_upper, 0, 1e-15, 1e-15))


@given(
    s1=st.floats(0, 1e9), phase=st.floats(0, 0.5), disclosed=st.integers(0, 10**9), eps=st.floats(1e-30, 1e-3),
    more=st.floats(1e-3, 1),
)  # fmt: skip
def test_the_length_falls_with_errors_disclosure_and_smaller_epsilons(s1, phase, disclosed, eps, more):
    base = secret_key_length(s1, phase, disclosed, eps, eps)
    assert secret_key_length(s1 * (1 - more / 2), phase, disclosed, eps, eps) <= base
    assert secret_key_length(s1, phase + (0.5 - phase) * more, disclosed, eps, eps) <= base
    assert secret_key_length(s1, phase, disclosed + 1, eps, eps) < base + 1e-6
    assert secret_key_length(s1, phase, disclosed, eps * 0.1, eps) < base
    assert secret_key_length(s1, phase, disclosed, eps, eps * 0.1) < base


def test_without_any_count_nothing_is_known():
    none = IntensityCounts((0, 0, 0), (0, 0, 0))
    terms = bounds(none, none, light(), EPS)
    assert (terms.s1_lower, terms.phase_error_upper) == (0, 0.5)
    assert bounds(KEY, none, light(), EPS).phase_error_upper == 0.5
    assert bounds(none, TEST, light(), EPS).phase_error_upper == 0.5


@pytest.mark.parametrize("weakest", [2e-4, 0.0])
@pytest.mark.parametrize("attack", EVES_CHOICES)
def test_the_bounds_hold_for_any_yields_an_eavesdropper_chooses(attack, weakest):
    source = WeakPulses((0.4, 0.1, weakest), (0.1, 0.5, 0.4))
    rng = np.random.default_rng(7)
    for _ in range(150):
        yields, errors = chosen_by_eve(attack, 12, 1e-6, rng)
        key, s0, s1, _ = drawn(yields, errors, 10**9, source, rng)
        test, _, s1_test, v1 = drawn(yields, errors, 10**8, source, rng)
        terms = bounds(key, test, light(source.intensities, source.probabilities), EPS)
        assert terms.s0_lower <= s0
        assert terms.s1_lower <= s1
        assert terms.s1_test_lower <= s1_test
        assert terms.v1_upper >= v1 or terms.s1_test_lower == 0
        if s1_test:
            assert terms.phase_error_upper >= min(0.5, v1 / s1_test)
        if attack == "honest":
            assert terms.s1_lower > 0.85 * s1, "a bound that says nothing would also be sound"
            assert terms.phase_error_upper < 0.05
        if attack == "blocks single photons":
            assert (terms.s1_lower, terms.phase_error_upper) == (0, 0.5)


@given(
    yields=st.lists(st.floats(0, 1), min_size=9, max_size=9),
    errors=st.lists(st.floats(0, 1), min_size=9, max_size=9),
    weakest=st.sampled_from([0.0, 2e-4, 0.01]),
)
def test_with_next_to_no_fluctuation_the_bounds_still_stay_on_the_safe_side(yields, errors, weakest):
    """At 10^17 pulses the deviations are below 1e-7 of the counts: a wrong factor has nothing to hide behind."""
    source = WeakPulses((0.4, 0.1, weakest), (0.1, 0.5, 0.4))
    pulses = 10**17
    joint = [
        [p * math.exp(-k) * k**m / math.factorial(m) for m in range(9)]
        for k, p in zip(source.intensities, source.probabilities, strict=True)
    ]
    n = tuple(round(pulses * math.fsum(a * y for a, y in zip(row, yields, strict=True))) for row in joint)
    wrong = [y * e for y, e in zip(yields, errors, strict=True)]
    c = tuple(round(pulses * math.fsum(a * x for a, x in zip(row, wrong, strict=True))) for row in joint)
    counts = IntensityCounts(n, tuple(min(pair) for pair in zip(n, c, strict=True)))
    terms = bounds(counts, counts, light(source.intensities, source.probabilities), 0.9)
    s0, s1 = (pulses * source.tau(m) * yields[m] for m in (0, 1))
    assert terms.s0_lower <= s0 * (1 + 1e-9) + 1
    assert terms.s1_lower <= s1 * (1 + 1e-9) + 1
    if terms.s1_lower:
        assert terms.v1_upper >= s1 * errors[1] * (1 - 1e-9) - 1
        assert terms.phase_error_upper >= min(0.5, errors[1]) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("intensities", "probabilities"),
    [
        ((0.4, 0.1), (0.7, 0.3)),
        ((0.4, 0.3, 0.2, 0.1), (0.4, 0.3, 0.2, 0.1)),
        ((0.4, 0.3, 0.1), (0.5, 0.3, 0.2)),
        ((0.4, 0.3, 0.2), (0.5, 0.3, 0.2)),
        ((0.4, 0.1, 0.1 - 1e-9), (0.5, 0.3, 0.2)),
        ((800.0, 0.1, 0.0), (0.5, 0.3, 0.2)),
        ((0.4, 0.1, 0.0), (0.5, 0.5 - 1e-9, 1e-9)),
    ],
)
def test_light_that_the_bound_cannot_judge_is_refused(intensities, probabilities):
    with pytest.raises(ConfigurationError, match=r"intensities|probabilities"):
        check_light(light(intensities, probabilities))
    with pytest.raises(ConfigurationError, match=r"intensities|probabilities"):
        bounds(KEY, TEST, light(intensities, probabilities), EPS)


def test_counts_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="three"):
        bounds(IntensityCounts((1, 1), (0, 0)), TEST, light(), EPS)


@pytest.mark.parametrize("eps", [0.0, 1.0, -1e-9, math.nan])
def test_an_epsilon_that_is_no_probability_is_refused(eps):
    with pytest.raises(ValueError, match="eps_sec"):
        bounds(KEY, TEST, light(), eps)
    with pytest.raises(ValueError, match="eps_sec"):
        secret_key_length(100, 0.1, 0, eps, 1e-15)


@pytest.mark.parametrize(
    ("s1", "phase", "disclosed", "reason"),
    [(-1, 0.1, 0, "single"), (math.nan, 0.1, 0, "single"), (1, 0.51, 0, "phase_error"), (1, 0.1, -1, "disclosed")],
)
def test_impossible_inputs_to_the_length_are_refused(s1, phase, disclosed, reason):
    with pytest.raises(ValueError, match=reason):
        secret_key_length(s1, phase, disclosed, 1e-15, 1e-15)
