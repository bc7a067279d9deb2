"""Deviations between what was counted and what is true, at a given failure probability.

Every function takes ln(1/eps) rather than eps, so that neither a tiny eps nor its square runs out of floating point.
"""

from __future__ import annotations

import math

__all__ = [
    "chernoff_lower",
    "chernoff_upper",
    "fung_ma_chau",
    "hoeffding",
    "kato",
    "kato_slope",
    "serfling",
    "yin_sampling",
]


def hoeffding(total: float, ln_inverse_eps: float) -> float:
    """Return the Hoeffding deviation sqrt(total/2 * ln(1/eps)), in counts (theory.md 1.6; Lim 2014, Eq. 3).

    ``total`` is the number of events of the whole basis, not those of one intensity: given the totals, the intensity
    of each event is an independent draw from p(k | photons), whatever the channel did. 0 without events.
    """
    return math.sqrt(total / 2 * ln_inverse_eps)


def chernoff_upper(observed: float, ln_inverse_eps: float) -> float:
    """Return the greatest expectation that ``observed`` independent successes leave possible (theory.md 1.6).

    x + b + sqrt(2 b x + b^2), b = ln(1/eps): inverts Pr[X <= x] <= exp(-(x* - x)^2 / (2 x*)) (Yin et al. 2020).
    """
    b = ln_inverse_eps
    return observed + b + math.sqrt(2 * b * observed + b * b)


def chernoff_lower(observed: float, ln_inverse_eps: float) -> float:
    """Return the least expectation that ``observed`` independent successes leave possible; may be below zero.

    x - b/2 - sqrt(2 b x + b^2/4), b = ln(1/eps) (theory.md 1.6; Yin et al. 2020).
    """
    b = ln_inverse_eps
    return observed - b / 2 - math.sqrt(2 * b * observed + b * b / 4)


def kato_slope(trials: float, predicted: float, ln_inverse_eps: float) -> float:
    """Return a, the constant of Kato's bound that is best if ``predicted`` successes come out of ``trials``.

    theory.md 1.6. Any a is sound, but it must be fixed before the data: only a prediction may enter here. With less
    than one trial 0, which makes Kato's bound the size of Hoeffding's. ``predicted`` must lie in [0, trials].
    """
    if trials < 1:
        return 0.0
    # The printed form divided by n^2.5, so that 10^15 trials do not overflow; s = predicted share, e = ln(1/eps)/n.
    s, e = predicted / trials, ln_inverse_eps / trials
    spread = 9 * s * (1 - s) + 2 * e
    numerator = -72 * s * (1 - s) * e - 16 * e * e + 9 * math.sqrt(2) * (1 - 2 * s) * math.sqrt(e * spread)
    return 3 * math.sqrt(trials) * numerator / (4 * (9 + 8 * e) * spread)


def kato(trials: float, observed: float, slope: float, ln_inverse_eps: float) -> float:
    """Return how far the sum of conditional expectations may exceed ``observed`` successes in ``trials`` (Kato 2020).

    [b + a (2 L/n - 1)] sqrt(n), a = ``slope``, b^2 = a^2 + (1 + 4a/(3 sqrt n))^2 ln(1/eps) / 2: theory.md 1.6's b,
    written so that b >= |a| can be seen. A martingale bound: the trials may depend on each other. The lower bound is
    the same for the failures: ``kato(n, n - L, slope of the predicted failures)``. 0 without trials.
    """
    if trials <= 0:
        return 0.0
    root = math.sqrt(trials)
    b = math.hypot(slope, (1 + 4 * slope / (3 * root)) * math.sqrt(ln_inverse_eps / 2))
    return max(0.0, (b + slope * (2 * observed / trials - 1)) * root)


def serfling(key_events: float, test_events: float, ln_inverse_eps: float) -> float:
    """Return how far the error rate of the key events may exceed that of the test events (theory.md 1.5).

    sqrt[ (c+d)/(c d) * (d+1)/d * ln(1/eps) ], c = ``key_events``, d = ``test_events``: Serfling's bound for sampling
    without replacement, in the form of Tomamichel et al. 2012 where ``eps`` is a smoothing parameter (the tail
    probability is its square). It takes the key events as the sample; taking the test events gives (c+1)/c for the
    last factor, as in the program of Wiesemann et al., which is the smaller when d < c: both hold, this is the safer.
    Both sizes must be positive. Falls with each of them, so lower bounds on both are safe.
    """
    c, d = key_events, test_events
    return math.sqrt((c + d) / (c * d) * (d + 1) / d * ln_inverse_eps)


def fung_ma_chau(key_events: float, test_events: float, rate: float, ln_inverse_eps: float) -> float:
    """Return gamma, what Lim 2014 and Rusca 2018 add to the test basis' error rate (theory.md 1.3).

    sqrt[ (c+d)(1-b)b / (c d ln2) * log2( (c+d) / (c d (1-b) b) / eps^2 ) ], c, d the two sizes in either order, at
    least 1 each; b = ``rate``. Not a rigorous bound for small samples, and 0 at b = 0, where it is plainly wrong:
    b is kept at one error among the test events or more, and at 1/2 or less. For printed curves only (security.md 5).
    """
    inverse = 1 / key_events + 1 / test_events
    b = min(0.5, max(rate, 1 / test_events))
    log2 = (math.log(inverse / ((1 - b) * b)) + 2 * ln_inverse_eps) / math.log(2)
    return math.sqrt(inverse * (1 - b) * b / math.log(2) * max(0.0, log2))


def yin_sampling(key_events: float, test_events: float, rate: float, ln_inverse_eps: float) -> float:
    """Return the random-sampling deviation of Yin et al. 2020 (theory.md 1.6), to compare the others with.

    ``rate`` strictly between 0 and 1/2. No theorem here uses it: the formula was not checked against the paper.
    """
    n, k, lam = key_events, test_events, rate
    a = max(n, k)
    g = (n + k) / (n * k) * (math.log((n + k) / (2 * math.pi * n * k * lam * (1 - lam))) + 2 * ln_inverse_eps)
    ag = a * g / (n + k)
    return ((1 - 2 * lam) * ag + math.sqrt(ag * ag + 4 * lam * (1 - lam) * g)) / (2 + 2 * a * ag / (n + k))
