"""Concentration bounds: the printed figures, their own definitions done slowly, and exact tails."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binom, hypergeom

from heliograph.postprocessing.secrecy.concentration import (
    chernoff_lower,
    chernoff_upper,
    fung_ma_chau,
    hoeffding,
    kato,
    kato_slope,
    serfling,
    yin_sampling,
)
from heliograph.postprocessing.secrecy.count_bounds import (
    Bound,
    Method,
    Prediction,
    bound_counts,
    mean_of_coin_flips,
)

LN_12 = math.log(1e12)
LN_10 = math.log(1e10)


@pytest.mark.parametrize(
    ("n", "observed", "by_kato", "by_chernoff", "by_hoeffding"),
    [
        (10**6, 10**4, 757.921170, 771.528793, 3716.922188),
        (10**5, 500, 185.020847, 196.137681, 1175.394000),
    ],
)
def test_the_deviations_printed_in_the_theory(n, observed, by_kato, by_chernoff, by_hoeffding):
    slope = kato_slope(n, observed, LN_12)
    assert kato(n, observed, slope, LN_12) == pytest.approx(by_kato, abs=1e-6)
    assert chernoff_upper(observed, LN_12) - observed == pytest.approx(by_chernoff, abs=1e-6)
    assert hoeffding(n, LN_12) == pytest.approx(by_hoeffding, abs=1e-6)


def test_the_sampling_deviations_printed_in_the_theory():
    assert yin_sampling(1e5, 1e4, 0.01, LN_10) == pytest.approx(0.008783886, abs=5e-10)
    assert fung_ma_chau(1e5, 1e4, 0.01, LN_10) == pytest.approx(0.009704739, abs=5e-10)
    # As a tail probability, Serfling's exponent has a 2 that the smoothing form leaves out.
    assert serfling(1e5, 1e4, LN_10 / 2) == pytest.approx(0.0355885999, abs=5e-10)


@pytest.mark.parametrize(("n", "observed"), [(10**6, 10**4), (10**5, 500), (10**4, 5000), (10**3, 900), (50, 0)])
def test_katos_slope_is_the_best_one_and_its_failure_probability_is_eps(n, observed):
    """Minimise over a with b from the definition of eps, solved numerically, and not from the closed form."""
    root = math.sqrt(n)

    def deviation(a):
        def exponent(b):
            return 2 * (b * b - a * a) / (1 + 4 * a / (3 * root)) ** 2 - LN_12

        b = brentq(exponent, abs(a), abs(a) + 1e6, xtol=1e-13)
        return (b + a * (2 * observed / n - 1)) * root

    slope = kato_slope(n, observed, LN_12)
    best = minimize_scalar(deviation, bracket=(slope - 1, slope + 1.5), tol=1e-12)
    assert kato(n, observed, slope, LN_12) == pytest.approx(best.fun, rel=1e-9)
    assert deviation(slope) == pytest.approx(best.fun, rel=1e-9)


@given(
    n=st.integers(1, 2**53), share=st.floats(0, 1), told=st.floats(0, 1), ln=st.floats(1e-3, 800),
    n_told=st.floats(0, 1e16),
)  # fmt: skip
def test_katos_bound_is_finite_and_never_below_what_the_best_slope_gives(n, share, told, ln, n_told):
    slope = kato_slope(n_told, told * n_told, ln)
    got = kato(n, share * n, slope, ln)
    assert math.isfinite(got)
    assert got >= 0
    assert got >= kato(n, share * n, kato_slope(n, share * n, ln), ln) * (1 - 1e-6) - 1e-6 * math.sqrt(n)


def test_without_a_slope_katos_bound_is_hoeffdings():
    assert kato(1000, 17, 0.0, LN_10) == pytest.approx(hoeffding(1000, LN_10))
    assert kato_slope(0, 0, LN_10) == 0
    assert kato(0, 0, 3.0, LN_10) == 0


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.4, 0.9])
@pytest.mark.parametrize("bound", list(Bound))
def test_a_bound_fails_at_most_as_often_as_it_says(bound, rate):
    """The exact probability, over a binomial count, that the true mean lies beyond either bound."""
    n, eps = 2000, 1e-3
    ln = -math.log(eps)
    told = (n * rate, n * (1 - rate))
    too_low = too_high = 0.0
    for x in range(n + 1):
        limits = bound_counts((x, n - x), bound, ln, told)
        chance = binom.pmf(x, n, rate)
        too_low += chance * (limits.upper[0] < n * rate)
        too_high += chance * (limits.lower[0] > n * rate)
    assert too_low <= eps
    assert too_high <= eps
    if bound is not Bound.HOEFFDING and rate < 0.1:
        x = round(n * rate)
        plain = bound_counts((x, n - x), Bound.HOEFFDING, ln)
        assert bound_counts((x, n - x), bound, ln, told).upper[0] < plain.upper[0], "worth nothing for rare events"


def test_a_wrong_prediction_costs_key_and_never_safety():
    n, eps, rate = 2000, 1e-3, 0.05
    for told in ((0.0, 1.0), (1.0, 0.0), (1e9, 1.0), (0.0, 0.0)):
        failing = sum(
            binom.pmf(x, n, rate) * (bound_counts((x, n - x), Bound.KATO, -math.log(eps), told).upper[0] < n * rate)
            for x in range(n + 1)
        )
        assert failing <= eps


@pytest.mark.parametrize("bound", list(Bound))
def test_vacuum_events_are_bounded_by_the_errors_among_them(bound):
    vacuum, eps = 1500, 1e-3
    failing = sum(
        binom.pmf(wrong, vacuum, 0.5) * (2 * mean_of_coin_flips(wrong, 4000, bound, -math.log(eps)) < vacuum)
        for wrong in range(vacuum + 1)
    )
    assert failing <= eps


@pytest.mark.parametrize(("key", "test", "wrong"), [(2000, 500, 40), (500, 2000, 40), (300, 300, 6)])
def test_serfling_fails_at_most_as_often_as_it_says(key, test, wrong):
    """All ``wrong`` errors of key and test together; the exact chance that sampling hides too many of them."""
    eps = 0.05  # of smoothing; the tail probability is its square
    deviation = serfling(key, test, -math.log(eps))
    failing = sum(
        hypergeom.pmf(seen, key + test, wrong, test)
        for seen in range(wrong + 1)
        if (wrong - seen) / key > seen / test + deviation
    )
    assert failing <= eps**2


def test_gamma_is_not_zero_where_no_error_was_seen():
    assert fung_ma_chau(1e6, 1e5, 0.0, LN_10) == fung_ma_chau(1e6, 1e5, 1e-5, LN_10) > 0
    assert fung_ma_chau(1e6, 1e5, 0.7, LN_10) == fung_ma_chau(1e6, 1e5, 0.5, LN_10)
    assert fung_ma_chau(1e15, 1e15, 0.5, 1e-9) == 0, "a logarithm below zero"


def test_chernoff_by_hand():
    # b = 2, x = 3: 3 + 2 + sqrt(12 + 4) = 9; 3 - 1 - sqrt(12 + 1)
    assert chernoff_upper(3, 2.0) == pytest.approx(9)
    assert chernoff_lower(3, 2.0) == pytest.approx(2 - math.sqrt(13))
    assert (chernoff_upper(0, 2.0), chernoff_lower(0, 2.0)) == (4.0, -2.0)


def test_kato_without_a_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction"):
        Method(Bound.KATO)
    with pytest.raises(ValueError, match="prediction"):
        bound_counts((1, 2), Bound.KATO, LN_10)
    assert Method(Bound.KATO, Prediction((1.0,), (1.0,), (0.0,), (0.0,))).bound is Bound.KATO
