"""The bound of Wiesemann et al. 2024: its value, its soundness against any channel, and its edges."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from counting_models import EVES_CHOICES, chosen_by_eve
from hypothesis import given
from hypothesis import strategies as st

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy.concentration import hoeffding, serfling
from heliograph.postprocessing.secrecy.entropy import binary_entropy
from heliograph.postprocessing.secrecy.wiesemann2024 import bounds, check_light, secret_key_length
from heliograph.types import IntensityCounts, LightParameters

EPS = 1e-15


def light(intensities=(0.4, 0.1), probabilities=(0.7, 0.3)):
    return LightParameters(
        pulses=10**9,
        clock_hz=1e9,
        intensities=intensities,
        intensity_probabilities=probabilities,
        transmitter_z_probability=0.8,
        receiver_z_probability=0.8,
    )


KEY = IntensityCounts((9_000_000, 1_000_000), (90_000, 12_000))
TEST = IntensityCounts((900_000, 100_000), (9_000, 1_200))


def by_hand(key, test, source, eps_sec):
    """Derive the same quantities in 40-digit arithmetic, from p(k | n photons) as Bayes' rule gives it."""
    getcontext().prec = 40
    mu, nu, p1, p2, eps = (Decimal(str(x)) for x in (*source[0], *source[1], eps_sec))
    ln = (15 / eps).ln()

    def p_photons(k, n):
        return (-k).exp() * k**n / math.factorial(n)

    def tau(n):
        return p1 * p_photons(mu, n) + p2 * p_photons(nu, n)

    def given(k, p, n):  # chance that a pulse of n photons was of intensity k
        return p * p_photons(k, n) / tau(n)

    def dev(n):
        return (Decimal(n) * ln / 2).sqrt()

    def events(counts):
        n, c = sum(counts.detections), sum(counts.errors)
        s0 = min(Decimal(n), 2 * (min(Decimal(c), counts.errors[1] + dev(c)) / given(nu, p2, 0) + dev(n)))
        n2 = max(Decimal(0), counts.detections[1] - dev(n))
        n1 = min(Decimal(n), counts.detections[0] + dev(n))
        # n_k = sum over photon numbers of p(k|m) s_m; take n2 minus so much of n1 that two photons cancel
        ratio = given(nu, p2, 2) / given(mu, p1, 2)
        left = n2 - ratio * n1 - s0 * (given(nu, p2, 0) - ratio * given(mu, p1, 0))
        s1 = left / (given(nu, p2, 1) - ratio * given(mu, p1, 1))
        return s0, s1

    s0, s1 = events(key)
    s0_test, s1_test = events(test)
    c = sum(test.errors)
    v1 = (
        tau(1)
        / (mu - nu)
        * (mu.exp() / p1 * min(Decimal(c), test.errors[0] + dev(c)) - nu.exp() / p2 * (test.errors[1] - dev(c)))
    )
    g = ((s1 + s1_test) / (s1 * s1_test) * (s1_test + 1) / s1_test * ln).sqrt()
    return [float(x) for x in (s0, s0_test, s1, s1_test, v1, g, v1 / s1_test + g)]


def test_the_terms_equal_a_slow_derivation_from_bayes_rule():
    got = bounds(KEY, TEST, light(), EPS)
    want = by_hand(KEY, TEST, ((0.4, 0.1), (0.7, 0.3)), EPS)
    fields = ("s0_upper", "s0_test_upper", "s1_lower", "s1_test_lower", "v1_upper", "serfling", "phase_error_upper")
    assert [getattr(got, f) for f in fields] == pytest.approx(want, rel=1e-11)
    assert 0 < got.phase_error_upper < 0.5, "the example must not sit at a clamp"
    assert 0 < got.s1_test_lower < 1_000_000


def test_the_deviations_by_hand():
    # n = 200, eps = e^-4: sqrt(200/2 * 4) = 20
    assert hoeffding(200, 4.0) == pytest.approx(20)
    assert hoeffding(0, 4.0) == 0
    # c = 6, d = 3, ln = 4: (9/18) * (4/3) * 4 = 8/3
    assert serfling(6, 3, 4.0) == pytest.approx(math.sqrt(8 / 3))
    assert binary_entropy(0.11002786) == pytest.approx(0.5, abs=1e-6)  # Shor-Preskill, theory.md 1.2


def test_the_length_by_hand():
    # 1 + 15 log2(10) = 50.8289; 4 (log2(15) + 15 log2(10) - 1/4) = 213.9432
    log = math.log2(10)
    want = 1000 - 100 - (1 + 15 * log) - 4 * (math.log2(15) + 15 * log - 0.25)
    assert secret_key_length(1000, 0.0, 100, 1e-15, 1e-15) == pytest.approx(want, abs=1e-9)
    assert want == pytest.approx(635.228, abs=1e-3)
    half = secret_key_length(1000, 0.5, 0, 1e-15, 1e-15)
    assert half == pytest.approx(want - 900)


@given(
    s1=st.floats(0, 1e9), phase=st.floats(0, 0.5), disclosed=st.integers(0, 10**9), eps=st.floats(1e-30, 1e-3),
    more=st.floats(1e-3, 1),
)  # fmt: skip
def test_the_length_falls_with_errors_disclosure_and_smaller_epsilons(s1, phase, disclosed, eps, more):
    base = secret_key_length(s1, phase, disclosed, eps, eps)
    assert math.isfinite(base)
    assert secret_key_length(s1 * (1 - more / 2), phase, disclosed, eps, eps) <= base
    assert secret_key_length(s1, phase + (0.5 - phase) * more, disclosed, eps, eps) <= base
    assert secret_key_length(s1, phase, disclosed + 1, eps, eps) < base + 1e-6
    assert secret_key_length(s1, phase, disclosed, eps * 0.1, eps) < base
    assert secret_key_length(s1, phase, disclosed, eps, eps * 0.1) < base


pairs = st.tuples(st.integers(0, 10**12), st.floats(0, 1)).map(lambda t: (t[0], int(t[0] * t[1])))
counts = st.tuples(pairs, pairs).map(lambda t: IntensityCounts((t[0][0], t[1][0]), (t[0][1], t[1][1])))


@given(
    key=counts, test=counts, decoy=st.floats(1e-6, 9), gap=st.floats(2e-6, 0.99), p=st.floats(1e-6, 1 - 1e-6),
    eps=st.floats(min_value=5e-324, max_value=0.999),
)  # fmt: skip
def test_every_term_is_finite_and_in_range_for_any_counts(key, test, *, decoy, gap, p, eps):
    terms = bounds(key, test, light((decoy + gap, decoy), (p, 1 - p)), eps)
    assert 0 <= terms.s0_upper <= sum(key.detections)
    assert 0 <= terms.s1_lower <= sum(key.detections)
    assert 0 <= terms.s1_test_lower <= sum(test.detections)
    assert 0 <= terms.v1_upper <= sum(test.detections)
    assert 0 < terms.serfling < math.inf
    assert 0 <= terms.phase_error_upper <= 0.5
    assert math.isfinite(secret_key_length(terms.s1_lower, terms.phase_error_upper, 0, 1e-15, 1e-15))


def test_without_any_count_nothing_is_known():
    none = IntensityCounts((0, 0), (0, 0))
    terms = bounds(none, none, light(), EPS)
    assert (terms.s1_lower, terms.phase_error_upper) == (0, 0.5)
    assert bounds(KEY, none, light(), EPS).phase_error_upper == 0.5
    assert bounds(none, TEST, light(), EPS).phase_error_upper == 0.5


def detections_under(yields, errors, pulses, source, rng):
    """Draw one basis: photon numbers, Eve's yield and error rate for each, then the intensities by Bayes' rule."""
    photons = np.arange(len(yields))
    factorials = np.array([math.factorial(n) for n in photons], dtype=float)
    joint = np.array(
        [p * math.exp(-k) * k**photons / factorials for k, p in zip(*source, strict=True)]
    )  # (intensity, n)
    tau = joint.sum(axis=0)
    seen = rng.binomial(pulses, tau * yields)
    wrong = rng.binomial(seen, errors)
    signal_wrong = rng.binomial(wrong, joint[0] / tau)
    signal_right = rng.binomial(seen - wrong, joint[0] / tau)
    n_signal, c_signal = int((signal_wrong + signal_right).sum()), int(signal_wrong.sum())
    n, c = int(seen.sum()), int(wrong.sum())
    return IntensityCounts((n_signal, n - n_signal), (c_signal, c - c_signal)), int(seen[1]), int(wrong[1])


@pytest.mark.parametrize("attack", EVES_CHOICES)
def test_the_bounds_hold_for_any_yields_an_eavesdropper_chooses(attack):
    source = ((0.4, 0.1), (0.6, 0.4))
    rng = np.random.default_rng(7)
    for _ in range(150):
        yields, errors = chosen_by_eve(attack, 12, 1e-6, rng)
        key, s1, _ = detections_under(yields, errors, 10**9, source, rng)
        test, s1_test, v1 = detections_under(yields, errors, 10**8, source, rng)
        terms = bounds(key, test, light(*source), EPS)
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


def test_photon_number_splitting_lowers_the_single_photon_bound_at_equal_gain():
    source = ((0.4, 0.1), (0.6, 0.4))
    rng = np.random.default_rng(11)
    photons = np.arange(12)
    errors = np.concatenate([[0.5], np.full(11, 0.01)])
    honest = 1 - (1 - 0.05) ** photons
    key, _, _ = detections_under(honest, errors, 10**9, source, rng)
    # Eve blocks single photons and passes as many multi-photon pulses as keep the signal's gain
    gain = 1 - math.exp(-0.4 * 0.05)
    multi = 1 - math.exp(-0.4) * 1.4
    split, _, _ = detections_under(np.where(photons >= 2, gain / multi, 0.0), errors, 10**9, source, rng)
    assert split.detections[0] == pytest.approx(key.detections[0], rel=0.01)
    assert bounds(key, TEST, light(*source), EPS).s1_lower > 0.5 * sum(key.detections)
    assert bounds(split, TEST, light(*source), EPS).s1_lower == 0


@pytest.mark.parametrize(
    ("intensities", "probabilities"),
    [
        ((0.4, 0.1, 0.0), (0.5, 0.3, 0.2)),
        ((0.4,), (1.0,)),
        ((0.4, 0.0), (0.5, 0.5)),
        ((0.4, 0.4 - 1e-9), (0.5, 0.5)),
        ((800.0, 0.1), (0.5, 0.5)),
        ((0.4, 0.1), (1 - 1e-9, 1e-9)),
    ],
)
def test_light_that_the_bound_cannot_judge_is_refused(intensities, probabilities):
    with pytest.raises(ConfigurationError, match="intensit"):
        check_light(light(intensities, probabilities))


@pytest.mark.parametrize("eps", [0.0, 1.0, -1e-9, math.nan])
def test_an_epsilon_that_is_no_probability_is_refused(eps):
    with pytest.raises(ValueError, match="eps_sec"):
        bounds(KEY, TEST, light(), eps)
    with pytest.raises(ValueError, match="eps_sec"):
        secret_key_length(100, 0.1, 0, eps, 1e-15)


@pytest.mark.parametrize(
    ("s1", "phase", "disclosed", "reason"),
    [
        (-1, 0.1, 0, "single-photon"),
        (math.nan, 0.1, 0, "single-photon"),
        (1, 0.51, 0, "phase_error"),
        (1, 0.1, -1, "disclosed"),
    ],
)
def test_impossible_inputs_to_the_length_are_refused(s1, phase, disclosed, reason):
    with pytest.raises(ValueError, match=reason):
        secret_key_length(s1, phase, disclosed, 1e-15, 1e-15)
