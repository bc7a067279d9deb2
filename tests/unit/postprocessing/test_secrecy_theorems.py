"""Lim 2014, Rusca 2018 and Tomamichel 2012: equal to a slow derivation, sound against any channel, monotone."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from counting_models import EVES_CHOICES, chosen_by_eve, drawn, honest, prediction
from hypothesis import given
from hypothesis import strategies as st

from heliograph.errors import ConfigurationError
from heliograph.postprocessing.secrecy import lim2014, rusca2018, tomamichel2012, wiesemann2024
from heliograph.postprocessing.secrecy.count_bounds import Bound, Method
from heliograph.postprocessing.secrecy.photons import WeakPulses
from heliograph.types import IntensityCounts, LightParameters

getcontext().prec = 50
TWO = WeakPulses((0.5, 0.15, 0.01), (0.6, 0.25, 0.15))
ONE = WeakPulses((0.5, 0.15), (0.6, 0.4))
EPS = 1e-10


def d(x):
    return Decimal(str(x))


def log2(x):
    return x.ln() / Decimal(2).ln()


def entropy(x):
    return -x * log2(x) - (1 - x) * log2(1 - x)


def gamma(a, b, c, e):
    inner = (c + e) / (c * e * (1 - b) * b) * 441 / a**2
    return ((c + e) * (1 - b) * b / (c * e * Decimal(2).ln()) * log2(inner)).sqrt()


def deviated(counts, parts, eps, bound, sign):
    """Each count moved to its bound; Hoeffding with the total of the basis, Chernoff with the count itself."""
    ln = (parts / eps).ln()
    if bound is Bound.HOEFFDING:
        return [x + sign * (d(sum(counts)) / 2 * ln).sqrt() for x in counts]
    if sign > 0:
        return [x + ln + (2 * ln * x + ln**2).sqrt() for x in counts]
    return [x - ln / 2 - (2 * ln * x + ln**2 / 4).sqrt() for x in counts]


class Chances:
    """p(k | n photons), by Bayes' rule."""

    def __init__(self, source):
        self.k = [d(k) for k in source.intensities]
        self.p = [d(p) for p in source.probabilities]

    def tau(self, n):
        return sum(p * (-k).exp() * k**n / math.factorial(n) for k, p in zip(self.k, self.p, strict=True))

    def given(self, i, n):
        return self.p[i] * (-self.k[i]).exp() * self.k[i] ** n / math.factorial(n) / self.tau(n)


def lim_by_hand(key, test, bound):
    """Solve n_k = sum_n p(k|n) s_n for the three intensities, each count at its worst end."""
    c, eps = Chances(TWO), d(EPS)

    def events(counts):
        low, up = (deviated(counts.detections, 21, eps, bound, s) for s in (-1, 1))
        # combination of 2 and 3 without single photons; multi-photon events only lower it
        w = c.given(1, 1) / c.given(2, 1)
        s0 = (w * low[2] - up[1]) / (w * c.given(2, 0) - c.given(1, 0))
        s0 = max(d(0), s0)
        # combination of 2 and 3 without vacuum, then of 1 so that two photons cancel
        v = c.given(1, 0) / c.given(2, 0)
        pair = low[1] - v * up[2]
        two = c.given(1, 2) - v * c.given(2, 2)
        share = two / c.given(0, 2)
        left = pair - share * (up[0] - c.given(0, 0) * s0)
        # multi-photon share at intensity 1 still holds the single photons: move them over
        s1 = left / (c.given(1, 1) - v * c.given(2, 1) - share * c.given(0, 1))
        return s0, s1

    s0, s1 = events(key)
    s0_test, s1_test = events(test)
    low, up = (deviated(test.errors, 21, eps, bound, s) for s in (-1, 1))
    v = c.given(1, 0) / c.given(2, 0)
    v1 = (up[1] - v * low[2]) / (c.given(1, 1) - v * c.given(2, 1))
    g = gamma(eps, v1 / s1_test, s1, s1_test)
    phase = v1 / s1_test + g
    length = s0 + s1 * (1 - entropy(phase)) - 12345 - 6 * log2(21 / eps) - log2(2 / d(1e-15))
    return [s0, s0_test, s1, s1_test, v1, g, phase], length


def rusca_by_hand(key, test, bound):
    c, eps = Chances(ONE), d(EPS)

    def events(counts):
        low, up = (deviated(counts.detections, 19, eps, bound, s) for s in (-1, 1))
        wrong = deviated(counts.errors, 19, eps, bound, 1)
        w = c.given(0, 1) / c.given(1, 1)
        s0_lower = max(d(0), (w * low[1] - up[0]) / (w * c.given(1, 0) - c.given(0, 0)))

        def doubled(heads):
            if bound is Bound.CHERNOFF:
                return 2 * deviated([heads], 19, eps, bound, 1)[0]
            return 2 * (heads + (d(sum(counts.detections)) / 2 * (19 / eps).ln()).sqrt())

        s0 = min(doubled(wrong[i] / c.given(i, 0)) for i in range(2))
        ratio = c.given(1, 2) / c.given(0, 2)
        left = low[1] - ratio * up[0] - s0 * (c.given(1, 0) - ratio * c.given(0, 0))
        return s0_lower, s0, left / (c.given(1, 1) - ratio * c.given(0, 1))

    s0_lower, s0, s1 = events(key)
    _, s0_test, s1_test = events(test)
    low, up = (deviated(test.errors, 19, eps, bound, s) for s in (-1, 1))
    v = c.given(0, 0) / c.given(1, 0)
    v1 = (up[0] - v * low[1]) / (c.given(0, 1) - v * c.given(1, 1))
    g = gamma(eps, v1 / s1_test, s1, s1_test)
    phase = v1 / s1_test + g
    length = s0_lower + s1 * (1 - entropy(phase)) - 12345 - 6 * log2(19 / eps) - log2(2 / d(1e-15))
    return [s0_lower, s0, s0_test, s1, s1_test, v1, g, phase], length


@pytest.mark.parametrize("bound", [Bound.HOEFFDING, Bound.CHERNOFF])
def test_lim_equals_a_slow_derivation_from_bayes_rule(bound):
    key, test = honest(TWO.intensities, TWO.probabilities, pulses=10**13, loss_db=35, dark=1e-5)
    want, length = lim_by_hand(key, test, bound)
    terms = lim2014.bounds(key, test, TWO, EPS, Method(bound))
    names = ("s0_lower", "s0_test_lower", "s1_lower", "s1_test_lower", "v1_upper", "gamma", "phase_error_upper")
    assert [getattr(terms, n) for n in names] == pytest.approx([float(x) for x in want], rel=1e-9)
    got = lim2014.secret_key_length(terms.s0_lower, terms.s1_lower, terms.phase_error_upper, 12345, EPS, 1e-15)
    assert got == pytest.approx(float(length), rel=1e-9)
    assert 0 < terms.phase_error_upper < 0.2, "the example must not sit at a clamp"
    assert terms.s0_test_lower > 0


@pytest.mark.parametrize("bound", [Bound.HOEFFDING, Bound.CHERNOFF])
def test_rusca_equals_a_slow_derivation_from_bayes_rule(bound):
    key, test = honest(ONE.intensities, ONE.probabilities)
    want, length = rusca_by_hand(key, test, bound)
    terms = rusca2018.bounds(key, test, ONE, EPS, Method(bound))
    names = (
        "s0_lower", "s0_upper", "s0_test_upper", "s1_lower", "s1_test_lower", "v1_upper", "gamma", "phase_error_upper",
    )  # fmt: skip
    assert [getattr(terms, n) for n in names] == pytest.approx([float(x) for x in want], rel=1e-9)
    assert rusca2018.secret_key_length(terms, 12345, EPS, 1e-15) == pytest.approx(float(length), rel=1e-9)
    assert 0 < terms.phase_error_upper < 0.1


def test_tomamichel_equals_a_slow_derivation():
    n, k, q, eps = d(80000), d(20000), d("0.02"), d(EPS)
    mu = ((n + k) * (k + 1) / (n * k * k) * (4 / eps).ln()).sqrt()
    length = n * (1 - entropy(q + mu)) - 12345 - log2(2 / (eps**2 * d(1e-15)))
    terms = tomamichel2012.bounds(80000, 20000, 0.02, EPS)
    assert terms.gamma == pytest.approx(float(mu), rel=1e-12)
    assert tomamichel2012.secret_key_length(terms, 12345, EPS, 1e-15) == pytest.approx(float(length), rel=1e-12)
    # Tomamichel and Leverrier 2017 with eps_pe = eps_pa = eps_sec/2 give this length and one bit more.
    eps_pe = 2 * (-(n * k**2 * mu**2) / ((n + k) * (k + 1))).exp()
    assert float(eps_pe / (eps / 2)) == pytest.approx(1, rel=1e-12)
    assert float(n * (1 - entropy(q + mu)) - 12345 - log2(1 / d(1e-15)) + 2 * log2(eps) - length) == pytest.approx(1)


@pytest.mark.parametrize(("qber", "least"), [(0.01, 3044), (0.02, 3952), (0.03, 5239), (0.05, 10352), (0.08, 68359)])
def test_the_smallest_blocks_printed_in_the_theory(qber, least):
    """theory.md 1.9: least n + k for 256 bits at eps 1e-10 and 1e-15, f = 1.16, over shares of test bits."""

    def best(total):
        found = -math.inf
        for step in range(10, 51):
            k = round(total * step / 100)
            n = total - k
            terms = tomamichel2012.bounds(n, k, qber, 1e-10)
            h = -qber * math.log2(qber) - (1 - qber) * math.log2(1 - qber)
            found = max(found, tomamichel2012.secret_key_length(terms, 0, 1e-10, 1e-15) - 1.16 * n * h)
        return found

    assert best(round(least * 1.02)) >= 256
    assert best(round(least * 0.98)) < 256


def light(source):
    return LightParameters(10**9, 1e9, source.intensities, source.probabilities, 0.9, 0.9)


@pytest.mark.parametrize("bound", list(Bound))
@pytest.mark.parametrize("attack", EVES_CHOICES)
def test_the_bounds_hold_for_any_yields_an_eavesdropper_chooses(bound, attack):
    rng = np.random.default_rng(5)
    for _ in range(40):
        yields, errors = chosen_by_eve(attack, 14, 1e-5, rng)
        for theorem, source in ((lim2014, TWO), (rusca2018, ONE), (wiesemann2024, ONE)):
            key, s0, s1, _ = drawn(yields, errors, 10**8, source, rng)
            test, _, s1_test, v1 = drawn(yields, errors, 10**7, source, rng)
            # The prediction is of an honest link, whatever Eve does.
            method = Method(bound, prediction(*honest(source.intensities, source.probabilities)))
            given_light = light(source) if theorem is wiesemann2024 else source
            terms = theorem.bounds(key, test, given_light, EPS, method)
            assert terms.s1_lower <= s1
            assert terms.s1_test_lower <= s1_test
            assert terms.v1_upper >= v1
            assert getattr(terms, "s0_lower", 0) <= s0 <= getattr(terms, "s0_upper", math.inf)
            if attack == "honest":
                assert terms.s1_lower > 0.6 * s1, "a bound that says nothing would also be sound"
                assert terms.phase_error_upper < 0.25
            if attack == "blocks single photons":
                assert (terms.s1_lower, terms.phase_error_upper) == (0, 0.5)


def length_of(protocol, bound=Bound.HOEFFDING, *, eps=EPS, **link):
    source = TWO if protocol == "lim2014" else ONE
    key, test = honest(source.intensities, source.probabilities, **link)
    method = Method(bound, prediction(*honest(source.intensities, source.probabilities)))
    leak = math.ceil(1.16 * sum(key.detections) * binary(key.error_rate))
    if protocol == "lim2014":
        t = lim2014.bounds(key, test, source, eps, method)
        return lim2014.secret_key_length(t.s0_lower, t.s1_lower, t.phase_error_upper, leak, eps, 1e-15)
    if protocol == "rusca2018":
        return rusca2018.secret_key_length(rusca2018.bounds(key, test, source, eps, method), leak, eps, 1e-15)
    w = wiesemann2024.bounds(key, test, light(source), eps, method)
    return wiesemann2024.secret_key_length(w.s1_lower, w.phase_error_upper, leak, eps, 1e-15)


def binary(x):
    return -x * math.log2(x) - (1 - x) * math.log2(1 - x) if 0 < x < 1 else 0.0


DECOY = pytest.mark.parametrize("protocol", ["lim2014", "rusca2018", "wiesemann2024"])
BOUNDS = pytest.mark.parametrize("bound", list(Bound))


@DECOY
@BOUNDS
@given(loss=st.floats(5, 35), more=st.floats(0.5, 10), qber=st.floats(0.001, 0.06), worse=st.floats(0.002, 0.05))
def test_the_length_falls_with_loss_and_with_errors(protocol, bound, *, loss, more, qber, worse):
    base = length_of(protocol, bound, loss_db=loss, qber=qber)
    assert length_of(protocol, bound, loss_db=loss, qber=qber + worse) < base or base < 0
    further = length_of(protocol, bound, loss_db=loss + more, qber=qber)
    assert further < base or base < 0


@DECOY
@BOUNDS
@given(size=st.floats(8, 11), share=st.floats(0.2, 0.9), factor=st.floats(1e-6, 0.5))
def test_the_length_falls_with_smaller_blocks_and_smaller_eps(protocol, bound, *, size, share, factor):
    base = length_of(protocol, bound, pulses=round(10**size))
    assert length_of(protocol, bound, pulses=round(10**size), eps=EPS * factor) < base
    smaller = length_of(protocol, bound, pulses=round(share * 10**size))
    if base > 0:
        assert smaller < base * share, "less than in proportion: the deviations weigh more"


@given(
    n=st.integers(1, 10**9), k=st.integers(1, 10**9), qber=st.floats(0, 0.5), worse=st.floats(0, 0.5),
    eps=st.floats(1e-300, 0.5), factor=st.floats(0.001, 1), share=st.floats(0.01, 1),
)  # fmt: skip
def test_tomamichels_length_is_monotone(n, k, *, qber, worse, eps, factor, share):
    def length(n, k, qber, eps):
        return tomamichel2012.secret_key_length(tomamichel2012.bounds(n, k, qber, eps), 0, eps, 1e-15)

    base = length(n, k, qber, eps)
    slack = 1e-9 * n
    assert length(n, k, min(0.5, qber + worse), eps) <= base + slack
    assert length(n, k, qber, eps * factor) <= base + slack
    assert length(n, max(1, round(k * share)), qber, eps) <= base + slack
    assert length(max(1, round(n * share)), k, qber, eps) <= base + slack


def test_rare_errors_make_chernoff_and_kato_worth_their_name():
    for protocol in ("lim2014", "rusca2018", "wiesemann2024"):
        plain, chernoff, kato = (length_of(protocol, bound, pulses=10**9) for bound in Bound)
        assert chernoff > plain
        assert kato > chernoff


@DECOY
def test_katos_prediction_of_each_basis_is_used_for_that_basis(protocol):
    source = TWO if protocol == "lim2014" else ONE
    theorem = {"lim2014": lim2014, "rusca2018": rusca2018, "wiesemann2024": wiesemann2024}[protocol]
    # The two bases are told apart by what they count: bright in one, next to nothing but dark counts in the other.
    key, _ = honest(source.intensities, source.probabilities, pulses=10**9, dark=1e-7)
    _, test = honest(source.intensities, source.probabilities, pulses=10**11, dark=1e-3)
    given_source = light(source) if protocol == "wiesemann2024" else source

    def terms(told):
        return theorem.bounds(key, test, given_source, EPS, Method(Bound.KATO, told))

    right, swapped = terms(prediction(key, test)), terms(prediction(test, key))
    assert right.s1_lower > swapped.s1_lower
    assert right.v1_upper < swapped.v1_upper


pairs = st.tuples(st.integers(0, 2**53), st.floats(0, 1)).map(lambda t: (t[0], min(t[0], int(t[0] * t[1]))))


def counts_of(size):
    return st.tuples(*[pairs] * size).map(lambda t: IntensityCounts(tuple(n for n, _ in t), tuple(m for _, m in t)))


@BOUNDS
@given(
    key=counts_of(3), test=counts_of(3), low=st.sampled_from([0.0, 1e-310, 1e-6, 0.3]), gap=st.floats(2e-6, 3),
    rest=st.floats(2e-6, 3), p=st.floats(1e-6, 0.5), eps=st.floats(min_value=5e-324, max_value=0.999),
)  # fmt: skip
def test_every_term_is_finite_and_in_range_for_any_counts(bound, key, test, *, low, gap, rest, p, eps):
    def check(terms):
        n = sum(key.detections[:size]) * (1 + 1e-12)
        assert 0 <= terms.s0_lower <= n
        assert 0 <= terms.s1_lower <= n
        assert terms.s0_lower + terms.s1_lower <= n
        assert 0 <= terms.v1_upper < math.inf
        assert 0 <= terms.gamma < math.inf
        assert 0 <= terms.phase_error_upper <= 0.5
        length = lim2014.secret_key_length(terms.s0_lower, terms.s1_lower, terms.phase_error_upper, 0, eps, 1e-15)
        assert math.isfinite(length)
        assert length <= n

    size = 3
    three = WeakPulses((2 * low + gap + rest, low + gap, low), (p, p / 2, 1 - 1.5 * p))
    if min(three.probabilities) >= 1e-6:
        check(lim2014.bounds(key, test, three, eps, Method(bound, prediction(test, key))))
    size = 2
    key = IntensityCounts(key.detections[:2], key.errors[:2])
    test = IntensityCounts(test.detections[:2], test.errors[:2])
    two = WeakPulses((low + gap, low), (p, 1 - p))
    check(rusca2018.bounds(key, test, two, eps, Method(bound, prediction(test, key))))


@pytest.mark.parametrize("intensities", [(0.5, 0.3, 0.25), (0.5, 0.3, 0.2), (0.5, 0.2), (0.5, 0.2, 0.2), (11, 1, 0)])
def test_a_source_that_lim_does_not_cover_is_refused(intensities):
    source = WeakPulses(intensities, (1 / len(intensities),) * len(intensities))
    counts = IntensityCounts((1,) * len(intensities), (0,) * len(intensities))
    with pytest.raises(ConfigurationError, match="intensities"):
        lim2014.bounds(counts, counts, source, EPS)


def test_ruscas_gamma_keeps_the_printed_constant_and_the_split_would_change_little():
    key, test = honest(ONE.intensities, ONE.probabilities, pulses=10**12)
    terms = rusca2018.bounds(key, test, ONE, EPS)
    b, c, e = (d(x) for x in (terms.phase_error_upper - terms.gamma, terms.s1_lower, terms.s1_test_lower))
    assert terms.gamma == pytest.approx(float(gamma(d(EPS), b, c, e)), rel=1e-9)
    strict = (gamma(d(EPS) * 21 / 19, b, c, e) + b, terms.s1_lower)
    change = float((entropy(d(terms.phase_error_upper)) - entropy(strict[0])) * d(strict[1]))
    assert 0 < change / rusca2018.secret_key_length(terms, 0, EPS, 1e-15) < 3e-4  # theory.md 1.4: 1.6e-4
