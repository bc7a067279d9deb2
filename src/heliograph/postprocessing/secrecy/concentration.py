"""Deviations between what was counted and what is true, at a given failure probability."""

from __future__ import annotations

import math

__all__ = ["hoeffding", "serfling"]


def hoeffding(total: float, ln_inverse_eps: float) -> float:
    """Return the Hoeffding deviation sqrt(total/2 * ln(1/eps)), in counts (theory.md 1.6; Lim 2014, Eq. 3).

    ``total`` is the number of events of the whole basis, not those of one intensity: given the totals, the intensity
    of each event is an independent draw from p(k | photons), whatever the channel did. 0 without events.
    """
    return math.sqrt(total / 2 * ln_inverse_eps)


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
